//! The thread gm-watch: fetches the samples of the BPF programs and of the
//! workers, refills what limits them, and says once a second how many packets
//! had none.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use gm_abi::verdict::{Action, Reason};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;

use super::follow::Followers;
use super::memory::Memory;
use super::{DropNews, DropSample, REFILL_MS, Sampler, Tokens};
use crate::Error;
use crate::drops::bpf::BpfSide;
use crate::maps::Maps;
use crate::publish::Published;
use crate::stats::AllCounters;

/// How often followers hear what was left out.
const TELL: Duration = Duration::from_secs(1);

/// After how many of these a phone's place among the counted ones is worth
/// half.
const AGE: u32 = 10;

/// The kernel's side of what is watched.
pub(crate) trait Kernel: Send {
    /// Gives away the samples that there are.
    fn drain(&mut self, each: &mut dyn FnMut(DropSample));
    /// Lets the programs sample again, and take fragments again.
    fn refill(&mut self);
    /// Phones whose packets were dropped long ago give way to others.
    fn age(&mut self) {}
    /// What the programs and the workers have counted, all together.
    fn counted(&self) -> Result<[u64; Reason::COUNT], Error>;
}

/// What gm-watch reads.
pub(crate) struct Sources {
    /// The BPF maps.
    pub kernel: Box<dyn Kernel>,
    /// The workers' tokens.
    pub tokens: Arc<Tokens>,
    /// The workers' samples.
    pub workers: Receiver<DropSample>,
}

/// What is known of the samples, for anybody.
#[derive(Default)]
pub(crate) struct Shared {
    memory: Mutex<Memory>,
    followers: Mutex<Followers>,
    sampled: Mutex<Counts>,
}

/// By reason.
#[derive(Clone, Copy)]
struct Counts([u64; Reason::COUNT]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; Reason::COUNT])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each holder leaves it whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Follows from now on; `None` when too many do.
    pub(crate) fn follow(&self) -> Option<Receiver<DropNews>> {
        lock(&self.followers).add()
    }

    /// The newest samples that `wanted` wants.
    pub(crate) fn newest(
        &self,
        wanted: impl Fn(&DropSample) -> bool,
        limit: usize,
    ) -> Vec<DropSample> {
        lock(&self.memory).newest(wanted, limit)
    }

    /// Samples so far, in the order of [`Reason::ALL`].
    pub(crate) fn sampled(&self) -> [u64; Reason::COUNT] {
        lock(&self.sampled).0
    }

    fn take(&self, sample: DropSample) {
        lock(&self.sampled).0[sample.reason.index()] += 1;
        lock(&self.memory).push(sample);
        lock(&self.followers).sample(sample);
    }
}

/// The thread; it ends when this is dropped.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Over the maps and the workers' counters, with what the workers sample by.
    pub(crate) fn of(
        maps: &mut Maps,
        published: &Arc<Published>,
        counters: &AllCounters,
    ) -> Result<(Sampler, Watch), Error> {
        let (sampler, tokens, workers) = Sampler::new();
        let kernel = BpfSide {
            samples: maps.take_samples(),
            published: published.clone(),
            counters: maps.counters_reader(),
            workers: counters.clone(),
        };
        let watch = Watch::start(Sources {
            kernel: Box::new(kernel),
            tokens,
            workers,
        })?;
        Ok((sampler, watch))
    }

    /// Starts the thread. The tokens are full when this returns.
    pub(crate) fn start(mut sources: Sources) -> Result<Watch, Error> {
        let shared = Arc::new(Shared::default());
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("make an eventfd", e.into()))?;
        let stop = Arc::new(stop);
        sources.refill();
        let (mine, end) = (shared.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("gm-watch".into())
            .spawn(move || sources.run(&mine, &end))
            .map_err(|e| Error::io("start the thread gm-watch", e))?;
        Ok(Watch {
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// What it knows.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed; there is nothing to save.
            let _ = thread.join();
        }
    }
}

impl Sources {
    fn refill(&mut self) {
        self.tokens.refill();
        self.kernel.refill();
    }

    fn run(&mut self, shared: &Shared, stop: &OwnedFd) {
        let every = Duration::from_millis(REFILL_MS);
        let (mut refill, mut tell) = (Instant::now() + every, Instant::now() + TELL);
        let mut told = Counts::default();
        let mut seconds = 0u32;
        loop {
            if self.wait(stop, refill.saturating_duration_since(Instant::now())) {
                return;
            }
            self.kernel.drain(&mut |sample| shared.take(sample));
            self.workers.try_iter().for_each(|s| shared.take(s));
            let now = Instant::now();
            if now >= refill {
                self.refill();
                refill = now + every;
            }
            if now >= tell {
                self.tell(shared, &mut told);
                tell = now + TELL;
                seconds = seconds.wrapping_add(1);
                if seconds.is_multiple_of(AGE) {
                    self.kernel.age();
                }
            }
        }
    }

    /// Waits for the time: samples wake nobody. True: it is over.
    fn wait(&self, stop: &OwnedFd, time: Duration) -> bool {
        let timeout = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(time.subsec_nanos()),
        };
        let mut fds = [PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        // An error is a signal at most: the next round looks again.
        let _ = poll(&mut fds, Some(&timeout));
        !fds[0].revents().is_empty()
    }

    /// Tells the followers what was dropped without a sample since `told`.
    fn tell(&self, shared: &Shared, told: &mut Counts) {
        let Ok(counted) = self.kernel.counted() else {
            return;
        };
        let now = Counts(left_out(&counted, &shared.sampled()));
        let since = std::array::from_fn(|i| now.0[i].saturating_sub(told.0[i]));
        // A packet that is sampled before it is counted must not count twice.
        *told = Counts(std::array::from_fn(|i| now.0[i].max(told.0[i])));
        lock(&shared.followers).left_out(&since);
    }
}

/// Dropped packets without a sample, by reason.
pub(crate) fn left_out(
    counted: &[u64; Reason::COUNT],
    sampled: &[u64; Reason::COUNT],
) -> [u64; Reason::COUNT] {
    std::array::from_fn(|i| {
        let is_drop = Reason::from_index(i).is_some_and(|r| r.action() == Action::Drop);
        if is_drop {
            counted[i].saturating_sub(sampled[i])
        } else {
            0
        }
    })
}
