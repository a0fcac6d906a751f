//! From the upper-layer header to what the packet is to the Gm link.

use super::ip::clip;
use super::{Bytes, ESP, ESP_HEADER, ESP_MIN_ICV, IpPacket, UDP, UDP_HEADER};

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
