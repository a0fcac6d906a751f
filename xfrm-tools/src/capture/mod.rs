//! Capture files, read and written as a stream: pcap (both byte orders, micro-
//! and nanoseconds) and pcapng (several sections and interfaces).
//!
//! A tool that takes packets out of a capture and puts others in their place
//! must keep everything else: the format, the byte order, the link type and
//! the timestamps to the last unit. So timestamps are never converted; a
//! [`Stamp`] carries the bytes of the input's record to the output's. The
//! pcap-file crate was tried first and left: it refuses records whose
//! original length is above the snapshot length, which is what a truncated
//! capture consists of, and it reads every pcapng timestamp as nanoseconds.

mod pcap;
mod pcapng;

use std::io::{Read, Write};

use thiserror::Error;

/// The largest packet record that is read, in bytes: four times what an IP
/// packet can be, so that a damaged length is noticed before it allocates.
pub const MAX_RECORD: usize = 262_144;

/// The largest pcapng block of any other kind, in bytes.
pub const MAX_BLOCK: usize = 16 << 20;

/// Why a capture cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The operating system said so.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The first bytes are those of no capture format that is known here.
    #[error("neither pcap nor pcapng; give a file that tcpdump or Wireshark wrote")]
    Format,
    /// The file ends within a record.
    #[error(
        "the file ends within the record at byte {0}; cut it at the last whole packet, for example with editcap"
    )]
    Truncated(u64),
    /// A record whose fields contradict each other.
    #[error("damaged record at byte {at}: {what}")]
    Damaged {
        /// Where the record begins, in bytes from the start of the file.
        at: u64,
        /// What contradicts.
        what: &'static str,
    },
    /// A link type other than those of [`Link`].
    #[error(
        "link type {0} is not supported; capture on an Ethernet (1) or raw IP (101) interface, not on \"any\""
    )]
    LinkType(u32),
}

/// What stands in front of the IP header in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet II with up to two VLAN tags (LINKTYPE_ETHERNET, 1).
    Ethernet,
    /// Nothing (LINKTYPE_RAW, 101, and its old numbers 12 and 14).
    Raw,
    /// Nothing, and IPv4 only (LINKTYPE_IPV4, 228).
    Ipv4,
    /// Nothing, and IPv6 only (LINKTYPE_IPV6, 229).
    Ipv6,
}

impl Link {
    /// The link type with this number in the tcpdump.org registry.
    pub fn from_number(number: u32) -> Result<Link, CaptureError> {
        match number {
            1 => Ok(Link::Ethernet),
            12 | 14 | 101 => Ok(Link::Raw),
            228 => Ok(Link::Ipv4),
            229 => Ok(Link::Ipv6),
            other => Err(CaptureError::LinkType(other)),
        }
    }
}

/// The part of an input record that its output record repeats: byte order,
/// interface and timestamp, as they stood in the file.
#[derive(Clone, Debug)]
pub struct Stamp(Record);

#[derive(Clone, Debug)]
enum Record {
    Pcap {
        big: bool,
        time: [u8; 8],
    },
    Enhanced {
        big: bool,
        interface: u32,
        time: [u8; 8],
        options: Vec<u8>,
    },
    Simple {
        big: bool,
    },
}

/// One packet of the input.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The link type of its interface.
    pub link: Link,
    /// When it was captured, in milliseconds since 1970; 0 where the format
    /// does not say. Good for time-outs, never written.
    pub at_ms: u64,
    /// Its length on the wire in bytes; above `data.len()` if the capture cut it.
    pub wire_len: u32,
    /// The captured bytes, beginning with the link header.
    pub data: Vec<u8>,
    /// What an output record takes over.
    pub stamp: Stamp,
}

/// What [`Reader::next`] found.
#[derive(Clone, Debug)]
pub enum Item {
    /// A packet.
    Packet(Packet),
    /// Bytes that belong in front of the next packet of any output: the file
    /// header of pcap, section and interface blocks of pcapng.
    Frame(Vec<u8>),
}

enum Format {
    Pcap(pcap::Header),
    Pcapng(pcapng::Section),
}

/// A capture file being read.
pub struct Reader<R> {
    source: Source<R>,
    format: Format,
    first: Option<Vec<u8>>,
}

impl<R: Read> Reader<R> {
    /// Reads the file header and decides what format it is.
    pub fn new(reader: R) -> Result<Self, CaptureError> {
        let mut source = Source { reader, at: 0 };
        let mut magic = [0; 4];
        match source.fill(&mut magic) {
            Ok(()) => {}
            Err(CaptureError::Truncated(_)) => return Err(CaptureError::Format),
            Err(other) => return Err(other),
        }
        let (format, first) = if magic == pcapng::SECTION_MAGIC {
            let (section, bytes) = pcapng::Section::read(&mut source)?;
            (Format::Pcapng(section), bytes)
        } else {
            let (header, bytes) = pcap::Header::read(magic, &mut source)?;
            (Format::Pcap(header), bytes)
        };
        Ok(Reader {
            source,
            format,
            first: Some(first),
        })
    }

    /// The next packet or frame in file order; `None` at the end of the file.
    #[allow(
        clippy::should_implement_trait,
        reason = "a fallible stream; an Iterator of Results would go on after an error"
    )]
    pub fn next(&mut self) -> Result<Option<Item>, CaptureError> {
        if let Some(bytes) = self.first.take() {
            return Ok(Some(Item::Frame(bytes)));
        }
        match &mut self.format {
            Format::Pcap(header) => header.next(&mut self.source),
            Format::Pcapng(section) => section.next(&mut self.source),
        }
    }
}

/// Writes one record with the given bytes in the place of the input's.
///
/// The captured and the original length become `data.len()`.
pub fn write_packet<W: Write>(out: &mut W, stamp: &Stamp, data: &[u8]) -> std::io::Result<()> {
    match &stamp.0 {
        Record::Pcap { big, time } => pcap::write(out, *big, time, data),
        Record::Enhanced {
            big,
            interface,
            time,
            options,
        } => pcapng::write_enhanced(out, *big, *interface, time, data, options),
        Record::Simple { big } => pcapng::write_simple(out, *big, data),
    }
}

/// A reader that knows how far it has come.
struct Source<R> {
    reader: R,
    at: u64,
}

impl<R: Read> Source<R> {
    /// Fills the whole buffer, or says that the file ends within a record.
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), CaptureError> {
        match self.fill_or_end(buf)? {
            true => Ok(()),
            false => Err(CaptureError::Truncated(self.at)),
        }
    }

    /// Fills the whole buffer, or returns false when the file ends before it.
    fn fill_or_end(&mut self, buf: &mut [u8]) -> Result<bool, CaptureError> {
        let mut have = 0;
        while have < buf.len() {
            match self.reader.read(&mut buf[have..]) {
                Ok(0) if have == 0 => return Ok(buf.is_empty()),
                Ok(0) => return Err(CaptureError::Truncated(self.at)),
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.at += have as u64;
        Ok(true)
    }
}

/// The 32-bit number at the start of `bytes` in the file's byte order.
fn u32_at(bytes: &[u8], at: usize, big: bool) -> u32 {
    let mut four = [0; 4];
    if let Some(found) = bytes.get(at..at + 4) {
        four.copy_from_slice(found);
    }
    if big {
        u32::from_be_bytes(four)
    } else {
        u32::from_le_bytes(four)
    }
}

/// The 16-bit number at `at` in the file's byte order.
fn u16_at(bytes: &[u8], at: usize, big: bool) -> u16 {
    let mut two = [0; 2];
    if let Some(found) = bytes.get(at..at + 2) {
        two.copy_from_slice(found);
    }
    if big {
        u16::from_be_bytes(two)
    } else {
        u16::from_le_bytes(two)
    }
}

/// A 32-bit number in the file's byte order.
fn u32_bytes(value: u32, big: bool) -> [u8; 4] {
    if big {
        value.to_be_bytes()
    } else {
        value.to_le_bytes()
    }
}
