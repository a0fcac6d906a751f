//! What the control side tells a worker, and the worker's answers.
//!
//! Commands go through a channel; the worker's eventfd wakes it from
//! its poll. Each is acknowledged when it is in force: the control side writes
//! the BPF maps only after the worker knows an SA, and lets the worker forget
//! it only after XDP no longer finds it (ARCHITECTURE, rules 4 and 6).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rustix::fd::OwnedFd;

use crate::lane::Lane;
use crate::process::{Ctx, Halves};
use crate::routes::Buckets;
use crate::stats::SocketStats;
use crate::supervise::Fault;
use crate::table::Entry;
use crate::tap::TapPacket;

/// How long a worker may take for a command. It handles them between batches,
/// so within a millisecond; after this it is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);
const PIECES: u32 = 5;

/// What a worker is told.
pub(crate) enum Command {
    /// Carry these out, in this order.
    Steps(Vec<Step>),
    /// Take these SAs; those with `true` send as well, in this order.
    Adopt(Vec<(Entry, bool)>),
    /// Let packets of these buckets wait: another worker still has them.
    Park(Buckets),
    /// Let go of these buckets, whose SAs are in these slots. What the answer
    /// brings are the datagrams that are not whole yet.
    Release(Buckets, Vec<u32>),
    /// Go on with these buckets, and with their datagrams.
    Unpark(Buckets, Option<Box<Halves>>),
    /// These buckets do not wait any more; what the kernel has sealed goes before
    /// what is to be sealed here.
    SealedFirst(Buckets),
    /// These buckets do not wait any more, and the SAs in these slots end: the
    /// inbound ones before what has waited, the outbound ones behind it. What the
    /// kernel has sealed goes behind what is to be sealed here.
    GoOut {
        /// What does not wait any more.
        buckets: Buckets,
        /// Slots of inbound SAs.
        inbound: Vec<u32>,
        /// Slots of outbound SAs.
        outbound: Vec<u32>,
    },
    /// Serve these lanes too.
    Give(Vec<Lane>),
    /// Give the lanes of these numbers away.
    Take(Vec<u32>),
    /// Copy frames there, or no more.
    Tap(Option<Sender<TapPacket>>),
    /// Say how the rings are. Being a command, it also marks a point between
    /// two batches.
    Report,
    /// Break something; for tests.
    Fault(Fault),
    /// End.
    Stop,
}

/// One SA comes, goes, or takes over.
pub(crate) enum Step {
    /// Take this SA; inbound it is live, outbound it stands by.
    Load(Entry),
    /// Send with the SA in this slot.
    Activate(u32),
    /// Do not send with the SA in this slot any more.
    Deactivate(u32),
    /// Forget the SA in this slot.
    Unload(u32),
}

impl Step {
    /// The worker's side.
    pub(crate) fn carry_out(self, ctx: &mut Ctx) {
        match self {
            Step::Load(entry) => ctx.load(entry),
            Step::Activate(slot) => ctx.table.activate(slot),
            Step::Deactivate(slot) => ctx.table.deactivate(slot),
            Step::Unload(slot) => ctx.unload(slot),
        }
    }
}

/// What a worker answers.
#[derive(Default)]
pub(crate) struct Report {
    pub sockets: Vec<SocketStats>,
    pub lanes: Vec<u32>,
    pub frames: u64,
    pub frames_free: u64,
    pub frames_leaked: u64,
    pub tap_missed: u64,
    pub reassembly_bytes: u64,
    pub turns: u64,
    pub sleeps: u64,
    pub batches: u64,
    pub packets: u64,
    pub handed_out: u64,
    pub handed_in: u64,
    pub parked: u64,
    /// The answer to [`Command::Release`].
    pub halves: Option<Box<Halves>>,
    /// The answer to [`Command::Take`].
    pub taken: Vec<Lane>,
}

/// A command and where the answer goes.
pub(crate) struct Order {
    pub command: Command,
    pub done: Sender<Report>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The worker has ended; nothing of it is left.
    Ended,
    /// It lives and does not answer.
    Hangs,
}

/// The control side's end.
pub(crate) struct Handoff {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
}

/// The worker's end.
pub(crate) struct Inbox {
    pub orders: Receiver<Order>,
    pub wake: Arc<OwnedFd>,
}

/// Both ends, with what wakes the worker.
pub(crate) fn pair(wake: Arc<OwnedFd>) -> (Handoff, Inbox) {
    // An order that a dying worker has not taken has to go with its end, or who
    // gave it would wait; a bounded channel keeps it. There are as many orders as
    // the one command that is being carried out has messages.
    let (to, from) = unbounded();
    let handoff = Handoff {
        orders: to,
        wake: wake.clone(),
    };
    (handoff, Inbox { orders: from, wake })
}

impl Handoff {
    /// Gives a command and waits until it is in force.
    pub(crate) fn call(&self, command: Command) -> Result<Report, NoAnswer> {
        self.send(command)?.wait()
    }

    /// Whether the worker has taken all that it was told.
    pub(crate) fn is_taken(&self) -> bool {
        self.orders.is_empty()
    }

    /// Gives a command; it is in force when [`Pending::wait`] has returned.
    /// Commands are carried out in the order in which they are given.
    pub(crate) fn send(&self, command: Command) -> Result<Pending, NoAnswer> {
        let (done, answer) = bounded(1);
        let order = Order { command, done };
        if self.orders.send(order).is_err() {
            return Err(NoAnswer::Ended);
        }
        // A full counter wakes as well.
        let _ = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes());
        Ok(Pending { answer })
    }
}

/// A command that was given.
pub(crate) struct Pending {
    answer: Receiver<Report>,
}

impl Pending {
    /// Waits until it is in force.
    pub(crate) fn wait(self) -> Result<Report, NoAnswer> {
        let answer = self.answer;
        // In pieces: where the whole process was stopped for a while, the clock
        // says more than the worker has had.
        for _ in 0..PIECES {
            match answer.recv_timeout(PATIENCE / PIECES) {
                Ok(report) => return Ok(report),
                Err(e) if e.is_disconnected() => return Err(NoAnswer::Ended),
                Err(_) => {}
            }
        }
        Err(NoAnswer::Hangs)
    }
}

/// Whoever sleeps without an end has to hear that nobody commands it any more.
impl Drop for Handoff {
    fn drop(&mut self) {
        let (nobody, _) = bounded(0);
        drop(std::mem::replace(&mut self.orders, nobody));
        let _ = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes());
    }
}

impl Inbox {
    /// Takes the wake-up back, so that the next poll sleeps.
    pub(crate) fn quiet(&self) {
        let _ = rustix::io::read(self.wake.as_fd(), &mut [0u8; 8]);
    }
}
