//! The IP headers around ESP: where ESP goes, lengths, next header, checksum.
//!
//! All functions are for packets that `gm_abi::wire` has found to be whole;
//! given others they do nothing wrong but nothing useful either.

/// Bytes of an IPv4 header without options.
pub(crate) const IPV4_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub(crate) const IPV6_LEN: usize = 40;

/// Largest IPv4 packet; also the largest payload of IPv6.
pub(crate) const MAX_LENGTH: usize = 65_535;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
/// The IPv6 fragment header's number.
pub(crate) const FRAGMENT: u8 = 44;
/// Bytes of the IPv6 fragment header.
pub(crate) const FRAGMENT_LEN: usize = 8;
const DESTINATION: u8 = 60;

/// A place in an IPv6 packet where a header chain may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Offset of the header that follows.
    pub at: usize,
    /// Offset of the byte that names it.
    pub named_at: usize,
}

/// The place in an IPv4 or IPv6 packet behind the headers that routers on the
/// way read: where ESP (RFC 4303 3.1.1) and fragment headers (RFC 8200 4.5)
/// go. Destination options stay in front only when a routing header follows.
///
/// `l4` is the parser's offset of the upper-layer header.
pub(crate) fn routed(ip: &[u8], v6: bool, l4: usize) -> Cut {
    if !v6 {
        return Cut {
            at: l4,
            named_at: 9,
        };
    }
    let mut cut = Cut {
        at: IPV6_LEN,
        named_at: 6,
    };
    let (mut at, mut named_at) = (cut.at, cut.named_at);
    while at < l4 {
        let Some((kind, next, len)) = extension(ip, at, named_at) else {
            break;
        };
        if !matches!(kind, HOP_BY_HOP | ROUTING | DESTINATION) {
            break;
        }
        named_at = next;
        at += len;
        if kind != DESTINATION {
            cut = Cut { at, named_at };
        }
    }
    cut
}

/// The place of an IPv6 packet's fragment header; `l4` lies behind it.
pub(crate) fn fragment_header(ip: &[u8], l4: usize) -> Option<Cut> {
    let (mut at, mut named_at) = (IPV6_LEN, 6);
    while at < l4 {
        let (kind, next, len) = extension(ip, at, named_at)?;
        if kind == FRAGMENT {
            return Some(Cut { at, named_at });
        }
        named_at = next;
        at += len;
    }
    None
}

/// Where an IPv6 packet names the header at offset `l4`.
pub(crate) fn named_at(ip: &[u8], v6: bool, l4: usize) -> usize {
    if !v6 {
        return 9;
    }
    let (mut at, mut named) = (IPV6_LEN, 6);
    while at < l4 {
        let Some((_, next, len)) = extension(ip, at, named) else {
            break;
        };
        named = next;
        at += len;
    }
    named
}

/// Kind, offset of its next-header byte, and length of the extension header at
/// `at`, which the byte at `named_at` names.
fn extension(ip: &[u8], at: usize, named_at: usize) -> Option<(u8, usize, usize)> {
    let kind = *ip.get(named_at)?;
    let len = match kind {
        FRAGMENT => FRAGMENT_LEN,
        _ => 8 + 8 * usize::from(*ip.get(at + 1)?),
    };
    Some((kind, at, len))
}

/// Writes the packet's length into its IP header, and the IPv4 checksum.
pub(crate) fn set_length(ip: &mut [u8], v6: bool) {
    let len = ip.len();
    if v6 {
        let payload = (len - IPV6_LEN) as u16;
        ip[4..6].copy_from_slice(&payload.to_be_bytes());
    } else {
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        set_checksum(ip);
    }
}

/// Recomputes the checksum of an IPv4 header (RFC 791 3.1).
pub(crate) fn set_checksum(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let sum = !fold(sum(&ip[..header], 0));
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Adds the 16-bit words of `bytes` to a sum that is not folded yet.
pub(crate) fn sum(bytes: &[u8], start: u64) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let tail = rest.first().map_or(0, |last| u64::from(*last) << 8);
    words.iter().fold(start + tail, |sum, word| {
        sum + u64::from(u16::from_be_bytes(*word))
    })
}

/// Folds a sum to the 16 bits of the Internet checksum (RFC 1071).
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
