//! The region: made once, adopted by successors.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gm_abi::verdict::Reason;
use rustix::fs::{self, MemfdFlags, SealFlags};

use crate::common::{Common, bytes_of, set_words};
use crate::error::{LockProblem, RegionError, system};
use crate::hot::{DROP_REASONS, Hot};
use crate::layout::{Header, Layout, RECORD_BYTES, RECORD_WORDS, TRACE_WORDS, place, windowed};
use crate::mapping::{Mapping, Shared};

// SAFETY: atomic integers only; the sizes are asserted and leave no padding that
// is read.
unsafe impl Shared for Hot {}
// SAFETY: atomic integers only.
unsafe impl Shared for Header {}

/// The memory that SAs outlive a process in. See the crate's documentation.
///
/// May be shared between threads ([`Sync`]); which thread writes what is the
/// users' agreement.
pub struct Region {
    pub(crate) mapping: Mapping,
    pub(crate) layout: Layout,
    fd: OwnedFd,
    lock: Option<LockProblem>,
}

impl Region {
    /// Makes a region of `slots` slots (a power of two up to
    /// [`MAX_SLOTS`](crate::MAX_SLOTS)) with windows of `window_words` 64-bit
    /// words (up to [`MAX_WINDOW_WORDS`](crate::MAX_WINDOW_WORDS)), everything
    /// zero. The memory is locked where the limits allow it
    /// ([`Region::lock_problem`]), page by page as it is used, kept out of core dumps and forks, and cannot
    /// change its size.
    ///
    /// # Errors
    ///
    /// [`RegionError::Sizes`], or what the kernel refused.
    pub fn create(slots: u32, window_words: u32) -> Result<Region, RegionError> {
        let layout = Layout::new(slots, window_words)?;
        let fd = fs::memfd_create(
            "gmesp-region",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map_err(system("memfd_create"))?;
        fs::ftruncate(&fd, layout.len as u64).map_err(system("ftruncate"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        fs::fcntl_add_seals(&fd, seals).map_err(system("fcntl(F_ADD_SEALS)"))?;
        let region = Region::map(fd, layout)?;
        region.header().write(&layout);
        Ok(region)
    }

    /// Takes over the region of a predecessor, which must no longer use it.
    ///
    /// # Errors
    ///
    /// [`RegionError::Magic`], [`RegionError::Version`],
    /// [`RegionError::Damaged`] or [`RegionError::NotSealed`] for what is no
    /// region of this layout. What the slots hold is for gm-sadb to judge.
    pub fn adopt(fd: OwnedFd) -> Result<Region, RegionError> {
        // A file that can shrink would kill this process (SIGBUS).
        let seals = fs::fcntl_get_seals(&fd).map_err(|_| RegionError::NotSealed)?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) {
            return Err(RegionError::NotSealed);
        }
        let len = fs::fstat(&fd).map_err(system("fstat"))?.st_size;
        let len = usize::try_from(len).map_err(|_| RegionError::Magic)?;
        if len < size_of::<Header>() {
            return Err(RegionError::Magic);
        }
        let peek = Mapping::new(fd.as_fd(), size_of::<Header>()).map_err(system("mmap"))?;
        let layout = peek.slice::<Header>(0, 1)[0].read(len)?;
        drop(peek);
        Region::map(fd, layout)
    }

    fn map(fd: OwnedFd, layout: Layout) -> Result<Region, RegionError> {
        let mapping = Mapping::new(fd.as_fd(), layout.len).map_err(system("mmap"))?;
        mapping.hide().map_err(system("madvise"))?;
        let lock = mapping.lock().err();
        let lock = lock.map(|errno| LockProblem {
            bytes: layout.len,
            reason: errno.to_string(),
        });
        Ok(Region {
            mapping,
            layout,
            fd,
            lock,
        })
    }

    /// Number of slots, a power of two.
    pub fn slots(&self) -> u32 {
        self.layout.slots
    }

    /// Slots of them that have a replay window, so for inbound SAs: those below
    /// this number.
    pub fn inbound(&self) -> u32 {
        windowed(self.layout.slots)
    }

    /// 64-bit words of each window.
    pub fn window_words(&self) -> u32 {
        self.layout.window_words
    }

    /// Bytes of memory.
    pub fn len(&self) -> usize {
        self.layout.len
    }

    /// A region is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Why the memory could not be locked; `None`: it is.
    pub fn lock_problem(&self) -> Option<&LockProblem> {
        self.lock.as_ref()
    }

    /// The file descriptor, to be kept for a successor (closed on exec).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// One slot; `None` when there is none of this number.
    pub fn slot(&self, slot: u32) -> Option<Slot<'_>> {
        (slot < self.layout.slots).then_some(Slot {
            region: self,
            index: slot as usize,
        })
    }

    /// A place for what SAs have in common; `None` when there is none of this
    /// number. There are as many as slots.
    pub fn common(&self, place: u32) -> Option<Common<'_>> {
        (place < self.layout.slots).then_some(Common {
            region: self,
            index: place as usize,
        })
    }

    /// Places for commons that were ever used: the lowest.
    pub fn commons(&self) -> u32 {
        let ever = self.header().commons.load(Ordering::Relaxed);
        ever.min(self.layout.slots.into()) as u32
    }

    /// One more of them; `None`: all have been.
    pub fn new_common(&self) -> Option<u32> {
        let place = self.commons();
        if place >= self.layout.slots {
            return None;
        }
        // Release: before anything is written there.
        let ever = &self.header().commons;
        ever.store(u64::from(place) + 1, Ordering::Release);
        Some(place)
    }

    /// A number that is higher each time in the life of the region, from 1 on.
    pub fn next_stamp(&self) -> u64 {
        self.header().next_stamp.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Remembers the last number of an SA that is gone; where, below
    /// [`Region::slots`]. The region remembers as many as it has slots, the
    /// latest: who was there before is forgotten.
    pub fn leave_trace(&self, trace: Trace) -> u32 {
        let place = self.next_trace();
        let words = [
            trace.fingerprint as u64,
            (trace.fingerprint >> 64) as u64,
            trace.spi.into(),
            trace.last,
        ];
        let header = &self.header().next_trace;
        header.store(
            header.load(Ordering::Relaxed).wrapping_add(1),
            Ordering::Relaxed,
        );
        for (to, from) in self.trace_words(place as usize).iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        place
    }

    /// Where the next trace goes.
    pub fn next_trace(&self) -> u32 {
        let n = self.header().next_trace.load(Ordering::Relaxed);
        (n % u64::from(self.layout.slots)) as u32
    }

    /// What is remembered in a place; `None` for nothing, or for no place.
    pub fn trace(&self, place: u32) -> Option<Trace> {
        if place >= self.layout.slots {
            return None;
        }
        let words = self.trace_words(place as usize);
        let word = |i: usize| words[i].load(Ordering::Relaxed);
        let spi = u32::try_from(word(2)).ok().filter(|spi| *spi != 0)?;
        Some(Trace {
            fingerprint: u128::from(word(0)) | u128::from(word(1)) << 64,
            spi,
            last: word(3),
        })
    }

    /// What is remembered, with its place. What was never written is not
    /// looked at.
    pub fn traces(&self) -> impl Iterator<Item = (u32, Trace)> {
        let ever = self.header().next_trace.load(Ordering::Relaxed);
        let there = ever.min(self.layout.slots.into()) as u32;
        (0..there).filter_map(|place| Some((place, self.trace(place)?)))
    }

    fn trace_words(&self, place: usize) -> &[AtomicU64] {
        self.mapping
            .slice(self.layout.traces + place * TRACE_WORDS * 8, TRACE_WORDS)
    }

    fn header(&self) -> &Header {
        &self.mapping.slice(0, 1)[0]
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

/// What is left of an SA that is gone: how far its numbers went. Counter and
/// window belong to (key, SPI); the same pair must not start again at one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Fingerprint of the key: a hash, not the key.
    pub fingerprint: u128,
    /// The SPI.
    pub spi: u32,
    /// Last sequence number used (outbound) or highest accepted (inbound).
    pub last: u64,
}

/// One slot of a [`Region`].
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    region: &'a Region,
    index: usize,
}

impl<'a> Slot<'a> {
    /// The slot's number.
    pub fn index(&self) -> u32 {
        self.index as u32
    }

    /// Counters, numbers, state.
    pub fn hot(&self) -> &'a Hot {
        let place = place(self.region.layout.slots, self.index());
        let at = self.region.layout.hot + place * size_of::<Hot>();
        &self.region.mapping.slice(at, 1)[0]
    }

    /// The bits of the replay window, [`Region::window_words`] words; how many
    /// of them a window of the SA's size takes is gm-esp's to say. None in the
    /// upper half of the slots ([`Region::inbound`]).
    pub fn window_bits(&self) -> &'a [AtomicU64] {
        if self.index >= self.region.inbound() as usize {
            return &[];
        }
        let words = self.region.layout.window_words as usize;
        self.region
            .mapping
            .slice(self.region.layout.windows + self.index * words * 8, words)
    }

    /// The SA's parameters, as written by [`Slot::set_record`].
    pub fn record(&self) -> [u8; RECORD_BYTES] {
        bytes_of(self.record_words())
    }

    /// Writes the SA's parameters; before the state says that there is one.
    pub fn set_record(&self, record: &[u8; RECORD_BYTES]) {
        set_words(self.record_words(), record);
    }

    /// Counts a dropped packet of this SA, up to 2^32 - 1; a reason that is not
    /// one of [`DROP_REASONS`] is not counted here. For the SA's one worker.
    pub fn count_drop(&self, reason: Reason) {
        if let Some(i) = DROP_REASONS.iter().position(|r| *r == reason) {
            let counter = &self.drop_words()[i];
            let n = counter.load(Ordering::Relaxed);
            counter.store(n.saturating_add(1), Ordering::Relaxed);
            self.hot().dropped.store(1, Ordering::Release);
        }
    }

    /// Packets dropped, in the order of [`DROP_REASONS`].
    pub fn drops(&self) -> [u64; DROP_REASONS.len()] {
        if self.hot().dropped.load(Ordering::Acquire) == 0 {
            return [0; DROP_REASONS.len()];
        }
        let words = self.drop_words();
        std::array::from_fn(|i| words[i].load(Ordering::Relaxed).into())
    }

    fn drop_words(&self) -> &'a [AtomicU32] {
        let count = DROP_REASONS.len();
        let at = self.region.layout.drops + self.index * count * 4;
        self.region.mapping.slice(at, count)
    }

    /// Wipes parameters, window and counters; not the state word and the
    /// generation.
    pub fn wipe(&self) {
        for word in self.record_words().iter().chain(self.window_bits()) {
            word.store(0, Ordering::Relaxed);
        }
        if self.hot().dropped.load(Ordering::Relaxed) != 0 {
            let counters = self.drop_words().iter();
            counters.for_each(|counter| counter.store(0, Ordering::Relaxed));
        }
        self.hot().clear();
    }

    fn record_words(&self) -> &'a [AtomicU64] {
        let at = self.region.layout.records + self.index * RECORD_BYTES;
        self.region.mapping.slice(at, RECORD_WORDS)
    }
}

impl fmt::Debug for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("index", &self.index)
            .field("hot", self.hot())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "region_tests.rs"]
mod tests;
