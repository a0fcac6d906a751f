//! The ring loop: one pinned thread and its lanes. What happens to packets is
//! in `process`.
//!
//! A batch that a queue has brought is divided by owner (`divide`), so that
//! whatever queue a NIC chooses for a packet, the owner of its SA gets it; what
//! others have handed over comes through the letter box.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crossbeam::channel::{SendError, Sender, TryRecvError};
use gm_abi::verdict::Reason;
use gm_xsk::{Frame, METADATA};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Error;
use crate::handoff::{Command, Inbox, Order, Report};
use crate::lane::Lane;
use crate::parcel::Side;
use crate::process::{BATCH, Process};
use crate::supervise::{Fault, Notice};

/// Milliseconds between looks at old fragments; also the longest sleep.
const TICK: u64 = 1000;

/// Nanoseconds of a sleep while the kernel has not taken all there is to send.
const SHORT: i64 = 1_000_000;

/// Starts a worker without lanes. A panic in it ends it, not the process: its
/// lanes go to the supervisor, with whatever waits on their rings.
pub(crate) fn start(
    number: u8,
    cpu: Option<usize>,
    process: Process,
    inbox: Inbox,
    notices: Sender<Notice>,
) -> Result<JoinHandle<()>, Error> {
    let run = move || {
        if let Some(cpu) = cpu
            && let Err(e) = pin(cpu)
        {
            tracing::warn!(worker = number, cpu, "cannot pin to the CPU: {e}");
        }
        let mut worker = Worker {
            lanes: Vec::new(),
            process,
            inbox,
            batch: Vec::with_capacity(BATCH),
            stack_batch: Vec::with_capacity(BATCH),
            batches: 0,
            packets: 0,
            in_rings: false,
            faults: Faults::default(),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run())) {
            let why = words(panic.as_ref());
            tracing::error!(worker = number, "panicked: {why}");
            worker.bequeath(number, why, &notices);
        }
    };
    std::thread::Builder::new()
        .name(format!("gm-worker-{number}"))
        .spawn(run)
        .map_err(|e| Error::io("start a worker thread", e))
}

/// What a panic has said.
fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic")
        .to_owned()
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// What tests have broken.
#[derive(Default)]
struct Faults {
    /// Panic at the next batch, with its packets in hand.
    panic: bool,
    /// Panic at the next look at the rings.
    panic_in_rings: bool,
    /// Do not tell the kernel of what is to be sent.
    hold_sends: bool,
    /// Frames that nobody else gets.
    held: Vec<(u32, Frame)>,
}

struct Worker {
    lanes: Vec<Lane>,
    process: Process,
    inbox: Inbox,
    batch: Vec<Frame>,
    /// What others have handed over of the local stack's packets.
    stack_batch: Vec<Frame>,
    batches: u64,
    packets: u64,
    /// In the middle of the rings: a panic here leaves them in no known state.
    in_rings: bool,
    faults: Faults,
}

impl Worker {
    fn run(&mut self) {
        let begin = self.process.ctx.begin;
        let mut looked = 0;
        loop {
            let now = begin.elapsed().as_millis() as u64;
            let packets = self.packets;
            self.drain(now);
            if self.process.hand.has_mail() {
                self.mail(now);
            }
            let mut queued = false;
            for i in 0..self.lanes.len() {
                queued |= self.lane(i, now);
            }
            if now.saturating_sub(looked) >= TICK {
                looked = now;
                self.process.expire(now);
            }
            loop {
                let ends = match self.inbox.orders.try_recv() {
                    Ok(order) => self.obey(order),
                    Err(TryRecvError::Empty) => break,
                    // It was given up: nobody knows of it any more.
                    Err(TryRecvError::Disconnected) => true,
                };
                if ends {
                    return self.close();
                }
            }
            // What has just been unparked is no packet yet.
            let waits = !self.lanes.is_empty() && self.process.hand.has_mail();
            if self.packets == packets && !waits {
                self.sleep(queued);
            }
        }
    }

    /// One round over the queues of a lane; says whether something waits to be
    /// sent.
    fn lane(&mut self, i: usize, now: u64) -> bool {
        let Worker {
            lanes,
            process,
            batch,
            ..
        } = self;
        let lane = &mut lanes[i];
        for port in 0..lane.len() {
            self.in_rings = true;
            let side = lane.recv(port, batch);
            assert!(!self.faults.panic_in_rings, "a test's fault in the rings");
            self.in_rings = false;
            let Some(is_uplink) = side else { continue };
            self.batches += 1;
            self.packets += batch.len() as u64;
            assert!(!self.faults.panic, "a test's fault");
            let ctx = &process.ctx;
            let Lane { umem, out, .. } = &mut *lane;
            if is_uplink {
                process.hand.divide(Side::Wire, umem, batch, ctx);
                process.inbound(umem, batch, out, now);
            } else {
                process.hand.divide(Side::Stack, umem, batch, ctx);
                process.outbound(umem, batch, out, now);
            }
        }
        self.in_rings = true;
        let queued = lane.transmit(&process.ctx.counters, self.faults.hold_sends);
        self.in_rings = false;
        queued
    }

    fn drain_now(&mut self) {
        self.drain(self.process.ctx.begin.elapsed().as_millis() as u64);
    }

    /// Takes all that was parked and may go on.
    fn drain(&mut self, now: u64) {
        while self.process.hand.has_released() && !self.lanes.is_empty() {
            self.mail(now);
            if let Some(lane) = self.lanes.first_mut() {
                self.in_rings = true;
                lane.transmit(&self.process.ctx.counters, self.faults.hold_sends);
                self.in_rings = false;
            }
        }
    }

    /// Takes what others have handed over; it leaves on the first lane.
    fn mail(&mut self, now: u64) {
        let Worker {
            lanes,
            process,
            batch,
            stack_batch,
            ..
        } = self;
        // Without a lane it waits.
        let Some(Lane { umem, out, .. }) = lanes.first_mut() else {
            return;
        };
        let counters = process.ctx.counters.clone();
        for _ in 0..BATCH {
            let Some(parcel) = process.hand.next(&process.ctx) else {
                break;
            };
            let Some(contents) = parcel.contents() else {
                continue;
            };
            self.packets += 1;
            let side = contents.side;
            if let Side::Whole(link) = side {
                process.whole_in(umem, &contents.bytes, link.into(), out, now);
                continue;
            }
            let Some(mut frame) = umem.alloc() else {
                counters.count(Reason::NoFrame);
                continue;
            };
            if !frame.write(&contents.bytes) {
                counters.count(Reason::NoFrame);
                umem.free(frame);
                continue;
            }
            let (chunk, start, _) = frame.chunk_mut();
            chunk[start - METADATA..start].copy_from_slice(&contents.meta);
            match side {
                Side::Stack => stack_batch.push(frame),
                _ => batch.push(frame),
            }
        }
        assert!(!self.faults.panic, "a test's fault");
        self.batches += 1;
        process.inbound(umem, batch, out, now);
        process.outbound(umem, stack_batch, out, now);
    }

    fn obey(&mut self, order: Order) -> bool {
        let Process { ctx, hand, tap, .. } = &mut self.process;
        let (mut report, mut stop) = (Report::default(), false);
        match order.command {
            Command::Load(entry) => ctx.load(*entry),
            Command::Adopt(entries) => {
                for (entry, active) in entries {
                    let slot = entry.slot;
                    ctx.load(entry);
                    if active {
                        ctx.table.activate(slot);
                    }
                }
            }
            Command::Activate(slot) => ctx.table.activate(slot),
            Command::Deactivate(slot) => ctx.table.deactivate(slot),
            Command::Unload(slot) => ctx.unload(slot),
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
                // out has its numbers here.
                inbound.into_iter().for_each(|slot| ctx.unload(slot));
                hand.unpark(&buckets);
                self.drain_now();
                let ctx = &mut self.process.ctx;
                outbound.into_iter().for_each(|slot| ctx.unload(slot));
            }
            Command::Give(lanes) => {
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
            batches: self.batches,
            packets: self.packets,
            handed_out: hand.handed_out,
            handed_in: hand.handed_in,
            parked: hand.times_parked,
            ..Report::default()
        }
    }

    fn sleep(&self, queued: bool) {
        let timeout = match queued {
            true => Timespec {
                tv_sec: 0,
                tv_nsec: SHORT,
            },
            false => Timespec {
                tv_sec: (TICK / 1000) as i64,
                tv_nsec: 0,
            },
        };
        let mailbox = self.process.hand.mailbox();
        // Without a lane nobody empties the letter box: that is no reason to
        // stay awake.
        if mailbox.is_some_and(|m| !m.sleeps()) && !self.lanes.is_empty() {
            return;
        }
        let ports = self.lanes.iter().flat_map(Lane::ports);
        let mut fds: Vec<PollFd<'_>> = ports
            .map(|p| PollFd::new(&p.socket, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.inbox.wake, PollFlags::IN));
        // An interrupted poll is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        if let Some(mailbox) = mailbox {
            mailbox.awake();
        }
        if fds.last().is_some_and(|f| !f.revents().is_empty()) {
            self.inbox.quiet();
        }
    }

    /// An orderly end.
    fn close(&mut self) {
        let Process { ctx, hand, .. } = &mut self.process;
        hand.forward_all(ctx);
        let held = std::mem::take(&mut self.faults.held);
        for (number, frame) in held {
            if let Some(lane) = self.lanes.iter_mut().find(|l| l.number == number) {
                lane.umem.free(frame);
            }
        }
        self.lanes.drain(..).for_each(Lane::close);
    }

    /// What is left after a panic: the lanes. Everything else goes first, the
    /// orders that wait last of all: who has given one then knows that nothing
    /// of this worker touches an SA any more.
    fn bequeath(self, number: u8, why: String, notices: &Sender<Notice>) {
        let Worker {
            mut lanes,
            process,
            inbox,
            batch,
            stack_batch,
            in_rings,
            faults,
            ..
        } = self;
        drop((process, batch, stack_batch, faults));
        lanes.retain_mut(|lane| !in_rings && lane.salvage());
        drop(inbox);
        let _ = notices.send(Notice::Died {
            worker: number,
            why,
            lanes,
        });
    }
}
