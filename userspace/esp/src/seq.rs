//! The outbound sequence number (RFC 4303 2.2, 3.3.3).

use std::sync::atomic::{AtomicU64, Ordering};

/// The numbers of an SA are used up; it must be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sequence numbers of the SA are used up")]
pub struct Exhausted;

/// Counts what an outbound SA has sent.
///
/// The cell holds the last number used, 0 before the first one, and may live
/// in memory that outlives the process. A number is given once, whoever asks
/// and however often: with GCM and GMAC a second time would lose the key.
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a>(pub &'a AtomicU64);

impl Counter<'_> {
    /// The next number, 1 for a new SA.
    ///
    /// # Errors
    /// [`Exhausted`] past `limit`; the cell stays there, it never wraps.
    pub fn next(&self, limit: u64) -> Result<u64, Exhausted> {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
                (last < limit).then(|| last + 1)
            })
            .map(|last| last + 1)
            .map_err(|_| Exhausted)
    }

    /// The last number used; 0 before the first one.
    pub fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_one_and_stops_at_the_limit() {
        let cell = AtomicU64::new(0);
        let counter = Counter(&cell);
        assert_eq!(counter.next(2), Ok(1));
        assert_eq!(counter.next(2), Ok(2));
        for _ in 0..3 {
            assert_eq!(counter.next(2), Err(Exhausted));
        }
        assert_eq!(counter.last(), 2);
    }

    #[test]
    fn never_wraps() {
        let cell = AtomicU64::new(u64::MAX);
        assert_eq!(Counter(&cell).next(u64::MAX), Err(Exhausted));
        assert_eq!(Counter(&cell).next(u64::from(u32::MAX)), Err(Exhausted));
        assert_eq!(cell.into_inner(), u64::MAX);
    }

    #[test]
    fn threads_never_share_a_number() {
        let cell = AtomicU64::new(0);
        let mut numbers: Vec<u64> = std::thread::scope(|scope| {
            let take = || {
                let counter = Counter(&cell);
                std::iter::from_fn(|| counter.next(40_000).ok()).collect::<Vec<_>>()
            };
            let other = scope.spawn(take);
            let mut mine = take();
            mine.extend(other.join().unwrap());
            mine
        });
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(1..=40_000));
    }
}
