//! How long a flush goes on kicking a kernel that seems to take nothing.
//!
//! In copy mode a kick makes the kernel take some packets and then answer "not
//! now", which it also answers when it took none. Recent kernels show on the
//! ring at once how many they took. Others, 6.1 and 6.12 among them, show it
//! only when they have taken all that they knew of: until then a ring that
//! stands still may be one that empties.

/// Packets that the kernel takes at a kick in copy mode.
const KICK: u32 = 32;

/// Kicks without effect before the kernel is believed to take nothing, beyond
/// those that it needs to take what is on the ring.
const IDLE_KICKS: u32 = 3;

/// What a flush has seen since something last moved.
pub(crate) struct Patience {
    left: u32,
    idle: u32,
}

impl Patience {
    /// With `left` packets on the ring.
    pub(crate) fn new(left: u32) -> Patience {
        Patience { left, idle: 0 }
    }

    /// Packets that the ring shows as not taken.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    /// Whether to kick once more.
    pub(crate) fn lasts(&self) -> bool {
        self.left > 0 && self.idle < self.left / KICK + IDLE_KICKS
    }

    /// After a kick: what the ring shows now, and how many frames came back.
    pub(crate) fn kicked(&mut self, left: u32, completed: usize) {
        let moved = left != self.left || completed > 0;
        self.idle = if moved { 0 } else { self.idle + 1 };
        self.left = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flushes `queued` packets through a kernel that takes `batch` at a kick,
    /// and shows it at once or when it has taken all. Sent frames come back at
    /// the end only, as a device with interrupts does it. What is left, and
    /// the kicks.
    fn flush(queued: u32, batch: u32, at_once: bool) -> (u32, u32) {
        let (mut in_kernel, mut kicks) = (queued, 0);
        let mut patience = Patience::new(queued);
        while patience.lasts() {
            in_kernel -= batch.min(in_kernel);
            kicks += 1;
            let shown = match at_once || in_kernel == 0 {
                true => in_kernel,
                false => queued,
            };
            patience.kicked(shown, 0);
        }
        (patience.left(), kicks)
    }

    #[test]
    fn every_kernel_empties_every_ring() {
        for queued in [0, 1, 31, 32, 33, 64, 96, 97, 256, 2048] {
            for at_once in [true, false] {
                let (left, kicks) = flush(queued, KICK, at_once);
                assert_eq!((left, kicks), (0, queued.div_ceil(KICK)), "{queued}");
            }
        }
    }

    #[test]
    fn a_kernel_that_takes_nothing_is_left_alone() {
        assert_eq!(flush(1, 0, true), (1, 3));
        assert_eq!(flush(2048, 0, true), (2048, 67));
    }

    #[test]
    fn frames_that_come_back_are_an_effect() {
        let mut patience = Patience::new(5);
        for _ in 0..10 {
            patience.kicked(5, 1);
            assert!(patience.lasts());
        }
        for _ in 0..3 {
            assert!(patience.lasts());
            patience.kicked(5, 0);
        }
        assert!(!patience.lasts());
    }
}
