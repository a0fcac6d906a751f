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
use std::time::Duration;

use crossbeam::channel::{Sender, TryRecvError};
use gm_abi::verdict::Reason;
use gm_xsk::{Frame, METADATA};

use crate::Error;
use crate::handoff::Inbox;
use crate::lane::Lane;
use crate::parcel::Side;
use crate::process::{BATCH, Process};
use crate::supervise::Notice;

mod orders;
mod sleep;

use sleep::Spin;

/// Milliseconds between looks at old fragments, where there are any.
const TICK: u64 = 1000;

/// Starts a worker without lanes. A panic in it ends it, not the process: its
/// lanes go to the supervisor, with whatever waits on their rings.
pub(crate) fn start(
    number: u8,
    cpu: Option<usize>,
    busy_poll_us: u32,
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
            spin: Spin::new(busy_poll_us),
            turns: 0,
            sleeps: 0,
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
    /// Lie still for so long at the next order.
    hang: Option<Duration>,
}

struct Worker {
    lanes: Vec<Lane>,
    process: Process,
    inbox: Inbox,
    batch: Vec<Frame>,
    /// What others have handed over of the local stack's packets.
    stack_batch: Vec<Frame>,
    spin: Spin,
    /// Rounds of the loop, and those that ended in a sleep.
    turns: u64,
    sleeps: u64,
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
            let clock = begin.elapsed().as_nanos() as u64;
            let now = clock / 1_000_000;
            let packets = self.packets;
            self.turns += 1;
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
            // One a round, for many SAs may be in it: packets come in between.
            let (ends, told) = match self.inbox.orders.try_recv() {
                Ok(order) => (self.obey(order), true),
                Err(TryRecvError::Empty) => (false, false),
                // It was given up: nobody knows of it any more.
                Err(TryRecvError::Disconnected) => (true, false),
            };
            if ends {
                return self.close();
            }
            // What has just been unparked is no packet yet.
            let waits = told || !self.lanes.is_empty() && self.process.hand.has_mail();
            let found = match waits {
                true => u64::MAX,
                false => self.packets - packets,
            };
            if !self.spin.goes_on(clock, found) {
                self.sleep(queued);
            } else if found == 0 {
                if self.spin.polls() {
                    // Makes the driver look, too, where it knows how.
                    self.lanes.iter().for_each(Lane::busy_poll);
                }
                // Whoever else has something to do on this CPU goes first.
                rustix::thread::sched_yield();
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
