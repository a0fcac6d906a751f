//! The packets.

use std::cell::RefCell;
use std::time::Instant;

use gm_engines::{HEADER_LEN, Transform};

use super::{BATCH, Contestant, EngineAt, Keys, Op, Packet, SAS};
use crate::stats::alternate;

/// Packets that are laid out afresh together, before a clock runs: so many that
/// they come from the second level cache, as those of a ring would.
const GROUP: usize = 4 * BATCH;
/// From packet to packet: no power of two, or they fight for the same lines.
const STRIDE: usize = 2112;
/// Where a packet begins: behind Ethernet, IPv4 and UDP.
const FRONT: usize = 42;
/// Alignment of what they begin behind.
const LINE: usize = 64;

/// One packet for each of [`SAS`] SAs of one suite: as it is before it is
/// sealed, sealed, and in a buffer where it is worked on.
pub struct Work {
    suite: Transform,
    keys: Vec<Keys>,
    plain: Vec<Vec<u8>>,
    sealed: Vec<Vec<u8>>,
    buffers: Vec<u8>,
}

/// How the contestants take turns.
#[derive(Clone, Copy)]
pub struct Turns {
    /// Rounds, in each of which every contestant has a turn.
    pub rounds: usize,
    /// Passes over all packets that a turn times; one before them warms up.
    pub passes: usize,
}

impl Work {
    /// `length` says how long payload, padding and trailer of a packet are, by
    /// its place among [`SAS`]. Everything is made of one seed.
    ///
    /// # Panics
    /// When a length is too long, or not one of the suite.
    pub fn new(suite: Transform, length: impl Fn(usize) -> usize) -> Work {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let keys: Vec<Keys> = (0..SAS)
            .map(|_| Keys {
                integrity: random.bytes(),
                encryption: random.bytes(),
                salt: random.bytes(),
            })
            .collect();
        let packet = |sa: usize| {
            let mut esp = (1_000_000_000 + sa as u32).to_be_bytes().to_vec();
            esp.extend((1 + sa as u32).to_be_bytes());
            let body = suite.iv_len() + length(sa);
            esp.extend(std::iter::repeat_with(|| random.bytes::<1>()[0]).take(body));
            esp.resize(HEADER_LEN + body + suite.icv_len(), 0);
            assert!(suite.fits(esp.len()) && FRONT + esp.len() <= STRIDE);
            esp
        };
        let plain: Vec<Vec<u8>> = (0..SAS).map(packet).collect();
        let mut work = Work {
            suite,
            sealed: plain.clone(),
            plain,
            buffers: vec![0; GROUP * STRIDE + LINE],
            keys,
        };
        let ours = EngineAt::best(suite, &work.keys);
        let mut ours = ours.expect("a level that this machine can");
        let mut sealed = vec![];
        work.pass(
            &mut ours,
            Op::Seal,
            |_, _| {},
            |packet| sealed.push(packet.esp.to_vec()),
        );
        work.sealed = sealed;
        work
    }

    /// The suite.
    pub fn suite(&self) -> Transform {
        self.suite
    }

    /// The keys of the SAs.
    pub fn keys(&self) -> &[Keys] {
        &self.keys
    }

    /// Bytes of all packets, sealed.
    pub fn bytes(&self) -> usize {
        self.sealed.iter().map(Vec::len).sum()
    }

    /// Checks that a contestant, by every way it has, seals and opens to the same
    /// bytes as our best engine, and refuses a packet whose ICV is wrong.
    ///
    /// # Panics
    /// When it does not: what does other work cannot be compared.
    pub fn agree(&mut self, who: &mut dyn Contestant) {
        let (suite, icv) = (self.suite, self.suite.icv_len());
        let (plain, sealed) = (self.plain.clone(), self.sealed.clone());
        for (way, name) in who.ways().into_iter().enumerate() {
            who.take(way);
            self.pass(
                who,
                Op::Seal,
                |_, _| {},
                |packet| {
                    let same = packet.ok && *packet.esp == sealed[packet.sa];
                    assert!(same, "{name} seals {suite:?} differently");
                },
            );
            self.pass(
                who,
                Op::Open,
                |_, _| {},
                |packet| {
                    let end = packet.esp.len() - icv;
                    let same = packet.ok && packet.esp[..end] == plain[packet.sa][..end];
                    assert!(same, "{name} opens {suite:?} differently");
                },
            );
            // One in a batch, another place in each.
            let damaged = |sa: usize| sa.is_multiple_of(BATCH + 1);
            let damage = |sa: usize, esp: &mut [u8]| {
                if let Some(last) = esp.last_mut().filter(|_| damaged(sa)) {
                    *last ^= 4;
                }
            };
            self.pass(who, Op::Open, damage, |packet| {
                assert_eq!(
                    packet.ok,
                    !damaged(packet.sa),
                    "{name} opens {suite:?}, damaged"
                );
            });
        }
        who.take(0);
    }

    /// What each contestant's nanoseconds per packet were, round by round.
    ///
    /// # Panics
    /// When one of them does not take a packet.
    pub fn contest(
        &mut self,
        who: &mut [&mut dyn Contestant],
        op: Op,
        turns: Turns,
    ) -> Vec<Vec<f64>> {
        let work = RefCell::new(self);
        let mut each: Vec<_> = who
            .iter_mut()
            .map(|who| {
                let work = &work;
                move || work.borrow_mut().turn(&mut **who, op, turns.passes)
            })
            .collect();
        let mut each: Vec<&mut dyn FnMut() -> f64> =
            each.iter_mut().map(|turn| turn as _).collect();
        alternate(turns.rounds, &mut each)
    }

    /// Nanoseconds per packet of one contestant, in passes of which the first is
    /// not timed.
    ///
    /// # Panics
    /// When it does not take a packet.
    pub fn turn(&mut self, who: &mut dyn Contestant, op: Op, passes: usize) -> f64 {
        let mut pass = || {
            let mut good = 0;
            let nanoseconds =
                self.pass(who, op, |_, _| {}, |packet| good += usize::from(packet.ok));
            assert_eq!(good, SAS, "every packet is good");
            nanoseconds
        };
        pass();
        let nanoseconds: f64 = (0..passes).map(|_| pass()).sum();
        nanoseconds / (passes * SAS) as f64
    }

    /// Every packet once, in batches. Nanoseconds in which they were worked on:
    /// what lays them out (`before`) and looks at them (`after`) is outside.
    fn pass(
        &mut self,
        who: &mut dyn Contestant,
        op: Op,
        mut before: impl FnMut(usize, &mut [u8]),
        mut after: impl FnMut(&Packet<'_>),
    ) -> f64 {
        let all = match op {
            Op::Seal => &self.plain,
            Op::Open => &self.sealed,
        };
        let begin = self.buffers.as_ptr().align_offset(LINE);
        let buffers = &mut self.buffers[begin..begin + GROUP * STRIDE];
        let mut nanoseconds = 0.0;
        for (nth, group) in all.chunks(GROUP).enumerate() {
            let places = buffers.chunks_exact_mut(STRIDE).zip(group).enumerate();
            let lay_out = places.map(|(i, (place, from))| {
                let (sa, esp) = (nth * GROUP + i, &mut place[FRONT..FRONT + from.len()]);
                esp.copy_from_slice(from);
                before(sa, esp);
                Packet { sa, esp, ok: false }
            });
            let mut packets: Vec<Packet<'_>> = lay_out.collect();
            let began = Instant::now();
            for batch in packets.chunks_mut(BATCH) {
                who.run(op, batch);
            }
            nanoseconds += began.elapsed().as_nanos() as f64;
            packets.iter().for_each(&mut after);
        }
        nanoseconds
    }
}

/// Xorshift: the same packets in every run.
struct Random(u64);

impl Random {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::SUITES;

    #[test]
    fn our_best_and_rustcrypto_do_the_same_work() {
        for suite in SUITES {
            let mut work = Work::new(suite, |sa| 128 + sa % 3 * 16);
            let mut other = EngineAt::rustcrypto(suite, work.keys()).unwrap();
            work.agree(&mut other);
        }
    }

    /// Seals rightly, and opens without a look at the ICV.
    struct Careless(EngineAt);

    impl Contestant for Careless {
        fn name(&self) -> &'static str {
            "careless"
        }

        fn run(&mut self, op: Op, batch: &mut [Packet<'_>]) {
            self.0.run(op, batch);
            batch.iter_mut().for_each(|packet| packet.ok = true);
        }
    }

    #[test]
    #[should_panic(expected = "careless opens HmacSha1Null, damaged")]
    fn who_skips_work_is_not_measured() {
        let mut work = Work::new(Transform::HmacSha1Null, |_| 128);
        let ours = EngineAt::best(work.suite(), work.keys()).unwrap();
        work.agree(&mut Careless(ours));
    }
}
