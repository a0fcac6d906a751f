//! The maximum segment size in a SYN, so that segments fit with ESP around
//! them: without it connections stall where path MTU discovery does not work.

use crate::checksum;

const HEADER: usize = 20;
const FLAGS: usize = 13;
const CHECKSUM: usize = 16;
const SYN: u8 = 2;
const OPT_END: u8 = 0;
const OPT_NOP: u8 = 1;
const OPT_MSS: u8 = 2;

/// Lowers the MSS option of a SYN to `max` and corrects the checksum. `tcp`
/// begins at the TCP header. True when something was changed; a segment that
/// is no SYN, has no MSS option or malformed options stays as it is.
pub(crate) fn clamp_mss(tcp: &mut [u8], max: u16) -> bool {
    if tcp.len() < HEADER || tcp[FLAGS] & SYN == 0 {
        return false;
    }
    let end = usize::from(tcp[12] >> 4) * 4;
    if end < HEADER || end > tcp.len() {
        return false;
    }
    let mut at = HEADER;
    while at < end {
        match tcp[at] {
            OPT_END => return false,
            OPT_NOP => at += 1,
            kind => {
                let Some(&len) = tcp[..end].get(at + 1) else {
                    return false;
                };
                let len = usize::from(len);
                if len < 2 || at + len > end {
                    return false;
                }
                if kind == OPT_MSS && len == 4 {
                    return lower(&mut tcp[..end], at + 2, max);
                }
                at += len;
            }
        }
    }
    false
}

/// Lowers the 16 bits at `at`, which may be odd: the words around it count.
fn lower(header: &mut [u8], at: usize, max: u16) -> bool {
    if u16::from_be_bytes([header[at], header[at + 1]]) <= max {
        return false;
    }
    let (from, to) = (at & !1, (at + 3) & !1);
    let mut before = [0; 4];
    before[..to - from].copy_from_slice(&header[from..to]);
    header[at..at + 2].copy_from_slice(&max.to_be_bytes());
    let old = u16::from_be_bytes([header[CHECKSUM], header[CHECKSUM + 1]]);
    let new = checksum::replace(old, &before[..to - from], &header[from..to]);
    header[CHECKSUM..CHECKSUM + 2].copy_from_slice(&new.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with `options`, its checksum right (without a pseudo header, the
    /// arithmetic is the same).
    fn syn(options: &[u8]) -> Vec<u8> {
        let mut t = vec![
            0x13, 0xc4, 0x13, 0xc5, 1, 2, 3, 4, 0, 0, 0, 0, 0, SYN, 0xff, 0xff, 0, 0, 0, 0,
        ];
        t.extend(options);
        assert_eq!(t.len() % 4, 0);
        t[12] = (t.len() as u8 / 4) << 4;
        let c = checksum::fold(checksum::add(0, &t));
        t[CHECKSUM..CHECKSUM + 2].copy_from_slice(&c.to_be_bytes());
        t
    }

    fn sums_up(t: &[u8]) -> bool {
        checksum::fold(checksum::add(0, t)) == 0
    }

    #[test]
    fn lowers_at_even_and_odd_offsets() {
        for options in [
            &[2, 4, 5, 0xb4][..],
            &[1, 2, 4, 5, 0xb4, 1, 1, 0],
            &[4, 2, 1, 1, 2, 4, 5, 0xb4],
        ] {
            let mut t = syn(options);
            assert!(sums_up(&t));
            assert!(clamp_mss(&mut t, 1300));
            assert!(sums_up(&t), "{options:?}");
            assert!(t.windows(4).any(|w| w == [2, 4, 5, 0x14]));
        }
    }

    #[test]
    fn leaves_alone_what_fits_or_is_no_syn() {
        let mut small = syn(&[2, 4, 2, 0]);
        assert!(!clamp_mss(&mut small, 1300));
        let mut ack = syn(&[2, 4, 5, 0xb4]);
        ack[FLAGS] = 0x10;
        assert!(!clamp_mss(&mut ack, 1300));
        assert!(!clamp_mss(&mut syn(&[]), 1300));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(0u8.., 0..80)) {
            clamp_mss(&mut bytes, 1200);
        }
    }
}
