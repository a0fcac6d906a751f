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
mod quick;
mod report;
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
    sample::{PLACE_EGRESS, PLACE_GM0, PLACE_GM0X, PLACE_GUARD, PLACE_UPLINK},
    verdict::{Action, Reason},
    wire::{self, Found, IpPacket},
};

use crate::{
    classify::Next,
    frame::Frame,
    maps::{XSK_GM0X, XSK_UPLINK, config, count, count_slot, scratch},
    quick::{Egress, Uplink},
    report::{Head, Seen},
    skb::Skb,
};

/// XDP on the uplink: sorts what comes in, sheds strays and replays, and hands
/// the rest of what is protected to the worker of its receive queue.
#[xdp]
pub fn gm_xdp_uplink(ctx: XdpContext) -> u32 {
    let Some(config) = configured() else {
        count(Reason::PassOther);
        return xdp_action::XDP_PASS;
    };
    match quick::uplink(&Frame::new(&ctx), config) {
        Uplink::Esp(reason, meta) => {
            if let Some(action) = steer::to_worker(&ctx, &XSK_UPLINK, meta) {
                count(reason);
                return action;
            }
        }
        Uplink::Other => {
            count(Reason::PassOther);
            return xdp_action::XDP_PASS;
        }
        Uplink::Unsure => {}
    }
    uplink_at_length(&ctx, config)
}

/// The long way, for whatever is not sure at first sight, and for what no
/// worker took. A function of its own: the verifier walks it once, and not anew
/// for each way that leads here.
#[inline(never)]
fn uplink_at_length(ctx: &XdpContext, config: &Config) -> u32 {
    let Some(ip) = scratch(PLACE_UPLINK) else {
        return xdp_action::XDP_DROP;
    };
    let frame = Frame::new(ctx);
    if !classify::is_for_us(&frame, ip, config) {
        count(Reason::PassOther);
        return xdp_action::XDP_PASS;
    }
    let mut seen = xdp_seen(PLACE_UPLINK, ctx, config.seed);
    let (reason, meta) = judge(&frame, ip, config, &mut seen);
    let Some(meta) = meta else {
        return xdp_end(reason, ip, &seen);
    };
    match steer::to_worker(ctx, &XSK_UPLINK, meta) {
        Some(action) => {
            count(reason);
            action
        }
        None => xdp_end(Reason::NoWorker, ip, &seen),
    }
}

/// What becomes of a packet that came in on the uplink; with a note, it is for
/// a worker.
#[inline(always)]
fn judge(frame: &Frame, ip: &IpPacket, config: &Config, seen: &mut Seen) -> (Reason, Option<Meta>) {
    match classify::uplink(frame, ip, config, &mut seen.head) {
        Next::Decided(reason) => (reason, None),
        Next::Icmp if precheck::takes_icmp() => (Reason::SteerIcmp, Some(steer::icmp(ip))),
        Next::Icmp => (Reason::IcmpUnbelieved, None),
        Next::Fragment if precheck::takes_fragment(&ip.src, config) => {
            (Reason::SteerFragment, Some(steer::fragment(ip)))
        }
        Next::Fragment => (Reason::FragmentRate, None),
        Next::Esp(esp) => match precheck::check(&esp, ip, config) {
            Ok(slot) if esp.in_udp => (Reason::SteerUdpEsp, Some(steer::esp(&esp, ip, slot))),
            Ok(slot) => (Reason::SteerEsp, Some(steer::esp(&esp, ip, slot))),
            Err(shed) => {
                if let Some(slot) = shed.slot {
                    count_slot(slot, shed.reason);
                }
                (shed.reason, None)
            }
        },
    }
}

/// XDP on gm0x: hands what egress has taken to a worker. It was counted there.
#[xdp]
pub fn gm_xdp_gm0x(ctx: XdpContext) -> u32 {
    if let Some(meta) = quick::outbound(&Frame::new(&ctx))
        && let Some(action) = steer::to_worker(&ctx, &XSK_GM0X, meta)
    {
        return action;
    }
    let mut seen = xdp_seen(PLACE_GM0X, &ctx, configured().map_or(0, |c| c.seed));
    seen.outbound = true;
    let Some(ip) = scratch(PLACE_GM0X) else {
        return xdp_action::XDP_DROP;
    };
    if wire::read_frame(&Frame::new(&ctx), ip) != Found::Ip {
        *ip = IpPacket::EMPTY;
        return xdp_end(Reason::OutMalformed, ip, &seen);
    }
    let meta: Meta = steer::outbound(ip);
    match steer::to_worker(&ctx, &XSK_GM0X, meta) {
        Some(action) => action,
        None => xdp_end(Reason::NoWorker, ip, &seen),
    }
}

/// tc on the ingress of gm0: marks what a worker has opened and injects it as
/// come in on the uplink.
#[classifier]
pub fn gm_tc_gm0(ctx: TcContext) -> i32 {
    let skb = Skb::new(&ctx);
    match configured() {
        // Of two VLAN tags one is still in the packet.
        Some(config) if config.cookie != 0 && (skb.is_ip() || skb.is_tagged()) => {
            skb.set_mark(config.cookie);
            // SAFETY: a helper without memory arguments.
            unsafe { bpf_redirect(config.uplink, u64::from(BPF_F_INGRESS)) as i32 }
        }
        Some(config) => {
            let seen = tc_seen(PLACE_GM0, &skb, config);
            tc_end(Reason::Malformed, &IpPacket::EMPTY, &seen)
        }
        None => TC_ACT_SHOT as i32,
    }
}

/// tc on the ingress of every interface but gm0 and gm0x: the guard.
#[classifier]
pub fn gm_tc_guard(ctx: TcContext) -> i32 {
    let Some(config) = configured() else {
        return TC_ACT_UNSPEC;
    };
    let skb = Skb::new(&ctx);
    if guard::is_injected(&skb, config) {
        count(Reason::PassInjected);
        return TC_ACT_UNSPEC;
    }
    if quick::enters(&skb, config) {
        return TC_ACT_UNSPEC;
    }
    skb.pull();
    let Some(ip) = scratch(PLACE_GUARD) else {
        return TC_ACT_SHOT as i32;
    };
    let mut seen = tc_seen(PLACE_GUARD, &skb, config);
    match guard::ingress(&skb, config, ip, &mut seen.head) {
        Some(reason) => tc_end(reason, ip, &seen),
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
    match quick::egress(&skb, config) {
        Egress::Leaves => return TC_ACT_UNSPEC,
        Egress::Taken if skb.interface() == config.uplink && skb.vlan().is_none() => {
            return taken(config);
        }
        Egress::Taken | Egress::Unsure => {}
    }
    skb.pull();
    let Some(ip) = scratch(PLACE_EGRESS) else {
        return TC_ACT_SHOT as i32;
    };
    let reason = match egress::egress(&skb, config, ip) {
        None => return TC_ACT_UNSPEC,
        Some(Reason::SteerOutbound) if skb.interface() != config.uplink => Reason::OutNoSa,
        Some(Reason::SteerOutbound) if egress::keep_vlan(&skb).is_some() => {
            return taken(config);
        }
        Some(Reason::SteerOutbound) => Reason::OutMalformed,
        Some(reason) => reason,
    };
    let mut seen = tc_seen(PLACE_EGRESS, &skb, config);
    seen.outbound = true;
    tc_end(reason, ip, &seen)
}

/// To gm0, and so to a worker.
#[inline(always)]
fn taken(config: &Config) -> i32 {
    count(Reason::SteerOutbound);
    // SAFETY: a helper without memory arguments.
    unsafe { bpf_redirect(config.gm0, 0) as i32 }
}

/// The configuration, once user space has written one that is of this build.
#[inline(always)]
fn configured() -> Option<&'static Config> {
    config().filter(|config| config.abi == ABI_VERSION)
}

/// What is known of a packet of an XDP program from the start.
#[inline(always)]
fn xdp_seen(place: u8, ctx: &XdpContext, seed: u32) -> Seen {
    Seen {
        place,
        outbound: false,
        // SAFETY: `ctx.ctx` is the context that the kernel gave to the program.
        ifindex: unsafe { (*ctx.ctx).ingress_ifindex },
        length: (ctx.data_end() - ctx.data()) as u32,
        seed,
        head: Head::default(),
    }
}

/// What is known of a packet of a tc program from the start.
#[inline(always)]
fn tc_seen(place: u8, skb: &Skb, config: &Config) -> Seen {
    Seen {
        place,
        outbound: false,
        ifindex: skb.interface(),
        length: skb.length(),
        seed: config.seed,
        head: Head::default(),
    }
}

/// Counts, and ends the packet's way through an XDP program.
#[inline(always)]
fn xdp_end(reason: Reason, ip: &IpPacket, seen: &Seen) -> u32 {
    count(reason);
    match reason.action() {
        Action::Pass => xdp_action::XDP_PASS,
        // What should have been steered or delivered was not: fail closed.
        Action::Drop | Action::Steer | Action::Deliver => {
            report::dropped(reason, ip, seen);
            xdp_action::XDP_DROP
        }
    }
}

/// Counts, and ends the packet's way through a tc program; what passes goes on
/// to the next program on the interface.
#[inline(always)]
fn tc_end(reason: Reason, ip: &IpPacket, seen: &Seen) -> i32 {
    count(reason);
    match reason.action() {
        Action::Pass => TC_ACT_UNSPEC,
        Action::Drop | Action::Steer | Action::Deliver => {
            report::dropped(reason, ip, seen);
            TC_ACT_SHOT as i32
        }
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
