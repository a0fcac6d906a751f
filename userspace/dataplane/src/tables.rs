//! What BPF and workers keep together by source and by reason, in
//! memory-mapped maps (the layouts and rules are [`gm_abi::source`]'s): what
//! was dropped for each source, which sources are limited, how many fragments
//! may come, how many samples may be made.
//!
//! Every function may be called by any thread at any time; none waits.

use std::sync::atomic::{AtomicU64, Ordering};

use gm_abi::maps::{Addr, STATE_FRAGMENT_RATE, STATE_LIMITED, STATE_TRANSIT};
use gm_abi::source::{self, PrefixDrops};
use gm_abi::verdict::{DROP_COUNT, Reason};

use crate::publish::Values;

/// Drops of one source, by [`Reason::drop_index`].
pub(crate) type Drops = [u64; DROP_COUNT];

/// The maps.
pub(crate) struct Tables {
    /// [`gm_abi::maps::Config::seed`].
    pub seed: u32,
    /// `PREFIXES`.
    pub prefixes: Values<PrefixDrops>,
    /// `SOURCE_LIMITS`.
    pub source_limits: Values<AtomicU64>,
    /// `FRAGMENT_TOKENS`.
    pub fragment_tokens: Values<AtomicU64>,
    /// `SAMPLE_TOKENS`.
    pub sample_tokens: Values<AtomicU64>,
    /// `STATE`.
    pub state: Values<AtomicU64>,
}

impl Tables {
    /// Without BPF, for tests.
    #[cfg(any(test, fuzzing, feature = "bench"))]
    pub(crate) fn in_memory() -> Tables {
        let words = |n| Values::Memory((0..n).map(|_| AtomicU64::new(0)).collect());
        Tables {
            seed: 0x5eed,
            prefixes: Values::Memory(
                (0..source::PREFIX_PLACES)
                    .map(|_| PrefixDrops::default())
                    .collect(),
            ),
            source_limits: words(source::PREFIX_PLACES),
            fragment_tokens: words(source::FRAGMENT_WORDS),
            sample_tokens: words(Reason::COUNT as u32),
            state: words(gm_abi::maps::STATE_WORDS),
        }
    }

    /// Source and place of an address.
    fn place(&self, addr: &Addr) -> (u64, usize) {
        let prefix = source::prefix_of(addr);
        (prefix, source::place_of(prefix, self.seed) as usize)
    }

    /// [`source::tag_of`] with this data plane's seed.
    pub(crate) fn tag(&self, addr: &Addr, port: u16) -> u16 {
        source::tag_of(addr, port, self.seed)
    }

    /// Counts a dropped packet for the source of `addr`: the phone's address,
    /// whichever way the packet went.
    pub(crate) fn count(&self, addr: &Addr, reason: Reason) {
        let (prefix, place) = self.place(addr);
        if let Some(place) = self.prefixes.get(place) {
            place.count(prefix, reason);
        }
    }

    /// What was dropped for the source of `addr`; `None` when it has no place
    /// (nothing was, or others' drops are more).
    pub(crate) fn drops_of(&self, addr: &Addr) -> Option<Drops> {
        let (prefix, place) = self.place(addr);
        let (found, drops) = self.prefixes.get(place)?.read()?;
        (found == prefix).then_some(drops)
    }

    /// All sources that have a place ([`source::addr_of`] makes addresses of
    /// them), and what was dropped for each. Reads 4 MiB.
    pub(crate) fn all_drops(&self) -> impl Iterator<Item = (u64, Drops)> + '_ {
        self.prefixes.iter().filter_map(PrefixDrops::read)
    }

    /// Halves the credit of all places, so that who was dropped long ago gives
    /// way. For whoever keeps time, every few seconds; touches 4 MiB.
    pub(crate) fn age(&self) {
        for place in self.prefixes.iter() {
            let credit = place.credit.load(Ordering::Relaxed).cast_signed();
            if credit > 0 {
                let half = (credit + 1) / 2;
                place
                    .credit
                    .fetch_sub(half.cast_unsigned(), Ordering::Relaxed);
            }
        }
    }

    /// Begins or ends the limit on the source of `addr`: meanwhile XDP drops
    /// its ESP for every SA that it was not the last verified source of, unless
    /// that has none yet and is not limited itself. Of
    /// two limited sources with the same place the later one is limited.
    pub(crate) fn limit_source(&self, addr: &Addr, limited: bool) {
        let (prefix, place) = self.place(addr);
        let (Some(place), Some(limits)) = (
            self.source_limits.get(place),
            self.state.get(STATE_LIMITED as usize),
        ) else {
            return;
        };
        if limited {
            if place.swap(prefix, Ordering::AcqRel) == 0 {
                limits.fetch_add(1, Ordering::Release);
            }
        } else if place
            .compare_exchange(prefix, 0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
        {
            limits.fetch_sub(1, Ordering::Release);
        }
    }

    /// Whether the source of `addr` is limited.
    #[cfg(test)]
    pub(crate) fn is_limited(&self, addr: &Addr) -> bool {
        let word = |words: &Values<AtomicU64>, at: usize| {
            words.get(at).map_or(0, |w| w.load(Ordering::Relaxed))
        };
        if word(&self.state, STATE_LIMITED as usize) == 0 {
            return false;
        }
        let (prefix, place) = self.place(addr);
        word(&self.source_limits, place) == prefix
    }

    /// Lets `each` samples be made for each reason from now on, whatever was
    /// left. For whoever reads the samples, every 100 ms; zero: no more.
    pub(crate) fn refill_samples(&self, each: u32) {
        for tokens in self.sample_tokens.iter() {
            tokens.store(u64::from(each), Ordering::Relaxed);
        }
    }

    /// Lets `all` fragments come in from now on, `each` of one source, and `each`
    /// ICMP errors about ESP in all, whatever was left. For whoever keeps time, every 100 ms; before the first call
    /// their number is not limited. Writes 128 KiB.
    pub(crate) fn refill_fragments(&self, all: u32, each: u32) {
        let mut tokens = self.fragment_tokens.iter();
        if let Some(first) = tokens.next() {
            first.store(u64::from(all), Ordering::Relaxed);
        }
        for tokens in tokens {
            tokens.store(u64::from(each), Ordering::Relaxed);
        }
        if let Some(on) = self.state.get(STATE_FRAGMENT_RATE as usize) {
            on.store(1, Ordering::Release);
        }
    }

    /// Says whether SAs are going back to the kernel
    /// ([`gm_abi::maps::STATE_TRANSIT`]).
    pub(crate) fn set_transit(&self, on: bool) {
        if let Some(word) = self.state.get(STATE_TRANSIT as usize) {
            word.store(on.into(), Ordering::Release);
        }
    }

    /// Nobody refills any more: fragments are not limited, for what is left
    /// would be the last ones.
    pub(crate) fn unlimit_fragments(&self) {
        if let Some(on) = self.state.get(STATE_FRAGMENT_RATE as usize) {
            on.store(0, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_abi::maps::mapped;
    use std::sync::atomic::Ordering::Relaxed;

    fn addr(last: u8) -> Addr {
        mapped([198, 51, 100, last])
    }

    /// Another address with the same place.
    fn neighbour(t: &Tables, addr: &Addr) -> Addr {
        (0..=u16::MAX)
            .map(|i| mapped([10, 7, (i >> 8) as u8, i as u8]))
            .find(|other| t.place(other).1 == t.place(addr).1)
            .unwrap()
    }

    #[test]
    fn drops_are_kept_by_source() {
        let t = Tables::in_memory();
        for _ in 0..4 {
            t.count(&addr(1), Reason::BadIcv);
        }
        t.count(&addr(2), Reason::OutNoSa);
        let bad = Reason::BadIcv.drop_index().unwrap();
        assert_eq!(t.drops_of(&addr(1)).unwrap()[bad], 4);
        assert_eq!(t.drops_of(&addr(2)).unwrap()[bad], 0);
        assert_eq!(t.drops_of(&addr(3)), None);
        let sums: Vec<u64> = t.all_drops().map(|(_, d)| d.iter().sum()).collect();
        assert_eq!(sums.iter().sum::<u64>(), 5);
        assert_eq!(sums.len(), 2);
    }

    #[test]
    fn who_was_dropped_long_ago_gives_way() {
        let t = Tables::in_memory();
        let other = neighbour(&t, &addr(1));
        for _ in 0..9 {
            t.count(&addr(1), Reason::UnknownSpi);
        }
        // 9, 4, 2, 1, 0
        (0..4).for_each(|_| t.age());
        assert!(t.drops_of(&addr(1)).is_some(), "until somebody comes");
        t.count(&other, Reason::UnknownSpi);
        assert_eq!(t.drops_of(&addr(1)), None);
        assert!(t.drops_of(&other).is_some());
    }

    #[test]
    fn limits_on_sources_are_counted() {
        let t = Tables::in_memory();
        let limits = || t.state[STATE_LIMITED as usize].load(Relaxed);
        assert!(!t.is_limited(&addr(1)));
        t.limit_source(&addr(1), true);
        t.limit_source(&addr(1), true);
        t.limit_source(&addr(2), true);
        assert_eq!(limits(), 2);
        assert!(t.is_limited(&addr(1)) && t.is_limited(&addr(2)) && !t.is_limited(&addr(3)));
        t.limit_source(&addr(3), false);
        t.limit_source(&addr(1), false);
        assert_eq!(limits(), 1);
        assert!(!t.is_limited(&addr(1)));
        // The later of two at one place; the earlier one's end changes nothing.
        let other = neighbour(&t, &addr(2));
        t.limit_source(&other, true);
        t.limit_source(&addr(2), false);
        assert!(t.is_limited(&other) && !t.is_limited(&addr(2)));
        t.limit_source(&other, false);
        assert_eq!(limits(), 0);
    }

    #[test]
    fn samples_are_given_by_reason() {
        let t = Tables::in_memory();
        let tokens = |t: &Tables| -> Vec<u64> {
            let load = |w: &AtomicU64| w.load(Relaxed);
            t.sample_tokens.iter().map(load).collect()
        };
        assert_eq!(tokens(&t), [0; Reason::COUNT], "nobody reads yet");
        t.refill_samples(2);
        assert_eq!(tokens(&t), [2; Reason::COUNT]);
        t.refill_samples(0);
        assert_eq!(tokens(&t), [0; Reason::COUNT]);
    }

    #[test]
    fn fragments_are_limited_from_the_first_refill_until_nobody_refills() {
        let t = Tables::in_memory();
        assert_eq!(t.state[STATE_FRAGMENT_RATE as usize].load(Relaxed), 0);
        t.refill_fragments(1000, 10);
        assert_ne!(t.state[STATE_FRAGMENT_RATE as usize].load(Relaxed), 0);
        let tokens: Vec<u64> = t.fragment_tokens.iter().map(|w| w.load(Relaxed)).collect();
        assert_eq!((tokens[0], tokens[1]), (1000, 10));
        assert!(tokens[1..].iter().all(|n| *n == 10));
        t.unlimit_fragments();
        assert_eq!(t.state[STATE_FRAGMENT_RATE as usize].load(Relaxed), 0);
    }
}
