//! The rings that AF_XDP shares between kernel and program.
//!
//! Two 32-bit indices count entries ever produced and ever consumed; they wrap
//! at 2^32, and an entry's place is its index modulo the size, a power of two.
//! The one who produces writes entries first and the index last (release), the
//! other reads the index first (acquire). What the other side has written is
//! believed only as far as it makes sense: an index that claims more entries
//! than the ring holds counts as none.

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use rustix::fd::BorrowedFd;
use rustix::mm;
use rustix::net::xdp::XdpRingOffset;

/// The kernel asks to be woken (XDP_RING_NEED_WAKEUP).
const NEED_WAKEUP: u32 = 1;

/// An entry of a transmit or receive ring, the kernel's `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Desc {
    /// Offset of the packet in the umem.
    pub addr: u64,
    /// Length in bytes.
    pub len: u32,
    /// Zero here: no multi-buffer packets, no transmit metadata.
    pub options: u32,
}

/// # Safety
///
/// Any bits are a valid value.
pub(crate) unsafe trait Entry: Copy {}
// SAFETY: integers, no padding.
unsafe impl Entry for Desc {}
// SAFETY: an integer.
unsafe impl Entry for u64 {}

/// Memory of a ring, and how it goes away.
enum Memory {
    Mapped {
        base: NonNull<c_void>,
        len: usize,
    },
    #[cfg(test)]
    Heap {
        base: NonNull<c_void>,
        len: usize,
    },
}

impl Memory {
    fn range(&self) -> (NonNull<c_void>, usize) {
        match *self {
            Memory::Mapped { base, len } => (base, len),
            #[cfg(test)]
            Memory::Heap { base, len } => (base, len),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match *self {
            // SAFETY: mapped in `Ring::map`; the ring that points into it goes
            // away with it.
            Memory::Mapped { base, len } => unsafe {
                let _ = mm::munmap(base.as_ptr(), len);
            },
            #[cfg(test)]
            // SAFETY: the test helper allocated it as a boxed slice of u64.
            Memory::Heap { base, len } => unsafe {
                let words =
                    std::ptr::slice_from_raw_parts_mut(base.as_ptr().cast::<u64>(), len / 8);
                drop(Box::from_raw(words));
            },
        }
    }
}

struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _memory: Memory,
}

// SAFETY: the ring owns its memory; only the kernel shares it, through atomics
// and through entries that the indices give to one side at a time.
unsafe impl<T: Entry> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Maps the ring of `fd` at page offset `pgoff`, with `size` entries.
    fn map(fd: BorrowedFd<'_>, pgoff: u64, at: &XdpRingOffset, size: u32) -> io::Result<Ring<T>> {
        let len = usize::try_from(at.desc)
            .ok()
            .and_then(|desc| desc.checked_add(size as usize * size_of::<T>()))
            .ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: a fresh shared mapping of the socket's ring at an address of
        // the kernel's choice.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                len,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::SHARED | mm::MapFlags::POPULATE,
                fd,
                pgoff,
            )
        }?;
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        Ring::new(Memory::Mapped { base, len }, at, size)
    }

    /// A ring of `size` entries in `memory`, its parts at the offsets `at`.
    fn new(memory: Memory, at: &XdpRingOffset, size: u32) -> io::Result<Ring<T>> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "ring offsets make no sense");
        let (base, len) = memory.range();
        let place = |offset: u64, bytes: usize, align: usize| -> io::Result<NonNull<u8>> {
            let offset = usize::try_from(offset).map_err(|_| bad())?;
            let end = offset.checked_add(bytes).ok_or_else(bad)?;
            if end > len || !offset.is_multiple_of(align) {
                return Err(bad());
            }
            // SAFETY: offset is within the memory, as just checked.
            Ok(unsafe { base.cast::<u8>().add(offset) })
        };
        if !size.is_power_of_two() {
            return Err(bad());
        }
        Ok(Ring {
            producer: place(at.producer, 4, 4)?.cast(),
            consumer: place(at.consumer, 4, 4)?.cast(),
            flags: place(at.flags.ok_or_else(bad)?, 4, 4)?.cast(),
            entries: place(at.desc, size as usize * size_of::<T>(), align_of::<T>())?.cast(),
            size,
            _memory: memory,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the memory and aligned (`new`); lives as long as self.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag and then looks at the index once more; our
        // index must be out before we look at the flag.
        fence(Ordering::SeqCst);
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let place = index & (self.size - 1);
        // SAFETY: place is below size, and `new` saw that size entries fit.
        unsafe { self.entries.add(place as usize) }
    }
}

/// The program's end of a fill or transmit ring.
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Index of the next entry to be written.
    next: u32,
    /// Entries known to be free; the kernel's index is read when it runs out.
    room: u32,
}

impl<T: Entry> Producer<T> {
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        pgoff: u64,
        at: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, pgoff, at, size).map(Self::over)
    }

    fn over(ring: Ring<T>) -> Self {
        let next = ring.producer().load(Ordering::Relaxed);
        Producer {
            ring,
            next,
            room: 0,
        }
    }

    /// Whether an entry can be written.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.room == 0 {
            self.room = self.ring.size.saturating_sub(self.pending());
        }
        self.room > 0
    }

    /// Writes an entry, not yet visible to the kernel. False: the ring is full.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: a place in the ring that the consumer has given back; volatile
        // because the memory is shared.
        unsafe { self.ring.entry(self.next).write_volatile(entry) };
        self.next = self.next.wrapping_add(1);
        self.room -= 1;
        true
    }

    /// Shows the kernel what was written.
    pub(crate) fn submit(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// Entries written that the kernel has not yet consumed.
    pub(crate) fn pending(&self) -> u32 {
        self.next
            .wrapping_sub(self.ring.consumer().load(Ordering::Acquire))
    }

    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The program's end of a receive or completion ring.
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Index of the next entry to be read.
    next: u32,
}

impl<T: Entry> Consumer<T> {
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        pgoff: u64,
        at: &XdpRingOffset,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(fd, pgoff, at, size).map(Self::over)
    }

    fn over(ring: Ring<T>) -> Self {
        let next = ring.consumer().load(Ordering::Relaxed);
        Consumer { ring, next }
    }

    /// Hands up to `max` entries to `each`, in order, and gives their places
    /// back. The number handed over.
    pub(crate) fn drain(&mut self, max: usize, mut each: impl FnMut(T)) -> usize {
        let ready = self
            .ring
            .producer()
            .load(Ordering::Acquire)
            .wrapping_sub(self.next);
        if ready == 0 || ready > self.ring.size {
            return 0;
        }
        let take = max.min(ready as usize);
        for _ in 0..take {
            // SAFETY: a place in the ring that the producer has filled; volatile
            // because the memory is shared. Any bits are a T.
            let entry = unsafe { self.ring.entry(self.next).read_volatile() };
            self.next = self.next.wrapping_add(1);
            each(entry);
        }
        self.ring.consumer().store(self.next, Ordering::Release);
        take
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
