//! Between a captured record and its IP packet.

use gm_abi::wire::{self, IpPacket, L3};

use crate::capture::Link;

/// Room kept in front of an IP packet while it is worked on: outer IPv6
/// header, UDP, ESP header and IV are 72 bytes.
pub const HEADROOM: usize = 128;

/// Room kept behind: at most 15 + 2 bytes of trailer and an ICV of 16.
pub const TAILROOM: usize = 64;

/// Finds the IP packet of a record.
pub fn parse(link: Link, data: &[u8]) -> L3 {
    match link {
        Link::Ethernet => wire::parse_frame(data),
        Link::Raw => wire::parse_ip(data, 0),
        Link::Ipv4 | Link::Ipv6 => match wire::parse_ip(data, 0) {
            L3::Ip(ip) if ip.v6 == (link == Link::Ipv6) => L3::Ip(ip),
            _ => L3::Malformed,
        },
    }
}

/// The IP packet within a record, without Ethernet padding.
pub fn ip_bytes<'d>(data: &'d [u8], ip: &IpPacket) -> &'d [u8] {
    data.get(ip.l3..ip.end).unwrap_or_default()
}

/// Puts the link header of `data`, with its VLAN tags, in front of another IP
/// packet. False when that packet cannot stand behind it: the link type is
/// that of the other IP version.
pub fn rewrap(link: Link, data: &[u8], ip: &IpPacket, packet: &[u8], out: &mut Vec<u8>) -> bool {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    out.clear();
    match link {
        Link::Ipv4 if v6 => return false,
        Link::Ipv6 if !v6 => return false,
        Link::Ethernet => {
            // The type field ends the header, behind the VLAN tags.
            let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
            let header = data.get(..ip.l3.saturating_sub(2)).unwrap_or_default();
            out.extend_from_slice(header);
            out.extend_from_slice(&kind);
        }
        _ => {}
    }
    out.extend_from_slice(packet);
    true
}

/// An IP packet in the middle of a buffer that is used again and again.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
}

impl Scratch {
    /// Copies a packet in, with [`HEADROOM`] and [`TAILROOM`] around it;
    /// returns the buffer and where the packet stands in it.
    pub fn load(&mut self, packet: &[u8]) -> (&mut [u8], usize, usize) {
        let end = HEADROOM + packet.len();
        self.bytes.clear();
        self.bytes.resize(HEADROOM, 0);
        self.bytes.extend_from_slice(packet);
        self.bytes.resize(end + TAILROOM, 0);
        (&mut self.bytes, HEADROOM, end)
    }

    /// Bytes of the buffer.
    pub fn get(&self, range: std::ops::Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }
}
