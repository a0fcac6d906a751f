//! The engines of gm-engines as contestants.

use gm_engines::{Engine, Job, Key, Level, Transform};

use super::{BATCH, Contestant, Keys, Op, Packet};

/// An engine with the keys of its SAs.
pub struct EngineAt {
    name: &'static str,
    engine: &'static dyn Engine,
    at_once: usize,
    keys: Vec<Key>,
}

impl EngineAt {
    /// The engine of a level, which gets `at_once` packets a call: one or
    /// [`BATCH`]. `None` where the processor cannot.
    ///
    /// # Panics
    /// When `at_once` is something else.
    pub fn new(
        name: &'static str,
        level: Level,
        at_once: usize,
        suite: Transform,
        keys: &[Keys],
    ) -> Option<EngineAt> {
        assert!(at_once == 1 || at_once == BATCH);
        let engine = level.engine()?;
        let expand = |keys: &Keys| {
            let integrity = &keys.integrity[..suite.integrity_key_len()];
            let encryption = &keys.encryption[..suite.encryption_key_len()];
            Key::made_for(level, suite, integrity, encryption, keys.salt).ok()
        };
        Some(EngineAt {
            name,
            engine,
            at_once,
            keys: keys.iter().map(expand).collect::<Option<_>>()?,
        })
    }

    /// The best level of this machine, [`BATCH`] packets a call.
    pub fn best(suite: Transform, keys: &[Keys]) -> Option<EngineAt> {
        let level = Level::ALL
            .into_iter()
            .find(|level| level.engine().is_some())?;
        EngineAt::new("gmesp", level, BATCH, suite, keys)
    }

    /// RustCrypto's crates, a packet a call.
    pub fn rustcrypto(suite: Transform, keys: &[Keys]) -> Option<EngineAt> {
        EngineAt::new("rustcrypto", Level::Portable, 1, suite, keys)
    }
}

impl Contestant for EngineAt {
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, op: Op, batch: &mut [Packet<'_>]) {
        for packets in batch.chunks_mut(self.at_once) {
            match packets.len() {
                BATCH => self.jobs::<BATCH>(op, packets),
                _ => packets
                    .chunks_mut(1)
                    .for_each(|one| self.jobs::<1>(op, one)),
            }
        }
    }
}

impl EngineAt {
    /// Exactly `N` packets, as one call.
    fn jobs<const N: usize>(&self, op: Op, packets: &mut [Packet<'_>]) {
        let mut each = packets.iter_mut();
        let mut jobs: [Job<'_>; N] = std::array::from_fn(|_| {
            let packet = each.next().expect("as many packets as jobs");
            Job {
                key: &self.keys[packet.sa],
                esp: packet.esp,
                seq_hi: None,
                ok: false,
            }
        });
        match op {
            Op::Seal => self.engine.seal(&mut jobs),
            Op::Open => self.engine.open(&mut jobs),
        }
        let ok: [bool; N] = std::array::from_fn(|i| jobs[i].ok);
        for (packet, ok) in packets.iter_mut().zip(ok) {
            packet.ok = ok;
        }
    }
}
