//! Where in the region what is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::error::RegionError;
use crate::hot::{DROP_REASONS, Hot};
use crate::keys::KEY_WORDS;

/// The most slots that a region can have.
pub const MAX_SLOTS: u32 = 1 << 20;

/// The most 64-bit words that one replay window can have: enough for 4096
/// numbers in a ring of a power of two of words with one spare.
pub const MAX_WINDOW_WORDS: u32 = 128;

/// Bytes of a slot's record: the SA's parameters as gm-sadb writes them.
pub const RECORD_BYTES: usize = 24;

/// Bytes of the record of what SAs have in common.
pub const COMMON_BYTES: usize = 88;

pub(crate) const RECORD_WORDS: usize = RECORD_BYTES / 8;
pub(crate) const COMMON_WORDS: usize = COMMON_BYTES / 8;
/// Fingerprint (2 words), SPI, sequence number.
pub(crate) const TRACE_WORDS: usize = 4;

/// "gmesp-sa" as bytes.
const MAGIC: u64 = u64::from_ne_bytes(*b"gmesp-sa");

/// Changes when anything in the region's layout changes, [`Hot`] and the
/// content of a record included. 2: encryption keys of 24 bytes. 3: [`Hot`] is
/// one cache line, drops lie apart. 4: keys and addresses once for several SAs,
/// windows for half of the slots.
pub(crate) const VERSION: u32 = 4;

/// The region's first page.
#[repr(C, align(64))]
pub(crate) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    slots: AtomicU32,
    window_words: AtomicU32,
    hot_bytes: AtomicU32,
    /// Hot, records, commons, keys, traces, windows, drops, end of file.
    offsets: [AtomicU64; 8],
    /// Sum over what is above: sizes may be damaged and still fit.
    sum: AtomicU64,
    /// Numbers ever given.
    pub(crate) next_stamp: AtomicU64,
    pub(crate) next_trace: AtomicU64,
    /// Commons ever used.
    pub(crate) commons: AtomicU64,
}

/// Offsets of the arrays, computed from the two sizes and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub slots: u32,
    pub window_words: u32,
    pub hot: usize,
    pub records: usize,
    pub commons: usize,
    pub keys: usize,
    pub traces: usize,
    pub windows: usize,
    pub drops: usize,
    pub len: usize,
}

const PAGE: usize = 4096;

/// How many slots have a replay window: the lower half.
pub(crate) const fn windowed(slots: u32) -> u32 {
    slots.div_ceil(2)
}

/// A slot's place in a table in which each inbound slot has an outbound one
/// beside it: so that it begins where slots do, and what a phone's packets touch
/// both ways lies together.
#[inline]
pub fn place(slots: u32, slot: u32) -> usize {
    match slot.checked_sub(windowed(slots)) {
        None => slot as usize * 2,
        Some(slot) => slot as usize * 2 + 1,
    }
}

impl Layout {
    pub(crate) fn new(slots: u32, window_words: u32) -> Result<Layout, RegionError> {
        let good = slots.is_power_of_two() && slots <= MAX_SLOTS;
        if !good || window_words == 0 || window_words > MAX_WINDOW_WORDS {
            return Err(RegionError::Sizes {
                slots,
                window_words,
            });
        }
        // Bounded above: 2^20 slots of some 1.3 kB fit in a 64-bit usize.
        let n = slots as usize;
        let after = |at: usize, bytes: usize| (at + bytes).next_multiple_of(PAGE);
        let hot = PAGE;
        let records = after(hot, n * size_of::<Hot>());
        let commons = after(records, n * RECORD_BYTES);
        let keys = after(commons, n * COMMON_BYTES);
        let traces = after(keys, n * KEY_WORDS * 8);
        let windows = after(traces, n * TRACE_WORDS * 8);
        let drops = after(
            windows,
            windowed(slots) as usize * window_words as usize * 8,
        );
        let len = after(drops, n * DROP_REASONS.len() * 4);
        Ok(Layout {
            slots,
            window_words,
            hot,
            records,
            commons,
            keys,
            traces,
            windows,
            drops,
            len,
        })
    }

    fn offsets(&self) -> [u64; 8] {
        [
            self.hot,
            self.records,
            self.commons,
            self.keys,
            self.traces,
            self.windows,
            self.drops,
            self.len,
        ]
        .map(|o| o as u64)
    }

    /// FNV-1a over the two sizes and the offsets.
    fn sum(&self) -> u64 {
        let sizes = [u64::from(self.slots), u64::from(self.window_words)];
        let words = sizes.into_iter().chain(self.offsets());
        words
            .flat_map(u64::to_le_bytes)
            .fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
                (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            })
    }
}

impl Header {
    /// Fills the header of a new region; the magic comes last.
    pub(crate) fn write(&self, layout: &Layout) {
        self.version.store(VERSION, Relaxed);
        self.slots.store(layout.slots, Relaxed);
        self.window_words.store(layout.window_words, Relaxed);
        self.hot_bytes.store(size_of::<Hot>() as u32, Relaxed);
        for (to, from) in self.offsets.iter().zip(layout.offsets()) {
            to.store(from, Relaxed);
        }
        self.sum.store(layout.sum(), Relaxed);
        self.magic
            .store(MAGIC, std::sync::atomic::Ordering::Release);
    }

    /// The layout that the header of an existing region of `len` bytes says,
    /// if it is right.
    pub(crate) fn read(&self, len: usize) -> Result<Layout, RegionError> {
        if self.magic.load(std::sync::atomic::Ordering::Acquire) != MAGIC {
            return Err(RegionError::Magic);
        }
        let found = self.version.load(Relaxed);
        if found != VERSION {
            return Err(RegionError::Version {
                found,
                known: VERSION,
            });
        }
        if self.hot_bytes.load(Relaxed) as usize != size_of::<Hot>() {
            return Err(RegionError::Damaged("size of a slot"));
        }
        let layout = Layout::new(self.slots.load(Relaxed), self.window_words.load(Relaxed))
            .map_err(|_| RegionError::Damaged("number of slots or window words"))?;
        if layout.len != len {
            return Err(RegionError::Damaged("length of the file"));
        }
        if self
            .offsets
            .iter()
            .zip(layout.offsets())
            .any(|(a, b)| a.load(Relaxed) != b)
        {
            return Err(RegionError::Damaged("offsets"));
        }
        if self.sum.load(Relaxed) != layout.sum() {
            return Err(RegionError::Damaged("sum"));
        }
        Ok(layout)
    }
}

const _: () = assert!(size_of::<Header>() <= PAGE);
