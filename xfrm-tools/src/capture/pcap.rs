//! The classic pcap format: a header of 24 bytes, then records of 16 bytes
//! of header and the packet. The magic number tells the byte order and the
//! unit of the timestamps' second word.

use std::io::{Read, Write};

use super::{
    CaptureError, Item, Link, MAX_RECORD, Packet, Record, Source, Stamp, u32_at, u32_bytes,
};

/// The lower bits of the network field are the link type; above them stand
/// the length of a frame check sequence and flags.
const LINK_BITS: u32 = 0x03ff_ffff;

/// Snapshot lengths below this are raised in the output: what is sealed is
/// longer than what was captured, and libpcap cuts records above the limit.
pub(super) const FULL_SNAPLEN: u32 = 65_535;

pub(super) struct Header {
    big: bool,
    nanoseconds: bool,
    link: Link,
}

impl Header {
    /// Reads what follows the magic number; also returns the output's header.
    pub(super) fn read<R: Read>(
        magic: [u8; 4],
        source: &mut Source<R>,
    ) -> Result<(Header, Vec<u8>), CaptureError> {
        let (big, nanoseconds) = match magic {
            [0xd4, 0xc3, 0xb2, 0xa1] => (false, false),
            [0x4d, 0x3c, 0xb2, 0xa1] => (false, true),
            [0xa1, 0xb2, 0xc3, 0xd4] => (true, false),
            [0xa1, 0xb2, 0x3c, 0x4d] => (true, true),
            _ => return Err(CaptureError::Format),
        };
        let mut bytes = vec![0; 24];
        bytes[..4].copy_from_slice(&magic);
        source.fill(&mut bytes[4..])?;

        let snaplen = u32_at(&bytes, 16, big);
        if snaplen != 0 && snaplen < FULL_SNAPLEN {
            bytes[16..20].copy_from_slice(&u32_bytes(MAX_RECORD as u32, big));
        }
        // The frames that are written carry no frame check sequence.
        let network = u32_at(&bytes, 20, big) & LINK_BITS;
        bytes[20..24].copy_from_slice(&u32_bytes(network, big));

        let link = Link::from_number(network)?;
        Ok((
            Header {
                big,
                nanoseconds,
                link,
            },
            bytes,
        ))
    }

    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Item>, CaptureError> {
        let at = source.at;
        let mut head = [0; 16];
        if !source.fill_or_end(&mut head)? {
            return Ok(None);
        }
        let captured = u32_at(&head, 8, self.big) as usize;
        if captured > MAX_RECORD {
            let what = "captured length above 262144 bytes";
            return Err(CaptureError::Damaged { at, what });
        }
        let mut data = vec![0; captured];
        source.fill(&mut data).map_err(|e| within(e, at))?;

        let mut time = [0; 8];
        time.copy_from_slice(&head[..8]);
        let fraction = u64::from(u32_at(&head, 4, self.big));
        let per_ms = if self.nanoseconds { 1_000_000 } else { 1_000 };
        Ok(Some(Item::Packet(Packet {
            link: self.link,
            at_ms: u64::from(u32_at(&head, 0, self.big)) * 1_000 + fraction / per_ms,
            wire_len: u32_at(&head, 12, self.big),
            data,
            stamp: Stamp(Record::Pcap {
                big: self.big,
                time,
            }),
        })))
    }
}

/// An end of file names the start of the record that it cuts.
pub(super) fn within(error: CaptureError, at: u64) -> CaptureError {
    match error {
        CaptureError::Truncated(_) => CaptureError::Truncated(at),
        other => other,
    }
}

pub(super) fn write<W: Write>(
    out: &mut W,
    big: bool,
    time: &[u8; 8],
    data: &[u8],
) -> std::io::Result<()> {
    let len = u32_bytes(data.len() as u32, big);
    out.write_all(time)?;
    out.write_all(&len)?;
    out.write_all(&len)?;
    out.write_all(data)
}
