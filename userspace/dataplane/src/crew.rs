//! The workers of one data plane as the control side sees them: who there is,
//! who has which lanes and which buckets. How these change hands is in `moves`.

mod hold;
mod moves;
pub(crate) mod steps;

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use gm_sadb::Sadb;

use crate::handoff::{self, Command, Handoff, NoAnswer, Report};
use crate::lane::Lane;
use crate::parcel::Desks;
use crate::routes::{BUCKETS, Buckets, Routes, rebalance};
use crate::shop::Shop;
use crate::stats::WorkerStats;
use crate::supervise::Notice;
use crate::tap::TapPacket;
use crate::worker;
use crate::{Error, Event};

/// Panics of one worker in [`BRIEF`] after which it is not started again.
const MOST_PANICS: usize = 5;
const BRIEF: Duration = Duration::from_secs(60);

/// One worker.
struct Member {
    /// `None`: it was given up, or taken away.
    handoff: Option<Handoff>,
    thread: Option<JoinHandle<()>>,
    lanes: Vec<u32>,
    panics: VecDeque<Instant>,
    restarts: u64,
}

/// All workers.
pub(crate) struct Crew {
    shop: Shop,
    routes: Arc<Routes>,
    desks: Arc<Desks>,
    members: Vec<Member>,
    notices: Sender<Notice>,
    tap: Option<Sender<TapPacket>>,
    lanes: u32,
    /// How many there are to be.
    wanted: u32,
}

impl Crew {
    /// Starts `workers` workers on these lanes; there is no SA yet.
    pub(crate) fn start(
        shop: Shop,
        (routes, desks): (Arc<Routes>, Arc<Desks>),
        workers: u32,
        lanes: Vec<Lane>,
        notices: Sender<Notice>,
    ) -> Result<Crew, Error> {
        let mut crew = Crew {
            shop,
            routes,
            desks,
            members: Vec::new(),
            notices,
            tap: None,
            lanes: lanes.len() as u32,
            wanted: workers,
        };
        crew.check(workers)?;
        crew.hire(workers as usize)?;
        for lane in lanes {
            let to = (lane.number % workers) as u8;
            crew.give(to, vec![lane])?;
        }
        for (bucket, to) in rebalance(&[0; BUCKETS], &crew.working()) {
            crew.routes.give(bucket, to);
        }
        Ok(crew)
    }

    /// Refuses more workers than there are lanes.
    fn check(&self, workers: u32) -> Result<(), Error> {
        if (1..=self.lanes).contains(&workers) {
            return Ok(());
        }
        Err(Error::Config(format!(
            "workers = {workers}: {0} has queues for 1 to {1}; give it more with `ethtool -L {0} combined N` and \
             start again",
            self.shop.cfg.uplink, self.lanes,
        )))
    }

    /// Numbers of those that are there.
    pub(crate) fn working(&self) -> Vec<u8> {
        (0u8..)
            .zip(&self.members)
            .filter(|(_, m)| m.handoff.is_some())
            .map(|(n, _)| n)
            .collect()
    }

    /// Starts workers until the numbers below `upto` are there.
    fn hire(&mut self, upto: usize) -> Result<(), Error> {
        if upto > 1 {
            // Before there is a second one: from its first batch on it divides.
            self.routes.set_shared(true);
            let before = match self.working().len() {
                1 => 0,
                n => n,
            };
            self.desks.pool.add(upto.saturating_sub(before));
        }
        for number in 0..upto {
            if self.members.len() == number {
                self.members.push(Member {
                    handoff: None,
                    thread: None,
                    lanes: Vec::new(),
                    panics: VecDeque::new(),
                    restarts: 0,
                });
            }
            if self.members[number].handoff.is_none() {
                self.members[number].panics.clear();
                self.spawn(number as u8)?;
            }
        }
        Ok(())
    }

    fn spawn(&mut self, number: u8) -> Result<(), Error> {
        let mailbox = self.desks.of(number).ok_or(Error::WorkerGone)?;
        let (handoff, inbox) = handoff::pair(mailbox.wake.clone());
        let process = self.shop.process(number, &self.routes, &self.desks)?;
        let cpu = self.shop.cpu(number);
        let thread = worker::start(
            number,
            cpu,
            self.shop.cfg.busy_poll_us,
            process,
            inbox,
            self.notices.clone(),
        )?;
        let member = &mut self.members[usize::from(number)];
        (member.handoff, member.thread) = (Some(handoff), Some(thread));
        if self.tap.is_some() {
            self.call(number, Command::Tap(self.tap.clone()))?;
        }
        Ok(())
    }

    /// Gives a command. One that has just died will be started again from the
    /// database, which is ahead of every command; so for it nothing is to do.
    ///
    /// # Errors
    /// [`Error::WorkerGone`] when it is not there any more, or hangs.
    pub(crate) fn call(&self, worker: u8, command: Command) -> Result<Report, Error> {
        let member = self.members.get(usize::from(worker));
        let handoff = member.and_then(|m| m.handoff.as_ref());
        match handoff.ok_or(Error::WorkerGone)?.call(command) {
            Ok(report) => Ok(report),
            Err(NoAnswer::Ended) => Ok(Report::default()),
            Err(NoAnswer::Hangs) => Err(Error::WorkerGone),
        }
    }

    /// Whether no worker has orders that it has not taken.
    pub(crate) fn takes_orders(&self) -> bool {
        let mut given = self.members.iter().filter_map(|m| m.handoff.as_ref());
        given.all(Handoff::is_taken)
    }

    /// The worker that has the SA in a slot.
    pub(crate) fn of_slot(&self, slot: u32) -> u8 {
        let bucket = self.routes.bucket_of_slot(slot);
        bucket.map_or(0, |bucket| self.routes.owner(bucket))
    }

    /// Begins or ends the capture.
    pub(crate) fn tap(&mut self, to: Option<Sender<TapPacket>>) -> Result<(), Error> {
        self.tap = to;
        for worker in self.working() {
            self.call(worker, Command::Tap(self.tap.clone()))?;
        }
        Ok(())
    }

    fn give(&mut self, to: u8, lanes: Vec<Lane>) -> Result<(), Error> {
        let mine = &mut self.members[usize::from(to)].lanes;
        mine.extend(lanes.iter().map(|lane| lane.number));
        mine.sort_unstable();
        self.call(to, Command::Give(lanes)).map(drop)
    }

    fn take(&mut self, from: u8, numbers: Vec<u32>) -> Result<Vec<Lane>, Error> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let taken = self.call(from, Command::Take(numbers))?.taken;
        let gone: Vec<u32> = taken.iter().map(|lane| lane.number).collect();
        let mine = &mut self.members[usize::from(from)].lanes;
        mine.retain(|number| !gone.contains(number));
        Ok(taken)
    }

    /// A worker has died, `lanes` are what it had. Starts it again, or has the
    /// others do its work; the event that says which.
    pub(crate) fn died(&mut self, worker: u8, why: String, lanes: Vec<Lane>, sadb: &Sadb) -> Event {
        let number = u32::from(worker);
        let Some(member) = self.members.get_mut(usize::from(worker)) else {
            return Event::WorkerGone {
                worker: number,
                why,
            };
        };
        member.handoff = None;
        member.lanes.clear();
        if let Some(thread) = member.thread.take() {
            let _ = thread.join();
        }
        let now = Instant::now();
        member.panics.push_back(now);
        member.panics.retain(|at| now.duration_since(*at) < BRIEF);
        let mut lanes = lanes;
        if number < self.wanted && member.panics.len() < MOST_PANICS {
            match self.restart(worker, &mut lanes, sadb) {
                Ok(()) => {
                    return Event::WorkerRestarted {
                        worker: number,
                        why,
                    };
                }
                Err(e) => tracing::error!(worker, "cannot be started again: {e}"),
            }
        }
        match self.inherit(worker, lanes, sadb) {
            Ok(()) => Event::WorkerGone {
                worker: number,
                why,
            },
            Err(e) => {
                tracing::error!(
                    "no worker is left ({e}): protected traffic is dropped from now on"
                );
                Event::WorkerStopped {
                    worker: number,
                    why,
                }
            }
        }
    }

    /// The SAs first: what comes meanwhile waits on the rings.
    fn restart(&mut self, worker: u8, lanes: &mut Vec<Lane>, sadb: &Sadb) -> Result<(), Error> {
        self.spawn(worker)?;
        let owners = self.routes.owners();
        let mine: Buckets = (0u8..=255)
            .filter(|b| owners[usize::from(*b)] == worker)
            .collect();
        self.adopt(&mine, worker, sadb)?;
        self.members[usize::from(worker)].restarts += 1;
        self.give(worker, std::mem::take(lanes))
    }

    /// The others take what a worker had that is not started again.
    fn inherit(&mut self, worker: u8, lanes: Vec<Lane>, sadb: &Sadb) -> Result<(), Error> {
        self.give_up(worker)?;
        let left = self.working();
        if left.is_empty() {
            return Err(Error::WorkerGone);
        }
        self.spread_buckets(&left, sadb)?;
        self.forward(worker);
        for lane in lanes {
            let to = left[lane.number as usize % left.len()];
            self.give(to, vec![lane])?;
        }
        Ok(())
    }

    /// Where a restart has failed half way there is a worker: what nobody
    /// commands ends by itself. Its SAs are nobody else's before it has.
    fn give_up(&mut self, worker: u8) -> Result<(), Error> {
        let member = &mut self.members[usize::from(worker)];
        member.handoff = None;
        let Some(thread) = member.thread.take() else {
            return Ok(());
        };
        for _ in 0..500 {
            if thread.is_finished() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err(Error::WorkerGone)
    }

    /// Takes all lanes from the workers, has `f` change them, and gives them
    /// back, also those that `f` has failed on.
    pub(crate) fn with_lanes(
        &mut self,
        mut f: impl FnMut(&mut Lane) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut end = Ok(());
        for worker in self.working() {
            let numbers = self.members[usize::from(worker)].lanes.clone();
            let mut lanes = self.take(worker, numbers)?;
            for lane in &mut lanes {
                end = end.and(f(lane));
            }
            self.give(worker, lanes)?;
        }
        end
    }

    /// Numbers of the lanes of a worker.
    pub(crate) fn lanes_of(&self, worker: u8) -> Vec<u32> {
        let member = self.members.get(usize::from(worker));
        member.map_or_else(Vec::new, |m| m.lanes.clone())
    }

    /// Lanes in all.
    pub(crate) fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Each worker's counters.
    pub(crate) fn stats(&self) -> Vec<WorkerStats> {
        let stats = |number: u8| {
            let member = &self.members[usize::from(number)];
            let report = self.call(number, Command::Report).unwrap_or_default();
            WorkerStats {
                worker: number.into(),
                cpu: self.shop.cpu(number),
                reasons: self.shop.counters.of(number).snapshot().to_vec(),
                turns: report.turns,
                sleeps: report.sleeps,
                batches: report.batches,
                packets: report.packets,
                frames: report.frames,
                frames_free: report.frames_free,
                frames_leaked: report.frames_leaked,
                tap_missed: report.tap_missed,
                reassembly_bytes: report.reassembly_bytes,
                sockets: report.sockets,
                lanes: report.lanes,
                handed_out: report.handed_out,
                handed_in: report.handed_in,
                parked: report.parked,
                restarts: member.restarts,
            }
        };
        self.working().into_iter().map(stats).collect()
    }

    /// Ends all workers.
    pub(crate) fn stop(&mut self) {
        for member in &mut self.members {
            let (Some(handoff), Some(thread)) = (member.handoff.take(), member.thread.take())
            else {
                continue;
            };
            // One that has ended by itself does not answer; one that hangs
            // must not hang this thread too.
            match handoff.call(Command::Stop) {
                Err(NoAnswer::Hangs) if !thread.is_finished() => {
                    tracing::error!("{}", Error::WorkerGone)
                }
                _ => drop(thread.join()),
            }
        }
    }
}
