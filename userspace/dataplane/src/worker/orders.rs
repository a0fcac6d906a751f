//! What a worker is told between two batches, and what it answers.

use crossbeam::channel::SendError;

use super::Worker;
use crate::handoff::{Command, Order, Report};
use crate::lane::Lane;
use crate::process::Process;
use crate::supervise::Fault;

impl Worker {
    /// Does what it is told; says whether it ends.
    pub(super) fn obey(&mut self, order: Order) -> bool {
        if let Some(time) = self.faults.hang.take() {
            std::thread::sleep(time);
        }
        let Process { ctx, hand, tap, .. } = &mut self.process;
        let (mut report, mut stop) = (Report::default(), false);
        match order.command {
            Command::Steps(steps) => steps.into_iter().for_each(|step| step.carry_out(ctx)),
            Command::Adopt(entries) => {
                for (entry, active) in entries {
                    let slot = entry.slot;
                    ctx.load(entry);
                    if active {
                        ctx.table.activate(slot);
                    }
                }
            }
            Command::Park(buckets) => hand.park(&buckets),
            Command::Release(buckets, slots) => {
                slots.into_iter().for_each(|slot| ctx.unload(slot));
                report.halves = Some(Box::new(self.process.split_off(&buckets)));
            }
            Command::Unpark(buckets, halves) => {
                hand.unpark(&buckets);
                if let Some(halves) = halves {
                    self.process.absorb(*halves);
                }
                self.drain_now();
            }
            Command::SealedFirst(buckets) => {
                hand.unpark_sealed_first(&buckets);
                self.drain_now();
            }
            Command::GoOut {
                buckets,
                inbound,
                outbound,
            } => {
                // What came in meanwhile is the kernel's to open, what was to go
                // out has its numbers here: lower ones than the kernel's.
                inbound.into_iter().for_each(|slot| ctx.unload(slot));
                hand.unpark_sealed_last(&buckets);
                self.drain_now();
                let ctx = &mut self.process.ctx;
                outbound.into_iter().for_each(|slot| ctx.unload(slot));
            }
            Command::Give(mut lanes) => {
                let us = self.spin.us();
                lanes.iter_mut().for_each(|lane| lane.prefer_busy_poll(us));
                self.lanes.extend(lanes);
                self.lanes.sort_by_key(|lane| lane.number);
            }
            Command::Take(numbers) => {
                self.faults.held.retain(|(n, _)| !numbers.contains(n));
                report.taken = self
                    .lanes
                    .extract_if(.., |lane| numbers.contains(&lane.number))
                    .collect();
            }
            Command::Tap(to) => tap.set(to),
            Command::Report => report = self.report(),
            Command::Fault(fault) => self.break_something(fault),
            Command::Stop => stop = true,
        }
        // Whoever asked may have given up: then the lanes stay.
        if let Err(SendError(report)) = order.done.send(report) {
            self.lanes.extend(report.taken);
            self.lanes.sort_by_key(|lane| lane.number);
        }
        stop
    }

    fn break_something(&mut self, fault: Fault) {
        match fault {
            Fault::Panic(_) => self.faults.panic = true,
            Fault::PanicInRings(_) => self.faults.panic_in_rings = true,
            Fault::HoldSends(_, hold) => self.faults.hold_sends = hold,
            Fault::HoldFrames(_) => {
                for lane in &mut self.lanes {
                    let frames = std::iter::from_fn(|| lane.umem.alloc());
                    let number = lane.number;
                    self.faults.held.extend(frames.map(|f| (number, f)));
                }
            }
            Fault::FreeFrames(_) => {
                for (number, frame) in self.faults.held.drain(..) {
                    if let Some(lane) = self.lanes.iter_mut().find(|l| l.number == number) {
                        lane.umem.free(frame);
                    }
                }
            }
            Fault::Hang(_, time) => self.faults.hang = Some(time),
            Fault::FillForeign | Fault::EmptyForeign => {}
        }
    }

    fn report(&self) -> Report {
        let umems = || self.lanes.iter().map(|lane| &lane.umem);
        let hand = &self.process.hand;
        Report {
            sockets: self.lanes.iter().flat_map(Lane::stats).collect(),
            lanes: self.lanes.iter().map(|lane| lane.number).collect(),
            frames: umems().map(|u| u.frames() as u64).sum(),
            frames_free: umems().map(|u| u.free_count() as u64).sum(),
            frames_leaked: umems().map(|u| u.leaked()).sum(),
            tap_missed: self.process.tap.missed(),
            reassembly_bytes: self.process.reassembly_bytes(),
            turns: self.turns,
            sleeps: self.sleeps,
            batches: self.batches,
            packets: self.packets,
            handed_out: hand.handed_out,
            handed_in: hand.handed_in,
            parked: hand.times_parked,
            ..Report::default()
        }
    }
}
