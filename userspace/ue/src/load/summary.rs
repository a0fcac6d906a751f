//! What came of it: how many, how fast, how long, and why not.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Counts as it goes.
#[derive(Debug, Default)]
pub struct Tally {
    registrations: Vec<u32>,
    leavings: Vec<u32>,
    failures: BTreeMap<String, u64>,
    resynchronised: u64,
    first: Option<u64>,
    last: u64,
    /// Somebody has ended it early.
    pub interrupted: bool,
}

impl Tally {
    /// A registration that began and ended then, in milliseconds.
    pub fn registered(&mut self, began: u64, ended: u64) {
        self.first = Some(self.first.map_or(began, |first| first.min(began)));
        self.last = self.last.max(ended);
        self.registrations.push(millis(began, ended));
    }

    /// A de-registration.
    pub fn left(&mut self, began: u64, ended: u64) {
        self.leavings.push(millis(began, ended));
    }

    /// Something that came to nothing. Reasons are of our own making, so there are few.
    pub fn failed(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
    }

    /// A sequence number was brought up to date on the way.
    pub fn resynchronised(&mut self) {
        self.resynchronised += 1;
    }

    /// Registrations done, and failures.
    pub fn so_far(&self) -> (usize, u64) {
        (self.registrations.len(), self.failures.values().sum())
    }

    /// The end of it.
    pub fn summary(mut self, wanted: usize) -> Summary {
        let span = self.last.saturating_sub(self.first.unwrap_or(self.last));
        let registered = self.registrations.len();
        Summary {
            wanted,
            interrupted: self.interrupted,
            registered,
            deregistered: self.leavings.len(),
            failed: self.failures.values().sum(),
            resynchronised: self.resynchronised,
            seconds: span as f64 / 1000.0,
            per_second: if span == 0 {
                0.0
            } else {
                (registered as f64 * 100_000.0 / span as f64).round() / 100.0
            },
            register_ms: Times::of(&mut self.registrations),
            deregister_ms: Times::of(&mut self.leavings),
            failures: self.failures,
        }
    }
}

fn millis(began: u64, ended: u64) -> u32 {
    u32::try_from(ended.saturating_sub(began)).unwrap_or(u32::MAX)
}

/// How long it took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// Half of them took no longer.
    pub p50: u32,
    /// 95 of 100.
    pub p95: u32,
    /// 99 of 100.
    pub p99: u32,
    /// The longest.
    pub max: u32,
}

impl Times {
    /// Zeros when there is none.
    fn of(all: &mut [u32]) -> Times {
        all.sort_unstable();
        // Nearest rank: the smallest that so many are no longer than.
        let at = |percent: usize| {
            let rank = (all.len() * percent).div_ceil(100);
            all.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Times {
            p50: at(50),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { p50, p95, p99, max } = self;
        write!(
            f,
            "p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, longest {max} ms"
        )
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Phones that were to register.
    pub wanted: usize,
    /// Whether somebody has ended it before they could.
    pub interrupted: bool,
    /// Phones that did.
    pub registered: usize,
    /// Phones that left again.
    pub deregistered: usize,
    /// What came to nothing.
    pub failed: u64,
    /// Sequence numbers that were brought up to date.
    pub resynchronised: u64,
    /// From the first REGISTER to the last 200.
    pub seconds: f64,
    /// Registrations in a second of these.
    pub per_second: f64,
    /// From the first REGISTER of a phone to its 200.
    pub register_ms: Times,
    /// The same for de-registrations.
    pub deregister_ms: Times,
    /// How often for which reason.
    pub failures: BTreeMap<String, u64>,
}

impl Summary {
    /// Whether every phone registered, and nothing failed.
    pub fn is_good(&self) -> bool {
        self.registered == self.wanted && self.failed == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of {} registered in {:.1} s: {:.1} a second",
            self.registered, self.wanted, self.seconds, self.per_second
        )?;
        write!(f, "registration     {}", self.register_ms)?;
        if self.deregistered > 0 {
            write!(
                f,
                "\nde-registration  {}, {} phones",
                self.deregister_ms, self.deregistered
            )?;
        }
        if self.resynchronised > 0 {
            write!(f, "\nresynchronised   {}", self.resynchronised)?;
        }
        if self.interrupted {
            write!(f, "\nended early")?;
        }
        for (reason, times) in &self.failures {
            write!(f, "\nfailed {times:>9}  {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut all: Vec<u32> = (1..=200).rev().collect();
        let times = Times::of(&mut all);
        assert_eq!(
            (times.p50, times.p95, times.p99, times.max),
            (100, 190, 198, 200)
        );
        assert_eq!(Times::of(&mut []), Times::default());
        assert_eq!(Times::of(&mut [7]).p99, 7);
    }

    #[test]
    fn the_summary_counts_rate_and_reasons() {
        let mut tally = Tally::default();
        for n in 0..10 {
            tally.registered(1000 + n * 100, 1100 + n * 100);
        }
        tally.left(5000, 5040);
        tally.failed("no answer".into());
        tally.failed("no answer".into());
        assert_eq!(tally.so_far(), (10, 2));
        let summary = tally.summary(12);
        assert_eq!((summary.per_second, summary.seconds), (10.0, 1.0));
        assert!(!summary.is_good());
        let text = summary.to_string();
        assert!(
            text.contains("10 of 12 registered in 1.0 s: 10.0 a second"),
            "{text}"
        );
        assert!(text.contains("failed         2  no answer"), "{text}");
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["register_ms"]["p50"], 100);
        assert_eq!(json["failures"]["no answer"], 2);
    }
}
