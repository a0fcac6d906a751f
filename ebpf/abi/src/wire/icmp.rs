//! ICMP errors, and what the packet says that they quote (RFC 792, RFC 4443).

use super::ip::{FRAGMENT, is_extension};
use super::{Bytes, ESP, IpPacket, TCP, UDP, UDP_HEADER};
use crate::maps::{Addr, mapped};

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Length of an ICMP error's header; behind it the quoted packet begins.
pub const ICMP_HEADER: usize = 8;

/// What the IP header says that an ICMP error quotes.
///
/// Nothing else of the quoted packet need be there, and who forges an error
/// writes here what he likes. The addresses stand where they can be read as
/// words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Quoted {
    /// Source address, IPv4 as IPv4-mapped: whose packet it was.
    pub src: Addr,
    /// Destination address, IPv4 as IPv4-mapped.
    pub dst: Addr,
    /// Protocol number of what is at `l4`.
    pub proto: u8,
    /// Offset of what follows the quoted IP header, its options, and an IPv6
    /// fragment header. May lie behind the end of the bytes.
    pub l4: usize,
    /// The quoted packet is a fragment other than the first one: what is at
    /// `l4` is no upper-layer header.
    pub later: bool,
    /// The upper-layer protocol was not found: it stands behind IPv6 extension
    /// headers, which are not walked here.
    pub hidden: bool,
}

impl Quoted {
    /// All zero: what [`read_quoted`] fills.
    pub const EMPTY: Quoted = Quoted {
        src: [0; 16],
        dst: [0; 16],
        proto: 0,
        l4: 0,
        later: false,
        hidden: false,
    };

    /// The quoted ports of UDP or TCP, as far as they can be trusted to be
    /// some: source, destination.
    #[inline(always)]
    pub fn ports<B: Bytes + ?Sized>(&self, b: &B) -> Option<(u16, u16)> {
        if self.hidden || self.later || !matches!(self.proto, TCP | UDP) {
            return None;
        }
        let [s0, s1, d0, d1] = b.get::<4>(self.l4)?;
        Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
    }
}

/// Whose packet an ICMP error is about, on the Gm link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// ESP of ours, raw or in UDP from the encapsulation port.
    Esp,
    /// What leaves as ESP or not at all, in clear: UDP or TCP from a protected
    /// port of ours, or what does not show what it is. Nobody on the way can
    /// have seen that, and the kernel must not believe it.
    Protected,
    /// Anything else.
    Other,
}

/// Whose packet it is that was `quoted`. `encap_port` zero: none; the non-ESP
/// marker behind it is an IKE daemon's. What has ports and does not show them
/// is taken for protected.
#[inline(always)]
pub fn about<B: Bytes + ?Sized>(
    b: &B,
    quoted: &Quoted,
    encap_port: u16,
    is_ours: impl Fn(&Addr) -> bool,
    is_protected: impl Fn(u16) -> bool,
) -> About {
    let has_ports = matches!(quoted.proto, TCP | UDP);
    if !(quoted.hidden || has_ports || quoted.proto == ESP) || !is_ours(&quoted.src) {
        return About::Other;
    }
    if quoted.proto == ESP {
        return About::Esp;
    }
    // Also of a later fragment, as the kernel does.
    let port = match b.get::<2>(quoted.l4) {
        Some(port) if !quoted.hidden => u16::from_be_bytes(port),
        _ => return About::Protected,
    };
    if quoted.proto == UDP && port == encap_port && encap_port != 0 {
        return match b.get::<4>(quoted.l4 + UDP_HEADER) {
            Some([0, 0, 0, 0]) => About::Other,
            _ => About::Esp,
        };
    }
    if is_protected(port) {
        About::Protected
    } else {
        About::Other
    }
}

/// Whether `ip` is an ICMP error, by its type: whole, or a first fragment.
#[inline(always)]
pub fn is_icmp_error<B: Bytes + ?Sized>(b: &B, ip: &IpPacket) -> bool {
    let icmp = if ip.v6 { ICMPV6 } else { ICMP };
    if ip.proto != icmp || ip.hidden || ip.is_later_fragment() {
        return false;
    }
    match b.get::<1>(ip.l4) {
        Some([kind]) if ip.v6 => kind < 128,
        Some([kind]) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        None => false,
    }
}

/// Reads the IP header that the ICMP error `ip` quotes. False: there is no
/// whole one. Its version is taken to be the error's, as the kernel does.
///
/// One IPv6 fragment header is stepped over, because sealed packets are cut;
/// other extension headers hide what follows. A function of its own, for the
/// sake of BPF: see [`super::read_frame`].
#[inline(never)]
pub fn read_quoted<B: Bytes + ?Sized>(b: &B, ip: &IpPacket, quoted: &mut Quoted) -> bool {
    let about = ip.l4 + ICMP_HEADER;
    if ip.v6 {
        read_v6(b, about, quoted)
    } else {
        read_v4(b, about, quoted)
    }
}

#[inline(always)]
fn read_v4<B: Bytes + ?Sized>(b: &B, about: usize, quoted: &mut Quoted) -> bool {
    let Some(head) = b.get::<12>(about) else {
        return false;
    };
    let Some(ends) = b.get::<8>(about + 12) else {
        return false;
    };
    quoted.src = mapped([ends[0], ends[1], ends[2], ends[3]]);
    quoted.dst = mapped([ends[4], ends[5], ends[6], ends[7]]);
    quoted.proto = head[9];
    quoted.later = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
    quoted.l4 = about + usize::from(head[0] & 15) * 4;
    true
}

#[inline(always)]
fn read_v6<B: Bytes + ?Sized>(b: &B, about: usize, quoted: &mut Quoted) -> bool {
    let Some(head) = b.get::<8>(about) else {
        return false;
    };
    let Some(src) = b.get::<16>(about + 8) else {
        return false;
    };
    let Some(dst) = b.get::<16>(about + 24) else {
        return false;
    };
    quoted.src = src;
    quoted.dst = dst;
    quoted.proto = head[6];
    quoted.l4 = about + 40;
    if quoted.proto == FRAGMENT
        && let Some(head) = b.get::<8>(quoted.l4)
    {
        quoted.proto = head[0];
        quoted.later = u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0;
        quoted.l4 += 8;
    }
    quoted.hidden = is_extension(quoted.proto);
    true
}

#[cfg(test)]
mod tests;
