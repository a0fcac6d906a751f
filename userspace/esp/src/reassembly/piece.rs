//! A fragment, read.

use gm_abi::maps::Addr;
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, Frag, IpPacket, L3};

use crate::headers::{self, FRAGMENT_LEN, MAX_LENGTH};

/// Who answers for fragments: their source address and, of those that an SA
/// has brought, its SPI. What two SAs bring is never put together.
pub(super) type Source = (Addr, Option<u32>);

/// Names a datagram (RFC 791 3.2: protocol too; RFC 8200 4.5: without).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub source: Source,
    pub dst: Addr,
    id: u32,
    pub v6: bool,
    proto: u8,
}

/// A fragment taken apart.
pub(super) struct Piece<'a> {
    pub name: Name,
    pub frag: Frag,
    packet: &'a [u8],
    /// The headers that go before every fragment.
    common: headers::Cut,
    pub payload: &'a [u8],
}

impl<'a> Piece<'a> {
    /// Reads a fragment that some datagram may have.
    pub fn of(packet: &'a [u8], sa: Option<u32>) -> Result<Piece<'a>, Reason> {
        let L3::Ip(ip) = wire::parse_ip(packet, 0) else {
            return Err(Reason::Malformed);
        };
        let frag = ip.frag.ok_or(Reason::Malformed)?;
        if ip.contradicts || ip.hidden {
            return Err(Reason::Malformed);
        }
        let (common, payload) = Self::place(packet, &ip).ok_or(Reason::Malformed)?;
        let payload = packet.get(payload..ip.end).ok_or(Reason::Malformed)?;
        let odd = frag.more && payload.len() % 8 != 0;
        if odd || payload.is_empty() || common.at + frag.offset + payload.len() > MAX_LENGTH {
            return Err(Reason::Malformed);
        }
        let name = Name {
            source: (ip.src, sa),
            dst: ip.dst,
            id: frag.id,
            v6: ip.v6,
            proto: if ip.v6 { 0 } else { ip.proto },
        };
        Ok(Piece {
            name,
            frag,
            packet,
            common,
            payload,
        })
    }

    /// The common headers, and where the fragment's payload begins.
    fn place(packet: &[u8], ip: &IpPacket) -> Option<(headers::Cut, usize)> {
        if ip.v6 {
            let cut = headers::fragment_header(packet, ip.l4)?;
            Some((cut, cut.at + FRAGMENT_LEN))
        } else {
            let cut = headers::routed(packet, false, ip.l4);
            Some((cut, cut.at))
        }
    }

    /// The header of the whole datagram, without length.
    pub fn datagram_head(&self) -> Box<[u8]> {
        let mut head: Box<[u8]> = self.packet[..self.common.at].into();
        if self.name.v6 {
            head[self.common.named_at] = self.packet[self.common.at];
        } else {
            head[6..8].fill(0);
        }
        head
    }
}
