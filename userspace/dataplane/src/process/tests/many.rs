//! Many packets through one SA, against a model of the window.

use std::collections::HashSet;

use gm_abi::maps::META_ESP;
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Suite};
use gm_sadb::Dir;

use super::bench::{Bench, frame, meta, sa};
use super::{IN, SPI, near};

/// Numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// What a window of 64 numbers makes of a packet, in the plainest way.
struct Model {
    seen: HashSet<u32>,
    top: u32,
    ends: [u64; Reason::COUNT],
}

impl Model {
    fn take(&mut self, packet: &[u8]) {
        let seq = u32::from_be_bytes(packet[38..42].try_into().unwrap());
        let reason = if seq + 64 <= self.top {
            Reason::Stale
        } else if !self.seen.insert(seq) {
            Reason::Replay
        } else {
            self.top = self.top.max(seq);
            Reason::Ok
        };
        self.ends[reason.index()] += 1;
    }
}

#[test]
fn a_hundred_thousand_out_of_order_and_some_twice_agree_with_a_model() {
    const N: usize = 100_000;
    let mut far = Bench::new(256);
    far.load(
        0,
        Dir::Out,
        sa(Suite::NullAesGcm, Mode::Trans, true, SPI),
        &[],
    );
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    let (plain, mut dice, mut model) = (
        frame(true, 17, 20, false),
        Dice(2026),
        Model {
            seen: HashSet::new(),
            top: 0,
            ends: [0; Reason::COUNT],
        },
    );
    let (mut under_way, mut sent, mut given) = (Vec::new(), 0, 0);
    while given < N {
        if sent < N {
            far.outbound(&[plain.as_slice(); 16]);
            under_way.extend(far.wire());
            sent += 16;
        }
        let mut batch = Vec::new();
        while batch.len() < 60 && (under_way.len() > 24 || (sent >= N && !under_way.is_empty())) {
            let next = under_way.remove(dice.below(under_way.len().min(8)));
            given += 1;
            if dice.below(4) == 0 {
                batch.push(next.clone());
            }
            batch.push(next);
        }
        // Some come again much later.
        if let Some(again) = batch.first().filter(|_| dice.below(8) == 0) {
            under_way.push(again.clone());
            given -= 1;
        }
        batch.iter().for_each(|packet| model.take(packet));
        let batch: Vec<_> = batch
            .iter()
            .map(|w| (w.as_slice(), meta(IN, META_ESP)))
            .collect();
        b.inbound(&batch);
        b.stack();
    }
    // A batch is looked at before it is committed, so one that is both old and
    // a copy may end for either reason.
    let ends = |ends: &[u64], r: Reason| ends[r.index()];
    let got = b.process.ctx.counters.snapshot();
    let old = |e: &[u64]| ends(e, Reason::Replay) + ends(e, Reason::Stale);
    assert_eq!(ends(&got, Reason::Ok), ends(&model.ends, Reason::Ok));
    assert_eq!(old(&got), old(&model.ends));
    // The test is one only if most came, and some did not.
    let [ok, replay, stale] = [Reason::Ok, Reason::Replay, Reason::Stale].map(|r| ends(&got, r));
    assert!(
        ok > 90_000 && replay > 20_000 && stale > 10,
        "{ok} {replay} {stale}"
    );
    b.settle();
}
