//! Installing a set: all of it or nothing.

use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{EspKeys, Sa, SaError, SaKey, SaSpec, Window};
use gm_region::SlotState;

use crate::commons::{self, Shared};
use crate::error::SadbError;
use crate::record::Record;
use crate::sadb::{Entry, Sadb};
use crate::traces::{directed, fingerprint};
use crate::types::{Change, Dir, Installed, NewSa, SetId};

/// Makes an SA of a key that is expanded.
type Make = fn(SaSpec, &SaKey) -> Result<Sa, SaError>;

/// A slot, and the SPI that it was reserved with.
type Taken = (u32, Option<u32>);

/// What some SAs of a set have in common.
struct Group<'a> {
    keys: &'a EspKeys,
    key: SaKey,
    shared: Shared,
}

/// The keys of one set, each expanded once for its addresses: as a rule all SAs
/// have the same.
struct Groups<'a> {
    set: SetId,
    all: Vec<Group<'a>>,
}

impl<'a> Groups<'a> {
    /// The group of an SA.
    fn of(&mut self, new: &'a NewSa) -> Result<usize, SaError> {
        let (keys, spec) = (&new.keys, &new.spec);
        let mut known = self.all.iter();
        if let Some(at) = known.position(|g| g.keys == keys && g.key.is_for(spec)) {
            return Ok(at);
        }
        self.all.push(Group {
            keys,
            key: SaKey::new(keys, spec)?,
            shared: Shared {
                set: self.set,
                fingerprint: fingerprint(keys),
                ends: commons::ends(spec),
            },
        });
        Ok(self.all.len() - 1)
    }
}

/// An SA that has passed all checks that need no other.
struct Ready {
    sa: Sa,
    dir: Dir,
    /// Its place among the groups.
    group: usize,
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
            let again = self.installed_again(set, &entries, new)?;
            return match entries.iter().any(|e| self.is_going(e)) {
                true => Err(SadbError::Retired(set)),
                false => Ok(again),
            };
        }
        let count = u8::try_from(new.len()).ok().filter(|n| *n > 0);
        let count = count.ok_or(SadbError::Count(set))?;
        let mut groups = Groups {
            set,
            all: Vec::with_capacity(1),
        };
        let mut ready: Vec<Ready> = Vec::with_capacity(new.len());
        for new in new {
            ready.push(self.check(new, make, &mut groups)?);
        }
        let slots = self.take_slots(&ready)?;
        let places = match self.take_places(groups.all.len()) {
            Ok(places) => places,
            Err(error) => {
                self.put_back(&slots);
                return Err(error);
            }
        };

        // A successor that finds the set with slots that are not live rolls all
        // of it back.
        for (group, place) in groups.all.iter().zip(&places) {
            if let Some(at) = self.region.common(*place) {
                group.shared.write(at, group.keys);
            }
        }
        for (((ready, (slot, _)), new), place) in ready.iter().zip(&slots).zip(new).zip(0..) {
            let shared = &groups.all[ready.group].shared;
            let record = Record {
                set,
                spec: new.spec,
                dir: new.dir,
                count,
                place,
                common: places[ready.group],
                turned: commons::ends(&new.spec) != shared.ends,
            };
            self.write(*slot, &record, ready.last);
        }
        let entries = match self.enter(ready, &slots) {
            Ok(entries) => entries,
            Err(error) => {
                self.put_back(&slots);
                places.into_iter().for_each(|place| self.commons.put(place));
                return Err(error);
            }
        };
        // From here on nothing can fail.
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
        groups: &mut Groups<'a>,
    ) -> Result<Ready, SadbError> {
        let spi = new.spec.spi;
        let refused = |reason| SadbError::Sa { spi, reason };
        let group = groups.of(new).map_err(refused)?;
        let Group { key, shared, .. } = &groups.all[group];
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
        let fingerprint = directed(shared.fingerprint, new.spec.suite, new.dir);
        let last = self.traces.last(fingerprint, spi).max(first - 1);
        if last >= limit {
            return Err(SadbError::UsedUp { spi });
        }
        Ok(Ready {
            sa,
            dir: new.dir,
            group,
            last,
        })
    }

    /// Enters all of them, or none.
    fn enter(&mut self, ready: Vec<Ready>, slots: &[Taken]) -> Result<Vec<Entry>, SadbError> {
        let mut entries: Vec<Entry> = Vec::with_capacity(ready.len());
        for (ready, (slot, _)) in ready.into_iter().zip(slots) {
            let entry = Entry {
                slot: *slot,
                sa: ready.sa,
                dir: ready.dir,
            };
            if let Err(error) = self.index.enter(entry.clone()) {
                for entry in entries {
                    self.index.leave(entry.slot);
                }
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
            let spi = Some(r.sa.spi()).filter(|_| r.dir == Dir::In);
            let reserved = spi.and_then(|spi| Some((self.reserved.remove(&spi)?, Some(spi))));
            if let Some(slot) = reserved.or_else(|| Some((self.slots.take(r.dir)?, None))) {
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

    /// So many places for what SAs have in common, or none.
    fn take_places(&mut self, wanted: usize) -> Result<Vec<u32>, SadbError> {
        let mut places = Vec::with_capacity(wanted);
        while places.len() < wanted {
            let Some(place) = self.commons.take() else {
                places.into_iter().for_each(|place| self.commons.put(place));
                let slots = self.region().slots();
                return Err(SadbError::Full { wanted, slots });
            };
            places.push(place);
        }
        Ok(places)
    }

    /// Gives slots back as they were; what has been written there is wiped.
    fn put_back(&mut self, taken: &[Taken]) {
        for (slot, spi) in taken.iter().rev() {
            let at = self.at(*slot);
            at.wipe();
            at.hot().set_state(match spi {
                Some(_) => SlotState::Installing,
                None => SlotState::Free,
            });
            match spi {
                Some(spi) => drop(self.reserved.insert(*spi, *slot)),
                None => self.slots.put_back(*slot),
            }
        }
    }

    /// Writes an SA into its slot; the state comes later. Numbers up to `last`
    /// count as used.
    fn write(&self, slot: u32, record: &Record, last: u64) {
        let (at, spec) = (self.at(slot), &record.spec);
        let hot = at.hot();
        hot.set_state(SlotState::Installing);
        at.wipe();
        at.set_record(&record.to_bytes());
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

    /// The answer to a repeated install.
    fn installed_again(
        &self,
        set: SetId,
        entries: &[Entry],
        new: &[NewSa],
    ) -> Result<Installed, SadbError> {
        let same = |(e, n): (&Entry, &NewSa)| {
            let keys = || directed(fingerprint(&n.keys), n.keys.suite(), n.dir);
            e.sa.spec() == n.spec && e.dir == n.dir && self.index.fingerprint(e) == keys()
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
}
