//! SAs that come from somebody else's data plane, or go to one, with their
//! numbers and windows.
//!
//! ```text
//! install_closed --> the SA is there and takes no number, neither way
//! open ------------> it goes on where the other one has ended
//! handover --------> what the other one needs, to go on where this has ended
//! ```

use std::sync::atomic::Ordering::Relaxed;

use gm_abi::verdict::Reason;
use gm_esp::{EspKeys, SaSpec, Window};

use crate::error::SadbError;
use crate::record;
use crate::sadb::{Entry, Sadb};
use crate::types::{Dir, SetId};

/// Of a closed SA: every number is left of the window, and none follows.
pub(crate) const CLOSED: u64 = u64::MAX;

/// How far the numbers of an SA have gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Outbound: the last sequence number used. Inbound: the highest accepted.
    /// With extended numbers all 64 bits; 0: none yet.
    pub last: u64,
    /// Inbound: bit `i % 64` of word `i / 64` says that number `last - i` was
    /// accepted. What is further back than there are bits counts as accepted.
    /// Outbound: empty.
    pub seen: Vec<u64>,
}

impl Numbers {
    /// Whether number `last - back` was accepted; the last one was.
    pub fn has_seen(&self, back: u64) -> bool {
        let word = usize::try_from(back / 64)
            .ok()
            .and_then(|i| self.seen.get(i));
        back == 0 || word.is_none_or(|word| word >> (back % 64) & 1 == 1)
    }
}

/// An SA on its way to another data plane. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Handover {
    /// What it is.
    pub spec: SaSpec,
    /// Its keys.
    pub keys: EspKeys,
    /// Its direction.
    pub dir: Dir,
    /// Its numbers.
    pub numbers: Numbers,
    /// Outbound UDP-enc-tun: the phone's port in force, learnt or given.
    pub encap_port: Option<u16>,
}

impl Sadb {
    /// Shuts a set: until [`Sadb::open`] it accepts nothing and has no number to
    /// send with, whoever starts a worker meanwhile.
    ///
    /// # Errors
    /// [`SadbError::UnknownSet`].
    pub fn close(&mut self, set: SetId) -> Result<(), SadbError> {
        for entry in self.entries(set)? {
            let hot = self.at(entry.slot).hot();
            match entry.dir {
                Dir::In => hot.top.store(CLOSED, Relaxed),
                Dir::Out => hot.seq.store(CLOSED, Relaxed),
            }
        }
        Ok(())
    }

    /// Whether the inbound SA in a slot is closed.
    pub fn is_closed(&self, slot: u32) -> bool {
        let slot = self.region().slot(slot);
        slot.is_some_and(|s| s.hot().top.load(Relaxed) == CLOSED)
    }

    /// Gives the SAs of a set their numbers, in the order of their install, to
    /// the letter. While it does, no worker may use them. A window that is
    /// larger here than there takes what nobody knows of for seen.
    ///
    /// # Errors
    /// [`SadbError`] names what does not fit: nothing has changed then.
    pub fn open(&mut self, set: SetId, numbers: &[Numbers]) -> Result<(), SadbError> {
        let entries = self.entries(set)?;
        if entries.len() != numbers.len() {
            return Err(SadbError::Count(set));
        }
        for (entry, numbers) in entries.iter().zip(numbers) {
            let spi = entry.sa.spi();
            if numbers.last < self.traces.last(self.index.fingerprint(entry), spi) {
                return Err(SadbError::NumbersBack { spi });
            }
            if numbers.last >= entry.sa.seq_limit() {
                return Err(SadbError::UsedUp { spi });
            }
        }
        for (entry, numbers) in entries.iter().zip(numbers) {
            match entry.dir {
                Dir::Out => self.at(entry.slot).hot().seq.store(numbers.last, Relaxed),
                Dir::In => self.write_window(entry, numbers),
            }
        }
        Ok(())
    }

    fn write_window(&self, entry: &Entry, numbers: &Numbers) {
        let (at, size) = (self.at(entry.slot), entry.sa.replay_window());
        let top = &at.hot().top;
        top.store(0, Relaxed);
        at.window_bits()
            .iter()
            .for_each(|word| word.store(0, Relaxed));
        let Ok(window) = Window::new(top, at.window_bits(), size) else {
            unreachable!("the size was checked when it was installed");
        };
        for back in (0..u64::from(size).min(numbers.last)).rev() {
            if numbers.has_seen(back) {
                // Refused only where it is marked already.
                let _ = window.commit(numbers.last - back);
            }
        }
    }

    /// Notes what another data plane has used of a set that comes back from it;
    /// what was used here stays used. While it does, no worker may use the SAs.
    ///
    /// # Errors
    /// [`SadbError::UnknownSet`], [`SadbError::Count`].
    pub fn merge(&mut self, set: SetId, numbers: &[Numbers]) -> Result<(), SadbError> {
        let entries = self.entries(set)?;
        if entries.len() != numbers.len() {
            return Err(SadbError::Count(set));
        }
        for (entry, numbers) in entries.iter().zip(numbers) {
            let (at, size) = (self.at(entry.slot), entry.sa.replay_window());
            let hot = at.hot();
            if entry.dir == Dir::Out {
                hot.seq.fetch_max(numbers.last, Relaxed);
                continue;
            }
            let Ok(window) = Window::new(&hot.top, at.window_bits(), size) else {
                continue;
            };
            for back in (0..u64::from(size).min(numbers.last)).rev() {
                if numbers.has_seen(back) {
                    let _ = window.commit(numbers.last - back);
                }
            }
        }
        Ok(())
    }

    /// Everything that another data plane needs to go on with a set, in the
    /// order of its install. While it is read no worker may use the SAs. An SA
    /// that is closed has no numbers to give.
    ///
    /// # Errors
    /// [`SadbError::UnknownSet`], [`SadbError::Retired`].
    pub fn handover(&self, set: SetId) -> Result<Vec<Handover>, SadbError> {
        let entries = self.entries(set)?;
        if entries.iter().any(|e| self.is_going(e)) {
            return Err(SadbError::Retired(set));
        }
        let one = |entry: &Entry| {
            let (at, spec) = (self.at(entry.slot), entry.sa.spec());
            let common = self.region.common(record::common_of(at));
            let keys = common.and_then(|c| record::keys(spec.suite, &c.key_material()));
            let numbers = self.numbers(entry).ok_or(SadbError::Retired(set))?;
            let learnt = u16::try_from(at.hot().encap_port.load(Relaxed)).ok();
            Ok(Handover {
                spec,
                keys: keys.ok_or(SadbError::UnknownSet(set))?,
                dir: entry.dir,
                numbers,
                encap_port: learnt.filter(|port| *port != 0 && entry.dir == Dir::Out),
            })
        };
        entries.iter().map(one).collect()
    }

    /// The numbers of an SA; `None`: it is closed.
    fn numbers(&self, entry: &Entry) -> Option<Numbers> {
        let (at, size) = (self.at(entry.slot), entry.sa.replay_window());
        let hot = at.hot();
        if entry.dir == Dir::Out {
            let last = hot.seq.load(Relaxed);
            return (last != CLOSED).then_some(Numbers {
                last,
                seen: Vec::new(),
            });
        }
        let last = hot.top.load(Relaxed);
        let window = Window::new(&hot.top, at.window_bits(), size).ok()?;
        let mut seen = vec![0u64; (size as usize).div_ceil(64)];
        for back in 0..u64::from(size).min(last) {
            if window.check(last - back) == Err(Reason::Replay) {
                seen[(back / 64) as usize] |= 1 << (back % 64);
            }
        }
        (last != CLOSED).then_some(Numbers { last, seen })
    }
}

#[cfg(test)]
#[path = "numbers_tests.rs"]
mod tests;
