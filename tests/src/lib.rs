//! Tests that cross crates, in namespaces and against oracles.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod netns;
pub mod plane;

/// The Internet checksum (RFC 1071) over some bytes; an odd last one counts as
/// the first of two.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |w: &[u8]| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}
