//! Egress: what the policy protects is found before the NIC.

use aya_ebpf::helpers::{bpf_skb_change_head, bpf_skb_store_bytes, bpf_skb_vlan_pop};
use gm_abi::{
    maps::{Config, FragKey, STATE_TRANSIT},
    verdict::Reason,
    wire::{self, ESP, Found, Frag, IpPacket, Quoted, TCP, UDP},
};

use crate::{
    maps::{OUT_FRAGS, is_ours, is_protected, kernel_sas, state, words},
    skb::Skb,
};

const CLEAR: u32 = 0;
const PROTECTED: u32 = 1;

/// `None`: not of the Gm link or not protected; goes on, uncounted. `ip` is
/// filled as far as it is read.
#[inline(always)]
pub fn egress(skb: &Skb, config: &Config, ip: &mut IpPacket) -> Option<Reason> {
    if skb.read(ip) && is_ours(&words(&ip.src), config) {
        if kernel_sas() && is_in_transit(skb, config, ip) {
            return Some(Reason::SteerOutbound);
        }
        return decide(skb, ip, config);
    }
    // From a VLAN device on a VLAN device the inner tag stands in the packet, and
    // the network layer still begins with IP.
    *ip = IpPacket::EMPTY;
    if !skb.is_tagged()
        || wire::read_ip(skb, 0, ip) != Found::Ip
        || !is_ours(&words(&ip.src), config)
    {
        return None;
    }
    decide(skb, ip, config)
}

/// SAs go back to the kernel, and this is ESP that it has sealed: it must not
/// overtake what a worker still has to seal with lower numbers.
#[inline(always)]
fn is_in_transit(skb: &Skb, config: &Config, ip: &IpPacket) -> bool {
    if state(STATE_TRANSIT) == 0 || ip.frag.is_some() || skb.interface() != config.uplink {
        return false;
    }
    match ip.ports {
        Some((src, _)) => {
            ip.proto == UDP && config.encap_port != 0 && u32::from(src) == config.encap_port
        }
        None => ip.proto == ESP,
    }
}

#[inline(always)]
fn decide(skb: &Skb, ip: &IpPacket, config: &Config) -> Option<Reason> {
    if ip.hidden {
        return Some(Reason::OutMalformed);
    }
    if wire::is_icmp_error(skb, ip) {
        return quotes(skb, ip, config);
    }
    match ip.frag {
        Some(frag) => fragment(ip, frag),
        None => whole(ip),
    }
}

/// An ICMP error quotes the packet that it is about, up to a kilobyte of it:
/// what a worker has opened must not go back in clear that way.
#[inline(always)]
fn quotes(skb: &Skb, ip: &IpPacket, config: &Config) -> Option<Reason> {
    let mut quoted = Quoted::EMPTY;
    if !wire::read_quoted(skb, ip, &mut quoted) {
        return Some(Reason::OutMalformed);
    }
    let has_ports = quoted.hidden || matches!(quoted.proto, TCP | UDP);
    if !has_ports || !is_ours(&words(&quoted.dst), config) {
        return None;
    }
    match quoted.ports(skb) {
        Some((_, port)) if !is_protected(port) => None,
        _ => Some(Reason::OutNoSa),
    }
}

#[inline(always)]
fn whole(ip: &IpPacket) -> Option<Reason> {
    match ip.ports {
        Some((src, _)) if is_protected(src) => Some(Reason::SteerOutbound),
        None if ip.hides_ports() => Some(Reason::OutMalformed),
        _ => None,
    }
}

/// Only the first fragment has ports; it decides for those that follow. Fail
/// closed: what follows a first one that is not known is dropped.
#[inline(always)]
fn fragment(ip: &IpPacket, frag: Frag) -> Option<Reason> {
    // IPv4 tells the protocol in every fragment, IPv6 perhaps in the first only.
    if !ip.v6 && !matches!(ip.proto, TCP | UDP) {
        return None;
    }
    let proto = if ip.v6 { 0 } else { u32::from(ip.proto) };
    let key = FragKey {
        src: ip.src,
        dst: ip.dst,
        id: frag.id,
        proto,
    };
    if frag.offset != 0 {
        // SAFETY: a u32 that another CPU may replace meanwhile; it is read once.
        return match unsafe { OUT_FRAGS.get(&key) }.copied() {
            Some(PROTECTED) => Some(Reason::SteerOutbound),
            Some(_) => None,
            None => Some(Reason::OutMalformed),
        };
    }
    let decided = whole(ip);
    let value = match decided {
        Some(Reason::SteerOutbound) => PROTECTED,
        Some(_) => return decided,
        None => CLEAR,
    };
    // A table that cannot take it: the rest will be dropped, this one goes.
    let _ = OUT_FRAGS.insert(&key, &value, 0);
    decided
}

/// Puts the VLAN tag that the kernel keeps beside the packet into it: XDP on
/// gm0x, and so the worker, sees the packet's bytes only. Without a tag beside
/// it there is nothing to do. `None`: it could not be done.
#[inline(always)]
pub fn keep_vlan(skb: &Skb) -> Option<()> {
    let Some(outer) = skb.vlan() else {
        return Some(());
    };
    let macs = skb.macs()?;
    pop(skb)?;
    // A tag that stood behind it in the packet is beside it now.
    match skb.vlan() {
        None => {
            let mut head = [0; 16];
            head[..12].copy_from_slice(&macs);
            head[12..].copy_from_slice(&tag(outer));
            push(skb, 4, &head)
        }
        Some(inner) => {
            pop(skb)?;
            let mut head = [0; 20];
            head[..12].copy_from_slice(&macs);
            head[12..16].copy_from_slice(&tag(outer));
            head[16..].copy_from_slice(&tag(inner));
            push(skb, 8, &head)
        }
    }
}

#[inline(always)]
fn tag((kind, tci): (u16, u16)) -> [u8; 4] {
    let ([a, b], [c, d]) = (kind.to_be_bytes(), tci.to_be_bytes());
    [a, b, c, d]
}

/// Takes the outer tag away.
#[inline(always)]
fn pop(skb: &Skb) -> Option<()> {
    // SAFETY: `raw` is the program's context.
    (unsafe { bpf_skb_vlan_pop(skb.raw) } == 0).then_some(())
}

/// Makes room for `more` bytes in front, and writes `head` there.
#[inline(always)]
fn push<const N: usize>(skb: &Skb, more: u32, head: &[u8; N]) -> Option<()> {
    // SAFETY: `raw` is the program's context, `head` is as long as said.
    unsafe {
        if bpf_skb_change_head(skb.raw, more, 0) != 0 {
            return None;
        }
        (bpf_skb_store_bytes(skb.raw.cast(), 0, head.as_ptr().cast(), N as u32, 0) == 0)
            .then_some(())
    }
}
