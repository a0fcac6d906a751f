//! What the workers count. Each counter has one writer, its worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_abi::verdict::Reason;

use crate::drops;

/// Counters of one worker, read by anybody.
#[derive(Debug)]
pub(crate) struct Counters {
    reasons: [AtomicU64; Reason::COUNT],
}

impl Default for Counters {
    fn default() -> Counters {
        Counters {
            reasons: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Counters {
    /// Counts one packet.
    pub(crate) fn count(&self, reason: Reason) {
        self.add(reason, 1);
    }

    /// Counts `n` packets.
    pub(crate) fn add(&self, reason: Reason, n: u64) {
        self.reasons[reason.index()].fetch_add(n, Ordering::Relaxed);
    }

    /// All counters, in the order of [`Reason::ALL`].
    pub(crate) fn snapshot(&self) -> [u64; Reason::COUNT] {
        std::array::from_fn(|i| self.reasons[i].load(Ordering::Relaxed))
    }
}

/// The counters of all workers that there may be, by number. A worker that is
/// started again goes on with its own.
#[derive(Clone, Debug)]
pub(crate) struct AllCounters(Arc<[Arc<Counters>]>);

impl AllCounters {
    /// For `workers` workers, at least one.
    pub(crate) fn new(workers: u32) -> AllCounters {
        AllCounters((0..workers.max(1)).map(|_| Arc::default()).collect())
    }

    /// Those of one worker.
    pub(crate) fn of(&self, worker: u8) -> &Arc<Counters> {
        &self.0[usize::from(worker).min(self.0.len() - 1)]
    }

    /// All of them together, in the order of [`Reason::ALL`].
    pub(crate) fn snapshot(&self) -> [u64; Reason::COUNT] {
        let mut sums = [0; Reason::COUNT];
        for counters in self.0.iter() {
            for (sum, n) in sums.iter_mut().zip(counters.snapshot()) {
                *sum += n;
            }
        }
        sums
    }
}

/// One AF_XDP socket of a worker, with the kernel's XDP_STATISTICS. What is
/// lost there is lost in silence otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketStats {
    /// Interface name.
    pub interface: String,
    /// Queue of the interface.
    pub queue: u32,
    /// Packets dropped by the kernel other than for a full receive ring.
    pub rx_dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the kernel found no empty frame on the fill ring.
    pub fill_ring_empty: u64,
    /// Descriptors that the kernel refused, on the way out.
    pub tx_invalid: u64,
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Number of the worker.
    pub worker: u32,
    /// CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// What it did with packets, in the order of [`Reason::ALL`].
    pub reasons: Vec<u64>,
    /// Rounds of its loop.
    pub turns: u64,
    /// Rounds after which it slept.
    pub sleeps: u64,
    /// Batches that it took from the rings.
    pub batches: u64,
    /// Packets in them.
    pub packets: u64,
    /// Frames of its memory.
    pub frames: u64,
    /// Frames that are free.
    pub frames_free: u64,
    /// Frames that got lost; not zero is a bug.
    pub frames_leaked: u64,
    /// Packets that the wire capture had to leave out.
    pub tap_missed: u64,
    /// Bytes of datagrams that are not whole yet, both directions together.
    pub reassembly_bytes: u64,
    /// Its sockets.
    pub sockets: Vec<SocketStats>,
    /// Numbers of its lanes: queues of the uplink that it serves.
    pub lanes: Vec<u32>,
    /// Packets that it has received and handed to the worker of their SA.
    pub handed_out: u64,
    /// Packets that others have handed to it.
    pub handed_in: u64,
    /// Packets that have waited here until another worker had let go of their
    /// SA.
    pub parked: u64,
    /// How often it was started again after a panic.
    pub restarts: u64,
}

/// The data plane's counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// BPF programs and workers together, in the order of [`Reason::ALL`].
    pub reasons: [u64; Reason::COUNT],
    /// Of these, how many packets were shown as samples, in the same order.
    pub sampled: [u64; Reason::COUNT],
    /// Each worker.
    pub workers: Vec<WorkerStats>,
}

impl Stats {
    /// One counter.
    pub fn get(&self, reason: Reason) -> u64 {
        self.reasons[reason.index()]
    }

    /// Packets that were dropped for this reason and not shown as samples.
    pub fn left_out(&self, reason: Reason) -> u64 {
        drops::left_out(&self.reasons, &self.sampled)[reason.index()]
    }
}
