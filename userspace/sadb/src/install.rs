//! Installing a set: all of it or nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{EspKeys, Sa, SaError, SaSpec, Window};
use gm_region::SlotState;

use crate::error::SadbError;
use crate::record::{self, Record};
use crate::sadb::{Entry, Sadb};
use crate::traces::fingerprint;
use crate::types::{Change, Dir, Installed, NewSa, SetId};

/// An SA that has passed all checks that need no other.
struct Ready {
    sa: Arc<Sa>,
    dir: Dir,
    fingerprint: u128,
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
        self.install_as(set, new, Sa::new)
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
        let installed = self.install_as(set, new, Sa::adopted)?;
        self.close(set)?;
        Ok(installed)
    }

    fn install_as(
        &mut self,
        set: SetId,
        new: &[NewSa],
        make: fn(SaSpec, &EspKeys) -> Result<Sa, SaError>,
    ) -> Result<Installed, SadbError> {
        if set.0 == 0 {
            return Err(SadbError::SetZero);
        }
        if let Some(entries) = self.sets.get(&set) {
            let again = installed_again(set, entries, new)?;
            return match entries.iter().any(|e| self.is_going(e)) {
                true => Err(SadbError::Retired(set)),
                false => Ok(again),
            };
        }
        let count = u8::try_from(new.len()).ok().filter(|n| *n > 0);
        let count = count.ok_or(SadbError::Count(set))?;
        let ready: Vec<Ready> = new
            .iter()
            .map(|new| self.check(new, make))
            .collect::<Result<_, _>>()?;
        self.enter(&ready)?;
        let slots = self.take_slots(&ready)?;

        // From here on nothing can fail. A successor that finds the set with
        // slots that are not live rolls all of it back.
        let mut entries = Vec::with_capacity(new.len());
        for (((ready, slot), new), place) in ready.into_iter().zip(&slots).zip(new).zip(0..) {
            let Ready {
                sa,
                dir,
                fingerprint,
                last,
            } = ready;
            let record = Record {
                spec: new.spec,
                dir,
                count,
                place,
            };
            self.write(set, *slot, &record, &new.keys, last);
            entries.push(Entry {
                slot: *slot,
                sa,
                dir,
                fingerprint,
            });
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
        self.sets.insert(set, entries);
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

    fn check(
        &self,
        new: &NewSa,
        make: fn(SaSpec, &EspKeys) -> Result<Sa, SaError>,
    ) -> Result<Ready, SadbError> {
        let spi = new.spec.spi;
        let sa = make(new.spec, &new.keys).map_err(|reason| SadbError::Sa { spi, reason })?;
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
        let fingerprint = fingerprint(&new.keys, new.dir);
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

    fn enter(&mut self, ready: &[Ready]) -> Result<(), SadbError> {
        for (i, r) in ready.iter().enumerate() {
            if let Err(error) = self.index.enter(&r.sa, r.dir, r.fingerprint) {
                self.leave(&ready[..i]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave(&mut self, ready: &[Ready]) {
        for r in ready {
            self.index.leave(&r.sa, r.dir, r.fingerprint);
        }
    }

    /// A slot for each SA; after an error the index has forgotten them, too.
    fn take_slots(&mut self, ready: &[Ready]) -> Result<Vec<u32>, SadbError> {
        let mut taken: Vec<(u32, Option<u32>)> = Vec::with_capacity(ready.len());
        for r in ready {
            let spi = Some(r.sa.spec.spi).filter(|_| r.dir == Dir::In);
            let reserved = spi.and_then(|spi| Some((self.reserved.remove(&spi)?, Some(spi))));
            if let Some(slot) = reserved.or_else(|| Some((self.slots.take()?, None))) {
                taken.push(slot);
                continue;
            }
            for (slot, spi) in taken.into_iter().rev() {
                match spi {
                    Some(spi) => drop(self.reserved.insert(spi, slot)),
                    None => self.slots.put_back(slot),
                }
            }
            self.leave(ready);
            return Err(SadbError::Full {
                wanted: ready.len(),
                slots: self.region().slots(),
            });
        }
        Ok(taken.into_iter().map(|(slot, _)| slot).collect())
    }

    /// Writes an SA into its slot; the state comes later. Numbers up to `last`
    /// count as used.
    fn write(&self, set: SetId, slot: u32, record: &Record, keys: &EspKeys, last: u64) {
        let (at, spec) = (self.at(slot), &record.spec);
        let hot = at.hot();
        hot.set_state(SlotState::Installing);
        at.wipe();
        at.set_record(&record.to_bytes());
        at.set_key_material(&record::material(keys));
        hot.set.store(set.0, Relaxed);
        hot.spi.store(spec.spi, Relaxed);
        hot.window.store(spec.replay_window, Relaxed);
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
