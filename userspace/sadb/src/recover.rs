//! Taking over from a predecessor that is gone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{EspKeys, Sa, SaKey, Window};
use gm_region::{Region, SlotState};

use crate::commons::Commons;
use crate::numbers::CLOSED;
use crate::record::{self, Record};
use crate::sadb::{Entry, Sadb};
use crate::slots::{self, Slots};
use crate::traces::fingerprint;
use crate::types::{Change, Dir, SetId};

/// What a successor starts with.
pub struct Recovered {
    /// The database.
    pub sadb: Sadb,
    /// What the data plane has to do to get to its state from nothing.
    pub changes: Vec<Change>,
    /// Slots that were taken back: their set was not whole, not live, or not
    /// readable.
    pub rolled_back: u32,
}

/// A slot that makes sense by itself.
struct Found {
    entry: Entry,
    count: u8,
    place: u8,
    state: SlotState,
}

impl Sadb {
    /// Goes on with the SAs in a region. Sets that are whole and live are kept
    /// with their numbers and windows, also those that were about to retire;
    /// everything else is taken back, its numbers remembered. An activation
    /// that was under way may be half done: nobody was told that it was, and it
    /// may be repeated.
    pub fn recover(region: Region) -> Recovered {
        let region = Arc::new(region);
        let mut sets: BTreeMap<SetId, Vec<Found>> = BTreeMap::new();
        let mut bad = Vec::new();
        let mut sadb = Sadb::empty(region.clone());
        // Recovery is by set: what follows a set's first SA shares its key.
        let mut keys: HashMap<SetId, (EspKeys, SaKey)> = HashMap::new();
        for slot in 0..region.slots() {
            match sadb.at(slot).hot().state() {
                SlotState::Free => {}
                _ => match sadb.read(slot, &mut keys) {
                    Some((set, found)) => sets.entry(set).or_default().push(found),
                    None => bad.push(slot),
                },
            }
        }
        drop(keys);
        let mut changes = Vec::new();
        for (set, mut found) in sets {
            found.sort_by_key(|f| f.place);
            match sadb.take_over(set, &found) {
                Some(more) => changes.extend(more),
                None => {
                    for Found { entry, .. } in found {
                        sadb.remember(&entry);
                        bad.push(entry.slot);
                    }
                }
            }
        }
        changes.extend(sadb.select_again());
        for slot in &bad {
            let at = sadb.at(*slot);
            at.wipe();
            at.hot().set_state(SlotState::Free);
        }
        sadb.slots = Slots::new(&region);
        // What nobody refers to any more is wiped.
        let kept = sadb.sets.values().flat_map(|slots| slots.iter());
        let kept = kept.map(|slot| record::common_of(sadb.at(*slot)));
        let kept: HashSet<u32> = kept.collect();
        sadb.commons = Commons::new(region.clone(), |place| kept.contains(&place));
        Recovered {
            sadb,
            changes,
            rolled_back: bad.len() as u32,
        }
    }

    /// Reads a slot that is not free; `None`: it holds no SA.
    fn read(
        &self,
        slot: u32,
        expanded: &mut HashMap<SetId, (EspKeys, SaKey)>,
    ) -> Option<(SetId, Found)> {
        let at = self.at(slot);
        let hot = at.hot();
        let (record, shared) = Record::read(&self.region, at)?;
        let spec = record.spec;
        let common = self.region.common(record.common)?;
        let keys = record::keys(spec.suite, &common.key_material())?;
        if fingerprint(&keys) != shared.fingerprint {
            return None;
        }
        let set = record.set;
        if set.0 == 0 || slots::dir_of(self.region.slots(), slot) != record.dir {
            return None;
        }
        if record.dir == Dir::In {
            Window::new(&hot.top, at.window_bits(), spec.replay_window).ok()?;
        }
        let key = match expanded.get(&set) {
            Some((of, key)) if *of == keys && key.is_for(&spec) => key.clone(),
            _ => {
                let key = SaKey::new(&keys, &spec).ok()?;
                expanded.insert(set, (keys.clone(), key.clone()));
                key
            }
        };
        let sa = Sa::adopted_with_key(spec, &key).ok()?;
        let entry = Entry {
            slot,
            sa,
            dir: record.dir,
        };
        Some((
            set,
            Found {
                entry,
                count: record.count,
                place: record.place,
                state: hot.state(),
            },
        ))
    }

    /// Keeps a set that is whole and live; `None`: it is not.
    fn take_over(&mut self, set: SetId, found: &[Found]) -> Option<Vec<Change>> {
        let live = |f: &Found| {
            matches!(
                f.state,
                SlotState::Live | SlotState::Standby | SlotState::Retiring
            )
        };
        let whole = found.iter().enumerate().all(|(i, f)| {
            usize::from(f.count) == found.len() && usize::from(f.place) == i && live(f)
        });
        if !whole {
            return None;
        }
        for (i, Found { entry, .. }) in found.iter().enumerate() {
            if self.index.enter(entry.clone()).is_err() {
                for Found { entry, .. } in &found[..i] {
                    self.index.leave(entry.slot);
                }
                return None;
            }
        }
        // A retirement that was under way is finished.
        if found.iter().any(|f| f.state == SlotState::Retiring) {
            for Found { entry, .. } in found {
                self.at(entry.slot).hot().set_state(SlotState::Retiring);
            }
        }
        let entries: Vec<Entry> = found.iter().map(|f| f.entry.clone()).collect();
        let changes = self.announce(&entries);
        let slots = entries.iter().map(|e| e.slot).collect();
        self.sets.insert(set, slots);
        Some(changes)
    }

    /// Gives selectors to the outbound SAs that had them: of several the one
    /// that was activated last.
    fn select_again(&mut self) -> Vec<Change> {
        let stamp = |e: &Entry| self.at(e.slot).hot().activated.load(Relaxed);
        let slots = self.sets.values();
        let all = slots.flat_map(|slots| self.index.all(slots));
        let is_live = |e: &&Entry| self.at(e.slot).hot().state() == SlotState::Live;
        let live = all.filter(|e| e.dir == Dir::Out).filter(is_live);
        let mut live: Vec<(u64, u32)> = live.map(|e| (stamp(e), e.slot)).collect();
        live.sort_unstable();
        for (_, slot) in live {
            if let Some(old) = self.index.select(slot) {
                self.at(old).hot().set_state(SlotState::Standby);
            }
        }
        let select = |e: &Entry| Change::Select {
            slot: e.slot,
            sa: e.sa.clone(),
        };
        self.index.all_selected().map(select).collect()
    }

    /// Leaves a trace of an SA that goes.
    pub(crate) fn remember(&mut self, entry: &Entry) {
        let hot = self.at(entry.slot).hot();
        // One that is closed has used nothing here.
        let numbers = [&hot.seq, &hot.top].map(|word| word.load(Relaxed));
        let used = numbers.into_iter().filter(|n| *n != CLOSED);
        let last = used.max().unwrap_or(0);
        let fingerprint = self.index.fingerprint(entry);
        self.traces.leave(fingerprint, entry.sa.spi(), last);
    }
}
