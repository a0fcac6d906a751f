//! SAs come and go at the workers: many in one message, one wait for all.

use std::collections::BTreeMap;

use gm_sadb::Dir;

use super::Crew;
use crate::Error;
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
    /// Slots that hold nothing when all is done.
    unloaded: Vec<u32>,
}

impl Crew {
    /// Gives an SA to the worker that its phone's packets belong to.
    pub(crate) fn load(&self, entry: Entry, steps: &mut Steps) {
        let bucket = bucket_of(&entry.sa, entry.dir);
        self.routes.set_slot(entry.slot, Some(bucket));
        if entry.dir == Dir::Out && entry.sa.spec.outer.is_some() {
            let to = map_addr(entry.sa.destination());
            self.routes.set_tunnel(&to, entry.sa.spec.spi, bucket);
        }
        let to = self.routes.owner(bucket);
        steps.push(to, Step::Load(entry));
    }

    /// Has the SA in a slot forgotten.
    pub(crate) fn unload(&self, slot: u32, steps: &mut Steps) {
        steps.push(self.of_slot(slot), Step::Unload(slot));
        steps.unloaded.push(slot);
    }

    /// Tells the worker of the SA in a slot.
    pub(crate) fn tell(&self, slot: u32, step: Step, steps: &mut Steps) {
        steps.push(self.of_slot(slot), step);
    }

    /// Tells the workers; when it returns all of it is in force. One that has
    /// just died will be started again from the database, which is ahead of
    /// every command; so for it nothing is to do.
    ///
    /// # Errors
    /// [`Error::WorkerGone`] when one is not there any more, or hangs; the
    /// others have been told.
    pub(crate) fn carry_out(&self, steps: Steps) -> Result<(), Error> {
        let mut end = Ok(());
        let mut pending: Vec<Pending> = Vec::new();
        let mut heard = |answer: Result<Option<Pending>, NoAnswer>| match answer {
            Ok(Some(one)) => pending.push(one),
            Ok(None) | Err(NoAnswer::Ended) => {}
            Err(NoAnswer::Hangs) => end = Err(Error::WorkerGone),
        };
        for (worker, mut steps) in steps.by_worker {
            let member = self.members.get(usize::from(worker));
            let Some(handoff) = member.and_then(|m| m.handoff.as_ref()) else {
                heard(Err(NoAnswer::Hangs));
                continue;
            };
            while !steps.is_empty() {
                let rest = steps.split_off(steps.len().min(STEPS));
                let some = std::mem::replace(&mut steps, rest);
                let sent = handoff.send(Command::Steps(some));
                let hangs = matches!(sent, Err(NoAnswer::Hangs));
                heard(sent.map(Some));
                if hangs {
                    break;
                }
            }
        }
        for one in pending {
            if matches!(one.wait(), Err(NoAnswer::Hangs)) {
                return Err(Error::WorkerGone);
            }
        }
        end?;
        for slot in steps.unloaded {
            self.routes.set_slot(slot, None);
        }
        Ok(())
    }
}

impl Steps {
    fn push(&mut self, worker: u8, step: Step) {
        self.by_worker.entry(worker).or_default().push(step);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_worker.values().map(Vec::len).sum()
    }
}
