//! Congestion marks across a tunnel (RFC 6040, RFC 3168).

use crate::headers;

/// The sender does not know marks.
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
/// Congestion was met.
const CE: u8 = 3;

/// The two bits of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u8);

impl Mark {
    /// The mark of an IP packet; of what is none, no mark.
    pub(crate) fn of(ip: &[u8]) -> Mark {
        Mark(match ip {
            [first, second, ..] if first >> 4 == 6 => second >> 4 & 3,
            [_, second, ..] => second & 3,
            _ => NOT_ECT,
        })
    }

    /// Changes the mark of the packet that a tunnel's outer header with this
    /// mark has brought (RFC 6040 4.2). `None`: to be dropped, because
    /// congestion was met and nobody would hear of it.
    pub(crate) fn carry_in(self, inner: &mut [u8]) -> Option<()> {
        let mark = match (Mark::of(inner).0, self.0) {
            (NOT_ECT, CE) => return None,
            (NOT_ECT | CE, _) => return Some(()),
            (_, outer @ (ECT_1 | CE)) => outer,
            _ => return Some(()),
        };
        Mark(mark).write(inner);
        Some(())
    }

    fn write(self, ip: &mut [u8]) {
        let [first, second, ..] = ip else {
            return;
        };
        let header = usize::from(*first & 15) * 4;
        if *first >> 4 == 6 {
            *second = *second & 0xcf | self.0 << 4;
        } else {
            *second = *second & 0xfc | self.0;
            if (headers::IPV4_LEN..=ip.len()).contains(&header) {
                headers::set_checksum(ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Plain;

    fn marked(v6: bool, mark: u8) -> Vec<u8> {
        let mut packet = Plain::udp(v6, 20).bytes();
        Mark(mark).write(&mut packet);
        packet
    }

    /// RFC 6040, figure 4: rows inside, columns outside (Not-ECT, ECT(1), ECT(0), CE).
    #[test]
    fn the_table_of_rfc_6040() {
        let table = [
            (0, [Some(0), Some(0), Some(0), None]),
            (2, [Some(2), Some(1), Some(2), Some(3)]),
            (1, [Some(1), Some(1), Some(1), Some(3)]),
            (3, [Some(3); 4]),
        ];
        for v6 in [false, true] {
            for (inside, row) in table {
                for (outside, want) in [0, 1, 2, 3].into_iter().zip(row) {
                    let mut packet = marked(v6, inside);
                    let done = Mark(outside).carry_in(&mut packet);
                    assert_eq!(done.map(|()| Mark::of(&packet).0), want);
                    // Nothing else has changed, and the header sums up.
                    assert_eq!(packet, marked(v6, want.unwrap_or(inside)));
                    assert!(v6 || headers::fold(headers::sum(&packet[..20], 0)) == 0xffff);
                }
            }
        }
    }

    #[test]
    fn what_is_no_packet_stays() {
        for mut bytes in [vec![], vec![0x45], vec![0x4f, 2, 0]] {
            assert_eq!(Mark(2).carry_in(&mut bytes), Some(()));
        }
        let mut short = vec![0x4f, 2, 0];
        assert_eq!(Mark(CE).carry_in(&mut short), Some(()));
    }
}
