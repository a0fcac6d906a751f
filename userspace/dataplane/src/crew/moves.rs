//! Lanes and buckets change hands.
//!
//! A bucket goes from A to B without a packet lost or seen by both:
//!
//! ```text
//! B: takes the SAs, parks packets of the bucket
//!    the route is B's ---> everybody hands over to B; A too, from its next batch on
//! A: lets go of SAs and half datagrams, between two batches
//! B: takes the half datagrams, goes on with what was parked
//! ```

use std::collections::BTreeMap;

use gm_sadb::{Loaded, Sadb};

use super::Crew;
use crate::Error;
use crate::divide::Hand;
use crate::handoff::Command;
use crate::routes::{Buckets, bucket_of, rebalance};
use crate::table::Entry;

/// SAs in one command, so that a worker goes on with packets in between.
const CHUNK: usize = 64;

impl Crew {
    /// Changes the number of workers; no SA and no packet is lost by it.
    pub(crate) fn set_workers(&mut self, workers: u32, sadb: &Sadb) -> Result<(), Error> {
        self.check(workers)?;
        self.wanted = workers;
        self.hire(workers as usize)?;
        let (stay, go): (Vec<u8>, Vec<u8>) = self
            .working()
            .into_iter()
            .partition(|n| u32::from(*n) < workers);
        // Who has no bucket needs no lane, who gets one has a lane by then.
        if go.is_empty() {
            self.spread_lanes(&stay)?;
        }
        self.spread_buckets(&stay, sadb)?;
        self.spread_lanes(&stay)?;
        // A batch later nobody remembers an old route.
        for worker in &stay {
            self.call(*worker, Command::Report)?;
        }
        self.desks.pool.shrink(match stay.len() {
            1 if !go.is_empty() => go.len() + 1,
            _ => go.len(),
        });
        for worker in go {
            self.dismiss(worker)?;
        }
        self.routes.set_shared(stay.len() > 1);
        Ok(())
    }

    /// Puts lane l with the worker that it falls to.
    fn spread_lanes(&mut self, workers: &[u8]) -> Result<(), Error> {
        let wanted = |lane: u32| workers[lane as usize % workers.len()];
        for from in self.working() {
            let lanes = &self.members[usize::from(from)].lanes;
            let leave: Vec<u32> = lanes
                .iter()
                .copied()
                .filter(|l| wanted(*l) != from)
                .collect();
            for lane in self.take(from, leave)? {
                self.give(wanted(lane.number), vec![lane])?;
            }
        }
        Ok(())
    }

    pub(super) fn spread_buckets(&mut self, workers: &[u8], sadb: &Sadb) -> Result<(), Error> {
        let owners = self.routes.owners();
        let mut groups: BTreeMap<(u8, u8), Buckets> = Default::default();
        for (bucket, to) in rebalance(&owners, workers) {
            let from = owners[usize::from(bucket)];
            groups.entry((from, to)).or_default().insert(bucket);
        }
        for ((from, to), buckets) in groups {
            self.move_buckets(&buckets, from, to, sadb)?;
        }
        Ok(())
    }

    /// See the drawing above.
    fn move_buckets(&self, moved: &Buckets, from: u8, to: u8, sadb: &Sadb) -> Result<(), Error> {
        let slots = self.adopt(moved, to, sadb)?;
        self.call(to, Command::Park(*moved))?;
        (0..=255u8)
            .filter(|b| moved.has(*b))
            .for_each(|b| self.routes.give(b, to));
        let lives = |n: u8| {
            self.members
                .get(usize::from(n))
                .is_some_and(|m| m.handoff.is_some())
        };
        let halves = match lives(from) {
            true => self.call(from, Command::Release(*moved, slots))?.halves,
            false => None,
        };
        self.call(to, Command::Unpark(*moved, halves)).map(drop)
    }

    /// Gives a worker all SAs of these buckets; their slots.
    pub(super) fn adopt(&self, buckets: &Buckets, to: u8, sadb: &Sadb) -> Result<Vec<u32>, Error> {
        let moved = |sa: &Loaded| buckets.has(bucket_of(&sa.sa, sa.dir));
        let mut sas: Vec<Loaded> = sadb.loaded().filter(moved).collect();
        // Of selectors that overlap the one activated last has the traffic.
        sas.sort_by_key(|sa| sa.active);
        let slots = sas.iter().map(|sa| sa.slot).collect();
        let mut sas = sas.into_iter().peekable();
        while sas.peek().is_some() {
            let chunk = sas.by_ref().take(CHUNK).map(|sa| {
                let active = sa.active.is_some();
                (
                    Entry::new(sa.slot, sa.set, sa.dir, sa.sa, sa.partners),
                    active,
                )
            });
            self.call(to, Command::Adopt(chunk.collect()))?;
        }
        Ok(slots)
    }

    /// Ends a worker that has neither lanes nor buckets any more.
    fn dismiss(&mut self, worker: u8) -> Result<(), Error> {
        self.call(worker, Command::Stop)?;
        let member = &mut self.members[usize::from(worker)];
        member.handoff = None;
        if let Some(thread) = member.thread.take() {
            let _ = thread.join();
        }
        self.forward(worker);
        Ok(())
    }

    /// Sends on what waits for a worker that is no more.
    pub(super) fn forward(&self, worker: u8) {
        let mut hand = Hand::new(worker, self.routes.clone(), self.desks.clone());
        hand.forward_all(&**self.shop.counters.of(worker));
    }
}
