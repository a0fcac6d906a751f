//! SAs come and go at the workers: many in one message, one wait for all.

use std::collections::{BTreeMap, BTreeSet};

use gm_sadb::Dir;

use super::Crew;
use crate::config::map_addr;
use crate::handoff::{Command, NoAnswer, Pending, Step};
use crate::routes::bucket_of;
use crate::table::Entry;

/// Steps in one message: the worker goes on with packets in between.
const STEPS: usize = 128;

/// What workers are to do, in order; not told yet.
#[derive(Default)]
pub(crate) struct Steps {
    by_worker: BTreeMap<u8, Vec<Step>>,
    /// Workers, and slots that hold nothing when these have done it.
    unloaded: Vec<(u8, u32)>,
}

impl Crew {
    /// Gives an SA to the worker that its phone's packets belong to; which.
    pub(crate) fn load(&self, entry: Entry, steps: &mut Steps) -> u8 {
        let bucket = bucket_of(&entry.sa, entry.dir);
        self.routes.set_slot(entry.slot, Some(bucket));
        if entry.dir == Dir::Out && entry.sa.outer().is_some() {
            let to = map_addr(entry.sa.destination());
            self.routes.set_tunnel(&to, entry.sa.spi(), bucket);
        }
        steps.push(self.routes.owner(bucket), Step::Load(entry))
    }

    /// Has the SA in a slot forgotten; by which worker.
    pub(crate) fn unload(&self, slot: u32, steps: &mut Steps) -> u8 {
        let worker = steps.push(self.of_slot(slot), Step::Unload(slot));
        steps.unloaded.push((worker, slot));
        worker
    }

    /// Tells the worker of the SA in a slot; which.
    pub(crate) fn tell(&self, slot: u32, step: Step, steps: &mut Steps) -> u8 {
        steps.push(self.of_slot(slot), step)
    }

    /// Tells the workers; when it returns all of it is in force, but for the
    /// workers that it names: those are not there any more, or hang. One that
    /// has just died will be started again from the database, which is ahead of
    /// every command; so for it nothing is to do.
    pub(crate) fn carry_out(&self, steps: Steps) -> BTreeSet<u8> {
        let mut gone = BTreeSet::new();
        let mut pending: Vec<(u8, Pending)> = Vec::new();
        for (worker, mut steps) in steps.by_worker {
            let member = self.members.get(usize::from(worker));
            let Some(handoff) = member.and_then(|m| m.handoff.as_ref()) else {
                gone.insert(worker);
                continue;
            };
            while !steps.is_empty() && !gone.contains(&worker) {
                let rest = steps.split_off(steps.len().min(STEPS));
                let some = std::mem::replace(&mut steps, rest);
                match handoff.send(Command::Steps(some)) {
                    Ok(one) => pending.push((worker, one)),
                    Err(NoAnswer::Ended) => {}
                    Err(NoAnswer::Hangs) => drop(gone.insert(worker)),
                }
            }
        }
        for (worker, one) in pending {
            // One that hangs is waited for once.
            if !gone.contains(&worker) && matches!(one.wait(), Err(NoAnswer::Hangs)) {
                gone.insert(worker);
            }
        }
        for (worker, slot) in steps.unloaded {
            if !gone.contains(&worker) {
                self.routes.set_slot(slot, None);
            }
        }
        gone
    }
}

impl Steps {
    fn push(&mut self, worker: u8, step: Step) -> u8 {
        self.by_worker.entry(worker).or_default().push(step);
        worker
    }
}
