//! The handle: commands from the control side, each in force when it returns.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::channel::{Receiver, Sender, bounded};
use gm_abi::verdict::Reason;
use gm_esp::SaSpec;
use gm_sadb::{Dir, NewSa, Reserved, Sadb, SetId, SlotState};

use crate::bulk::SETS;
use crate::control::Control;
use crate::stats::Stats;
use crate::supervise::{self, Fault};
use crate::tap::TapPacket;
use crate::{Config, Error, Event};

/// Events that nobody has fetched yet, at most.
const EVENTS: usize = 1024;

/// A set of SAs to be installed.
#[derive(Clone, Debug)]
pub struct SetSpec {
    /// Its number; `None`: the data plane chooses one. A repeated install of
    /// the same set under the same number changes nothing.
    pub set: Option<SetId>,
    /// The SAs, four for a UE. Inbound ones use reserved SPIs, or others when
    /// they are set up by hand.
    pub sas: Vec<NewSa>,
}

/// One SA as it is now. No secret is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SaStatus {
    /// Its set.
    pub set: SetId,
    /// Its slot.
    pub slot: u32,
    /// Its direction.
    pub dir: Dir,
    /// What it is.
    pub spec: SaSpec,
    /// Where in its life it is.
    pub state: SlotState,
    /// Outbound: last sequence number used; 0: none.
    pub seq: u64,
    /// Inbound: highest sequence number accepted; 0: none.
    pub top: u64,
    /// Packets opened or sealed.
    pub packets: u64,
    /// Bytes of these as plain IP packets.
    pub bytes: u64,
    /// Its dropped packets by reason, XDP's included; without zeros.
    pub drops: Vec<(Reason, u64)>,
    /// UDP-enc-tun, outbound: the phone's port in force, learnt or given.
    pub encap_port: Option<u16>,
    /// Milliseconds since its last packet; `None`: there was none.
    pub idle_ms: Option<u64>,
    /// Milliseconds since its set was installed.
    pub age_ms: Option<u64>,
}

/// The running data plane. Clones are the same one; the last one to go shuts
/// it down.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Inner>,
}

/// What the handles share.
pub(crate) struct Inner {
    control: Mutex<Option<Control>>,
    events: Receiver<Event>,
    /// The clock that `last_used` counts by.
    begin: Instant,
}

impl DataPlane {
    /// Makes gm0, loads and attaches the BPF programs, and starts the workers,
    /// all in the network namespace of the calling thread. When it returns the
    /// policy is in force and there is no SA.
    ///
    /// # Errors
    /// [`Error`] says what is missing and what to do. Nothing is left behind,
    /// except what a killed predecessor had pinned.
    pub fn start(cfg: Config) -> Result<DataPlane, Error> {
        cfg.validate()?;
        let begin = Instant::now();
        let mut sadb = Sadb::create(cfg.slots(), cfg.replay_window).map_err(|e| Error::Io {
            what: "make the SA region".into(),
            source: std::io::Error::other(e),
        })?;
        let mut seed = [0; 4];
        getrandom::fill(&mut seed)
            .map_err(|e| Error::io("draw random bytes", std::io::Error::other(e)))?;
        sadb.scatter_spis(u32::from_ne_bytes(seed));
        if let Some(problem) = sadb.region().lock_problem() {
            tracing::warn!("{problem}");
        }
        let (tell, events) = bounded(EVENTS);
        let (notify, notices) = crossbeam::channel::unbounded();
        let control = Control::start(&cfg, sadb, (tell, begin), notify)?;
        let inner = Arc::new(Inner {
            control: Mutex::new(Some(control)),
            events,
            begin,
        });
        supervise::start(notices, Arc::downgrade(&inner))?;
        Ok(DataPlane { inner })
    }

    /// Changes the number of workers. SAs change hands meanwhile; none is lost,
    /// and no packet is.
    ///
    /// # Errors
    /// [`Error::Config`] for none, or more than the uplink has queues for;
    /// [`Error::WorkerGone`].
    pub fn set_workers(&self, workers: u32) -> Result<(), Error> {
        self.with(|c| c.set_workers(workers))
    }

    /// Breaks something, for tests.
    ///
    /// # Errors
    /// [`Error::WorkerGone`] where there is no such worker.
    #[doc(hidden)]
    pub fn fault(&self, fault: Fault) -> Result<(), Error> {
        self.with(|c| c.fault(fault))
    }

    /// Sets a slot and an SPI aside for an inbound SA; the SPI is none of
    /// `avoid`, the peer's.
    ///
    /// # Errors
    /// [`Error::Sadb`] when no slot is free.
    pub fn reserve(&self, avoid: &[u32]) -> Result<Reserved, Error> {
        self.with(|c| Ok(c.sadb.reserve(avoid)?))
    }

    /// Gives a reservation back that is not used.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn unreserve(&self, spi: u32) -> Result<(), Error> {
        self.with(|c| {
            c.sadb.unreserve(spi);
            Ok(())
        })
    }

    /// Installs all SAs of a set or none: inbound they accept from now on,
    /// outbound they wait for [`DataPlane::activate`].
    ///
    /// # Errors
    /// [`Error::Sadb`] says which SA is refused, and why; nothing has changed.
    pub fn install(&self, spec: SetSpec) -> Result<SetId, Error> {
        one(self.with(|c| Ok(c.install(vec![spec])))?)
    }

    /// [`DataPlane::install`] for many sets: some hundred times faster than one
    /// after the other. Each set is installed whole or not at all, whatever
    /// becomes of the others; the answers are in the order given. Commands of
    /// others get their turn every 256 sets. Once a worker does not answer the
    /// rest is answered with [`Error::WorkerGone`], for each wait takes seconds.
    pub fn install_many(&self, specs: Vec<SetSpec>) -> Vec<Result<SetId, Error>> {
        let mut specs = specs.into_iter();
        let mut answers = Vec::with_capacity(specs.len());
        while !is_gone(&answers) {
            let some: Vec<SetSpec> = specs.by_ref().take(SETS).collect();
            match some.len() {
                0 => return answers,
                n => answers.extend(self.some(n, |c| c.install(some))),
            }
        }
        answers.extend(specs.map(|_| Err(Error::WorkerGone)));
        answers
    }

    /// [`DataPlane::activate`] for many sets; an answer for each, as with
    /// [`DataPlane::install_many`].
    pub fn activate_many(&self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        self.chunks(sets, Control::activate)
    }

    /// [`DataPlane::retire`] for many sets; an answer for each.
    pub fn retire_many(&self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        self.chunks(sets, Control::retire)
    }

    /// [`DataPlane::remove`] for many sets; an answer for each.
    pub fn remove_many(&self, sets: &[SetId]) -> Vec<Result<(), Error>> {
        self.chunks(sets, Control::remove)
    }

    fn chunks(
        &self,
        sets: &[SetId],
        f: impl Fn(&mut Control, &[SetId]) -> Vec<Result<(), Error>>,
    ) -> Vec<Result<(), Error>> {
        let mut answers = Vec::with_capacity(sets.len());
        for some in sets.chunks(SETS) {
            match is_gone(&answers) {
                true => answers.extend(some.iter().map(|_| Err(Error::WorkerGone))),
                false => answers.extend(self.some(some.len(), |c| f(c, some))),
            }
        }
        answers
    }

    /// Some sets under one lock; where the data plane is down an error for each.
    fn some<T>(
        &self,
        sets: usize,
        f: impl FnOnce(&mut Control) -> Vec<Result<T, Error>>,
    ) -> Vec<Result<T, Error>> {
        let down = |_| (0..sets).map(|_| Err(Error::Down)).collect();
        self.with(|c| Ok(f(c))).unwrap_or_else(down)
    }

    /// Lets the set's outbound SAs take over. Idempotent.
    ///
    /// # Errors
    /// [`Error::Sadb`] for a set that is not there or retired.
    pub fn activate(&self, set: SetId) -> Result<(), Error> {
        one(self.with(|c| Ok(c.activate(&[set])))?)
    }

    /// Stops sending with the set; it still accepts. Idempotent.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn retire(&self, set: SetId) -> Result<(), Error> {
        one(self.with(|c| Ok(c.retire(&[set])))?)
    }

    /// Ends the set, wipes its keys and frees its slots. What is still on its
    /// way is dropped, so retire first and wait. Idempotent.
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn remove(&self, set: SetId) -> Result<(), Error> {
        one(self.with(|c| Ok(c.remove(&[set])))?)
    }

    /// All SAs, by set. Empty when the data plane is down. Commands of others get
    /// their turn meanwhile, so sets may come and go between the rows.
    pub fn list(&self) -> Vec<SaStatus> {
        let mut rows = self.list_from(SetId(0), SETS);
        let mut last = rows.last().map(|row| row.set);
        while let Some(SetId(set)) = last {
            let more = self.list_from(SetId(set.saturating_add(1)), SETS);
            last = more.last().map(|row| row.set);
            rows.extend(more);
        }
        rows
    }

    /// The SAs of `sets` sets at most, from number `first` on, by set. Empty
    /// when there are none, or the data plane is down.
    pub fn list_from(&self, first: SetId, sets: usize) -> Vec<SaStatus> {
        let now = self.now();
        let rows = self.with(|c| Ok(c.list(first, sets, now)));
        rows.unwrap_or_default()
    }

    /// The SAs of one set; none when there is no such set.
    pub fn list_set(&self, set: SetId) -> Vec<SaStatus> {
        let now = self.now();
        self.with(|c| Ok(c.list_set(set, now))).unwrap_or_default()
    }

    /// How many sets there are, and how many SAs in them.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn count(&self) -> Result<(usize, usize), Error> {
        self.with(|c| Ok(c.sadb.count()))
    }

    fn now(&self) -> u64 {
        self.inner.begin.elapsed().as_millis() as u64
    }

    /// All counters.
    ///
    /// # Errors
    /// [`Error::Bpf`] when a map cannot be read, [`Error::Down`]. A worker that
    /// has gone is in the sums only.
    pub fn stats(&self) -> Result<Stats, Error> {
        self.with(|c| c.stats())
    }

    /// Changes the local addresses of the Gm link.
    ///
    /// # Errors
    /// [`Error::Bpf`], [`Error::Config`] for an empty list.
    pub fn set_addresses(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        if addresses.is_empty() {
            return Err(Error::Config(
                "addresses is empty: nothing would be protected".into(),
            ));
        }
        self.with(|c| c.set_addresses(addresses))
    }

    /// Captures what crosses the uplink, sealed, into a channel; `None` ends
    /// it. With a bounded channel what does not fit is left out and counted in
    /// [`WorkerStats::tap_missed`](crate::WorkerStats::tap_missed).
    ///
    /// # Errors
    /// [`Error::WorkerGone`].
    pub fn tap(&self, to: Option<Sender<TapPacket>>) -> Result<(), Error> {
        self.with(|c| c.tap(to))
    }

    /// The events. Each event goes to one receiver.
    pub fn events(&self) -> Receiver<Event> {
        self.inner.events.clone()
    }

    /// Stops the workers, detaches the programs, removes gm0 and the pins. What
    /// was protected is no longer: this host sends in clear again. Idempotent.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    pub fn shutdown(&self) -> Result<(), Error> {
        match self.inner.lock().take() {
            Some(mut control) => control.stop(),
            None => Ok(()),
        }
    }

    /// Lets go without taking the policy away, for a process that ends because
    /// something has failed: what is pinned stays in force, so protected
    /// traffic is dropped in both directions until a successor takes over. The
    /// devices stay as they are, and what this process holds is freed by its
    /// end, which must follow.
    pub fn leave_in_force(&self) {
        std::mem::forget(self.inner.lock().take());
    }

    pub(crate) fn with<T>(
        &self,
        f: impl FnOnce(&mut Control) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.inner.with(f)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Option<Control>> {
        // A panic of another caller leaves nothing half done that a later
        // command would not repeat.
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with<T>(
        &self,
        f: impl FnOnce(&mut Control) -> Result<T, Error>,
    ) -> Result<T, Error> {
        f(self.lock().as_mut().ok_or(Error::Down)?)
    }
}

/// The answer about the one set that was asked about.
fn one<T>(mut answers: Vec<Result<T, Error>>) -> Result<T, Error> {
    answers.pop().unwrap_or(Err(Error::Down))
}

/// Whether a worker has not answered.
fn is_gone<T>(answers: &[Result<T, Error>]) -> bool {
    let newest = answers.iter().rev().take(SETS);
    newest
        .into_iter()
        .any(|a| matches!(a, Err(Error::WorkerGone)))
}
