//! How far the numbers of SAs went that are gone.

use std::sync::Arc;

use gm_esp::{EspKeys, Suite};
use gm_region::{Region, Trace};
use sha2::{Digest, Sha256};

use crate::finder::Finder;
use crate::types::Dir;

/// Names a key, in both directions. A hash, not the key.
pub(crate) fn fingerprint(keys: &EspKeys) -> [u64; 2] {
    let mut hash = Sha256::new();
    hash.update(b"gmesp: key of an SA");
    if is_one_for_both(keys.suite()) {
        // One AES key in GMAC and in GCM gives the same key stream for a nonce.
        hash.update("aes-gcm or aes-gmac");
    } else {
        hash.update(keys.suite().alg());
        hash.update(keys.suite().ealg());
    }
    hash.update(keys.integrity().unwrap_or_default());
    hash.update(keys.encryption().unwrap_or_default());
    hash.update(keys.salt().unwrap_or_default());
    let digest: [u8; 32] = hash.finalize().into();
    let word = |at: usize| digest[at..].first_chunk().copied().unwrap_or_default();
    [u64::from_ne_bytes(word(0)), u64::from_ne_bytes(word(8))]
}

/// Names what must not count its numbers twice, together with an SPI: for GCM
/// and GMAC the key, because with it both ends make nonces of SPI and number;
/// else the key in one direction.
pub(crate) fn directed([one, two]: [u64; 2], suite: Suite, dir: Dir) -> [u64; 2] {
    let turn = dir == Dir::Out && !is_one_for_both(suite);
    // As good as a hash of key and direction: it differs in one bit, and that of
    // another key in about half of them.
    [one ^ u64::from(turn), two]
}

/// Whether both directions have one fingerprint.
fn is_one_for_both(suite: Suite) -> bool {
    suite.transform().has_salt()
}

/// What a trace is found by: fingerprint and SPI.
type Pair = ([u64; 2], u32);

/// The region's traces, found by key and SPI. As many as the region has slots;
/// then the oldest is forgotten.
pub(crate) struct Traces {
    region: Arc<Region>,
    /// Places in the region; of a pair that is there twice the later one, which
    /// has the higher number.
    places: Finder,
}

impl Traces {
    /// Those of a region.
    pub(crate) fn new(region: Arc<Region>) -> Traces {
        let mut traces = Traces {
            places: Finder::new(region.slots()),
            region: region.clone(),
        };
        for (place, trace) in region.traces() {
            let pair = (words(trace.fingerprint), trace.spi);
            match traces.place(pair) {
                Some((_, other)) if other.last >= trace.last => continue,
                Some((other, _)) => traces.forget(other, pair),
                None => {}
            }
            traces.places.insert(&pair, place);
        }
        traces
    }

    /// The highest number that the key has used with the SPI; 0: none known.
    pub(crate) fn last(&self, fingerprint: [u64; 2], spi: u32) -> u64 {
        self.place((fingerprint, spi)).map_or(0, |(_, t)| t.last)
    }

    /// Notes how far the numbers of a key with an SPI went.
    pub(crate) fn leave(&mut self, fingerprint: [u64; 2], spi: u32, last: u64) {
        if last == 0 {
            return;
        }
        let pair = (fingerprint, spi);
        let mut last = last;
        if let Some((place, before)) = self.place(pair) {
            last = last.max(before.last);
            self.forget(place, pair);
        }
        // Who has its place until now is forgotten.
        let next = self.region.next_trace();
        if let Some(old) = self.pair(next) {
            self.forget(next, old);
        }
        let [low, high] = fingerprint.map(u128::from);
        let place = self.region.leave_trace(Trace {
            fingerprint: low | high << 64,
            spi,
            last,
        });
        self.places.insert(&pair, place);
    }

    fn place(&self, pair: Pair) -> Option<(u32, Trace)> {
        let is = |place| self.pair(place) == Some(pair);
        let place = self.places.find(&pair, is)?;
        Some((place, self.region.trace(place)?))
    }

    fn pair(&self, place: u32) -> Option<Pair> {
        let trace = self.region.trace(place)?;
        Some((words(trace.fingerprint), trace.spi))
    }

    /// Takes a place out, if it is in.
    fn forget(&mut self, place: u32, pair: Pair) {
        let region = &self.region;
        self.places.remove(&pair, place, |other| {
            let trace = region.trace(other);
            trace.map_or(([0; 2], 0), |t| (words(t.fingerprint), t.spi))
        });
    }
}

fn words(fingerprint: u128) -> [u64; 2] {
    [fingerprint as u64, (fingerprint >> 64) as u64]
}
