//! What is said about one packet that was dropped: samples, in the ring buffer
//! map `SAMPLES`.
//!
//! BPF makes one while `SAMPLE_TOKENS` has a token left for the reason
//! ([`crate::source`]), and nobody is woken by it: the reader looks when it
//! refills the tokens. Without a reader there are no tokens, so no samples.
//! Workers make the same samples and have a way of their own.

use crate::maps::Addr;
#[cfg(not(target_arch = "bpf"))]
use crate::verdict::Reason;

/// Size of the ring buffer `SAMPLES` in bytes, a power of two; a sample takes
/// eight bytes more than its own size.
pub const SAMPLES_BYTES: u32 = 256 * 1024;

/// `place` of a [`Sample`]: XDP on the uplink.
pub const PLACE_UPLINK: u8 = 1;
/// `place` of a [`Sample`]: XDP on gm0x.
pub const PLACE_GM0X: u8 = 2;
/// `place` of a [`Sample`]: the guard, on the interface `ifindex`.
pub const PLACE_GUARD: u8 = 3;
/// `place` of a [`Sample`]: egress of the interface `ifindex`.
pub const PLACE_EGRESS: u8 = 4;
/// `place` of a [`Sample`]: gm0, where opened packets are injected.
pub const PLACE_GM0: u8 = 5;
/// `place` of a [`Sample`]: a worker; `ifindex` is the worker's number.
pub const PLACE_WORKER: u8 = 6;

/// Flag of a [`Sample`]: `spi` and `seq` were there to be read.
pub const SAMPLE_ESP: u8 = 1;
/// Flag of a [`Sample`]: `sport` and `dport` were there to be read.
pub const SAMPLE_PORTS: u8 = 2;

/// A dropped packet. Numbers are in host byte order; no payload is in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// Source address; all zero where no IP header was read.
    pub src: Addr,
    /// Destination address; all zero where no IP header was read.
    pub dst: Addr,
    /// SPI, with [`SAMPLE_ESP`].
    pub spi: u32,
    /// Sequence number, its low 32 bits, with [`SAMPLE_ESP`].
    pub seq: u32,
    /// Interface that it came in on, or was to leave through.
    pub ifindex: u32,
    /// Length in bytes, as seen by whoever dropped it: XDP and tc count the
    /// Ethernet header, workers begin at the IP header.
    pub length: u32,
    /// Source port of UDP or TCP, with [`SAMPLE_PORTS`].
    pub sport: u16,
    /// Destination port of UDP or TCP, with [`SAMPLE_PORTS`].
    pub dport: u16,
    /// [`Reason`], its index.
    pub reason: u8,
    /// One of `PLACE_*`.
    pub place: u8,
    /// IP protocol of what follows the headers that were walked.
    pub proto: u8,
    /// Any of `SAMPLE_*`.
    pub flags: u8,
}

const _: () = assert!(size_of::<Sample>() == 64);

impl Sample {
    /// Reads a sample as it stands in the ring buffer. `None`: too short, or
    /// its reason is none.
    #[cfg(not(target_arch = "bpf"))]
    pub fn from_bytes(bytes: &[u8]) -> Option<Sample> {
        let b: &[u8; 64] = bytes.first_chunk()?;
        let word = |i: usize| u32::from_ne_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
        let half = |i: usize| u16::from_ne_bytes([b[i], b[i + 1]]);
        let sample = Sample {
            time: u64::from_ne_bytes(*b.first_chunk()?),
            src: b[8..].first_chunk().copied()?,
            dst: b[24..].first_chunk().copied()?,
            spi: word(40),
            seq: word(44),
            ifindex: word(48),
            length: word(52),
            sport: half(56),
            dport: half(58),
            reason: b[60],
            place: b[61],
            proto: b[62],
            flags: b[63],
        };
        sample.reason().map(|_| sample)
    }

    /// Why it was dropped; `None` for an index that is no reason's.
    #[cfg(not(target_arch = "bpf"))]
    pub fn reason(&self) -> Option<Reason> {
        Reason::from_index(usize::from(self.reason))
    }

    /// SPI and the low 32 bits of the sequence number, where they were there.
    pub fn esp(&self) -> Option<(u32, u32)> {
        (self.flags & SAMPLE_ESP != 0).then_some((self.spi, self.seq))
    }

    /// Source and destination port, where they were there.
    pub fn ports(&self) -> Option<(u16, u16)> {
        (self.flags & SAMPLE_PORTS != 0).then_some((self.sport, self.dport))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maps::mapped;

    #[test]
    fn a_sample_is_read_as_it_was_written() {
        let mut b = [0; 72];
        b[..8].copy_from_slice(&77u64.to_ne_bytes());
        b[8..24].copy_from_slice(&mapped([198, 51, 100, 1]));
        b[24..40].copy_from_slice(&mapped([203, 0, 113, 5]));
        for (i, word) in [1_000_000_007u32, 12, 3, 148].into_iter().enumerate() {
            b[40 + 4 * i..44 + 4 * i].copy_from_slice(&word.to_ne_bytes());
        }
        b[56..58].copy_from_slice(&33333u16.to_ne_bytes());
        b[58..60].copy_from_slice(&4500u16.to_ne_bytes());
        b[60..64].copy_from_slice(&[Reason::UnknownSpi as u8, PLACE_UPLINK, 17, SAMPLE_ESP]);
        let sample = Sample::from_bytes(&b).unwrap();
        assert_eq!(
            sample,
            Sample {
                time: 77,
                src: mapped([198, 51, 100, 1]),
                dst: mapped([203, 0, 113, 5]),
                spi: 1_000_000_007,
                seq: 12,
                ifindex: 3,
                length: 148,
                sport: 33333,
                dport: 4500,
                reason: Reason::UnknownSpi as u8,
                place: PLACE_UPLINK,
                proto: 17,
                flags: SAMPLE_ESP,
            }
        );
        assert_eq!(sample.reason(), Some(Reason::UnknownSpi));
        assert_eq!(sample.esp(), Some((1_000_000_007, 12)));
        assert_eq!(sample.ports(), None);
        assert_eq!(Sample::from_bytes(&b[..63]), None);
        b[60] = Reason::COUNT as u8;
        assert_eq!(Sample::from_bytes(&b), None);
    }
}
