//! What a worker has to know, all over again: for one that is started anew or
//! takes SAs over from another.

use std::sync::atomic::Ordering::Relaxed;

use gm_esp::Sa;
use gm_region::SlotState;

use crate::sadb::Sadb;
use crate::slot_list::SlotList;
use crate::types::{Dir, SetId};

/// An SA as its worker has it.
#[derive(Clone)]
pub struct Loaded {
    /// Its set.
    pub set: SetId,
    /// Its slot.
    pub slot: u32,
    /// Its direction.
    pub dir: Dir,
    /// The SA with its keys.
    pub sa: Sa,
    /// The slots of the outbound SAs of its set.
    pub partners: SlotList<2>,
    /// Outbound: it is the one for its selectors. Of SAs whose selectors
    /// overlap the one with the highest number has the traffic.
    pub active: Option<u64>,
}

impl Sadb {
    /// All SAs that a worker has, by set. Those that are being removed are not
    /// among them.
    pub fn loaded(&self) -> impl Iterator<Item = Loaded> {
        let sets = self.sets.iter();
        sets.flat_map(move |(set, slots)| self.loaded_from(*set, slots))
    }

    /// The SAs of one set that a worker has.
    pub fn loaded_of(&self, set: SetId) -> impl Iterator<Item = Loaded> {
        let slots = self.sets.get(&set).map(|slots| &**slots);
        self.loaded_from(set, slots.unwrap_or_default())
    }

    /// The slots of a set's outbound SAs.
    pub fn partners(&self, set: SetId) -> SlotList<2> {
        let slots = self.sets.get(&set).map(|slots| &**slots);
        self.outbound(slots.unwrap_or_default())
    }

    fn outbound(&self, slots: &[u32]) -> SlotList<2> {
        let out = self.index.all(slots).filter(|e| e.dir == Dir::Out);
        out.map(|e| e.slot).collect()
    }

    fn loaded_from<'a>(
        &'a self,
        set: SetId,
        slots: &'a [u32],
    ) -> impl Iterator<Item = Loaded> + 'a {
        let partners = self.outbound(slots);
        let there = self
            .index
            .all(slots)
            .filter(|e| self.at(e.slot).hot().state() != SlotState::Removing);
        there.map(move |e| {
            let is_active =
                e.dir == Dir::Out && self.index.selected(&e.sa.selector()) == Some(e.slot);
            let since = || self.at(e.slot).hot().activated.load(Relaxed);
            Loaded {
                set,
                slot: e.slot,
                dir: e.dir,
                sa: e.sa.clone(),
                partners: partners.clone(),
                active: is_active.then(since),
            }
        })
    }
}
