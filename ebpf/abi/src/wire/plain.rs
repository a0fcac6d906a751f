//! The short way through the parser, for packets as almost all are: whole, IPv4
//! without options or IPv6 without extension headers.
//!
//! What is read here, `parse_ip` and `classify` read in the same way; whatever
//! is not plain gets `None` and has to be given to them. `head` begins at the IP
//! header and has exactly as many bytes as the constant beside the function
//! says: who has looked once that they are there need not look again.

use super::{Bytes, ESP, ESP_HEADER, ESP_MIN_ICV, UDP, UDP_HEADER};
use crate::maps::Addr;

/// An address as two words of the machine's own order.
pub type Words = [u64; 2];

/// `addr` as words.
#[inline(always)]
pub fn words_of(addr: &Addr) -> Words {
    let a = addr;
    [
        u64::from_ne_bytes([a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]]),
        u64::from_ne_bytes([a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]]),
    ]
}

/// ESP in a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainEsp {
    /// Destination address.
    pub dst: Words,
    /// SPI.
    pub spi: u32,
    /// Sequence number, its low 32 bits.
    pub seq: u32,
    /// Offset of the ESP header from the IP header.
    pub esp: usize,
    /// In UDP, else raw.
    pub in_udp: bool,
}

/// IPv4 and the shortest ESP.
pub const PLAIN_ESP_V4: usize = V4 + ESP_HEADER + ESP_MIN_ICV;
/// IPv6 and the shortest ESP.
pub const PLAIN_ESP_V6: usize = V6 + ESP_HEADER + ESP_MIN_ICV;

const V4: usize = 20;
const V6: usize = 40;

/// ESP to this host in an IPv4 packet; `available` bytes are there from the IP
/// header on, `encap_port` is the UDP port of ESP (zero: none). See
/// [`classify`](super::classify).
#[inline(always)]
pub fn plain_esp_v4<H: Bytes>(head: &H, available: usize, encap_port: u16) -> Option<PlainEsp> {
    let total = is_whole_v4(head)?;
    if total > available || total < PLAIN_ESP_V4 {
        return None;
    }
    let [proto] = head.get::<1>(9)?;
    plain_esp(head, V4, total - V4, proto, encap_port, v4_at(head, 16)?)
}

/// The same in an IPv6 packet.
#[inline(always)]
pub fn plain_esp_v6<H: Bytes>(head: &H, available: usize, encap_port: u16) -> Option<PlainEsp> {
    let [first] = head.get::<1>(0)?;
    let payload = half(head, 4)?;
    if first >> 4 != 6 || V6 + payload > available || V6 + payload < PLAIN_ESP_V6 {
        return None;
    }
    let [next] = head.get::<1>(6)?;
    plain_esp(head, V6, payload, next, encap_port, v6_at(head, 24)?)
}

/// The ESP in the `length` bytes behind the IP header, at least the shortest.
#[inline(always)]
fn plain_esp<H: Bytes>(
    head: &H,
    l4: usize,
    length: usize,
    proto: u8,
    encap_port: u16,
    dst: Words,
) -> Option<PlainEsp> {
    let in_udp = match proto {
        ESP => false,
        UDP if encap_port != 0 && half(head, l4 + 2)? == usize::from(encap_port) => true,
        _ => return None,
    };
    let (spi, seq, esp) = if in_udp {
        let datagram = half(head, l4 + 4)?;
        if datagram > length || datagram < UDP_HEADER + ESP_HEADER + ESP_MIN_ICV {
            return None;
        }
        let esp = l4 + UDP_HEADER;
        (word(head, esp)?, word(head, esp + 4)?, esp)
    } else {
        (word(head, l4)?, word(head, l4 + 4)?, l4)
    };
    // In UDP that is the non-ESP marker; raw, no SA has it.
    (spi != 0).then_some(PlainEsp {
        dst,
        spi,
        seq,
        esp,
        in_udp,
    })
}

/// Who talks to whom in a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainFlow {
    /// Source address.
    pub src: Words,
    /// Destination address.
    pub dst: Words,
    /// IP protocol; of IPv6 perhaps an extension header's.
    pub proto: u8,
    /// The first four bytes behind the IP header: the ports of UDP and TCP, the
    /// type of ICMP.
    pub start: [u8; 4],
}

impl PlainFlow {
    /// Source and destination port, where `start` has them.
    #[inline(always)]
    pub fn ports(&self) -> (u16, u16) {
        let [a, b, c, d] = self.start;
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    }
}

/// IPv4 header and ports.
pub const PLAIN_FLOW_V4: usize = V4 + 4;
/// IPv6 header and ports.
pub const PLAIN_FLOW_V6: usize = V6 + 4;

/// Reads an IPv4 packet; see [`parse_ip`](super::parse_ip). That there is more
/// than a header is by the header's own account; how much there is, is not
/// looked at.
#[inline(always)]
pub fn plain_flow_v4<H: Bytes>(head: &H) -> Option<PlainFlow> {
    let total = is_whole_v4(head)?;
    if total != 0 && total < PLAIN_FLOW_V4 {
        return None;
    }
    Some(PlainFlow {
        src: v4_at(head, 12)?,
        dst: v4_at(head, 16)?,
        proto: head.get::<1>(9)?[0],
        start: head.get::<4>(V4)?,
    })
}

/// The same for IPv6.
#[inline(always)]
pub fn plain_flow_v6<H: Bytes>(head: &H) -> Option<PlainFlow> {
    let [first] = head.get::<1>(0)?;
    let payload = half(head, 4)?;
    if first >> 4 != 6 || payload != 0 && payload < 4 {
        return None;
    }
    Some(PlainFlow {
        src: v6_at(head, 8)?,
        dst: v6_at(head, 24)?,
        proto: head.get::<1>(6)?[0],
        start: head.get::<4>(V6)?,
    })
}

/// The total length of an IPv4 packet without options that is no fragment.
#[inline(always)]
fn is_whole_v4<H: Bytes>(head: &H) -> Option<usize> {
    let [first] = head.get::<1>(0)?;
    let place = half(head, 6)?;
    if first != 0x45 || place & 0x3fff != 0 {
        return None;
    }
    half(head, 2)
}

#[inline(always)]
fn half<H: Bytes>(head: &H, off: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(head.get::<2>(off)?)))
}

#[inline(always)]
fn word<H: Bytes>(head: &H, off: usize) -> Option<u32> {
    Some(u32::from_be_bytes(head.get::<4>(off)?))
}

#[inline(always)]
fn v4_at<H: Bytes>(head: &H, off: usize) -> Option<Words> {
    // The words of an IPv4-mapped address, without a detour over its bytes.
    let mapped = u64::from_be(0xffff << 32);
    let v4 = u64::from(u32::from_be_bytes(head.get::<4>(off)?)).to_be();
    Some([0, mapped | v4])
}

#[inline(always)]
fn v6_at<H: Bytes>(head: &H, off: usize) -> Option<Words> {
    Some([
        u64::from_ne_bytes(head.get::<8>(off)?),
        u64::from_ne_bytes(head.get::<8>(off + 8)?),
    ])
}
