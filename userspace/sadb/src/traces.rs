//! How far the numbers of SAs went that are gone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use gm_esp::EspKeys;
use gm_region::{Region, Trace};
use sha2::{Digest, Sha256};

use crate::types::Dir;

/// Names what must not count its numbers twice, together with an SPI: for GCM
/// and GMAC the key, because with it both ends make nonces of SPI and number;
/// else the key in one direction. A hash, not the key.
pub(crate) fn fingerprint(keys: &EspKeys, dir: Dir) -> u128 {
    let mut hash = Sha256::new();
    hash.update(b"gmesp: key of an SA");
    if keys.suite().transform().has_salt() {
        // One AES key in GMAC and in GCM gives the same key stream for a nonce.
        hash.update("aes-gcm or aes-gmac");
    } else {
        hash.update([u8::from(dir == Dir::Out)]);
        hash.update(keys.suite().alg());
        hash.update(keys.suite().ealg());
    }
    hash.update(keys.integrity().unwrap_or_default());
    hash.update(keys.encryption().unwrap_or_default());
    hash.update(keys.salt().unwrap_or_default());
    let digest: [u8; 32] = hash.finalize().into();
    let half = digest.first_chunk().copied().unwrap_or_default();
    u128::from_ne_bytes(half)
}

/// The region's traces, found by key and SPI. As many as the region has slots;
/// then the oldest is forgotten.
pub(crate) struct Traces {
    region: Arc<Region>,
    /// The highest number, and how often the pair is in `order`.
    last: HashMap<(u128, u32), (u64, usize)>,
    order: VecDeque<(u128, u32)>,
}

impl Traces {
    pub(crate) fn new(region: Arc<Region>) -> Traces {
        let mut traces = Traces {
            last: HashMap::new(),
            order: VecDeque::new(),
            region: region.clone(),
        };
        for trace in region.traces() {
            traces.remember(trace);
        }
        traces
    }

    /// The highest number that the key has used with the SPI; 0: none known.
    pub(crate) fn last(&self, fingerprint: u128, spi: u32) -> u64 {
        self.last
            .get(&(fingerprint, spi))
            .map_or(0, |(last, _)| *last)
    }

    pub(crate) fn leave(&mut self, trace: Trace) {
        if trace.last > 0 {
            self.region.leave_trace(trace);
            self.remember(trace);
        }
    }

    fn remember(&mut self, trace: Trace) {
        let key = (trace.fingerprint, trace.spi);
        let (last, times) = self.last.entry(key).or_insert((0, 0));
        *last = trace.last.max(*last);
        *times += 1;
        self.order.push_back(key);
        if self.order.len() > self.region.slots() as usize {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(old) = self.order.pop_front()
            && let Some((_, times)) = self.last.get_mut(&old)
        {
            *times -= 1;
            if *times == 0 {
                self.last.remove(&old);
            }
        }
    }
}
