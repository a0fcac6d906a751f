//! The BPF programs of gmesp. This file is the only place where a [`Reason`]
//! becomes an action.
//!
//! ```text
//!            +- gm_xdp_uplink: classify -> precheck -> steer --> worker (AF_XDP)
//!  NIC -> U -+                    \-> pass                          |
//!            |                                            gm0x -> gm0: gm_tc_gm0
//!            +- gm_tc_guard <-------------------------------------- / (marks, injects)
//!                  \-> local stack -> gm_tc_egress -> gm0 -> gm0x: gm_xdp_gm0x -> worker
//!                                          \-> pass, NIC
//! ```
//!
//! Everything fails closed: what the policy protects and no worker takes is
//! dropped, also when the workers are dead.
#![no_std]
#![no_main]
// One atomic addition (maps.rs).
#![feature(asm_experimental_arch)]
// The macros put functions of the same names beside the documented ones.
#![allow(missing_docs)]

mod classify;
mod egress;
mod frame;
mod guard;
mod maps;
mod precheck;
mod skb;
mod steer;

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    helpers::bpf_redirect,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use gm_abi::{
    maps::{ABI_VERSION, Config, Meta},
    verdict::{Action, Reason},
    wire::{self, Found, IpPacket},
};

use crate::{
    classify::Next,
    frame::Frame,
    maps::{XSK_GM0X, XSK_UPLINK, config, count, count_slot},
    skb::Skb,
};

/// XDP on the uplink: sorts what comes in, sheds strays and replays, and hands
/// the rest of what is protected to the worker of its receive queue.
#[xdp]
pub fn gm_xdp_uplink(ctx: XdpContext) -> u32 {
    let Some(config) = configured() else {
        return xdp_end(Reason::PassOther);
    };
    let frame = Frame::new(&ctx);
    let mut ip = IpPacket::EMPTY;
    if !classify::is_for_us(&frame, &mut ip) {
        return xdp_end(Reason::PassOther);
    }
    let (reason, meta) = match classify::uplink(&frame, &ip, config) {
        Next::Decided(reason) => return xdp_end(reason),
        Next::Fragment => (Reason::SteerFragment, steer::fragment(&ip)),
        Next::Esp(esp) => match precheck::check(&esp, &ip.dst, config) {
            Ok(slot) if esp.in_udp => (Reason::SteerUdpEsp, steer::esp(&esp, &ip, slot)),
            Ok(slot) => (Reason::SteerEsp, steer::esp(&esp, &ip, slot)),
            Err(shed) => {
                if let Some(slot) = shed.slot {
                    count_slot(slot, shed.reason);
                }
                return xdp_end(shed.reason);
            }
        },
    };
    match steer::to_worker(&ctx, &XSK_UPLINK, meta) {
        Some(action) => {
            count(reason);
            action
        }
        None => xdp_end(Reason::NoWorker),
    }
}

/// XDP on gm0x: hands what egress has taken to a worker. It was counted there.
#[xdp]
pub fn gm_xdp_gm0x(ctx: XdpContext) -> u32 {
    let mut ip = IpPacket::EMPTY;
    if wire::read_frame(&Frame::new(&ctx), &mut ip) != Found::Ip {
        return xdp_end(Reason::OutMalformed);
    }
    let meta: Meta = steer::outbound(&ip);
    match steer::to_worker(&ctx, &XSK_GM0X, meta) {
        Some(action) => action,
        None => xdp_end(Reason::NoWorker),
    }
}

/// tc on the ingress of gm0: marks what a worker has opened and injects it as
/// come in on the uplink.
#[classifier]
pub fn gm_tc_gm0(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    match configured() {
        Some(config) if config.cookie != 0 && skb.is_ip() => {
            skb.set_mark(config.cookie);
            // SAFETY: a helper without memory arguments.
            unsafe { bpf_redirect(config.uplink, u64::from(BPF_F_INGRESS)) as i32 }
        }
        _ => tc_end(Reason::Malformed),
    }
}

/// tc on the ingress of every interface but gm0 and gm0x: the guard.
#[classifier]
pub fn gm_tc_guard(ctx: TcContext) -> i32 {
    let Some(config) = configured() else {
        return TC_ACT_UNSPEC;
    };
    match guard::ingress(&Skb::new(&ctx), config) {
        Some(reason) => tc_end(reason),
        None => TC_ACT_UNSPEC,
    }
}

/// tc on the egress of the uplink: takes what is protected to gm0. On the
/// egress of any other interface, where a route may lead: drops it.
#[classifier]
pub fn gm_tc_egress(ctx: TcContext) -> i32 {
    let Some(config) = configured() else {
        return TC_ACT_UNSPEC;
    };
    let skb = Skb::new(&ctx);
    match egress::egress(&skb) {
        None => TC_ACT_UNSPEC,
        Some(Reason::SteerOutbound) if skb.interface() != config.uplink => tc_end(Reason::OutNoSa),
        Some(Reason::SteerOutbound) if egress::keep_vlan(&skb).is_some() => {
            count(Reason::SteerOutbound);
            // SAFETY: a helper without memory arguments.
            unsafe { bpf_redirect(config.gm0, 0) as i32 }
        }
        Some(Reason::SteerOutbound) => tc_end(Reason::OutMalformed),
        Some(reason) => tc_end(reason),
    }
}

/// The configuration, once user space has written one that is of this build.
#[inline(always)]
fn configured() -> Option<&'static Config> {
    config().filter(|config| config.abi == ABI_VERSION)
}

/// Counts, and ends the packet's way through an XDP program.
#[inline(always)]
fn xdp_end(reason: Reason) -> u32 {
    count(reason);
    match reason.action() {
        Action::Pass => xdp_action::XDP_PASS,
        // What should have been steered or delivered was not: fail closed.
        Action::Drop | Action::Steer | Action::Deliver => xdp_action::XDP_DROP,
    }
}

/// Counts, and ends the packet's way through a tc program; what passes goes on
/// to the next program on the interface.
#[inline(always)]
fn tc_end(reason: Reason) -> i32 {
    count(reason);
    match reason.action() {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop | Action::Steer | Action::Deliver => TC_ACT_SHOT as i32,
    }
}

/// What the kernel reads as the programs' licence; some helpers ask for GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics; were there a way to, the verifier would refuse this.
    loop {}
}
