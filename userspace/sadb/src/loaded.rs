//! What a worker has to know, all over again: for one that is started anew or
//! takes SAs over from another.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use gm_esp::Sa;
use gm_region::SlotState;

use crate::sadb::Sadb;
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
    pub sa: Arc<Sa>,
    /// The slots of the outbound SAs of its set.
    pub partners: Vec<u32>,
    /// Outbound: it is the one for its selectors. Of SAs whose selectors
    /// overlap the one with the highest number has the traffic.
    pub active: Option<u64>,
}

impl Sadb {
    /// All SAs that a worker has, by set. Those that are being removed are not
    /// among them.
    pub fn loaded(&self) -> impl Iterator<Item = Loaded> {
        self.sets.iter().flat_map(move |(set, entries)| {
            let out = entries.iter().filter(|e| e.dir == Dir::Out);
            let partners: Vec<u32> = out.map(|e| e.slot).collect();
            let there = entries
                .iter()
                .filter(|e| self.at(e.slot).hot().state() != SlotState::Removing);
            there.map(move |e| {
                let selected = self.index.selected.get(&e.sa.spec.selector);
                let active = selected
                    .filter(|s| e.dir == Dir::Out && s.slot == e.slot)
                    .map(|s| self.at(s.slot).hot().activated.load(Relaxed));
                Loaded {
                    set: *set,
                    slot: e.slot,
                    dir: e.dir,
                    sa: e.sa.clone(),
                    partners: partners.clone(),
                    active,
                }
            })
        })
    }
}
