//! What kind of packet is this? One parser for BPF and user space.
//!
//! ```text
//! frame --parse_frame--> Ethernet, 0..2 VLAN tags --parse_ip--> IPv4 (options)
//!                                                          \--> IPv6 (extension headers)
//! IpPacket --classify--> raw ESP | ESP in UDP | keepalive | marker | fragment | malformed | other
//! ```
//!
//! Nothing here allocates, formats or panics, and every loop is bounded, so
//! that the kernel's verifier accepts the same code that the workers run. All
//! offsets are in bytes from the start of what [`Bytes`] shows; numbers are in
//! host byte order, addresses in network byte order.
//!
//! The order of the decisions is that of the verdicts: first whether it is ESP
//! at all, then whether the lengths hold.

use crate::maps::Addr;

/// A packet of which bytes can be read where they exist.
pub trait Bytes {
    /// The bytes `off .. off + N`, or `None` when one of them is outside.
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]>;

    /// Length in bytes. In BPF the length of what the program can read.
    fn len(&self) -> usize;

    /// Whether there is nothing at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        <[u8]>::get(self, off..off.checked_add(N)?)?.try_into().ok()
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    #[inline(always)]
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        (**self).get(off)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        (**self).len()
    }
}

/// Length of an Ethernet header without VLAN tags.
pub const ETH_LEN: usize = 14;
/// Number of VLAN tags that are walked: 802.1Q inside 802.1ad.
pub const MAX_VLAN_TAGS: usize = 2;
/// Number of IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 6;
/// How far behind the start of the IP header the upper-layer header may begin.
/// Real chains take a few dozen bytes; what lies further is not looked for.
pub const MAX_CHAIN: usize = 512;

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ESP.
pub const ESP: u8 = 50;

/// Length of the ESP header: SPI and sequence number (RFC 4303 2).
pub const ESP_HEADER: usize = 8;
/// Shortest ICV of all suites; ESP shorter than header and this is malformed.
pub const ESP_MIN_ICV: usize = 12;
/// Length of a UDP header.
pub const UDP_HEADER: usize = 8;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Where in its datagram a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frag {
    /// Identification; IPv4's 16 bits are in the low half.
    pub id: u32,
    /// Offset of this fragment's payload in the datagram's, in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
}

/// What the IP header and its extensions say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket {
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what follows the IP header, its options and its extension
    /// headers (up to and with a fragment header when this is not the first
    /// fragment). May equal `end`, never exceeds it unless `hidden`.
    pub l4: usize,
    /// End of the packet by the IP length, never behind the end of the bytes.
    pub end: usize,
    /// IPv6, else IPv4.
    pub v6: bool,
    /// Protocol number of what is at `l4`.
    pub proto: u8,
    /// Source address, IPv4 as IPv4-mapped.
    pub src: Addr,
    /// Destination address, IPv4 as IPv4-mapped.
    pub dst: Addr,
    /// Set on every fragment, also on an IPv6 "atomic" one (RFC 6946).
    pub frag: Option<Frag>,
    /// Source and destination port of UDP or TCP, where the packet is whole or
    /// a first fragment and the first four bytes of the header are there.
    pub ports: Option<(u16, u16)>,
    /// The IP length promises more than there is or less than the headers
    /// take. A zero length (jumbo payload, segmentation offload) is one too.
    pub contradicts: bool,
    /// The upper-layer protocol was not found: the chain of extension headers
    /// is cut off, too long, or has too many members; `proto` is then where
    /// the walk ended.
    pub hidden: bool,
}

impl IpPacket {
    /// All zero: what [`read_frame`] and [`read_ip`] fill.
    pub const EMPTY: IpPacket = IpPacket {
        l3: 0,
        l4: 0,
        end: 0,
        v6: false,
        proto: 0,
        src: [0; 16],
        dst: [0; 16],
        frag: None,
        ports: None,
        contradicts: false,
        hidden: false,
    };

    /// Whether this is a fragment other than the first one, which carries no
    /// upper-layer header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        matches!(self.frag, Some(frag) if frag.offset != 0)
    }

    /// Whether a filter by ports cannot judge this packet though its protocol
    /// has ports: a later fragment, a header that is cut off, a hidden one.
    #[inline(always)]
    pub fn hides_ports(&self) -> bool {
        self.hidden || (self.ports.is_none() && matches!(self.proto, TCP | UDP))
    }
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L3 {
    /// IPv4 or IPv6.
    Ip(IpPacket),
    /// Neither, or more VLAN tags than are walked.
    NotIp,
    /// Says it is IP, but has no whole IP header or one of the wrong version.
    Malformed,
}

/// What kind of packet it is to the Gm link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Raw ESP, IP protocol 50. At least header and shortest ICV are there.
    Esp {
        /// SPI.
        spi: u32,
        /// Sequence number, its low 32 bits.
        seq: u32,
        /// Offset of the ESP header.
        esp: usize,
    },
    /// ESP in UDP (RFC 3948 2.1). At least header and shortest ICV are there.
    UdpEsp {
        /// SPI.
        spi: u32,
        /// Sequence number, its low 32 bits.
        seq: u32,
        /// Offset of the ESP header.
        esp: usize,
    },
    /// NAT keepalive: one byte 0xFF (RFC 3948 2.3).
    Keepalive,
    /// The non-ESP marker, four zero bytes (RFC 3948 2.2): for an IKE daemon.
    NonEspMarker,
    /// A fragment of anything; to be judged when the datagram is whole.
    Fragment,
    /// ESP whose lengths contradict the packet, or too short to be any; also
    /// an IP packet of which the upper-layer header is hidden.
    Malformed {
        /// SPI and sequence number where the eight bytes are there.
        head: Option<(u32, u32)>,
    },
    /// Everything else.
    Other,
}

/// Which UDP port carries ESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncapPort {
    /// The destination port: packets to this host. Zero: none.
    Dst(u16),
    /// The source or the destination port: packets seen on the way.
    Either(u16),
}

impl EncapPort {
    #[inline(always)]
    fn is(self, (src, dst): (u16, u16)) -> bool {
        match self {
            EncapPort::Dst(port) => port != 0 && dst == port,
            EncapPort::Either(port) => dst == port || src == port,
        }
    }
}

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
fn clip(l3: usize, length: usize, available: usize) -> (usize, bool) {
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

#[inline(always)]
fn is_extension(proto: u8) -> bool {
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

/// Decides what `ip` is to the Gm link.
///
/// Lengths are judged for ESP only. A UDP length below that of the IP packet
/// is followed (what is behind it is trimmed); one above is malformed.
#[inline(always)]
pub fn classify<B: Bytes + ?Sized>(b: &B, ip: &IpPacket, encap: EncapPort) -> Class {
    if ip.frag.is_some() {
        return Class::Fragment;
    }
    if ip.hidden {
        return Class::Malformed { head: None };
    }
    if ip.proto == ESP {
        let head = esp_head(b, ip.l4, ip.end);
        return match head {
            Some((spi, seq)) if !ip.contradicts && ip.end - ip.l4 >= ESP_HEADER + ESP_MIN_ICV => {
                Class::Esp {
                    spi,
                    seq,
                    esp: ip.l4,
                }
            }
            _ => Class::Malformed { head },
        };
    }
    match ip.ports {
        Some(ports) if ip.proto == UDP && encap.is(ports) => classify_udp(b, ip),
        _ => Class::Other,
    }
}

#[inline(always)]
fn classify_udp<B: Bytes + ?Sized>(b: &B, ip: &IpPacket) -> Class {
    let length = match b.get::<2>(ip.l4 + 4) {
        Some(length) if ip.l4 + UDP_HEADER <= ip.end => usize::from(u16::from_be_bytes(length)),
        _ => return Class::Malformed { head: None },
    };
    let esp = ip.l4 + UDP_HEADER;
    let (end, beyond) = clip(ip.l4, length, ip.end);
    let contradicts = beyond || length < UDP_HEADER || ip.contradicts;
    // With lengths that contradict, what is there still tells what it is.
    let end = if contradicts { ip.end } else { end };
    let payload = end - esp;
    if payload >= 4 && b.get::<4>(esp) == Some([0; 4]) {
        return Class::NonEspMarker;
    }
    if payload == 1 && !contradicts && b.get::<1>(esp) == Some([0xff]) {
        return Class::Keepalive;
    }
    let head = esp_head(b, esp, end);
    match head {
        Some((spi, seq)) if !contradicts && payload >= ESP_HEADER + ESP_MIN_ICV => {
            Class::UdpEsp { spi, seq, esp }
        }
        _ => Class::Malformed { head },
    }
}

/// SPI and sequence number at `esp`, when they end before `end`.
#[inline(always)]
fn esp_head<B: Bytes + ?Sized>(b: &B, esp: usize, end: usize) -> Option<(u32, u32)> {
    if esp + ESP_HEADER > end {
        return None;
    }
    let h = b.get::<8>(esp)?;
    Some((
        u32::from_be_bytes([h[0], h[1], h[2], h[3]]),
        u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
    ))
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
