//! Installing a set: all of it or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{EspKeys, Sa, SaError, SaKey, SaSpec, Window};
use gm_region::SlotState;

use crate::error::SadbError;
use crate::record::{self, Record};
use crate::sadb::{Entry, Sadb};
use crate::traces::{fingerprint, is_one_for_both};
use crate::types::{Change, Dir, Installed, NewSa, SetId};

/// Makes an SA of a key that is expanded.
type Make = fn(SaSpec, &SaKey) -> Result<Sa, SaError>;

/// A slot, and the SPI that it was reserved with.
type Taken = (u32, Option<u32>);

/// The fingerprints of a key, as far as they were asked for: of both directions
/// or inbound, and outbound.
type Fingerprints = [Option<[u64; 2]>; 2];

/// The keys of one set, each expanded once: as a rule all SAs have the same.
#[derive(Default)]
struct Expanded<'a>(Vec<(&'a EspKeys, SaKey, Fingerprints)>);

impl<'a> Expanded<'a> {
    /// The expanded key and the fingerprint.
    fn of(&mut self, keys: &'a EspKeys, dir: Dir) -> Result<(&SaKey, [u64; 2]), SaError> {
        let at = match self.0.iter().position(|(known, ..)| *known == keys) {
            Some(at) => at,
            None => {
                self.0.push((keys, SaKey::new(keys)?, [None; 2]));
                self.0.len() - 1
            }
        };
        let (_, key, fingerprints) = &mut self.0[at];
        let side = usize::from(dir == Dir::Out && !is_one_for_both(keys));
        let fingerprint = *fingerprints[side].get_or_insert_with(|| fingerprint(keys, dir));
        Ok((key, fingerprint))
    }
}

/// An SA that has passed all checks that need no other.
struct Ready {
    sa: Arc<Sa>,
    dir: Dir,
    fingerprint: [u64; 2],
    /// The last number that counts as used.
    last: u64,
}

impl Sadb {
    /// Installs all SAs of a set: inbound live, outbound standing by. An
    /// inbound SA whose SPI is reserved gets that slot. The same SAs again
    /// under the same number are no error.
    ///
    /// An SA whose key and SPI were in use before goes on with their numbers.
    ///
    /// # Errors
    ///
    /// [`SadbError`] names what does not fit. Nothing has changed then, and
    /// reservations are still there.
    pub fn install(&mut self, set: SetId, new: &[NewSa]) -> Result<Installed, SadbError> {
        self.install_as(set, new, Sa::with_key)
    }

    /// Installs SAs that another data plane has: [`Sa::adopted`]. They take no
    /// number before [`Sadb::open`].
    ///
    /// # Errors
    /// As [`Sadb::install`]; [`SadbError::SetExists`] for a set that is there.
    pub fn install_closed(&mut self, set: SetId, new: &[NewSa]) -> Result<Installed, SadbError> {
        if self.sets.contains_key(&set) {
            return Err(SadbError::SetExists(set));
        }
        let installed = self.install_as(set, new, Sa::adopted_with_key)?;
        self.close(set)?;
        Ok(installed)
    }

    fn install_as(
        &mut self,
        set: SetId,
        new: &[NewSa],
        make: Make,
    ) -> Result<Installed, SadbError> {
        if set.0 == 0 {
            return Err(SadbError::SetZero);
        }
        if let Ok(entries) = self.entries(set) {
            let again = installed_again(set, &entries, new)?;
            return match entries.iter().any(|e| self.is_going(e)) {
                true => Err(SadbError::Retired(set)),
                false => Ok(again),
            };
        }
        let count = u8::try_from(new.len()).ok().filter(|n| *n > 0);
        let count = count.ok_or(SadbError::Count(set))?;
        let mut keys = Expanded::default();
        let mut ready: Vec<Ready> = Vec::with_capacity(new.len());
        for new in new {
            ready.push(self.check(new, make, &mut keys)?);
        }
        let slots = self.take_slots(&ready)?;
        let lasts: Vec<u64> = ready.iter().map(|r| r.last).collect();
        let entries = self.enter(ready, &slots)?;

        // From here on nothing can fail. A successor that finds the set with
        // slots that are not live rolls all of it back.
        for (((entry, last), new), place) in entries.iter().zip(lasts).zip(new).zip(0..) {
            let record = Record {
                set,
                spec: new.spec,
                dir: new.dir,
                count,
                place,
            };
            self.write(entry.slot, &record, &new.keys, last);
        }
        for entry in &entries {
            let state = if entry.dir == Dir::In {
                SlotState::Live
            } else {
                SlotState::Standby
            };
            self.at(entry.slot).hot().set_state(state);
        }
        let changes = self.announce(&entries);
        let slots: Vec<u32> = entries.iter().map(|e| e.slot).collect();
        self.sets.insert(set, slots.iter().copied().collect());
        Ok(Installed {
            set,
            slots,
            changes,
        })
    }

    /// What the data plane does about new SAs: the workers learn them before
    /// XDP sends them packets.
    pub(crate) fn announce(&self, entries: &[Entry]) -> Vec<Change> {
        let add = |e: &Entry| Change::Add {
            slot: e.slot,
            sa: e.sa.clone(),
            dir: e.dir,
        };
        let publish = |e: &Entry| Change::Publish {
            slot: e.slot,
            foreign: self.is_foreign(e),
            sa: e.sa.clone(),
        };
        let inbound = entries.iter().filter(|e| e.dir == Dir::In);
        entries
            .iter()
            .map(add)
            .chain(inbound.map(publish))
            .collect()
    }

    fn check<'a>(
        &self,
        new: &'a NewSa,
        make: Make,
        expanded: &mut Expanded<'a>,
    ) -> Result<Ready, SadbError> {
        let spi = new.spec.spi;
        let refused = |reason| SadbError::Sa { spi, reason };
        let (key, fingerprint) = expanded.of(&new.keys, new.dir).map_err(refused)?;
        let sa = make(new.spec, key).map_err(refused)?;
        let words = self.region().window_words();
        if Window::words(new.spec.replay_window) > words as usize {
            let max = words.saturating_sub(1) * 64;
            return Err(SadbError::Window {
                spi,
                size: new.spec.replay_window,
                max,
            });
        }
        let first = new.first_seq.unwrap_or(1);
        let limit = sa.seq_limit();
        if first == 0 || first > limit {
            return Err(SadbError::FirstSeq { spi, first });
        }
        let last = self.traces.last(fingerprint, spi).max(first - 1);
        if last >= limit {
            return Err(SadbError::UsedUp { spi });
        }
        Ok(Ready {
            sa: Arc::new(sa),
            dir: new.dir,
            fingerprint,
            last,
        })
    }

    /// Enters all of them, or none: then their slots are where they were.
    fn enter(&mut self, ready: Vec<Ready>, slots: &[Taken]) -> Result<Vec<Entry>, SadbError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(ready.len());
        for (ready, (slot, _)) in ready.into_iter().zip(slots) {
            let entry = Entry {
                slot: *slot,
                sa: ready.sa,
                dir: ready.dir,
                fingerprint: ready.fingerprint,
            };
            if let Err(error) = self.index.enter(entry.clone()) {
                for entry in entries {
                    self.index.leave(entry.slot);
                }
                self.put_back(slots);
                return Err(error);
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// A slot for each SA, or none.
    fn take_slots(&mut self, ready: &[Ready]) -> Result<Vec<Taken>, SadbError> {
        let mut taken: Vec<Taken> = Vec::with_capacity(ready.len());
        for r in ready {
            let spi = Some(r.sa.spec.spi).filter(|_| r.dir == Dir::In);
            let reserved = spi.and_then(|spi| Some((self.reserved.remove(&spi)?, Some(spi))));
            if let Some(slot) = reserved.or_else(|| Some((self.slots.take()?, None))) {
                taken.push(slot);
                continue;
            }
            self.put_back(&taken);
            return Err(SadbError::Full {
                wanted: ready.len(),
                slots: self.region().slots(),
            });
        }
        Ok(taken)
    }

    fn put_back(&mut self, taken: &[Taken]) {
        for (slot, spi) in taken.iter().rev() {
            match spi {
                Some(spi) => drop(self.reserved.insert(*spi, *slot)),
                None => self.slots.put_back(*slot),
            }
        }
    }

    /// Writes an SA into its slot; the state comes later. Numbers up to `last`
    /// count as used.
    fn write(&self, slot: u32, record: &Record, keys: &EspKeys, last: u64) {
        let (at, spec) = (self.at(slot), &record.spec);
        let hot = at.hot();
        hot.set_state(SlotState::Installing);
        at.wipe();
        at.set_record(&record.to_bytes());
        at.set_key_material(&record::material(keys));
        match record.dir {
            Dir::Out => {
                let port = spec.outer.and_then(|o| o.dport);
                hot.encap_port.store(port.map_or(0, u32::from), Relaxed);
                hot.seq.store(last, Relaxed);
            }
            Dir::In => {
                let window = Window::new(&hot.top, at.window_bits(), spec.replay_window);
                let from = last.saturating_sub(spec.replay_window.into()).max(1);
                if let Ok(window) = window {
                    for seq in from..=last {
                        // Refused only where it is marked already.
                        let _ = window.commit(seq);
                    }
                }
            }
        }
    }
}

/// The answer to a repeated install.
fn installed_again(set: SetId, entries: &[Entry], new: &[NewSa]) -> Result<Installed, SadbError> {
    let same = |(e, n): (&Entry, &NewSa)| {
        e.sa.spec == n.spec && e.dir == n.dir && e.fingerprint == fingerprint(&n.keys, n.dir)
    };
    if entries.len() != new.len() || !entries.iter().zip(new).all(same) {
        return Err(SadbError::SetExists(set));
    }
    let slots = entries.iter().map(|e| e.slot).collect();
    Ok(Installed {
        set,
        slots,
        changes: Vec::new(),
    })
}
