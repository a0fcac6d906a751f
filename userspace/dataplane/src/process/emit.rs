//! IP packets become frames: an Ethernet header in front, fragments where a
//! packet is larger than the MTU.

use gm_abi::verdict::Reason;
use gm_esp::fragment;
use gm_xsk::{Frame, Umem};

/// The longest header that is walked: Ethernet and two VLAN tags.
const MAX_LINK: usize = 14 + 2 * 4;

/// What stood in front of the IP header of a frame: MAC addresses, VLAN tags,
/// EtherType. It goes in front of what comes of the frame.
#[derive(Clone, Copy)]
pub(super) struct Link {
    bytes: [u8; MAX_LINK],
    len: usize,
}

impl Link {
    /// The first `l3` bytes of a frame. `None` when that is no Ethernet header.
    pub(super) fn of(frame: &[u8], l3: usize) -> Option<Link> {
        let header = frame
            .get(..l3)
            .filter(|h| (14..=MAX_LINK).contains(&h.len()))?;
        let mut bytes = [0; MAX_LINK];
        bytes[..l3].copy_from_slice(header);
        Some(Link { bytes, len: l3 })
    }

    /// The header for a frame that goes back.
    pub(super) fn reversed(mut self) -> Link {
        let (dst, src) = self.bytes[..12].split_at_mut(6);
        dst.swap_with_slice(src);
        self
    }

    /// The header for `packet`: with a tunnel around it, or taken off, the IP
    /// version may be another one.
    fn for_packet(mut self, packet: &[u8]) -> Link {
        let kind: u16 = match packet.first().map(|b| b >> 4) {
            Some(6) => 0x86dd,
            _ => 0x0800,
        };
        self.bytes[self.len - 2..self.len].copy_from_slice(&kind.to_be_bytes());
        self
    }

    /// Bytes of the header.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of it that an MTU has no room for: Linux and NICs take frames that
    /// are one VLAN tag longer, and no more.
    pub(super) fn beyond_mtu(self) -> usize {
        self.len.saturating_sub(14 + 4)
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Puts the header in front of the IP packet at `start .. end` of a frame.
    /// False when there is no room.
    #[must_use]
    pub(super) fn put(self, frame: &mut Frame, start: usize, end: usize) -> bool {
        let Some(begin) = start.checked_sub(self.len) else {
            return false;
        };
        if !frame.set_range(begin, end) {
            return false;
        }
        let link = self.for_packet(&frame.data()[self.len..]);
        frame.data_mut()[..self.len].copy_from_slice(link.as_slice());
        true
    }
}

/// Writes `packet` (from its IP header) into new frames at the end of `out`,
/// in fragments when it is larger than `mtu`. All of them or none.
///
/// # Errors
/// [`Reason::NoFrame`] when the frames do not suffice, [`Reason::OutTooBig`]
/// when the packet cannot be fragmented.
pub(super) fn copies(
    umem: &mut Umem,
    link: Link,
    packet: &[u8],
    mtu: usize,
    ident: &mut u32,
    out: &mut Vec<Frame>,
) -> Result<(), Reason> {
    let before = out.len();
    let mut end = Ok(());
    let mut one = |umem: &mut Umem, header: &[u8], payload: &[u8]| {
        if end.is_ok() {
            end = copy(umem, link, header, payload).map(|f| out.push(f));
        }
    };
    if packet.len() <= mtu {
        one(umem, packet, &[]);
    } else {
        *ident = ident.wrapping_add(1);
        let split = fragment::split(packet, mtu, *ident, |header, payload| {
            one(umem, header, payload)
        });
        if split.is_err() {
            end = Err(Reason::OutTooBig);
        }
    }
    if end.is_err() {
        for frame in out.drain(before..) {
            umem.free(frame);
        }
    }
    end
}

fn copy(umem: &mut Umem, link: Link, header: &[u8], payload: &[u8]) -> Result<Frame, Reason> {
    let mut frame = umem.alloc().ok_or(Reason::NoFrame)?;
    let (chunk, start, _) = frame.chunk_mut();
    let (at, split) = (start, start + header.len());
    let end = split + payload.len();
    let fits = match chunk.get_mut(at..end) {
        Some(room) => {
            room[..header.len()].copy_from_slice(header);
            room[header.len()..].copy_from_slice(payload);
            true
        }
        None => false,
    };
    if fits && link.put(&mut frame, at, end) {
        return Ok(frame);
    }
    umem.free(frame);
    Err(Reason::NoFrame)
}
