//! What a worker does beside the cryptography, and with it: nanoseconds per
//! packet from the frame that came in to the frame that is to leave, without
//! rings, devices or the kernel.
//!
//! `none` is an engine that does nothing, so what is left is everything else:
//! metadata, parsing, look-up, window, numbers, headers, selectors, counters.
//! Phones come in random order, as in life.

use std::time::{Duration, Instant};

use gm_dataplane::line::Line;
use gm_engines::{Engine, Job, best};
use gm_esp::Suite;

/// Bytes of a packet, IP header included.
const PACKET: usize = 384;
const PAYLOAD: usize = PACKET - 28;
const ROUNDS: usize = 9;

/// Believes everything and changes nothing.
struct Nothing;

impl Engine for Nothing {
    fn name(&self) -> &'static str {
        "none"
    }

    fn seal(&self, batch: &mut [Job<'_>]) {
        batch.iter_mut().for_each(|job| job.ok = true);
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        batch.iter_mut().for_each(|job| job.ok = true);
    }
}

/// Which phones speak: any, one after the other at random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// Nanoseconds per packet in and out, for batches of this size.
fn round(line: &mut Line, dice: &mut Dice, phones: u32, batch: usize, packets: usize) -> [f64; 2] {
    let mut spent = [Duration::ZERO; 2];
    let turns = packets.div_ceil(batch);
    for _ in 0..turns {
        let who: Vec<u32> = (0..batch).map(|_| dice.below(phones)).collect();
        line.arrive(who.iter().copied(), PAYLOAD);
        let begin = Instant::now();
        line.inbound();
        spent[0] += begin.elapsed();
        assert_eq!(line.take(), batch);
        line.leave(who, PAYLOAD);
        let begin = Instant::now();
        line.outbound();
        spent[1] += begin.elapsed();
        assert_eq!(line.take(), batch);
    }
    spent.map(|t| t.as_nanos() as f64 / (turns * batch) as f64)
}

fn median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let middle = values[values.len() / 2];
    let spread = (values[values.len() - 1] - values[0]) / middle;
    (middle, spread)
}

#[expect(clippy::print_stdout, reason = "a bench tells what it has measured")]
fn main() {
    let test = std::env::args().any(|a| a == "--test");
    let few = if test { 64 } else { 20_000 };
    let suite = Suite::NullAesGcm;
    let engines: [&'static dyn Engine; 2] = [&Nothing, best()];
    let sizes: &[u32] = if test { &[64] } else { &[64, 1024, 65_536] };
    // A number: only with so many phones.
    let wanted: Option<u32> = std::env::args().skip(1).find_map(|a| a.parse().ok());
    let sizes = sizes
        .iter()
        .filter(|n| wanted.is_none_or(|wanted| wanted == **n));
    for phones in sizes.copied() {
        for engine in engines {
            let mut line = Line::new(phones, suite, engine);
            let mut dice = Dice(0x5eed);
            for batch in [1, 64] {
                let rounds: Vec<[f64; 2]> = (0..ROUNDS)
                    .map(|_| round(&mut line, &mut dice, phones, batch, few))
                    .collect();
                let side = |i: usize| median(rounds.iter().map(|r| r[i]).collect());
                let ((inbound, a), (outbound, b)) = (side(0), side(1));
                println!(
                    "{phones:6} phones, {:10} batch {batch:2}: in {inbound:6.1} ns (spread {:2.0} %), out {outbound:6.1} ns (spread {:2.0} %)",
                    engine.name(),
                    a * 100.0,
                    b * 100.0
                );
            }
        }
    }
}
