//! A pcapng writer for one Ethernet interface: section header, interface
//! description, one enhanced packet block per packet, with its direction.

use std::io::{self, Write};
use std::time::Duration;

use gm_dataplane::Direction;

/// Link type Ethernet.
const LINKTYPE_ETHERNET: u16 = 1;

/// Writes the two header blocks. The number of bytes written.
pub fn write_header(to: &mut impl Write, interface: &str) -> io::Result<u64> {
    let mut section = Vec::new();
    section.extend_from_slice(&0x1A2B_3C4D_u32.to_le_bytes());
    section.extend_from_slice(&1_u16.to_le_bytes());
    section.extend_from_slice(&0_u16.to_le_bytes());
    section.extend_from_slice(&u64::MAX.to_le_bytes()); // section length: not said
    option(
        &mut section,
        4,
        concat!("gmespd ", env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    option(&mut section, 0, &[]);

    let mut description = Vec::new();
    description.extend_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
    description.extend_from_slice(&0_u16.to_le_bytes());
    description.extend_from_slice(&0_u32.to_le_bytes()); // snap length: none
    option(&mut description, 2, interface.as_bytes());
    option(&mut description, 9, &[9]); // if_tsresol: nanoseconds
    option(&mut description, 0, &[]);

    Ok(block(to, 0x0A0D_0D0A, &section)? + block(to, 1, &description)?)
}

/// Writes one packet, `at` since the Unix epoch. The number of bytes written.
pub fn write_packet(
    to: &mut impl Write,
    at: Duration,
    direction: Direction,
    frame: &[u8],
) -> io::Result<u64> {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let length = u32::try_from(frame.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "frame over 4 GiB"))?;
    let mut body = Vec::with_capacity(frame.len() + 40);
    body.extend_from_slice(&0_u32.to_le_bytes()); // interface
    body.extend_from_slice(&((nanos >> 32) as u32).to_le_bytes());
    body.extend_from_slice(&(nanos as u32).to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes()); // captured
    body.extend_from_slice(&length.to_le_bytes()); // on the wire
    body.extend_from_slice(frame);
    pad(&mut body);
    let flags: u32 = match direction {
        Direction::In => 1,
        Direction::Out => 2,
    };
    option(&mut body, 2, &flags.to_le_bytes());
    option(&mut body, 0, &[]);
    block(to, 6, &body)
}

/// The size of a packet's block, in bytes.
pub fn packet_size(frame: usize) -> u64 {
    // Block 12, fixed part 20, options 8 and 4.
    (frame.next_multiple_of(4) + 12 + 20 + 12) as u64
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend_from_slice(&code.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

/// Up to a multiple of four bytes.
fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<u64> {
    let length = (body.len() + 12) as u32;
    to.write_all(&kind.to_le_bytes())?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(body)?;
    to.write_all(&length.to_le_bytes())?;
    Ok(u64::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks the blocks by their lengths, which stand at both ends.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = word(bytes, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(bytes, length - 4) as usize, length);
            found.push((word(bytes, 0), bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    #[test]
    fn blocks_are_whole_and_sizes_are_told() {
        let mut file = Vec::new();
        let mut told = write_header(&mut file, "eth0").unwrap();
        let at = Duration::new(1_700_000_000, 123_456_789);
        for frame in [&[1_u8, 2, 3][..], &[4; 60]] {
            let size = write_packet(&mut file, at, Direction::Out, frame).unwrap();
            assert_eq!(size, packet_size(frame.len()));
            told += size;
        }
        assert_eq!(told, file.len() as u64);
        let blocks = blocks(&file);
        assert_eq!(
            blocks.iter().map(|b| b.0).collect::<Vec<_>>(),
            [0x0A0D_0D0A, 1, 6, 6]
        );
        let packet = &blocks[2].1;
        let high = u32::from_le_bytes(packet[4..8].try_into().unwrap());
        let low = u32::from_le_bytes(packet[8..12].try_into().unwrap());
        assert_eq!(
            (u64::from(high) << 32) + u64::from(low),
            1_700_000_000_123_456_789
        );
        assert_eq!(packet[20..24], [1, 2, 3, 0]);
        assert_eq!(packet[24..32], [2, 0, 4, 0, 2, 0, 0, 0]);
    }
}
