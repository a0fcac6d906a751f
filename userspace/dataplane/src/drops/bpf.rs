//! The BPF programs' side of what gm-watch reads and refills.

use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use gm_abi::sample::{
    PLACE_EGRESS, PLACE_GM0, PLACE_GM0X, PLACE_GUARD, PLACE_UPLINK, PLACE_WORKER, Sample,
};
use gm_abi::verdict::Reason;

use super::watch::Kernel;
use super::{DropSample, REFILL_MS, SAMPLES_EACH, Station, from_map};
use crate::Error;
use crate::maps::BpfCounters;
use crate::publish::Published;
use crate::stats::AllCounters;

/// Fragments that a worker gets in [`REFILL_MS`], in all: some 80 000 a second
/// are a tenth of what it can do.
const FRAGMENTS: u32 = 8192;

/// Of these, of one phone: a datagram of 65 000 bytes is 45 of them.
const FRAGMENTS_EACH: u32 = 1024;

/// Samples that are taken from the ring buffer at a time; it has room for no
/// more, so that a broken one does not hold the thread.
const AT_A_TIME: usize = 4096;

/// The maps, and what the workers have counted.
pub(super) struct BpfSide {
    pub samples: Option<RingBuf<MapData>>,
    pub published: Arc<Published>,
    pub counters: BpfCounters,
    pub workers: AllCounters,
}

/// gm-watch ends, by a panic even: the workers and their reassembly go on.
impl Drop for BpfSide {
    fn drop(&mut self) {
        self.published.tables.unlimit_fragments();
    }
}

impl Kernel for BpfSide {
    fn drain(&mut self, each: &mut dyn FnMut(DropSample)) {
        let Some(ring) = &mut self.samples else {
            return;
        };
        for _ in 0..AT_A_TIME {
            let Some(item) = ring.next() else {
                return;
            };
            if let Some(sample) = Sample::from_bytes(&item).and_then(|s| read(&s)) {
                each(sample);
            }
        }
    }

    fn refill(&mut self) {
        debug_assert_eq!(REFILL_MS, 100, "the numbers are for a tenth of a second");
        let tables = &self.published.tables;
        tables.refill_samples(SAMPLES_EACH);
        tables.refill_fragments(FRAGMENTS, FRAGMENTS_EACH);
    }

    fn age(&mut self) {
        self.published.tables.age();
    }

    fn counted(&self) -> Result<[u64; Reason::COUNT], Error> {
        let mut sum = self.counters.read()?;
        for (sum, n) in sum.iter_mut().zip(self.workers.snapshot()) {
            *sum += n;
        }
        Ok(sum)
    }
}

/// A sample as it stands in the ring buffer; `None` for a place that is none.
fn read(s: &Sample) -> Option<DropSample> {
    let station = match s.place {
        PLACE_UPLINK => Station::Uplink,
        PLACE_GM0X => Station::Gm0x,
        PLACE_GUARD => Station::Guard,
        PLACE_EGRESS => Station::Egress,
        PLACE_GM0 => Station::Gm0,
        PLACE_WORKER => Station::Worker,
        _ => return None,
    };
    Some(DropSample {
        at: s.time,
        reason: s.reason()?,
        station,
        outbound: matches!(station, Station::Gm0x | Station::Egress),
        interface: s.ifindex,
        proto: s.proto,
        src: from_map(s.src),
        dst: from_map(s.dst),
        src_port: s.ports().map(|(src, _)| src),
        dst_port: s.ports().map(|(_, dst)| dst),
        spi: s.esp().map(|(spi, _)| spi),
        seq: s.esp().map(|(_, seq)| seq),
        len: s.length,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_abi::maps::mapped;
    use gm_abi::sample::{SAMPLE_ESP, SAMPLE_PORTS};

    #[test]
    fn a_sample_of_the_programs_says_who_where_and_which_way() {
        let raw = Sample {
            time: 5,
            src: mapped([198, 51, 100, 7]),
            dst: mapped([192, 0, 2, 1]),
            spi: 1_000_000_007,
            seq: 12,
            ifindex: 3,
            length: 148,
            sport: 33_333,
            dport: 4500,
            reason: Reason::UnknownSpi as u8,
            place: PLACE_UPLINK,
            proto: 17,
            flags: SAMPLE_ESP | SAMPLE_PORTS,
        };
        let sample = read(&raw).unwrap();
        assert_eq!((sample.spi, sample.seq), (Some(1_000_000_007), Some(12)));
        assert_eq!(
            (sample.src_port, sample.dst_port),
            (Some(33_333), Some(4500))
        );
        assert_eq!(
            sample.peer(),
            "198.51.100.7".parse::<std::net::IpAddr>().unwrap()
        );
        let out = read(&Sample {
            place: PLACE_EGRESS,
            flags: 0,
            ..raw
        });
        let out = out.unwrap();
        assert_eq!((out.spi, out.seq, out.src_port), (None, None, None));
        assert_eq!(out.peer(), "192.0.2.1".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(read(&Sample { place: 77, ..raw }), None);
    }
}
