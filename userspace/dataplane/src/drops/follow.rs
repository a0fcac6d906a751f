//! Who follows the samples. Each follower has a bounded channel; what it is
//! too slow for is counted, and it is told.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use gm_abi::verdict::Reason;

use super::DropSample;

/// Most followers at a time.
pub const MAX_FOLLOWERS: usize = 64;

/// Messages that wait for one follower, at most.
const BACKLOG: usize = 1024;

/// What a follower is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropNews {
    /// One dropped packet.
    Sample(DropSample),
    /// Packets that were dropped since the last message of this kind without
    /// a sample, for all addresses; reasons with none are left out. It comes
    /// once a second when there is something to say.
    LeftOut {
        /// By reason.
        by_reason: Vec<(Reason, u64)>,
        /// Samples that there were, and that this follower was too slow for.
        missed: u64,
    },
}

struct Follower {
    to: Sender<DropNews>,
    missed: u64,
    left_out: [u64; Reason::COUNT],
}

/// All followers.
#[derive(Default)]
pub(super) struct Followers(Vec<Follower>);

impl Followers {
    /// One more; `None` when there are too many.
    pub(super) fn add(&mut self) -> Option<Receiver<DropNews>> {
        if self.0.len() >= MAX_FOLLOWERS {
            return None;
        }
        let (to, from) = bounded(BACKLOG);
        self.0.push(Follower {
            to,
            missed: 0,
            left_out: [0; Reason::COUNT],
        });
        Some(from)
    }

    /// Tells all of them about a packet.
    pub(super) fn sample(&mut self, sample: DropSample) {
        self.0
            .retain_mut(|f| match f.to.try_send(DropNews::Sample(sample)) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    f.missed += 1;
                    true
                }
                Err(TrySendError::Disconnected(_)) => false,
            });
    }

    /// Tells all of them how many packets there were without a sample since
    /// the last call. One for whom there is no room is told the next time.
    pub(super) fn left_out(&mut self, by_reason: &[u64; Reason::COUNT]) {
        self.0.retain_mut(|f| {
            for (sum, n) in f.left_out.iter_mut().zip(by_reason) {
                *sum += n;
            }
            let counts = Reason::ALL.iter().copied().zip(f.left_out);
            let news = DropNews::LeftOut {
                by_reason: counts.filter(|(_, n)| *n > 0).collect(),
                missed: f.missed,
            };
            if matches!(&news, DropNews::LeftOut { by_reason, missed: 0 } if by_reason.is_empty()) {
                return true;
            }
            match f.to.try_send(news) {
                Ok(()) => {
                    (f.missed, f.left_out) = (0, [0; Reason::COUNT]);
                    true
                }
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Disconnected(_)) => false,
            }
        });
    }
}
