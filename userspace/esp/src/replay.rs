//! The anti-replay window (RFC 4303 3.4.3, Appendix A2).
//!
//! ```text
//!                 top - size + 1                top
//!   ... stale ... |<-------- size numbers ------>| ... new, moves the top ...
//!   words:   |   64   |   64   |   64   |   64   |     ring, one word more than
//!                                                      the window takes (RFC 6479)
//! ```
//!
//! Number `n` has bit `n % 64` of word `n / 64 % words`. The window is exactly
//! `size` numbers wide. Number 0 is never sent and counts as a replay, so `top`
//! 0 says that nothing has come yet.
//!
//! The owner of the SA is the only writer; others may read `top` at any time.
//! A step that moves the top writes it before it clears words: whoever adopts
//! the memory of a process that died in between may refuse a few numbers too
//! many, and never takes one twice.

use std::sync::atomic::{AtomicU64, Ordering};

use gm_abi::verdict::Reason;

/// Smallest window (RFC 4303 3.4.3).
pub const MIN_SIZE: u32 = 32;
/// Largest window.
pub const MAX_SIZE: u32 = 4096;
/// Window of an SA for which nothing else is said (RFC 4303 3.4.3).
pub const DEFAULT_SIZE: u32 = 64;

/// Why memory is no window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Outside [`MIN_SIZE`] to [`MAX_SIZE`].
    #[error("a replay window has {MIN_SIZE} to {MAX_SIZE} numbers, not {0}")]
    Size(u32),
    /// Fewer words than [`Window::words`].
    #[error("a replay window of this size takes {needs} words, there are {has}")]
    Words {
        /// Words that the size needs.
        needs: usize,
        /// Words given.
        has: usize,
    },
}

/// The replay window of an inbound SA, over memory that somebody else owns.
///
/// Memory that is all zero is a fresh window.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    top: &'a AtomicU64,
    bits: &'a [AtomicU64],
    size: u32,
}

impl<'a> Window<'a> {
    /// Number of words that a window of `size` numbers takes.
    pub const fn words(size: u32) -> usize {
        size.div_ceil(64) as usize + 1
    }

    /// A window of `size` numbers over the highest number accepted and the
    /// words with the bits. Words past [`Window::words`] are not touched; a
    /// window goes on only with the size that it began with.
    ///
    /// # Errors
    /// [`WindowError`] for a size out of bounds or too few words.
    pub fn new(
        top: &'a AtomicU64,
        bits: &'a [AtomicU64],
        size: u32,
    ) -> Result<Window<'a>, WindowError> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(WindowError::Size(size));
        }
        let needs = Self::words(size);
        match bits.get(..needs) {
            Some(bits) => Ok(Window { top, bits, size }),
            None => Err(WindowError::Words {
                needs,
                has: bits.len(),
            }),
        }
    }

    /// The highest number accepted so far; 0: none.
    pub fn top(&self) -> u64 {
        self.top.load(Ordering::Relaxed)
    }

    /// Numbers in the window.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The word that holds the newest numbers: what the next packet changes.
    pub fn newest_word(&self) -> &'a AtomicU64 {
        &self.bits[(self.top() / 64 % self.bits.len() as u64) as usize]
    }

    /// Would the number be accepted? Changes nothing.
    ///
    /// # Errors
    /// [`Reason::Replay`] for 0 and for what was accepted before,
    /// [`Reason::Stale`] for what is left of the window.
    pub fn check(&self, seq: u64) -> Result<(), Reason> {
        let top = self.top();
        if seq > top {
            return Ok(());
        }
        if seq == 0 {
            return Err(Reason::Replay);
        }
        if top - seq >= u64::from(self.size) {
            return Err(Reason::Stale);
        }
        // The top needs no bit: it was accepted when it became the top.
        let (word, bit) = self.place(seq);
        if seq == top || word.load(Ordering::Relaxed) & bit != 0 {
            return Err(Reason::Replay);
        }
        Ok(())
    }

    /// Accepts an authentic number: checks it again, since the same packet may
    /// be in a batch twice, and marks it.
    ///
    /// # Errors
    /// Those of [`Window::check`]; then nothing has changed.
    pub fn commit(&self, seq: u64) -> Result<(), Reason> {
        self.check(seq)?;
        let top = self.top();
        if seq > top {
            self.top.store(seq, Ordering::Relaxed);
            let moved = (seq / 64 - top / 64).min(self.bits.len() as u64);
            for back in 0..moved {
                // Release: not before the new top.
                self.word(seq / 64 - back).store(0, Ordering::Release);
            }
        }
        let (word, bit) = self.place(seq);
        let bits = word.load(Ordering::Relaxed) | bit;
        word.store(bits, Ordering::Release);
        Ok(())
    }

    /// The whole number for the low half that an ESN packet carries: the one
    /// that fits the window best (RFC 4303 A2.2).
    ///
    /// Where that would be before the first subspace, it is in the first.
    pub fn full_seq(&self, low: u32) -> u64 {
        let top = self.top();
        let (top_high, top_low) = (top >> 32, top as u32);
        let bottom = top_low.wrapping_sub(self.size - 1);
        let high = if top_low >= self.size - 1 {
            // The window lies within one subspace.
            if low >= bottom {
                top_high
            } else {
                top_high + 1
            }
        } else if low >= bottom {
            // The window reaches back into the subspace before.
            top_high.saturating_sub(1)
        } else {
            top_high
        };
        high << 32 | u64::from(low)
    }

    /// The newest `32 * N` numbers as blocks of 32 for XDP's hint: each entry
    /// is `block << 32 | bits`, the newest block first.
    pub fn newest<const N: usize>(&self) -> [u64; N] {
        let top_block = self.top() / 32;
        std::array::from_fn(|back| match top_block.checked_sub(back as u64) {
            Some(block) if block as u32 as u64 == block && 32 * back < self.size as usize => {
                let word = self.word(block / 2).load(Ordering::Relaxed);
                let bits = (word >> (block % 2 * 32)) as u32;
                block << 32 | u64::from(bits)
            }
            _ => 0,
        })
    }

    fn word(&self, block: u64) -> &AtomicU64 {
        &self.bits[(block % self.bits.len() as u64) as usize]
    }

    fn place(&self, seq: u64) -> (&AtomicU64, u64) {
        (self.word(seq / 64), 1 << (seq % 64))
    }
}

/// A window with memory of its own, for tools and tests; workers keep theirs
/// in the shared region.
#[derive(Debug)]
pub struct OwnedWindow {
    top: AtomicU64,
    bits: Box<[AtomicU64]>,
    size: u32,
}

impl OwnedWindow {
    /// A fresh window.
    ///
    /// # Errors
    /// [`WindowError::Size`].
    pub fn new(size: u32) -> Result<OwnedWindow, WindowError> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(WindowError::Size(size));
        }
        Ok(OwnedWindow {
            top: AtomicU64::new(0),
            bits: (0..Window::words(size))
                .map(|_| AtomicU64::new(0))
                .collect(),
            size,
        })
    }

    /// The window over this memory.
    pub fn window(&self) -> Window<'_> {
        Window {
            top: &self.top,
            bits: &self.bits,
            size: self.size,
        }
    }
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
