//! The Internet checksum (RFC 1071) and its change in place (RFC 1624).

/// Adds `bytes`, as big-endian words, to a running sum; an odd last byte
/// counts as the high half of a word.
pub(crate) fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    for w in &mut words {
        sum += u64::from(u16::from_be_bytes([w[0], w[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    sum
}

/// The checksum of a running sum.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The checksum `old` after `before` was replaced by `after`; both begin at an
/// even offset of what is summed and are equally long.
pub(crate) fn replace(old: u16, before: &[u8], after: &[u8]) -> u16 {
    let mut sum = u64::from(!old);
    for w in before.chunks_exact(2) {
        sum += u64::from(!u16::from_be_bytes([w[0], w[1]]));
    }
    fold(add(sum, after))
}
