//! The outer header of UDP-encapsulated tunnel mode (RFC 3948 2.1, 3.2).

use std::net::IpAddr;

use gm_abi::wire::{UDP, UDP_HEADER};

use crate::headers::{self, IPV4_LEN, IPV6_LEN};
use crate::sa::Outer;

/// Hops of the outer header: it begins its way here.
const TTL: u8 = 64;

/// Bytes of the outer IP and UDP header.
pub(crate) fn len(outer: &Outer) -> usize {
    UDP_HEADER
        + if outer.dst.is_ipv4() {
            IPV4_LEN
        } else {
            IPV6_LEN
        }
}

/// Writes the outer headers over the first bytes of `packet`, which reaches to
/// its end.
///
/// The traffic class, `tos`, is the inner packet's, congestion mark included
/// (RFC 6040 4.1, normal mode).
/// IPv4 may be fragmented on the way, so it gets an identification: `id`, by
/// the low bits of the sequence number distinct for 65 536 packets. The UDP
/// checksum is left 0; over IPv6 [`checksum`] follows after sealing.
pub(crate) fn write(packet: &mut [u8], outer: &Outer, ports: (u16, u16), tos: u8, id: u16) {
    let udp = len(outer) - UDP_HEADER;
    let udp_len = (packet.len() - udp) as u16;
    match (outer.src, outer.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            packet[..IPV4_LEN].fill(0);
            packet[0] = 0x45;
            packet[1] = tos;
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            packet[8] = TTL;
            packet[9] = UDP;
            packet[12..16].copy_from_slice(&src.octets());
            packet[16..20].copy_from_slice(&dst.octets());
        }
        (src, dst) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            packet[..8].copy_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0, 0, 0, UDP, TTL]);
            packet[8..24].copy_from_slice(&octets(src));
            packet[24..40].copy_from_slice(&octets(dst));
        }
    }
    headers::set_length(packet, outer.dst.is_ipv6());
    packet[udp..udp + 2].copy_from_slice(&ports.0.to_be_bytes());
    packet[udp + 2..udp + 4].copy_from_slice(&ports.1.to_be_bytes());
    packet[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
    packet[udp + 6..udp + 8].fill(0);
}

/// Writes the UDP checksum of an outer IPv6 packet: receivers drop UDP over
/// IPv6 without one (RFC 8200 8.1), Linux among them. Over IPv4 it stays 0
/// (RFC 3948 2.1).
pub(crate) fn checksum(packet: &mut [u8], outer: &Outer) {
    if outer.dst.is_ipv4() {
        return;
    }
    let udp_len = (packet.len() - IPV6_LEN) as u64;
    let pseudo = headers::sum(&packet[8..IPV6_LEN], udp_len + u64::from(UDP));
    let sum = !headers::fold(headers::sum(&packet[IPV6_LEN..], pseudo));
    let sum = if sum == 0 { 0xffff } else { sum };
    packet[IPV6_LEN + 6..IPV6_LEN + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The traffic class of an IP packet: DSCP and congestion mark.
pub(crate) fn class(ip: &[u8], v6: bool) -> u8 {
    if v6 {
        (ip[0] & 15) << 4 | ip[1] >> 4
    } else {
        ip[1]
    }
}
