//! When a worker that finds nothing sleeps, and what wakes it.
//!
//! | `busy_poll_us` | finds nothing | for |
//! |---|---|---|
//! | 0 | sleeps at once; a packet wakes it | machines that do other things as well |
//! | n | looks again for n microseconds, then sleeps | latency: being woken costs the most of a pass |
//!
//! Between two looks it gives way to whoever else has something to do on its
//! CPU: the change costs a fraction of a wake-up.

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{TICK, Worker};
use crate::lane::Lane;

/// Nanoseconds of a sleep while the kernel has not taken all there is to send.
const SHORT: i64 = 1_000_000;

/// Descriptors that a worker waits for without asking for memory.
const FEW: usize = 8;

/// How long a worker goes on looking for packets that may come at any moment.
pub(super) struct Spin {
    /// Nanoseconds; 0: not at all.
    longest: u64,
    /// When there was a packet last, on the worker's clock.
    last: u64,
    /// Looks since then that have found nothing.
    empty: u32,
}

impl Spin {
    /// For this many microseconds after the last packet.
    pub(super) fn new(us: u32) -> Spin {
        Spin {
            longest: u64::from(us) * 1000,
            last: 0,
            empty: 0,
        }
    }

    /// Those microseconds.
    pub(super) fn us(&self) -> u32 {
        u32::try_from(self.longest / 1000).unwrap_or(u32::MAX)
    }

    /// Whether to look again instead of to sleep, after a round at `now`, in
    /// nanoseconds, that has found so many packets. A sleep looks, too: behind a
    /// packet that came alone it is the cheaper look.
    pub(super) fn goes_on(&mut self, now: u64, found: u64) -> bool {
        self.empty = match found {
            0 => self.empty.saturating_add(1),
            _ => 0,
        };
        if found > 0 {
            self.last = now;
        }
        found > 1 || now.saturating_sub(self.last) < self.longest
    }

    /// Whether the driver is to look, too: not at the first look in vain, for who
    /// sends is as a rule just about to.
    pub(super) fn polls(&self) -> bool {
        self.empty > 1
    }
}

impl Worker {
    /// Sleeps until there is something to do. `queued`: the kernel has not taken
    /// all there is to send.
    pub(super) fn sleep(&mut self, queued: bool) {
        let timeout = match queued {
            true => Some((0, SHORT)),
            // A device that is down is tried again, too.
            false if self.process.has_to_expire() || self.lanes.iter().any(Lane::is_down) => {
                Some(((TICK / 1000) as i64, 0))
            }
            // A timer costs something, too.
            false => None,
        };
        let timeout = timeout.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let mailbox = self.process.hand.mailbox();
        // Without a lane nobody empties the letter box: that is no reason to
        // stay awake.
        if mailbox.is_some_and(|m| !m.sleeps()) && !self.lanes.is_empty() {
            return;
        }
        self.sleeps += 1;
        let woken = self.wait(timeout.as_ref());
        if let Some(mailbox) = mailbox {
            mailbox.awake();
        }
        if woken {
            self.inbox.quiet();
        }
    }

    /// Whether it was woken by others than the rings.
    fn wait(&self, timeout: Option<&Timespec>) -> bool {
        let wake = || PollFd::new(&self.inbox.wake, PollFlags::IN);
        let ports = self.lanes.iter().flat_map(Lane::ports);
        let mut ports = ports.map(|p| PollFd::new(&p.socket, PollFlags::IN));
        let count = self.lanes.iter().map(Lane::len).sum::<usize>();
        let (mut few, mut many);
        // The eventfd stands first.
        let fds = if count < FEW {
            few = std::array::from_fn::<_, FEW, _>(|i| match i {
                0 => wake(),
                _ => ports.next().unwrap_or_else(wake),
            });
            &mut few[..=count]
        } else {
            many = std::iter::once(wake()).chain(ports).collect::<Vec<_>>();
            &mut many[..]
        };
        // An interrupted poll is a short one.
        let _ = poll(fds, timeout);
        fds.first().is_some_and(|f| !f.revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_poll_busily_sleeps_unless_packets_come_in_numbers() {
        let mut spin = Spin::new(0);
        assert!(spin.us() == 0 && !spin.goes_on(0, 0));
        assert!(spin.goes_on(5, 2));
        assert!(!spin.goes_on(5, 1));
        assert!(!spin.goes_on(5, 0));
    }

    #[test]
    fn one_that_does_looks_again_for_that_long_after_the_last_packet() {
        let mut spin = Spin::new(50);
        assert!(spin.goes_on(1_000_000, 1));
        assert!(spin.goes_on(1_049_999, 0));
        assert!(!spin.goes_on(1_050_000, 0));
        // What has woken it begins anew.
        assert!(spin.goes_on(9_000_000, 1));
        assert!(spin.goes_on(9_049_999, 0));
        assert!(!spin.polls(), "one look in vain");
        assert!(spin.goes_on(9_049_999, 0) && spin.polls());
        assert!(spin.goes_on(9_049_999, 1) && !spin.polls());
        // A clock that stands behind is no reason to sleep, nor to panic.
        assert!(spin.goes_on(8_000_000, 0));
    }
}
