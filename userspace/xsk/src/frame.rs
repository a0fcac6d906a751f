//! A frame in the hands of the program.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes in a frame, room in front and behind included.
pub const FRAME_SIZE: usize = 4096;

/// Bytes free in front of a received or newly allocated packet. A received one
/// has its metadata in the last [`METADATA`] of them.
pub const HEADROOM: usize = 256;

/// Bytes of metadata that an XDP program may leave in front of a packet.
pub const METADATA: usize = 16;

/// Bytes of a packet that are asked for when it has come: a SIP message's, as a
/// rule.
const SOON: usize = 512;

/// Bytes of a cache line.
const LINE: usize = 64;

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch(at: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint; it reads nothing that the program could see, and an
    // address that is not mapped is no error.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch(_: *const u8) {}

/// Counts frames that were dropped instead of given back. Lives as long as the
/// memory of the frames.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) leaked: AtomicU64,
}

/// One frame of a [`Umem`](crate::Umem), owned: nobody else, the kernel
/// included, reads or writes it.
///
/// It is a piece of [`FRAME_SIZE`] bytes with a packet at `start..end` in it.
/// Give it back with [`Umem::free`](crate::Umem::free) or pass it on with
/// [`Socket::send`](crate::Socket::send). One that is dropped is lost to the
/// `Umem` and counted by [`Umem::leaked`](crate::Umem::leaked).
pub struct Frame {
    chunk: NonNull<u8>,
    shared: NonNull<Shared>,
    index: u32,
    start: u16,
    end: u16,
}

// SAFETY: a Frame owns its chunk alone, as a Box would; the memory and the
// counter stay mapped while any Frame exists (see Umem::drop).
unsafe impl Send for Frame {}

impl Frame {
    /// # Safety
    ///
    /// `chunk` begins `FRAME_SIZE` initialised bytes that nothing else uses
    /// until the frame is taken apart, and it and `shared` outlive the frame.
    /// `start <= end <= FRAME_SIZE`.
    pub(crate) unsafe fn new(
        chunk: NonNull<u8>,
        shared: NonNull<Shared>,
        index: u32,
        start: usize,
        end: usize,
    ) -> Frame {
        debug_assert!(start <= end && end <= FRAME_SIZE);
        // FRAME_SIZE fits in 16 bits, so do both offsets.
        Frame {
            chunk,
            shared,
            index,
            start: start as u16,
            end: end as u16,
        }
    }

    /// Takes the frame apart without counting it as leaked.
    pub(crate) fn into_index(self) -> u32 {
        let index = self.index;
        std::mem::forget(self);
        index
    }

    pub(crate) fn shared(&self) -> NonNull<Shared> {
        self.shared
    }

    /// Offset of the packet's first byte in the frame.
    pub fn start(&self) -> usize {
        usize::from(self.start)
    }

    /// Offset behind the packet's last byte in the frame.
    pub fn end(&self) -> usize {
        usize::from(self.end)
    }

    /// Length of the packet in bytes.
    pub fn len(&self) -> usize {
        self.end() - self.start()
    }

    /// Whether the packet has no bytes; such a frame cannot be sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Says where in the frame the packet is. Bounds that are no range within
    /// [`FRAME_SIZE`] change nothing and return false.
    #[must_use]
    pub fn set_range(&mut self, start: usize, end: usize) -> bool {
        let good = start <= end && end <= FRAME_SIZE;
        if good {
            // FRAME_SIZE fits in 16 bits, so do both offsets.
            (self.start, self.end) = (start as u16, end as u16);
        }
        good
    }

    /// The packet.
    pub fn data(&self) -> &[u8] {
        &self.chunk()[self.start()..self.end()]
    }

    /// The packet, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (start, end) = (self.start(), self.end());
        &mut self.chunk_mut().0[start..end]
    }

    /// The whole frame of [`FRAME_SIZE`] bytes.
    pub fn chunk(&self) -> &[u8] {
        // SAFETY: the chunk is FRAME_SIZE initialised bytes that this Frame
        // owns; the borrow of self keeps it owned.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr(), FRAME_SIZE) }
    }

    /// The whole frame with the packet's `start` and `end` in it, for code that
    /// grows a packet in place; tell the result with [`Frame::set_range`].
    pub fn chunk_mut(&mut self) -> (&mut [u8], usize, usize) {
        // SAFETY: as in `chunk`, and the borrow of self is exclusive.
        let chunk = unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr(), FRAME_SIZE) };
        (chunk, usize::from(self.start), usize::from(self.end))
    }

    /// Makes `packet` the content, [`HEADROOM`] bytes into the frame. False,
    /// and nothing changed, when it is too long.
    #[must_use]
    pub fn write(&mut self, packet: &[u8]) -> bool {
        let fits = self.set_range(HEADROOM, HEADROOM + packet.len());
        if fits {
            self.data_mut().copy_from_slice(packet);
        }
        fits
    }

    /// Asks the processor for the metadata and the first bytes of the packet:
    /// they were written by whoever has received it, often on another CPU.
    #[inline]
    pub(crate) fn prefetch(&self) {
        let from = self.start().saturating_sub(METADATA);
        let until = self.end().min(self.start() + SOON);
        // Frames begin on lines.
        for at in (from / LINE * LINE..until).step_by(LINE) {
            fetch(self.chunk.as_ptr().wrapping_add(at));
        }
    }

    /// The [`METADATA`] bytes right in front of the packet; all zero when no
    /// XDP program left any. `None` when there is no room for them. To be read
    /// before the range of a received frame is changed.
    pub fn metadata(&self) -> Option<[u8; METADATA]> {
        let from = self.start().checked_sub(METADATA)?;
        self.chunk()[from..].first_chunk().copied()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: the counter outlives every Frame (see Umem::drop).
        let shared = unsafe { self.shared.as_ref() };
        shared.leaked.fetch_add(1, Ordering::Release);
    }
}

/// Says where, not what: packets may be secret.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}, {}..{})", self.index, self.start, self.end)
    }
}
