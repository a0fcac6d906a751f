//! Packets on their way from the worker that received them to the one that
//! owns them: copies in buffers that were made beforehand, over a bounded
//! queue without locks. The receiver is woken only where it sleeps.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use gm_xsk::METADATA;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;

use crate::Error;
use crate::routes::MAX_WORKERS;

/// Parcels that wait for one worker at most, and those of buckets that it
/// waits for itself.
pub(crate) const WAITING: usize = 1024;

/// Parcels that are made for each worker, where there are several: what waits
/// for it, what it has at hand, and what others are about to send.
const EACH: usize = WAITING + 256;

/// Bytes of a packet in a frame: what is longer is a datagram of fragments.
const PACKET: usize = gm_xsk::FRAME_SIZE - gm_xsk::HEADROOM;

/// Where a packet came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Side {
    /// The uplink.
    #[default]
    Wire,
    /// gm0x, so the local stack.
    Stack,
    /// The uplink, in fragments: the link header of this many bytes, and the
    /// datagram.
    Whole(u8),
}

/// What a parcel holds.
#[derive(Default)]
pub(crate) struct Contents {
    pub side: Side,
    /// What XDP wrote in front of the packet.
    pub meta: [u8; METADATA],
    /// The frame.
    pub bytes: Vec<u8>,
}

/// A buffer with a packet in it. Dropped, also by a panic, the buffer goes
/// back to where it came from.
pub(crate) struct Parcel {
    contents: Option<Box<Contents>>,
    pool: Arc<Pool>,
}

impl Parcel {
    /// What is in it.
    pub(crate) fn contents(&self) -> Option<&Contents> {
        self.contents.as_deref()
    }

    /// The same, to be changed.
    pub(crate) fn contents_mut(&mut self) -> Option<&mut Contents> {
        self.contents.as_deref_mut()
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        if let Some(mut contents) = self.contents.take() {
            contents.bytes.clear();
            contents.bytes.shrink_to(PACKET);
            let _ = self.pool.free.push(contents);
        }
    }
}

/// The empty buffers of all workers.
pub(crate) struct Pool {
    free: ArrayQueue<Box<Contents>>,
}

impl Pool {
    /// With no buffer yet, and room for those of `workers`.
    pub(crate) fn new(workers: usize) -> Pool {
        Pool {
            free: ArrayQueue::new(EACH * workers.clamp(1, MAX_WORKERS)),
        }
    }

    /// Makes buffers for as many workers more.
    pub(crate) fn add(&self, workers: usize) {
        for _ in 0..workers * EACH {
            let contents = Box::new(Contents {
                bytes: Vec::with_capacity(PACKET),
                ..Contents::default()
            });
            // Full: there are enough for as many workers as there may be.
            if self.free.push(contents).is_err() {
                break;
            }
        }
    }

    /// Gives as many workers' buffers back to the system.
    pub(crate) fn shrink(&self, workers: usize) {
        for _ in 0..workers * EACH {
            drop(self.free.pop());
        }
    }

    /// Empty buffers.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.free.len()
    }
}

/// A worker's letter box.
pub(crate) struct Mailbox {
    queue: ArrayQueue<Parcel>,
    asleep: AtomicBool,
    /// Wakes the worker from its poll; for commands as well.
    pub wake: Arc<OwnedFd>,
}

impl Mailbox {
    fn new() -> Result<Mailbox, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| Error::io("make an eventfd", e.into()))?;
        Ok(Mailbox {
            queue: ArrayQueue::new(WAITING),
            asleep: AtomicBool::new(false),
            wake: Arc::new(wake),
        })
    }

    /// The next parcel.
    pub(crate) fn pop(&self) -> Option<Parcel> {
        self.queue.pop()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts a parcel in; it comes back when the box is full. [`Mailbox::nudge`]
    /// has to follow.
    pub(crate) fn push(&self, parcel: Parcel) -> Result<(), Parcel> {
        self.queue.push(parcel)
    }

    /// Wakes the worker if it sleeps.
    pub(crate) fn nudge(&self) {
        // With the fence in `sleeps`: either this sees the sleeper, or the
        // sleeper sees the parcel.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            // A full counter wakes as well.
            let _ = rustix::io::write(self.wake.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// The worker is about to sleep; false: it had better not.
    pub(crate) fn sleeps(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let empty = self.queue.is_empty();
        if !empty {
            self.awake();
        }
        empty
    }

    /// The worker is awake.
    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// The letter boxes of all workers that there may be, and the buffers.
pub(crate) struct Desks {
    boxes: Vec<Mailbox>,
    pub pool: Arc<Pool>,
}

impl Desks {
    /// For `workers` workers.
    pub(crate) fn new(workers: usize) -> Result<Desks, Error> {
        Ok(Desks {
            boxes: (0..workers)
                .map(|_| Mailbox::new())
                .collect::<Result<_, _>>()?,
            pool: Arc::new(Pool::new(workers)),
        })
    }

    /// For nobody.
    pub(crate) fn none() -> Desks {
        Desks {
            boxes: Vec::new(),
            pool: Arc::new(Pool::new(1)),
        }
    }

    /// The letter box of a worker.
    pub(crate) fn of(&self, worker: u8) -> Option<&Mailbox> {
        self.boxes.get(usize::from(worker))
    }

    /// An empty parcel; `None`: all are on their way.
    pub(crate) fn parcel(&self) -> Option<Parcel> {
        let contents = self.pool.free.pop()?;
        Some(Parcel {
            contents: Some(contents),
            pool: self.pool.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_are_bounded() {
        let desks = Desks::new(2).unwrap();
        assert!(desks.parcel().is_none(), "nothing was made yet");
        desks.pool.add(2);
        desks.pool.add(2);
        assert_eq!(desks.pool.len(), 2 * EACH);
        let mut parcel = desks.parcel().unwrap();
        parcel.contents_mut().unwrap().bytes = vec![1; 60_000];
        drop(parcel);
        assert_eq!(desks.pool.len(), 2 * EACH);
        let all: Vec<Parcel> = std::iter::from_fn(|| desks.parcel()).collect();
        let kept: usize = all
            .iter()
            .map(|p| p.contents().unwrap().bytes.capacity())
            .sum();
        assert!(kept <= 2 * EACH * PACKET, "{kept} bytes are kept");
        drop(all);
        desks.pool.shrink(1);
        assert_eq!(desks.pool.len(), EACH);
    }

    #[test]
    fn a_full_box_gives_the_parcel_back() {
        let desks = Desks::new(2).unwrap();
        desks.pool.add(2);
        let to = desks.of(1).unwrap();
        for _ in 0..WAITING {
            assert!(to.push(desks.parcel().unwrap()).is_ok());
        }
        assert!(to.push(desks.parcel().unwrap()).is_err());
        assert!(desks.of(2).is_none());
    }

    /// Nobody sleeps beside a parcel: the receiver waits on its eventfd alone.
    #[test]
    fn no_wake_up_is_lost() {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        const N: usize = 20_000;
        let desks = Arc::new(Desks::new(2).unwrap());
        desks.pool.add(2);
        let sender = desks.clone();
        let thread = std::thread::spawn(move || {
            let to = sender.of(1).unwrap();
            for i in 0..N {
                let mut parcel = loop {
                    match sender.parcel() {
                        Some(p) => break p,
                        None => std::thread::yield_now(),
                    }
                };
                parcel.contents_mut().unwrap().bytes.push(i as u8);
                while let Err(back) = to.push(parcel) {
                    parcel = back;
                    std::thread::yield_now();
                }
                to.nudge();
            }
        });
        let mine = desks.of(1).unwrap();
        let mut got = 0;
        while got < N {
            while let Some(parcel) = mine.pop() {
                assert_eq!(parcel.contents().unwrap().bytes, [got as u8]);
                got += 1;
            }
            if got < N && mine.sleeps() {
                let wait = Timespec {
                    tv_sec: 20,
                    tv_nsec: 0,
                };
                let mut fds = [PollFd::new(&mine.wake, PollFlags::IN)];
                let ready = poll(&mut fds, Some(&wait)).unwrap();
                assert!(ready > 0 || !mine.is_empty(), "slept beside a parcel");
                let _ = rustix::io::read(mine.wake.as_fd(), &mut [0u8; 8]);
                mine.awake();
            }
        }
        thread.join().unwrap();
    }
}
