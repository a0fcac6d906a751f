//! The control side's steps of a transfer.

use std::collections::BTreeSet;

use gm_sadb::{Change, Dir, Numbers, SetId};

use super::{Held, Sas, Transfer};
use crate::control::Control;
use crate::routes::{Buckets, bucket_of};
use crate::{Error, SaStatus, SetSpec};

impl Control {
    fn may_transfer(&self) -> Result<(), Error> {
        if !self.kernel_sas {
            return Err(Error::Config(
                "SAs go over from and to the kernel only with kernel_sas".into(),
            ));
        }
        self.no_transfer()
    }

    /// Refuses what must not meet a transfer.
    pub(crate) fn no_transfer(&self) -> Result<(), Error> {
        match self.transfer {
            Transfer::None => Ok(()),
            Transfer::Running | Transfer::Broken => Err(Error::Transfer),
        }
    }

    pub(super) fn take_over(&mut self, specs: Vec<SetSpec>) -> Result<Held, Error> {
        self.may_transfer()?;
        let mut sets = Vec::new();
        let mut begun = Ok(());
        let mut todo = Vec::new();
        for spec in specs {
            let set = spec.set.unwrap_or_else(|| self.sadb.new_set());
            let installed = self.sadb.install_closed(set, &spec.sas);
            match installed {
                Ok(installed) => {
                    sets.push(set);
                    todo.push((set, installed.changes));
                }
                Err(e) => {
                    begun = Err(e.into());
                    break;
                }
            }
        }
        let buckets = self.buckets_of(&sets);
        self.transfer = Transfer::Running;
        if begun.is_ok() {
            begun = self.crew.hold(&buckets);
        }
        if begun.is_ok() {
            begun = self.apply_all(todo);
        }
        if let Err(e) = begun {
            self.gave_up(&sets, &buckets)?;
            return Err(e);
        }
        for set in &sets {
            self.past.installed(*set);
        }
        Ok((sets, buckets))
    }

    pub(super) fn taken_over(
        &mut self,
        sets: &[SetId],
        buckets: &Buckets,
        numbers: &[Vec<Numbers>],
    ) -> Result<(), Error> {
        if self.transfer == Transfer::Broken {
            // Nobody must look at a window that is being written.
            self.crew.hold(buckets)?;
        }
        self.open_all(sets, numbers)?;
        for set in sets {
            let inbound: Vec<(u32, u32, u64)> = (self.sadb.list_set(*set))
                .filter(|row| row.dir == Dir::In && !row.spec.esn)
                .map(|row| (row.slot, row.spec.replay_window, row.top))
                .collect();
            for (slot, size, top) in inbound {
                self.published.begin_window(slot, size, top);
            }
        }
        // From here on numbers are used: the other one must not get the SAs again,
        // whatever happens. A worker that has died has them when it is started again;
        // one that hangs sends nothing.
        for set in sets {
            if let Some(Err(e)) = self.activate(&[*set]).pop() {
                tracing::error!(set = set.0, "taken over, and sends nothing: {e}");
            }
        }
        self.transfer = Transfer::None;
        if let Err(e) = self.crew.let_go(buckets) {
            tracing::error!("taken over, and packets may wait still: {e}");
        }
        Ok(())
    }

    /// All sets get their numbers, or none.
    fn open_all(&mut self, sets: &[SetId], numbers: &[Vec<Numbers>]) -> Result<(), Error> {
        if sets.len() != numbers.len() {
            return Err(Error::Transfer);
        }
        for (set, numbers) in sets.iter().zip(numbers) {
            if let Err(e) = self.sadb.open(*set, numbers) {
                for set in sets {
                    self.sadb.close(*set)?;
                }
                return Err(e.into());
            }
        }
        Ok(())
    }

    /// The other one goes on: with what has waited, then with what comes.
    pub(super) fn gave_up(&mut self, sets: &[SetId], buckets: &Buckets) -> Result<(), Error> {
        let ended = self.end_sets(sets, buckets);
        self.transfer = Transfer::None;
        // What a worker may still have is not wiped.
        ended?;
        for set in sets {
            self.sadb.release(*set)?;
        }
        Ok(())
    }

    /// The SAs end here. Until XDP has lost sight of them what comes in goes to
    /// the kernel by way of the worker, so that nothing overtakes what has waited.
    fn end_sets(&mut self, sets: &[SetId], buckets: &Buckets) -> Result<(), Error> {
        let (mut inbound, mut outbound) = (Vec::new(), Vec::new());
        let mut changes = Vec::new();
        for set in sets {
            for row in self.sadb.list_set(*set) {
                match row.dir {
                    Dir::In => inbound.push(row.slot),
                    Dir::Out => outbound.push(row.slot),
                }
            }
            // A worker that is started from here on does not get them.
            changes.push((*set, self.sadb.remove(*set)));
        }
        let out = self.crew.let_out(buckets, (&inbound, &outbound));
        let mut end = out.and(self.crew.end_hold());
        // The workers have just looked: what still goes through them is as little
        // as can be when others begin to pass it by.
        self.published.tables.set_transit(false);
        end = end.and(self.crew.looked());
        let is_sight = |change: &&Change| matches!(change, Change::Unpublish { .. });
        for sight in [true, false] {
            for (set, changes) in &changes {
                let some = changes.iter().filter(|c| is_sight(c) == sight).cloned();
                let some: Vec<Change> = some.collect();
                end = end.and(self.apply(*set, some));
            }
        }
        end
    }

    pub(super) fn hand_over(&mut self, sets: &[SetId]) -> Result<(Held, Sas), Error> {
        self.may_transfer()?;
        let unique: BTreeSet<SetId> = sets.iter().copied().collect();
        let sets: Vec<SetId> = unique.into_iter().collect();
        // Whether they are there; their numbers still move.
        for set in &sets {
            self.sadb.handover(*set)?;
        }
        let buckets = self.buckets_of(&sets);
        self.crew.hold(&buckets)?;
        self.published.tables.set_transit(true);
        self.transfer = Transfer::Running;
        let sas = |set: &SetId| Ok((*set, self.sadb.handover(*set)?));
        match sets.iter().map(sas).collect::<Result<_, Error>>() {
            Ok(sas) => Ok(((sets, buckets), sas)),
            Err(e) => {
                self.kept(&buckets)?;
                Err(e)
            }
        }
    }

    pub(super) fn handed_over(&mut self, sets: &[SetId], buckets: &Buckets) -> Result<(), Error> {
        if self.transfer == Transfer::Broken {
            return Err(Error::Transfer);
        }
        let ended = self.end_sets(sets, buckets);
        for set in sets {
            let rows = self.sadb.list_set(*set);
            let sas: Vec<SaStatus> = rows.map(|row| self.status(row, 0)).collect();
            self.past.removed(*set, sas);
        }
        self.published.tables.set_transit(false);
        self.transfer = Transfer::None;
        ended?;
        for set in sets {
            self.sadb.release(*set)?;
        }
        Ok(())
    }

    pub(super) fn taken_back(
        &mut self,
        sets: &[SetId],
        buckets: &Buckets,
        numbers: &[Vec<Numbers>],
    ) -> Result<(), Error> {
        let merged = self.merge_all(sets, buckets, numbers);
        // Whatever went wrong, nobody waits for ever.
        let end = self.crew.take_back(buckets);
        merged.and(end).and(self.kept(buckets))
    }

    /// Every set that is still there gets its numbers; the first error.
    fn merge_all(
        &mut self,
        sets: &[SetId],
        buckets: &Buckets,
        numbers: &[Vec<Numbers>],
    ) -> Result<(), Error> {
        if sets.len() != numbers.len() {
            return Err(Error::Transfer);
        }
        if self.transfer == Transfer::Broken {
            self.crew.hold(buckets)?;
        }
        let mut merged = Ok(());
        for (set, numbers) in sets.iter().zip(numbers) {
            merged = merged.and(self.sadb.merge(*set, numbers));
        }
        Ok(merged?)
    }

    pub(super) fn kept(&mut self, buckets: &Buckets) -> Result<(), Error> {
        let end = self.crew.let_go(buckets);
        self.published.tables.set_transit(false);
        self.transfer = Transfer::None;
        end
    }

    fn buckets_of(&self, sets: &[SetId]) -> Buckets {
        let sas = sets.iter().flat_map(|set| self.sadb.loaded_of(*set));
        sas.map(|sa| bucket_of(&sa.sa, sa.dir)).collect()
    }
}
