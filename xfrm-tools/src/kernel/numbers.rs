//! Sequence numbers of a state: what it has sent, and which it has seen.

/// What a state has sent and seen, free of how the kernel stores it.
///
/// `seen` is relative to `top`: bit `k % 64` of word `k / 64` says that number
/// `top - k` has come. Bits from `window` on, and those of numbers below 1, are
/// 0. So two that mean the same are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The last number sent; 0: none. The next packet carries this and one.
    pub seq: u64,
    /// The highest number accepted; 0: none.
    pub top: u64,
    /// Which of the newest `window` numbers have come.
    pub seen: Vec<u64>,
    /// Size of the replay window in numbers; 0: no replay protection.
    pub window: u32,
    /// Extended (64-bit) numbers (RFC 4303 2.2.1).
    pub esn: bool,
    /// The kernel's old form of the window, which has 32 numbers at most and
    /// which every state made without XFRMA_REPLAY_ESN_VAL has.
    pub legacy: bool,
}

/// The largest window that the kernel takes (XFRMA_REPLAY_ESN_MAX, in bits).
pub const MAX_WINDOW: u32 = 4096;

/// Numbers that the kernel's old form of the window has.
pub(crate) const LEGACY_WINDOW: u32 = 32;

impl Numbers {
    /// Nothing sent, nothing seen.
    ///
    /// The window becomes the next power of two from 32 to [`MAX_WINDOW`]: the
    /// kernel takes remainders of 2^32 by the window's size, and with any other
    /// size it would accept the first number twice.
    pub fn fresh(window: u32, esn: bool) -> Numbers {
        let window = kernel_window(window);
        Numbers {
            seen: vec![0; words(window)],
            window,
            esn,
            ..Numbers::default()
        }
    }

    /// The same, where `seq` has been sent.
    #[must_use]
    pub fn after(mut self, seq: u64) -> Numbers {
        self.seq = seq;
        self
    }

    /// Numbers with a window that `seen` tells of: whether `top - k` has come,
    /// for `k` from 0. The window is rounded up as [`Numbers::fresh`] has it;
    /// numbers that the larger window has in addition count as seen, so that
    /// nothing that was too old is accepted again.
    pub fn with_window(
        seq: u64,
        top: u64,
        window: u32,
        esn: bool,
        seen: impl Fn(u32) -> bool,
    ) -> Numbers {
        let mut numbers = Numbers::fresh(window, esn).after(seq);
        numbers.top = top;
        for k in 0..numbers.window {
            if u64::from(k) < top && (k == 0 || k >= window || seen(k)) {
                numbers.mark(k);
            }
        }
        numbers
    }

    /// Whether this number has come. What is left of the window has not been
    /// remembered and counts as seen; what is above `top` has not come.
    pub fn is_seen(&self, number: u64) -> bool {
        match self.top.checked_sub(number) {
            None => false,
            Some(_) if number == 0 => true,
            Some(back) if back >= u64::from(self.window) => true,
            Some(back) => self.bit(back as u32),
        }
    }

    /// Whether `top - back` has come; false outside the window.
    pub fn bit(&self, back: u32) -> bool {
        let word = self.seen.get((back / 64) as usize).copied();
        back < self.window && word.unwrap_or(0) >> (back % 64) & 1 == 1
    }

    pub(crate) fn mark(&mut self, back: u32) {
        if back < self.window
            && let Some(word) = self.seen.get_mut((back / 64) as usize)
        {
            *word |= 1 << (back % 64);
        }
    }
}

/// Words that a window of this size takes.
pub(crate) fn words(window: u32) -> usize {
    window.div_ceil(64) as usize
}

/// The size that the kernel is given for a window that should have `window`.
pub fn kernel_window(window: u32) -> u32 {
    window.clamp(32, MAX_WINDOW).next_power_of_two()
}
