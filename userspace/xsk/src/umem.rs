//! The memory that packets live in, and who has which frame of it.

use std::ffi::c_void;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Weak;
use std::sync::atomic::Ordering;

use rustix::mm;

use crate::frame::{FRAME_SIZE, Frame, HEADROOM, METADATA, Shared};

/// Where a frame is. One byte per frame; the numbers of sockets count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// In the free list.
    Free,
    /// A [`Frame`] of it exists.
    Program,
    /// With the kernel, on the fill or receive ring of a socket.
    Fill(u16),
    /// With the kernel, on the transmit or completion ring of a socket.
    Tx(u16),
}

/// Packet memory: frames of [`FRAME_SIZE`] bytes, kept out of core dumps and
/// forked children, locked into memory where the limits allow it.
///
/// Dropped while frames are out, it leaves the memory mapped: a [`Frame`] never
/// dangles.
pub struct Umem {
    area: NonNull<u8>,
    shared: NonNull<Shared>,
    owners: Vec<Owner>,
    free: Vec<u32>,
    outstanding: usize,
    locked: bool,
    sockets: u16,
    /// A socket that registered this memory with the kernel in copy mode, for
    /// others to share the registration.
    pub(crate) anchor: Weak<OwnedFd>,
}

// SAFETY: the memory belongs to this value and to the frames taken from it;
// nothing in it is bound to a thread.
unsafe impl Send for Umem {}

impl Umem {
    /// Maps memory for `frames` frames, at least one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no frames or more than 2^24, else what `mmap` said.
    /// That the memory cannot be locked is no error: see [`Umem::is_locked`].
    pub fn new(frames: usize) -> io::Result<Umem> {
        if frames == 0 || frames > 1 << 24 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a umem has 1 to 2^24 frames",
            ));
        }
        let len = frames * FRAME_SIZE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let area = unsafe {
            mm::mmap_anonymous(
                std::ptr::null_mut(),
                len,
                mm::ProtFlags::READ | mm::ProtFlags::WRITE,
                mm::MapFlags::PRIVATE | mm::MapFlags::POPULATE,
            )
        }?;
        // SAFETY: the range is the mapping made above; the advice changes what
        // fork and core dumps do with it, not its content.
        unsafe {
            mm::madvise(area, len, mm::Advice::LinuxDontDump)?;
            mm::madvise(area, len, mm::Advice::LinuxDontFork)?;
        }
        // SAFETY: locks the mapping made above.
        let locked = unsafe { mm::mlock(area, len) }.is_ok();
        let area = NonNull::new(area.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Umem {
            area,
            shared: NonNull::from(Box::leak(Box::<Shared>::default())),
            owners: vec![Owner::Free; frames],
            free: (0..frames as u32).rev().collect(),
            outstanding: 0,
            locked,
            sockets: 0,
            anchor: Weak::new(),
        })
    }

    /// Takes a free frame, its packet empty at [`HEADROOM`]. What the frame
    /// held before is still in it. `None`: all are in use.
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = self.free.pop()?;
        Some(self.give_to_program(index, HEADROOM, HEADROOM))
    }

    /// Takes a frame back. One of another `Umem` is not taken but counted
    /// there as leaked.
    pub fn free(&mut self, frame: Frame) {
        if self.owns(&frame) {
            let index = frame.into_index();
            self.outstanding -= 1;
            self.put_back(index);
        }
    }

    /// Frames in all.
    pub fn frames(&self) -> usize {
        self.owners.len()
    }

    /// Frames that [`Umem::alloc`] can still give.
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Frames in the hands of the program, leaked ones included.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Frames with the kernel, on the rings of any socket.
    pub fn in_kernel(&self) -> usize {
        self.frames() - self.free_count() - self.outstanding()
    }

    /// Frames that were dropped instead of given back. Not zero: a bug.
    pub fn leaked(&self) -> u64 {
        // SAFETY: the counter lives at least as long as this value.
        unsafe { self.shared.as_ref() }
            .leaked
            // Acquire: what a dropped frame's owner did to it was before.
            .load(Ordering::Acquire)
    }

    /// Whether the memory is locked (RLIMIT_MEMLOCK or CAP_IPC_LOCK allowed it).
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Takes back the frames that were dropped instead of given back, as a
    /// panic does it; they are no longer counted as leaked. False, and nothing
    /// is done, while other frames are out: which of them were dropped is not
    /// known then.
    pub fn take_dropped(&mut self) -> bool {
        if self.leaked() != self.outstanding as u64 {
            return false;
        }
        // No `Frame` exists any more: each one that was given out and has not
        // come back was dropped.
        for index in 0..self.owners.len() {
            if self.owners[index] == Owner::Program {
                self.put_back(index as u32);
            }
        }
        self.outstanding = 0;
        // SAFETY: the counter lives at least as long as this value.
        unsafe { self.shared.as_ref() }
            .leaked
            .store(0, Ordering::Relaxed);
        true
    }

    pub(crate) fn id(&self) -> NonNull<Shared> {
        self.shared
    }

    pub(crate) fn owns(&self, frame: &Frame) -> bool {
        frame.shared() == self.shared
    }

    pub(crate) fn area(&self) -> (*mut c_void, usize) {
        (self.area.as_ptr().cast(), self.frames() * FRAME_SIZE)
    }

    /// A number for a new socket, never given twice.
    pub(crate) fn next_socket(&mut self) -> Option<u16> {
        let number = self.sockets;
        self.sockets = number.checked_add(1)?;
        Some(number)
    }

    /// Takes a free frame for the fill ring of `socket`; its address for the
    /// kernel. Clears the place of the metadata, so that no packet shows
    /// another one's.
    pub(crate) fn lend_to_fill(&mut self, socket: u16) -> Option<u64> {
        let index = self.free.pop()?;
        self.owners[index as usize] = Owner::Fill(socket);
        // SAFETY: the frame was free and is not yet with the kernel; the
        // METADATA bytes before HEADROOM are in it.
        unsafe {
            self.chunk(index)
                .add(HEADROOM - METADATA)
                .write_bytes(0, METADATA)
        };
        Some(u64::from(index) * FRAME_SIZE as u64)
    }

    /// Takes a frame that the kernel filled for `socket`. `None` when the
    /// descriptor does not name one that the socket has lent it, or not a range
    /// within it.
    pub(crate) fn take_received(&mut self, socket: u16, addr: u64, len: u32) -> Option<Frame> {
        let (index, start) = self.locate(addr)?;
        let end = start
            .checked_add(len as usize)
            .filter(|end| *end <= FRAME_SIZE)?;
        (self.owners[index as usize] == Owner::Fill(socket))
            .then(|| self.give_to_program(index, start, end))
    }

    /// Gives a frame of this umem to the kernel for sending on `socket`; its
    /// address and length.
    pub(crate) fn lend_to_tx(&mut self, socket: u16, frame: Frame) -> (u64, u32) {
        let (start, len) = (frame.start(), frame.len());
        let index = frame.into_index();
        self.outstanding -= 1;
        self.owners[index as usize] = Owner::Tx(socket);
        (
            u64::from(index) * FRAME_SIZE as u64 + start as u64,
            len as u32,
        )
    }

    /// Takes back a frame that the kernel has sent for `socket`. False when the
    /// address names none that the socket has lent it.
    pub(crate) fn take_sent(&mut self, socket: u16, addr: u64) -> bool {
        let found = self
            .locate(addr)
            .map(|(index, _)| index)
            .filter(|index| self.owners[*index as usize] == Owner::Tx(socket));
        if let Some(index) = found {
            self.put_back(index);
        }
        found.is_some()
    }

    /// Takes back everything that `socket` has lent to the kernel; for a socket
    /// that is closed.
    pub(crate) fn reclaim(&mut self, socket: u16) {
        for index in 0..self.owners.len() {
            if matches!(self.owners[index], Owner::Fill(s) | Owner::Tx(s) if s == socket) {
                self.put_back(index as u32);
            }
        }
    }

    fn put_back(&mut self, index: u32) {
        debug_assert_ne!(
            self.owners[index as usize],
            Owner::Free,
            "frame {index} freed twice"
        );
        self.owners[index as usize] = Owner::Free;
        self.free.push(index);
    }

    fn give_to_program(&mut self, index: u32, start: usize, end: usize) -> Frame {
        debug_assert_ne!(
            self.owners[index as usize],
            Owner::Program,
            "frame {index} owned twice"
        );
        self.owners[index as usize] = Owner::Program;
        self.outstanding += 1;
        // SAFETY: the frame was free or has just come back from the kernel, and
        // its owner byte keeps it from being given to anyone else. The memory
        // stays while frames are out (see drop). Both callers give a range
        // within the frame.
        unsafe {
            let chunk = NonNull::new_unchecked(self.chunk(index));
            Frame::new(chunk, self.shared, index, start, end)
        }
    }

    fn chunk(&self, index: u32) -> *mut u8 {
        debug_assert!((index as usize) < self.owners.len());
        self.area.as_ptr().wrapping_add(index as usize * FRAME_SIZE)
    }

    /// Index and offset within the frame of an address from the kernel.
    fn locate(&self, addr: u64) -> Option<(u32, usize)> {
        let addr = usize::try_from(addr).ok()?;
        let index = addr / FRAME_SIZE;
        (index < self.owners.len()).then_some((index as u32, addr % FRAME_SIZE))
    }
}

impl Drop for Umem {
    fn drop(&mut self) {
        if self.outstanding > 0 {
            // Frames are out, perhaps with another thread: leave their memory.
            return;
        }
        let (area, len) = self.area();
        // SAFETY: made in `new` and nothing refers to them any more. The kernel
        // holds references of its own to pages that sockets still use.
        unsafe {
            let _ = mm::munmap(area, len);
            drop(Box::from_raw(self.shared.as_ptr()));
        }
    }
}

impl std::fmt::Debug for Umem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Umem")
            .field("frames", &self.frames())
            .field("free", &self.free_count())
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "umem_tests.rs"]
mod tests;
