//! pcapng: blocks with a type and a length before and after. Section header,
//! interface description and name resolution go through to the output; packet
//! blocks become packets; the rest is left out: statistics would count other
//! packets than the output holds, and a secrets block has no place beside
//! plaintext.

use std::io::{Read, Write};

use super::pcap::{FULL_SNAPLEN, within};
use super::{
    CaptureError, Item, Link, MAX_BLOCK, MAX_RECORD, Packet, Record, Source, Stamp, u16_at, u32_at,
    u32_bytes,
};

/// The type of a section header block: the same in both byte orders.
pub(super) const SECTION_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

const INTERFACE: u32 = 1;
const OLD_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const NAMES: u32 = 4;
const ENHANCED_PACKET: u32 = 6;

/// Option codes: if_tsresol and if_fcslen of an interface; comment and
/// epb_flags (direction) of a packet.
const IF_TSRESOL: u16 = 9;
const IF_FCSLEN: u16 = 13;
const COMMENT: u16 = 1;
const EPB_FLAGS: u16 = 2;

struct Interface {
    link: u16,
    snaplen: u32,
    /// Timestamp units in a second.
    units: u128,
}

/// One section: its byte order and its interfaces so far.
pub(super) struct Section {
    big: bool,
    interfaces: Vec<Interface>,
}

impl Section {
    /// Reads a section header block whose type has been read.
    pub(super) fn read<R: Read>(
        source: &mut Source<R>,
    ) -> Result<(Section, Vec<u8>), CaptureError> {
        let at = source.at - 4;
        let mut bytes = vec![0; 12];
        bytes[..4].copy_from_slice(&SECTION_MAGIC);
        source.fill(&mut bytes[4..]).map_err(|e| within(e, at))?;
        let big = match bytes[8..12] {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(CaptureError::Format),
        };
        let len = block_len(u32_at(&bytes, 4, big), 28, at)?;
        bytes.resize(len, 0);
        source.fill(&mut bytes[12..]).map_err(|e| within(e, at))?;
        check_trailer(&bytes, big, at)?;
        // The section's length in bytes changes; all ones: not given.
        bytes[16..24].fill(0xff);
        Ok((
            Section {
                big,
                interfaces: Vec::new(),
            },
            bytes,
        ))
    }

    pub(super) fn next<R: Read>(
        &mut self,
        source: &mut Source<R>,
    ) -> Result<Option<Item>, CaptureError> {
        loop {
            let at = source.at;
            let mut kind = [0; 4];
            if !source.fill_or_end(&mut kind)? {
                return Ok(None);
            }
            if kind == SECTION_MAGIC {
                let (section, bytes) = Section::read(source)?;
                *self = section;
                return Ok(Some(Item::Frame(bytes)));
            }
            let mut bytes = vec![0; 8];
            bytes[..4].copy_from_slice(&kind);
            source.fill(&mut bytes[4..]).map_err(|e| within(e, at))?;
            let len = block_len(u32_at(&bytes, 4, self.big), 12, at)?;
            bytes.resize(len, 0);
            source.fill(&mut bytes[8..]).map_err(|e| within(e, at))?;
            check_trailer(&bytes, self.big, at)?;
            let item = match u32_at(&bytes, 0, self.big) {
                INTERFACE => Some(Item::Frame(self.interface(bytes, at)?)),
                NAMES => Some(Item::Frame(bytes)),
                ENHANCED_PACKET => Some(self.packet(&bytes, at, false)?),
                OLD_PACKET => Some(self.packet(&bytes, at, true)?),
                SIMPLE_PACKET => Some(self.simple(&bytes, at)?),
                _ => None,
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    /// Notes an interface, and returns its block as the output has it.
    fn interface(&mut self, mut bytes: Vec<u8>, at: u64) -> Result<Vec<u8>, CaptureError> {
        let big = self.big;
        if bytes.len() < 20 {
            return Err(damaged(at, "interface block below 20 bytes"));
        }
        let mut units = 1_000_000;
        for (code, start, len) in options(&bytes, 16, big) {
            match code {
                IF_TSRESOL if len == 1 => units = resolution(bytes[start]),
                IF_FCSLEN if len == 1 => bytes[start] = 0,
                _ => {}
            }
        }
        let snaplen = u32_at(&bytes, 12, big);
        self.interfaces.push(Interface {
            link: u16_at(&bytes, 8, big),
            snaplen,
            units,
        });
        if snaplen < FULL_SNAPLEN {
            bytes[12..16].fill(0); // no limit
        }
        Ok(bytes)
    }

    /// An enhanced packet block, or the packet block that it replaced.
    fn packet(&self, bytes: &[u8], at: u64, old: bool) -> Result<Item, CaptureError> {
        let big = self.big;
        if bytes.len() < 32 {
            return Err(damaged(at, "packet block below 32 bytes"));
        }
        let interface = if old {
            u32::from(u16_at(bytes, 8, big))
        } else {
            u32_at(bytes, 8, big)
        };
        let described = self.described(interface, at)?;
        let captured = u32_at(bytes, 20, big) as usize;
        if captured > bytes.len() - 32 || captured > MAX_RECORD {
            return Err(damaged(at, "captured length above the block's"));
        }
        let units = u128::from(u32_at(bytes, 12, big)) << 32 | u128::from(u32_at(bytes, 16, big));
        let mut time = [0; 8];
        time.copy_from_slice(&bytes[12..20]);
        Ok(Item::Packet(Packet {
            link: Link::from_number(described.link.into())?,
            at_ms: u64::try_from(units * 1_000 / described.units).unwrap_or(u64::MAX),
            wire_len: u32_at(bytes, 24, big),
            data: bytes[28..28 + captured].to_vec(),
            stamp: Stamp(Record::Enhanced {
                big,
                interface,
                time,
                options: kept_options(bytes, 28 + captured.next_multiple_of(4), big),
            }),
        }))
    }

    fn simple(&self, bytes: &[u8], at: u64) -> Result<Item, CaptureError> {
        let described = self.described(0, at)?;
        if bytes.len() < 16 {
            return Err(damaged(at, "packet block below 16 bytes"));
        }
        let wire_len = u32_at(bytes, 8, self.big);
        let mut captured = (wire_len as usize).min(bytes.len() - 16);
        if described.snaplen != 0 {
            captured = captured.min(described.snaplen as usize);
        }
        Ok(Item::Packet(Packet {
            link: Link::from_number(described.link.into())?,
            at_ms: 0,
            wire_len,
            data: bytes[12..12 + captured].to_vec(),
            stamp: Stamp(Record::Simple { big: self.big }),
        }))
    }

    fn described(&self, interface: u32, at: u64) -> Result<&Interface, CaptureError> {
        self.interfaces
            .get(interface as usize)
            .ok_or(damaged(at, "packet of an interface that is not described"))
    }
}

fn damaged(at: u64, what: &'static str) -> CaptureError {
    CaptureError::Damaged { at, what }
}

fn block_len(len: u32, least: usize, at: u64) -> Result<usize, CaptureError> {
    let len = len as usize;
    if len < least || !len.is_multiple_of(4) {
        return Err(damaged(at, "block length too small or no multiple of 4"));
    }
    if len > MAX_BLOCK {
        return Err(damaged(at, "block above 16 MiB"));
    }
    Ok(len)
}

fn check_trailer(bytes: &[u8], big: bool, at: u64) -> Result<(), CaptureError> {
    if u32_at(bytes, bytes.len() - 4, big) as usize != bytes.len() {
        return Err(damaged(at, "the two lengths of a block differ"));
    }
    Ok(())
}

/// if_tsresol: a negative power of ten, or of two when the top bit is set.
fn resolution(value: u8) -> u128 {
    match value {
        0..=38 => 10u128.pow(value.into()),
        39..=127 => u128::MAX,
        _ => 1u128 << (value & 0x7f).min(127),
    }
}

/// The options from `at` on: code, start of the value, length of the value.
fn options(bytes: &[u8], mut at: usize, big: bool) -> Vec<(u16, usize, usize)> {
    let end = bytes.len() - 4;
    let mut found = Vec::new();
    while at + 4 <= end {
        let (code, len) = (
            u16_at(bytes, at, big),
            usize::from(u16_at(bytes, at + 2, big)),
        );
        let next = at + 4 + len.next_multiple_of(4);
        if code == 0 || next > end {
            break;
        }
        found.push((code, at + 4, len));
        at = next;
    }
    found
}

/// Comments and direction of a packet; a hash or a verdict of the old bytes
/// would be wrong for the new ones.
fn kept_options(bytes: &[u8], at: usize, big: bool) -> Vec<u8> {
    let mut kept = Vec::new();
    for (code, start, len) in options(bytes, at, big) {
        if code == COMMENT || code == EPB_FLAGS {
            kept.extend_from_slice(&bytes[start - 4..start + len.next_multiple_of(4)]);
        }
    }
    if !kept.is_empty() {
        kept.extend_from_slice(&[0; 4]);
    }
    kept
}

pub(super) fn write_enhanced<W: Write>(
    out: &mut W,
    big: bool,
    interface: u32,
    time: &[u8; 8],
    data: &[u8],
    options: &[u8],
) -> std::io::Result<()> {
    let padded = data.len().next_multiple_of(4);
    let total = u32_bytes((32 + padded + options.len()) as u32, big);
    let len = u32_bytes(data.len() as u32, big);
    out.write_all(&u32_bytes(ENHANCED_PACKET, big))?;
    out.write_all(&total)?;
    out.write_all(&u32_bytes(interface, big))?;
    out.write_all(time)?;
    out.write_all(&len)?;
    out.write_all(&len)?;
    out.write_all(data)?;
    out.write_all(&[0; 3][..padded - data.len()])?;
    out.write_all(options)?;
    out.write_all(&total)
}

pub(super) fn write_simple<W: Write>(out: &mut W, big: bool, data: &[u8]) -> std::io::Result<()> {
    let padded = data.len().next_multiple_of(4);
    let total = u32_bytes((16 + padded) as u32, big);
    out.write_all(&u32_bytes(SIMPLE_PACKET, big))?;
    out.write_all(&total)?;
    out.write_all(&u32_bytes(data.len() as u32, big))?;
    out.write_all(data)?;
    out.write_all(&[0; 3][..padded - data.len()])?;
    out.write_all(&total)
}
