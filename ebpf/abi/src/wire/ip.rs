//! From the frame to the upper-layer header: Ethernet, VLAN, IPv4, IPv6.

use super::{
    Bytes, ETH_LEN, Frag, IpPacket, L3, MAX_CHAIN, MAX_EXTENSIONS, MAX_VLAN_TAGS, TCP, UDP,
};
use crate::maps::Addr;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const SERVICE_VLAN: u16 = 0x88a8;

pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const ROUTING: u8 = 43;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const DESTINATION: u8 = 60;

/// What [`read_frame`] and [`read_ip`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// An IP packet, now described by what was passed.
    Ip,
    /// See [`L3::NotIp`].
    NotIp,
    /// See [`L3::Malformed`].
    Malformed,
}

impl Found {
    #[inline(always)]
    fn with(self, ip: IpPacket) -> L3 {
        match self {
            Found::Ip => L3::Ip(ip),
            Found::NotIp => L3::NotIp,
            Found::Malformed => L3::Malformed,
        }
    }
}

/// Reads an Ethernet frame: header, up to [`MAX_VLAN_TAGS`] tags, IP.
pub fn parse_frame<B: Bytes + ?Sized>(b: &B) -> L3 {
    let mut ip = IpPacket::EMPTY;
    read_frame(b, &mut ip).with(ip)
}

/// Reads the IP packet that begins at `l3`; its version is in its first byte.
pub fn parse_ip<B: Bytes + ?Sized>(b: &B, l3: usize) -> L3 {
    let mut ip = IpPacket::EMPTY;
    read_ip(b, l3, &mut ip).with(ip)
}

/// [`parse_frame`] into `ip`. For BPF: a function of its own keeps the stack
/// below 512 bytes, and memory that was written before keeps the verifier from
/// seeing reads of what was not. Pass [`IpPacket::EMPTY`]; only when the answer
/// is [`Found::Ip`] does `ip` mean anything.
#[inline(never)]
pub fn read_frame<B: Bytes + ?Sized>(b: &B, ip: &mut IpPacket) -> Found {
    let Some([high, low]) = b.get::<2>(ETH_LEN - 2) else {
        return Found::NotIp;
    };
    let mut kind = u16::from_be_bytes([high, low]);
    let mut l3 = ETH_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        if kind != VLAN && kind != SERVICE_VLAN {
            break;
        }
        let Some([high, low]) = b.get::<2>(l3 + 2) else {
            return Found::NotIp;
        };
        kind = u16::from_be_bytes([high, low]);
        l3 += 4;
    }
    match kind {
        IPV4 => read_v4(b, l3, ip),
        IPV6 => read_v6(b, l3, ip),
        _ => Found::NotIp,
    }
}

/// [`parse_ip`] into `ip`; see [`read_frame`].
#[inline(never)]
pub fn read_ip<B: Bytes + ?Sized>(b: &B, l3: usize, ip: &mut IpPacket) -> Found {
    match b.get::<1>(l3) {
        Some([first]) if first >> 4 == 4 => read_v4(b, l3, ip),
        Some([first]) if first >> 4 == 6 => read_v6(b, l3, ip),
        Some(_) => Found::NotIp,
        None => Found::Malformed,
    }
}

/// `l3 + length` as far as the packet reaches, and whether that contradicts.
#[inline(always)]
pub(super) fn clip(l3: usize, length: usize, available: usize) -> (usize, bool) {
    let end = l3 + length;
    if end > available {
        (available, true)
    } else {
        (end, false)
    }
}

#[inline(always)]
fn read_v4<B: Bytes + ?Sized>(b: &B, l3: usize, ip: &mut IpPacket) -> Found {
    let Some(h) = b.get::<12>(l3) else {
        return Found::Malformed;
    };
    let Some(src) = b.get::<4>(l3 + 12) else {
        return Found::Malformed;
    };
    let Some(dst) = b.get::<4>(l3 + 16) else {
        return Found::Malformed;
    };
    let header = usize::from(h[0] & 15) * 4;
    if h[0] >> 4 != 4 || header < 20 {
        return Found::Malformed;
    }
    let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
    let (end, contradicts) = if total == 0 {
        (b.len(), true)
    } else {
        clip(l3, total, b.len())
    };
    ip.l3 = l3;
    ip.l4 = l3 + header;
    ip.end = end;
    ip.v6 = false;
    ip.proto = h[9];
    set_mapped(&mut ip.src, src);
    set_mapped(&mut ip.dst, dst);
    ip.hidden = ip.l4 > end;
    ip.contradicts = contradicts || ip.hidden;
    let place = u16::from_be_bytes([h[6], h[7]]);
    if place & 0x3fff != 0 {
        ip.frag = Some(Frag {
            id: u32::from(u16::from_be_bytes([h[4], h[5]])),
            offset: usize::from(place & 0x1fff) * 8,
            more: place & 0x2000 != 0,
        });
    }
    read_ports(b, ip);
    Found::Ip
}

/// The IPv4-mapped form in an address that is zero so far; a compiler for BPF
/// would clear ten bytes by a call and a loop.
#[inline(always)]
fn set_mapped(addr: &mut Addr, v4: [u8; 4]) {
    addr[10..12].copy_from_slice(&[0xff; 2]);
    addr[12..].copy_from_slice(&v4);
}

#[inline(always)]
fn read_v6<B: Bytes + ?Sized>(b: &B, l3: usize, ip: &mut IpPacket) -> Found {
    let Some(h) = b.get::<8>(l3) else {
        return Found::Malformed;
    };
    let Some(src) = b.get::<16>(l3 + 8) else {
        return Found::Malformed;
    };
    let Some(dst) = b.get::<16>(l3 + 24) else {
        return Found::Malformed;
    };
    if h[0] >> 4 != 6 {
        return Found::Malformed;
    }
    let payload = usize::from(u16::from_be_bytes([h[4], h[5]]));
    (ip.end, ip.contradicts) = if payload == 0 {
        (b.len(), true)
    } else {
        clip(l3 + 40, payload, b.len())
    };
    ip.l3 = l3;
    ip.l4 = l3 + 40;
    ip.v6 = true;
    ip.proto = h[6];
    ip.src = src;
    ip.dst = dst;
    walk_extensions(b, ip);
    read_ports(b, ip);
    Found::Ip
}

/// Follows the IPv6 extension headers that may stand before ESP, UDP and TCP
/// (RFC 8200 4.1) and moves `proto` and `l4` behind them.
#[inline(always)]
fn walk_extensions<B: Bytes + ?Sized>(b: &B, ip: &mut IpPacket) {
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(ip.proto) {
            return;
        }
        let head = match b.get::<8>(ip.l4) {
            // Every extension header has at least eight bytes.
            Some(head) if ip.l4 + 8 <= ip.end => head,
            _ => {
                ip.hidden = true;
                return;
            }
        };
        if ip.proto == FRAGMENT {
            let place = u16::from_be_bytes([head[2], head[3]]);
            ip.frag = Some(Frag {
                id: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
                offset: usize::from(place & 0xfff8),
                more: place & 1 != 0,
            });
            ip.l4 += 8;
        } else {
            ip.l4 += 8 + usize::from(head[1]) * 8;
        }
        ip.proto = head[0];
        if ip.is_later_fragment() {
            return;
        }
        if ip.l4 > ip.end || ip.l4 > ip.l3 + MAX_CHAIN {
            ip.hidden = true;
            return;
        }
    }
    ip.hidden = is_extension(ip.proto);
}

/// Whether it is the number of an IPv6 extension header that may stand before
/// ESP, UDP and TCP.
#[inline(always)]
pub fn is_extension(proto: u8) -> bool {
    matches!(proto, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

#[inline(always)]
fn read_ports<B: Bytes + ?Sized>(b: &B, ip: &mut IpPacket) {
    if ip.hidden || ip.is_later_fragment() || !matches!(ip.proto, TCP | UDP) || ip.l4 + 4 > ip.end {
        return;
    }
    if let Some([a, b, c, d]) = b.get::<4>(ip.l4) {
        ip.ports = Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])));
    }
}
