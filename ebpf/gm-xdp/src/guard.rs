//! The guard in front of the local stack, on every interface (Linux accepts an
//! address on any): what the policy protects comes from a worker or not at all
//! (TS 33.203 7.1).

use gm_abi::{
    maps::Config,
    verdict::Reason,
    wire::{self, Class, EncapPort, IpPacket, TCP, UDP},
};

use crate::{
    maps::{is_ours, is_protected},
    skb::Skb,
};

/// `None`: not for the Gm link or not protected; goes on, uncounted.
#[inline(always)]
pub fn ingress(skb: &Skb, config: &Config) -> Option<Reason> {
    if config.cookie != 0 && skb.mark() == config.cookie {
        // A tag beside the packet: it comes by again on its VLAN device, and
        // that device's guard has to know it.
        if skb.vlan().is_none() {
            skb.set_mark(0);
        }
        return Some(Reason::PassInjected);
    }
    let mut ip = IpPacket::EMPTY;
    if !skb.read(&mut ip) {
        return None;
    }
    if !is_ours(&ip.dst) {
        return None;
    }
    match wire::classify(skb, &ip, EncapPort::Dst(config.encap_port as u16)) {
        // The uplink's XDP has taken its own; this came in elsewhere.
        Class::Esp { .. } | Class::UdpEsp { .. } => Some(Reason::UnknownSpi),
        Class::Keepalive => Some(Reason::Keepalive),
        Class::Malformed { .. } => Some(Reason::Malformed),
        // The uplink's XDP gives fragments to a worker, which judges the whole
        // datagram. From elsewhere they must not get into the kernel's
        // reassembly: forged ones could complete an opened datagram's.
        Class::Fragment if ip.v6 || matches!(ip.proto, TCP | UDP) => {
            Some(Reason::CleartextProtected)
        }
        Class::Fragment | Class::NonEspMarker => None,
        Class::Other => match ip.ports {
            Some((_, dst)) if is_protected(dst) => Some(Reason::CleartextProtected),
            None if ip.hides_ports() => Some(Reason::Malformed),
            _ => None,
        },
    }
}
