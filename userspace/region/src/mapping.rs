//! A shared mapping of a file descriptor.

use std::ptr::NonNull;

use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::mm;

/// Shared memory, mapped as long as this value lives.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to no thread; it is only read and written through
// atomics (`slice`).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// # Safety
///
/// Atomic integers and structures of nothing else, with no padding: any bits
/// are valid, and bits that change at any time are no data race.
pub(crate) unsafe trait Shared {}
// SAFETY: an atomic integer.
unsafe impl Shared for std::sync::atomic::AtomicU64 {}
// SAFETY: an atomic integer.
unsafe impl Shared for std::sync::atomic::AtomicU32 {}

impl Mapping {
    /// Maps the first `len` bytes, read and write.
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize) -> Result<Mapping, Errno> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                len,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        Ok(Mapping {
            base: NonNull::new(base.cast()).ok_or(Errno::NOMEM)?,
            len,
        })
    }

    /// Locks the mapping into memory, each page from its first use on: what
    /// there is room for and never used takes none.
    pub(crate) fn lock(&self) -> Result<(), Errno> {
        let flags = mm::MlockFlags::ONFAULT;
        // SAFETY: the range is the mapping.
        unsafe { mm::mlock_with(self.base.as_ptr().cast(), self.len, flags) }
    }

    /// Keeps the mapping out of core dumps and forked children.
    pub(crate) fn hide(&self) -> Result<(), Errno> {
        for advice in [mm::Advice::LinuxDontDump, mm::Advice::LinuxDontFork] {
            // SAFETY: the range is the mapping, and the advice does not change
            // what this process sees of it.
            unsafe { mm::madvise(self.base.as_ptr().cast(), self.len, advice) }?;
        }
        Ok(())
    }

    /// `count` values from `offset` on. Panics when they are not within the
    /// mapping: offsets are checked before.
    pub(crate) fn slice<T: Shared>(&self, offset: usize, count: usize) -> &[T] {
        let end = count
            .checked_mul(size_of::<T>())
            .and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.len) && offset.is_multiple_of(align_of::<T>()));
        // SAFETY: within the mapping and aligned, as just checked (the mapping
        // begins on a page); T is atomics, for which shared memory is sound; the
        // mapping lives as long as the borrow of self.
        unsafe { std::slice::from_raw_parts(self.base.add(offset).cast().as_ptr(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; no borrow of it is left.
        unsafe {
            let _ = mm::munmap(self.base.as_ptr().cast(), self.len);
        }
    }
}
