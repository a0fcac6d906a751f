//! A BPF array map in this process's memory.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::Deref;

use std::sync::atomic::AtomicU64;

use gm_abi::maps::{SaSlot, SlotDrops};
use gm_abi::source::PrefixDrops;
use rustix::fd::BorrowedFd;

use crate::mapping::{Mapping, Shared};

mod sealed {
    pub trait Sealed {}
    impl Sealed for gm_abi::maps::SaSlot {}
    impl Sealed for gm_abi::maps::SlotDrops {}
    impl Sealed for gm_abi::source::PrefixDrops {}
    impl Sealed for std::sync::atomic::AtomicU64 {}
}

/// A map value that may be mapped: atomics only.
#[expect(private_bounds, reason = "outside this crate nothing can promise it")]
pub trait MapValue: sealed::Sealed + Shared {}
impl MapValue for SaSlot {}
impl MapValue for SlotDrops {}
impl MapValue for PrefixDrops {}
impl MapValue for AtomicU64 {}

// SAFETY: atomic integers only; the sizes asserted in gm-abi leave no padding.
unsafe impl Shared for SaSlot {}
// SAFETY: as above.
unsafe impl Shared for SlotDrops {}
// SAFETY: as above.
unsafe impl Shared for PrefixDrops {}

// In the map a value takes its size rounded up to 8 bytes: here the same.
const _: () = assert!(
    size_of::<SaSlot>().is_multiple_of(8)
        && size_of::<SlotDrops>().is_multiple_of(8)
        && size_of::<PrefixDrops>().is_multiple_of(8)
);

/// The values of an array map that was made with BPF_F_MMAPABLE, as a slice.
/// The kernel's programs see what is written here at once, and the other way
/// round.
pub struct Mapped<T> {
    mapping: Mapping,
    count: usize,
    value: PhantomData<T>,
}

impl<T: MapValue> Mapped<T> {
    /// Maps `count` values of the map `fd`: the map's `max_entries`, and T its
    /// value.
    ///
    /// # Errors
    ///
    /// What `mmap` said: `ENOTSUPP` or `EINVAL` the map cannot be mapped or is
    /// smaller, `InvalidInput` for no values.
    pub fn new(fd: BorrowedFd<'_>, count: usize) -> io::Result<Mapped<T>> {
        let bytes = count
            .checked_mul(size_of::<T>())
            .and_then(|b| b.checked_next_multiple_of(4096));
        let len = bytes
            .filter(|b| *b > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Mapped {
            mapping: Mapping::new(fd, len)?,
            count,
            value: PhantomData,
        })
    }
}

impl<T: MapValue> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.mapping.slice(0, self.count)
    }
}

impl<T> fmt::Debug for Mapped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({} values)", self.count)
    }
}
