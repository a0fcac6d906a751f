//! The guard in front of the local stack, on every interface (Linux accepts an
//! address on any): what the policy protects comes from a worker or not at all
//! (TS 33.203 7.1).

use gm_abi::{
    maps::Config,
    verdict::Reason,
    wire::{self, About, Class, EncapPort, IpPacket, TCP, UDP},
};

use crate::{
    classify::icmp_about,
    maps::{is_ours, is_protected, kernel_sas, words},
    report::Head,
    skb::Skb,
};

/// Index of `lo` in every network namespace. ICMP errors there are the host's
/// own: that a phone does not answer the neighbour's question, say.
const LOOPBACK: u32 = 1;

/// Whether a worker has opened it. Only the guard takes the mark from it.
#[inline(always)]
pub fn is_injected(skb: &Skb, config: &Config) -> bool {
    let injected = config.cookie != 0 && skb.mark() == config.cookie;
    // A tag beside the packet: it comes by again on its VLAN device, and that
    // device's guard has to know it.
    if injected && skb.vlan().is_none() {
        skb.set_mark(0);
    }
    injected
}

/// `None`: not for the Gm link or not protected; goes on, uncounted. `ip` and
/// `head` (SPI and sequence number) are filled as far as they are read.
#[inline(always)]
pub fn ingress(skb: &Skb, config: &Config, ip: &mut IpPacket, head: &mut Head) -> Option<Reason> {
    if !skb.read(ip) || !is_ours(&words(&ip.dst), config) {
        return None;
    }
    // What a tunnel of the kernel's has brought comes by once more.
    if kernel_sas() && skb.is_from_kernel_sa() {
        return None;
    }
    match wire::classify(skb, ip, EncapPort::Dst(config.encap_port as u16)) {
        // XDP has counted it, or it came in elsewhere: the kernel judges it.
        Class::Esp { .. } | Class::UdpEsp { .. } if kernel_sas() => None,
        // The uplink's XDP has taken its own; this came in elsewhere.
        Class::Esp { spi, seq, .. } | Class::UdpEsp { spi, seq, .. } => {
            head.set(spi, seq);
            Some(Reason::UnknownSpi)
        }
        Class::Keepalive => Some(Reason::Keepalive),
        Class::Malformed { head: found } => {
            if let Some((spi, seq)) = found {
                head.set(spi, seq);
            }
            Some(Reason::Malformed)
        }
        // The uplink's XDP gives fragments to a worker, which judges the whole
        // datagram. From elsewhere they must not get into the kernel's
        // reassembly: forged ones could complete an opened datagram's.
        Class::Fragment if ip.v6 || matches!(ip.proto, TCP | UDP) => {
            Some(Reason::CleartextProtected)
        }
        // Nobody's ICMP errors are that long; whole it could quote anything.
        Class::Fragment if wire::is_icmp_error(skb, ip) => Some(Reason::ClearIcmp),
        Class::Fragment | Class::NonEspMarker => None,
        Class::Other => match ip.ports {
            Some((_, dst)) if is_protected(dst) => Some(Reason::CleartextProtected),
            Some(_) => None,
            None if ip.hides_ports() => Some(Reason::Malformed),
            None if skb.interface() == LOOPBACK => None,
            None => (icmp_about(skb, ip, config) == About::Protected).then_some(Reason::ClearIcmp),
        },
    }
}
