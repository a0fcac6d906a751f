//! What the control side tells a worker, and the worker's answers.
//!
//! Commands go through a bounded channel; an eventfd wakes the worker from
//! its poll. Each is acknowledged when it is in force: the control side writes
//! the BPF maps only after the worker knows an SA, and lets the worker forget
//! it only after XDP no longer finds it (ARCHITECTURE, rules 4 and 6).

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::Error;
use crate::stats::SocketStats;
use crate::table::Entry;
use crate::tap::TapPacket;

/// How long a worker may take for a command. It handles them between batches,
/// so within a millisecond; after this it is taken for dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a worker is told.
pub(crate) enum Command {
    /// Take this SA; inbound it is live, outbound it stands by.
    Load(Box<Entry>),
    /// Send with the SA in this slot.
    Activate(u32),
    /// Do not send with the SA in this slot any more.
    Deactivate(u32),
    /// Forget the SA in this slot.
    Unload(u32),
    /// Copy frames there, or no more.
    Tap(Option<Sender<TapPacket>>),
    /// Say how the rings are.
    Report,
    /// End.
    Stop,
}

/// What a worker answers.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub sockets: Vec<SocketStats>,
    pub frames: u64,
    pub frames_free: u64,
    pub frames_leaked: u64,
    pub tap_missed: u64,
    pub batches: u64,
    pub packets: u64,
}

/// A command and where the answer goes.
pub(crate) struct Order {
    pub command: Command,
    pub done: Sender<Report>,
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

/// Both ends.
pub(crate) fn pair() -> Result<(Handoff, Inbox), Error> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|e| Error::io("make an eventfd", e.into()))?;
    let wake = Arc::new(wake);
    let (to, from) = bounded(64);
    Ok((
        Handoff {
            orders: to,
            wake: wake.clone(),
        },
        Inbox { orders: from, wake },
    ))
}

impl Handoff {
    /// Gives a command and waits until it is in force.
    ///
    /// # Errors
    /// [`Error::WorkerGone`] when the worker has ended or does not answer.
    pub(crate) fn call(&self, command: Command) -> Result<Report, Error> {
        let (done, answer) = bounded(1);
        self.orders
            .send_timeout(Order { command, done }, PATIENCE)
            .map_err(|_| Error::WorkerGone)?;
        // A full counter wakes as well.
        let _ = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes());
        answer.recv_timeout(PATIENCE).map_err(|_| Error::WorkerGone)
    }
}

impl Inbox {
    /// Takes the wake-up back, so that the next poll sleeps.
    pub(crate) fn quiet(&self) {
        let _ = rustix::io::read(self.wake.as_fd(), &mut [0u8; 8]);
    }
}
