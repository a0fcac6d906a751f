//! A static 1:1 NAT in front of this host: phones know an address of it that
//! it does not have.
//!
//! ```text
//! phone: UDP for PUBLIC, summed for PUBLIC --ESP--> NAT: outer address --> here
//! ```
//!
//! The NAT changes the outer address and cannot see inside ESP. So the sum over
//! UDP or TCP still covers PUBLIC, and in a tunnel the inner header names it.
//! SAs, sockets and flows are in local terms; here is the one place where a
//! packet changes between them and the phone's terms.

use std::net::IpAddr;

use gm_abi::wire::{self, ICMPV6, IpPacket, L3, TCP, UDP};
use gm_esp::Mode;

use crate::checksum;
use crate::config::map_addr;

const DCCP: u8 = 33;
const UDP_LITE: u8 = 136;

/// Which address of a packet is this host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The destination.
    In,
    /// The source.
    Out,
}

/// This host's addresses and what the NAT makes of them; mostly none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Advertised(Vec<(IpAddr, IpAddr)>);

impl Advertised {
    /// Of pairs (local, advertised) of one family each.
    pub(crate) fn new(pairs: &[(IpAddr, IpAddr)]) -> Advertised {
        let same = |(a, b): &&(IpAddr, IpAddr)| a.is_ipv4() == b.is_ipv4();
        Advertised(pairs.iter().filter(same).copied().collect())
    }

    /// The address that phones know `local` by.
    pub(crate) fn of(&self, local: IpAddr) -> IpAddr {
        let pair = self.0.iter().find(|(l, _)| *l == local);
        pair.map_or(local, |(_, advertised)| *advertised)
    }

    /// Puts a plain packet right that an SA has brought (before its selectors
    /// see it) or will take (after they have).
    ///
    /// In a tunnel the two addresses of a pair change places, so that what is
    /// addressed to the local one from outside does not match afterwards.
    pub(crate) fn apply(&self, way: Way, mode: Mode, packet: &mut [u8]) {
        if self.0.is_empty() {
            return;
        }
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return;
        };
        let at = match (way, ip.v6) {
            (Way::In, false) => 16,
            (Way::In, true) => 24,
            (Way::Out, false) => 12,
            (Way::Out, true) => 8,
        };
        let mine = if way == Way::In { &ip.dst } else { &ip.src };
        let pair = self.0.iter().find_map(|(local, advertised)| {
            let (l, a) = (map_addr(*local), map_addr(*advertised));
            match (local.is_ipv6() == ip.v6, *mine == l, *mine == a) {
                (false, ..) => None,
                (_, true, _) => Some((l, a)),
                (_, _, true) if mode == Mode::UdpEncTun => Some((a, l)),
                _ => None,
            }
        });
        let Some((now, other)) = pair else {
            return;
        };
        // Bytes of the addresses as the header has them.
        let cut = if ip.v6 { 0 } else { 12 };
        let (now, other) = (&now[cut..], &other[cut..]);
        match (mode, way) {
            // The header is right (the NAT has changed it, or will); the sum
            // is the other side's.
            (Mode::Trans, Way::In) => resum(packet, &ip, other, now),
            (Mode::Trans, Way::Out) => resum(packet, &ip, now, other),
            (Mode::UdpEncTun, _) => {
                resum(packet, &ip, now, other);
                packet[at..at + other.len()].copy_from_slice(other);
                if !ip.v6 {
                    change(packet, 10, now, other);
                }
            }
        }
    }
}

/// Changes the transport's sum as for a pseudo header in which `after` stands
/// for `before`.
fn resum(packet: &mut [u8], ip: &IpPacket, before: &[u8], after: &[u8]) {
    if ip.is_later_fragment() || ip.hidden {
        return;
    }
    let at = ip.l4
        + match ip.proto {
            TCP => 16,
            UDP | UDP_LITE | DCCP => 6,
            ICMPV6 if ip.v6 => 2,
            _ => return,
        };
    let Some(&[a, b]) = packet[..ip.end].get(at..at + 2) else {
        return;
    };
    // UDP over IPv4 without a sum (RFC 768).
    if ip.proto == UDP && [a, b] == [0, 0] {
        return;
    }
    change(packet, at, before, after);
    if ip.proto == UDP && packet[at..at + 2] == [0, 0] {
        packet[at..at + 2].fill(0xff);
    }
}

/// Changes the sum at `at`.
fn change(packet: &mut [u8], at: usize, before: &[u8], after: &[u8]) {
    let old = u16::from_be_bytes([packet[at], packet[at + 1]]);
    let new = checksum::replace(old, before, after);
    packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
