//! The commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::{Sa, Window};
use gm_region::{Region, RegionError, Slot, SlotState};

use crate::commons::Commons;
use crate::error::SadbError;
use crate::index::Index;
use crate::record;
use crate::slot_list::SlotList;
use crate::slots::{self, Slots};
use crate::traces::Traces;
use crate::types::{Change, Dir, Reserved, SetId};

/// An SA that has a slot.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) slot: u32,
    pub(crate) sa: Sa,
    pub(crate) dir: Dir,
}

const _: () = assert!(size_of::<Option<Entry>>() == 32);

/// All SAs of this host. See the crate's documentation.
///
/// Belongs to the control plane; the workers share its [`Region`].
pub struct Sadb {
    pub(crate) region: Arc<Region>,
    pub(crate) slots: Slots,
    pub(crate) commons: Commons,
    pub(crate) reserved: BTreeMap<u32, u32>,
    /// The slots of each set, in the order of its install.
    pub(crate) sets: BTreeMap<SetId, SlotList<4>>,
    pub(crate) index: Index,
    pub(crate) traces: Traces,
    /// Where the SPIs of slots begin that have had none.
    seed: Option<u32>,
}

impl Sadb {
    /// An empty database over a new region for `slots` SAs (a power of two), half
    /// of them inbound ([`inbound`](crate::inbound)), with replay windows of up to `max_window`
    /// numbers.
    ///
    /// # Errors
    ///
    /// What [`Region::create`] says.
    pub fn create(slots: u32, max_window: u32) -> Result<Sadb, RegionError> {
        let words = u32::try_from(Window::words(max_window)).unwrap_or(u32::MAX);
        let mut sadb = Sadb::empty(Arc::new(Region::create(slots, words)?));
        sadb.slots = Slots::all(slots);
        Ok(sadb)
    }

    /// Lets the SPIs of a new database begin anywhere in their range. A host
    /// that was started again must not at once choose the SPIs that packets of
    /// its former life still carry. `seed` is random; without this call every
    /// slot begins with its lowest SPI.
    pub fn scatter_spis(&mut self, seed: u32) {
        self.seed = Some(seed);
    }

    pub(crate) fn empty(region: Arc<Region>) -> Sadb {
        Sadb {
            slots: Slots::all(0),
            commons: Commons::new(region.clone(), |_| true),
            reserved: BTreeMap::new(),
            sets: BTreeMap::new(),
            index: Index::new(region.clone()),
            traces: Traces::new(region.clone()),
            region,
            seed: None,
        }
    }

    /// The region that the workers share.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// SAs that there is still room for.
    pub fn free(&self) -> usize {
        self.slots.len()
    }

    /// A number that no set has.
    pub fn new_set(&self) -> SetId {
        loop {
            let set = SetId(self.region.next_stamp());
            if !self.sets.contains_key(&set) {
                return set;
            }
        }
    }

    /// Sets a slot and its SPI aside for an inbound SA. The SPI is none that
    /// any SA here has and none of `avoid`: the peer's, which must differ too
    /// (TS 33.203 7.1).
    ///
    /// # Errors
    ///
    /// [`SadbError::Full`].
    pub fn reserve(&mut self, avoid: &[u32]) -> Result<Reserved, SadbError> {
        let full = SadbError::Full {
            wanted: 1,
            slots: self.region.slots(),
        };
        let slot = self.slots.take(Dir::In).ok_or(full.clone())?;
        let Some(spi) = self.next_spi(slot, avoid) else {
            self.slots.put_back(slot);
            return Err(full);
        };
        self.at(slot).hot().set_state(SlotState::Installing);
        self.reserved.insert(spi, slot);
        Ok(Reserved { slot, spi })
    }

    /// Gives a reservation back that is not used. One that is not there, or
    /// used by now, is left alone.
    pub fn unreserve(&mut self, spi: u32) {
        if let Some(slot) = self.reserved.remove(&spi) {
            self.free_slot(slot);
        }
    }

    /// Makes the set's outbound SAs the ones for their selectors; those of
    /// other sets with the same selectors stand by from then on. Repeated, it
    /// says again what the data plane has to do.
    ///
    /// # Errors
    ///
    /// [`SadbError::UnknownSet`], [`SadbError::Retired`].
    pub fn activate(&mut self, set: SetId) -> Result<Vec<Change>, SadbError> {
        let entries = self.entries(set)?;
        if entries.iter().any(|e| self.is_going(e)) {
            return Err(SadbError::Retired(set));
        }
        let mut changes = Vec::new();
        let mut done = Vec::new();
        for entry in entries.iter().filter(|e| e.dir == Dir::Out) {
            let selector = entry.sa.selector();
            // Of several in one set the first has the traffic.
            if done.contains(&selector) {
                continue;
            }
            done.push(selector);
            changes.push(Change::Select {
                slot: entry.slot,
                sa: entry.sa.clone(),
            });
            if self.index.selected(&selector) == Some(entry.slot) {
                continue;
            }
            let before = self.index.select(entry.slot);
            let hot = self.at(entry.slot).hot();
            // The stamp decides for a successor that finds both live.
            hot.activated.store(self.region.next_stamp(), Relaxed);
            hot.set_state(SlotState::Live);
            if let Some(Entry { slot, sa, .. }) = before.and_then(|slot| self.index.get(slot)) {
                let (slot, sa) = (*slot, sa.clone());
                self.at(slot).hot().set_state(SlotState::Standby);
                changes.push(Change::Deselect { slot, sa });
            }
        }
        Ok(changes)
    }

    /// Stops the set's outbound SAs; its inbound ones still accept, for packets
    /// that are on their way. Repeated, it says again what the data plane has
    /// to do: the first time may not have got through. A set that is gone is no
    /// error.
    pub fn retire(&mut self, set: SetId) -> Vec<Change> {
        let Ok(entries) = self.entries(set) else {
            return Vec::new();
        };
        if entries.iter().any(|e| self.state(e) == SlotState::Removing) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for entry in &entries {
            changes.extend(self.deselect(entry));
            self.at(entry.slot).hot().set_state(SlotState::Retiring);
        }
        changes
    }

    /// Ends the set: XDP, then the workers forget it. To be called when what is
    /// on its way has had its time; [`Sadb::release`] follows. Until then it
    /// says again, when repeated, what the data plane has to do: a worker that
    /// did not hear of it would go on with numbers that the release has wiped.
    /// A set that is gone is no error.
    pub fn remove(&mut self, set: SetId) -> Vec<Change> {
        let Ok(entries) = self.entries(set) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        for entry in &entries {
            changes.extend(self.deselect(entry));
            self.at(entry.slot).hot().set_state(SlotState::Removing);
        }
        for entry in entries.iter().filter(|e| e.dir == Dir::In) {
            let foreign = self.is_foreign(entry);
            changes.push(Change::Unpublish {
                slot: entry.slot,
                foreign,
                sa: entry.sa.clone(),
            });
        }
        changes.extend(entries.iter().map(|e| Change::Forget {
            slot: e.slot,
            dir: e.dir,
        }));
        changes
    }

    /// Wipes the keys of a removed set and frees its slots; only after every
    /// worker has carried out [`Change::Forget`]. A set that is gone is no
    /// error.
    ///
    /// # Errors
    ///
    /// [`SadbError::NotRemoved`].
    pub fn release(&mut self, set: SetId) -> Result<(), SadbError> {
        let Ok(entries) = self.entries(set) else {
            return Ok(());
        };
        if entries.iter().any(|e| self.state(e) != SlotState::Removing) {
            return Err(SadbError::NotRemoved(set));
        }
        self.sets.remove(&set);
        let slots = entries.iter().map(|e| self.at(e.slot));
        let places: BTreeSet<u32> = slots.map(record::common_of).collect();
        for entry in entries {
            self.remember(&entry);
            self.index.leave(entry.slot);
            self.free_slot(entry.slot);
        }
        // The keys: after the last slot that refers to them.
        for place in places {
            self.commons.put(place);
        }
        Ok(())
    }

    /// The SAs of a set, in the order of its install.
    pub(crate) fn entries(&self, set: SetId) -> Result<Vec<Entry>, SadbError> {
        let slots = self.sets.get(&set).ok_or(SadbError::UnknownSet(set))?;
        Ok(self.index.all(slots).cloned().collect())
    }

    /// Wipes a slot and puts it at the end of the line.
    pub(crate) fn free_slot(&mut self, slot: u32) {
        let at = self.at(slot);
        at.wipe();
        at.hot().set_state(SlotState::Free);
        self.slots.put(slot);
    }

    /// The slot of a number that this database has handed out.
    pub(crate) fn at(&self, slot: u32) -> Slot<'_> {
        match self.region.slot(slot) {
            Some(slot) => slot,
            None => unreachable!("slot numbers come from this region"),
        }
    }

    /// Whether XDP finds the SA in the map of foreign SPIs only.
    pub(crate) fn is_foreign(&self, entry: &Entry) -> bool {
        !slots::is_own(self.region.slots(), entry.slot, entry.sa.spi())
    }

    fn state(&self, entry: &Entry) -> SlotState {
        self.at(entry.slot).hot().state()
    }

    pub(crate) fn is_going(&self, entry: &Entry) -> bool {
        matches!(self.state(entry), SlotState::Retiring | SlotState::Removing)
    }

    /// Takes the selectors away from an outbound SA, if it has them.
    fn deselect(&mut self, entry: &Entry) -> Option<Change> {
        self.index.deselect(entry.slot);
        (entry.dir == Dir::Out).then(|| Change::Deselect {
            slot: entry.slot,
            sa: entry.sa.clone(),
        })
    }

    /// An SPI for the slot that nobody uses, the next one in its row.
    fn next_spi(&self, slot: u32, avoid: &[u32]) -> Option<u32> {
        let (slots, generation) = (self.region.slots(), &self.at(slot).hot().generation);
        let all = slots::generations(slots);
        let first = match (generation.load(Relaxed), self.seed) {
            // Neighbours begin far from each other (Knuth's multiplicative hash).
            (0, Some(seed)) => seed.wrapping_add(slot.wrapping_mul(0x9e37_79b1)),
            (next, _) => next.saturating_sub(1),
        };
        let row = (0..all).map(|n| ((u64::from(first) + u64::from(n)) % u64::from(all)) as u32);
        let free = |spi| {
            !self.index.has_spi(spi) && !self.reserved.contains_key(&spi) && !avoid.contains(&spi)
        };
        let mut spis = row.map(|g| (g, slots::spi(slots, slot, g)));
        let (found, spi) = spis.find(|(_, spi)| free(*spi))?;
        generation.store((found + 1) % all + 1, Relaxed);
        Some(spi)
    }
}
