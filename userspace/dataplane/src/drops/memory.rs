//! The last samples, a bounded number. When they are too many, the reason
//! with the most of them loses its oldest: a flood of one kind does not push
//! out what is known of the others.

use std::collections::VecDeque;

use gm_abi::verdict::Reason;

use super::DropSample;

/// Samples that are kept.
pub(super) const KEPT: usize = 4096;

/// The last samples, by reason.
pub(super) struct Memory {
    by_reason: [VecDeque<DropSample>; Reason::COUNT],
    len: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            by_reason: std::array::from_fn(|_| VecDeque::new()),
            len: 0,
        }
    }
}

impl Memory {
    /// Keeps one more.
    pub(super) fn push(&mut self, sample: DropSample) {
        if self.len >= KEPT
            && let Some(most) = self.by_reason.iter_mut().max_by_key(|all| all.len())
        {
            most.pop_front();
            self.len -= 1;
        }
        self.by_reason[sample.reason.index()].push_back(sample);
        self.len += 1;
    }

    /// Those that `wanted` wants, the newest first, at most `limit`.
    pub(super) fn newest(
        &self,
        wanted: impl Fn(&DropSample) -> bool,
        limit: usize,
    ) -> Vec<DropSample> {
        let all = self.by_reason.iter().flatten();
        let mut found: Vec<DropSample> = all.copied().filter(|s| wanted(s)).collect();
        found.sort_by_key(|s| std::cmp::Reverse(s.at));
        found.truncate(limit);
        found
    }
}
