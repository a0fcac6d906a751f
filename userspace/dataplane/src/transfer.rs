//! SA sets change hands between this data plane and another one that is on the
//! same host, as a rule the kernel's XFRM, with their numbers and windows.
//!
//! ```text
//! take_over: packets of the phones wait; the SAs are installed, closed, and
//!            XDP finds the inbound ones: the other one gets no more of them
//!   (the caller ends the other one's SAs and learns their last numbers)
//! finish:    the numbers are written, outbound is switched on, packets go on
//!
//! hand_over: packets of the phones wait; the numbers stand still
//!   (the caller starts the other one's SAs: inbound with the same numbers,
//!    outbound ROOM numbers ahead)
//! finish:    what has come in goes to the other one, what was to go out is
//!            sealed here, in front of what the other one has sealed meanwhile
//! ```
//!
//! So none is lost, none is seen twice and no number is used twice, as long as
//! not more packets wait than there is room for. Whoever drops a transfer ends
//! it as if it had not been begun.

use std::collections::BTreeSet;

use gm_esp::Sa;
use gm_sadb::{Change, Dir, Handover, Loaded, Numbers, SetId};

use crate::control::Control;
use crate::parcel::WAITING;
use crate::routes::{Buckets, bucket_of};
use crate::{DataPlane, Error, SaStatus, SetSpec};

/// Numbers between the last one used here and the first one of whoever takes
/// an outbound SA: what has waited uses some of them, and the rest is left out.
/// Receivers take that for lost packets.
pub const ROOM: u64 = WAITING as u64;

/// SA sets on their way from another data plane.
#[must_use = "dropped, it gives them up"]
pub struct Adoption {
    plane: DataPlane,
    held: Option<Held>,
}

/// SA sets on their way to another data plane.
#[must_use = "dropped, they stay here"]
pub struct Release {
    plane: DataPlane,
    held: Option<Held>,
    sas: Sas,
}

impl DataPlane {
    /// Begins to take over SAs that another data plane on this host has. From
    /// now on their packets wait here, at most [`ROOM`] of them for each worker;
    /// the other one's work must end, and [`Adoption::finish`] follow, within
    /// milliseconds. One transfer at a time.
    ///
    /// # Errors
    /// [`Error::Config`] without [`Config::kernel_sas`](crate::Config::kernel_sas),
    /// [`Error::Transfer`] while another one is under way, [`Error::Sadb`] names
    /// the SA that does not fit. Nothing has changed then.
    pub fn adopt(&self, specs: Vec<SetSpec>) -> Result<Adoption, Error> {
        let held = self.with(|c| c.take_over(specs))?;
        Ok(Adoption {
            plane: self.clone(),
            held: Some(held),
        })
    }

    /// Begins to give SA sets to another data plane on this host: their packets
    /// wait, their numbers stand still. [`Release::finish`] has to follow within
    /// milliseconds. One transfer at a time.
    ///
    /// # Errors
    /// As [`DataPlane::adopt`]; [`Error::Sadb`] for a set that is not there or
    /// retired.
    pub fn release(&self, sets: &[SetId]) -> Result<Release, Error> {
        let (held, sas) = self.with(|c| c.hand_over(sets))?;
        Ok(Release {
            plane: self.clone(),
            held: Some(held),
            sas,
        })
    }
}

impl Adoption {
    /// The sets, in the order given.
    pub fn sets(&self) -> &[SetId] {
        self.held.as_ref().map_or(&[], |(sets, _)| sets)
    }

    /// Goes on where the other one has ended: `numbers` has for each set what
    /// its SAs have used, in their order. What has waited is worked on.
    ///
    /// # Errors
    /// [`Error::Sadb`] names the SA whose numbers cannot be. Then no number was
    /// used here and packets still wait, so that the caller can start the other
    /// one's SAs again before this is dropped. What goes wrong later is logged.
    pub fn finish(&mut self, numbers: &[Vec<Numbers>]) -> Result<(), Error> {
        let Some((sets, buckets)) = &self.held else {
            return Err(Error::Transfer);
        };
        self.plane.with(|c| c.taken_over(sets, buckets, numbers))?;
        self.held = None;
        Ok(())
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let Some((sets, buckets)) = self.held.take() else {
            return;
        };
        if let Err(e) = self.plane.with(|c| c.gave_up(&sets, &buckets)) {
            tracing::error!("ending a take-over: {e}");
        }
    }
}

impl Release {
    /// What the other one needs to know, by set, the SAs in the order of their
    /// install. No number of an outbound one may be used there that is not more
    /// than [`ROOM`] above the last one.
    pub fn sas(&self) -> &[(SetId, Vec<Handover>)] {
        &self.sas
    }

    /// The other one has the SAs, and outbound traffic goes there: what has
    /// waited ends here, and the sets are removed.
    ///
    /// # Errors
    /// [`Error::Transfer`]: a worker has died meanwhile, so that numbers may have
    /// gone on here. Packets still wait, and [`Release::take_back`] has to follow.
    /// [`Error::WorkerGone`]: the sets have ended here all the same.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some((sets, buckets)) = &self.held else {
            return Err(Error::Transfer);
        };
        let ended = self.plane.with(|c| c.handed_over(sets, buckets));
        if !matches!(ended, Err(Error::Transfer)) {
            self.held = None;
        }
        ended
    }

    /// The other one has given the SAs up again, after it has used these
    /// numbers: this one goes on behind them. In the order of [`Release::sas`].
    ///
    /// # Errors
    /// [`Error::Transfer`] for another number of sets, [`Error::Sadb`] for another
    /// number of SAs and for a set that was removed meanwhile; the transfer has
    /// ended all the same.
    pub fn take_back(mut self, numbers: &[Vec<Numbers>]) -> Result<(), Error> {
        let Some((sets, buckets)) = self.held.take() else {
            return Err(Error::Transfer);
        };
        self.plane.with(|c| c.taken_back(&sets, &buckets, numbers))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let Some((_, buckets)) = self.held.take() else {
            return;
        };
        if let Err(e) = self.plane.with(|c| c.kept(&buckets)) {
            tracing::error!("ending a hand-over: {e}");
        }
    }
}

/// Sets whose packets wait, and the buckets that they are in.
type Held = (Vec<SetId>, Buckets);
/// What another data plane needs, by set.
type Sas = Vec<(SetId, Vec<Handover>)>;

/// Whether SAs are changing hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// They are not.
    None,
    /// Packets wait.
    Running,
    /// A worker was started again, and its packets do not wait any more.
    Broken,
}

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

    fn take_over(&mut self, specs: Vec<SetSpec>) -> Result<Held, Error> {
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
                    let out = (installed.slots.iter().zip(&spec.sas))
                        .filter_map(|(slot, sa)| (sa.dir == Dir::Out).then_some(*slot));
                    todo.push((set, out.collect::<Vec<u32>>(), installed.changes));
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
        for (set, partners, changes) in &todo {
            if begun.is_ok() {
                begun = self.apply(*set, changes, partners);
            }
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

    fn taken_over(
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
            if let Err(e) = self.activate(*set) {
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
    fn gave_up(&mut self, sets: &[SetId], buckets: &Buckets) -> Result<(), Error> {
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
                end = end.and(self.apply(*set, &some, &[]));
            }
        }
        end
    }

    fn hand_over(&mut self, sets: &[SetId]) -> Result<(Held, Sas), Error> {
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

    fn handed_over(&mut self, sets: &[SetId], buckets: &Buckets) -> Result<(), Error> {
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

    fn taken_back(
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

    fn kept(&mut self, buckets: &Buckets) -> Result<(), Error> {
        let end = self.crew.let_go(buckets);
        self.published.tables.set_transit(false);
        self.transfer = Transfer::None;
        end
    }

    fn buckets_of(&self, sets: &[SetId]) -> Buckets {
        let sas: Vec<Loaded> = self.sadb.loaded().collect();
        let bucket = |sa: &Sa, dir| bucket_of(sa, dir);
        sas.iter()
            .filter(|sa| sets.contains(&sa.set))
            .map(|sa| bucket(&sa.sa, sa.dir))
            .collect()
    }
}
