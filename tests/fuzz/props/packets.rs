//! IP packets to begin with, shaped by the bytes of an input.
#![allow(dead_code, reason = "no target takes all of it")]

use std::net::IpAddr;

use gm_abi::wire::{ESP, TCP, UDP};

use super::input::Input;

pub const NEAR_PORT: u16 = 5063;
pub const FAR_PORT: u16 = 6064;
pub const ENCAP_PORT: u16 = 4500;

/// The phone's address or ours, inside or, where a tunnel has others, outside.
pub fn address(v6: bool, near: bool, outside: bool) -> IpAddr {
    let last = if near { 1 } else { 2 };
    match v6 {
        true => [0x2001, 0xdb8, 0, outside.into(), 0, 0, 0, last].into(),
        false => [10, outside.into(), 0, last as u8].into(),
    }
}

/// An IP packet around `payload`: IPv4 options or IPv6 extension headers come
/// from `extra`, each header as number and what it holds.
pub fn ip(src: IpAddr, dst: IpAddr, proto: u8, extra: &[(u8, u8)], payload: &[u8]) -> Vec<u8> {
    let mut b;
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options = extra.len().min(10) * 4;
            b = vec![
                0x45 + (options / 4) as u8,
                0xb8,
                0,
                0,
                0x12,
                0x34,
                0,
                0,
                61,
                proto,
                0,
                0,
            ];
            b.extend(src.octets());
            b.extend(dst.octets());
            // Each of four bytes: copied into later fragments, or not.
            b.extend(
                extra
                    .iter()
                    .take(10)
                    .flat_map(|(kind, x)| [kind | 2, 4, *x, 0]),
            );
        }
        (src, dst) => {
            b = vec![0x6b, 0x80, 0x12, 0x34, 0, 0, proto, 61];
            b.extend([src, dst].iter().flat_map(|a| match a {
                IpAddr::V6(a) => a.octets(),
                IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            }));
            let mut named_at = 6;
            for (kind, x) in extra {
                b[named_at] = [0, 60, 43][usize::from(*kind) % 3];
                named_at = b.len();
                let len = 8 + 8 * usize::from(*x % 3);
                b.extend([proto, x % 3, 1, (len - 4) as u8]);
                b.resize(named_at + len, 0);
            }
        }
    }
    b.extend_from_slice(payload);
    set_length(&mut b);
    b
}

/// Writes the length into the IP header, and IPv4's checksum.
pub fn set_length(ip: &mut [u8]) {
    let len = ip.len();
    if ip[0] >> 4 == 6 {
        ip[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    } else {
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        set_checksum(ip);
    }
}

/// Writes IPv4's checksum.
pub fn set_checksum(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let sum = checksum(0, &ip[..usize::from(ip[0] & 15) * 4]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum of `bytes` and what is summed already.
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
    let mut sum = start + bytes.chunks(2).map(word).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !sum as u16
}

/// A router's answer to a packet that is longer than `mtu`.
pub fn icmp_too_big(quoted: &[u8], mtu: u16) -> Vec<u8> {
    let quoted = &quoted[..quoted.len().min(500)];
    let v6 = quoted[0] >> 4 == 6;
    let mut message = if v6 {
        vec![2, 0, 0, 0, 0, 0]
    } else {
        vec![3, 4, 0, 0, 0, 0]
    };
    message.extend(mtu.to_be_bytes());
    message.extend_from_slice(quoted);
    let (router, us) = (address(v6, false, true), address(v6, true, false));
    let mut packet = ip(router, us, if v6 { 58 } else { 1 }, &[], &message);
    let at = if v6 { 40 } else { 20 };
    let pseudo = match v6 {
        true => u32::from(!checksum(message.len() as u32 + 58, &packet[8..40])),
        false => 0,
    };
    let sum = checksum(pseudo, &packet[at..]);
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut b: Vec<u8> = [sport, dport, length, 0]
        .iter()
        .flat_map(|w| w.to_be_bytes())
        .collect();
    b.extend_from_slice(payload);
    b
}

pub fn tcp(sport: u16, dport: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut b: Vec<u8> = [sport, dport]
        .iter()
        .flat_map(|w| w.to_be_bytes())
        .collect();
    // A SYN names its MSS.
    b.extend([
        0, 0, 0, 1, 0, 0, 0, 2, 0x60, flags, 1, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4,
    ]);
    b.extend_from_slice(payload);
    b
}

/// A packet of the phone's traffic to us or back, mostly: one byte of choice in
/// eight makes it somebody else's, or of another protocol.
pub fn plain(input: &mut Input<'_>, v6: bool, to_near: bool) -> Vec<u8> {
    let (src, dst) = (address(v6, !to_near, false), address(v6, to_near, false));
    let (near, far) = match input.u8() {
        0..=223 => (NEAR_PORT, FAR_PORT),
        other => (NEAR_PORT, u16::from(other)),
    };
    let (sport, dport) = if to_near { (far, near) } else { (near, far) };
    let extra: Vec<(u8, u8)> = (0..input.below(4))
        .map(|_| (input.u8(), input.u8()))
        .collect();
    let len = match input.u8() {
        n @ 0..=239 => usize::from(n),
        n => usize::from(n - 239) * 180,
    };
    let payload: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
    let (proto, l4) = match input.u8() % 16 {
        0..=8 => (UDP, udp(sport, dport, &payload)),
        9 => (TCP, tcp(sport, dport, 2, &payload)),
        10..=12 => (TCP, tcp(sport, dport, 0x18, &payload)),
        13 => (if v6 { 58 } else { 1 }, payload),
        14 => (59, payload),
        _ => (ESP, payload),
    };
    let mut packet = ip(src, dst, proto, &extra, &l4);
    packet[1] |= (input.u8() & 3) << if v6 { 4 } else { 0 };
    set_length(&mut packet);
    packet
}

/// The congestion mark of an IP packet.
pub fn mark(ip: &[u8]) -> u8 {
    ip[1] >> if ip[0] >> 4 == 6 { 4 } else { 0 } & 3
}

/// What a packet becomes that came in a tunnel with the outer mark `outside`
/// (RFC 6040, figure 4); `None`: it is dropped.
pub fn marked(inner: &[u8], outside: u8) -> Option<Vec<u8>> {
    let mut inner = inner.to_vec();
    // Not-ECT 0, ECT(1) 1, ECT(0) 2, CE 3.
    let now = match (mark(&inner), outside) {
        (0, 3) => return None,
        (1 | 2, 1 | 3) => outside,
        _ => return Some(inner),
    };
    if inner[0] >> 4 == 6 {
        inner[1] = inner[1] & 0xcf | now << 4;
    } else {
        inner[1] = inner[1] & 0xfc | now;
        set_checksum(&mut inner);
    }
    Some(inner)
}
