//! The limits with a clock that is a number.

use proptest::prelude::*;

use super::*;

const PHONE: Source = source(1);
const THIEF: Source = source(2);

const fn source(n: u64) -> Source {
    Source {
        prefix: 0x0a00_0000 + n,
        tag: n as u16,
    }
}

/// Fails as often as it takes until the SA is limited.
fn exhaust(l: &mut Limiter, sa: &mut OfSa, from: Source, now: u64) -> u32 {
    for n in 1..1000 {
        if l.failed(sa, from, now).sa {
            return n;
        }
    }
    panic!("a thousand failures, and no limit");
}

#[test]
fn a_few_failures_change_nothing() {
    let (mut l, mut sa) = (Limiter::default(), OfSa::new(PHONE.tag));
    for _ in 0..OF_SA.burst {
        assert!(l.admits(&mut sa, THIEF, 0, 5));
        assert_eq!(l.failed(&mut sa, THIEF, 5), Passed::default());
    }
    assert!(l.admits(&mut sa, THIEF, 0, 5));
    // One after the other, as a bad line has them, for an hour.
    for s in 0..3600u64 {
        assert!(!l.failed(&mut sa, THIEF, 10_000 + 200 * s).sa);
    }
}

#[test]
fn over_the_limit_only_the_phone_is_heard() {
    let (mut l, mut sa) = (Limiter::default(), OfSa::new(PHONE.tag));
    assert_eq!(exhaust(&mut l, &mut sa, THIEF, 5), OF_SA.burst + 1);
    assert!(!l.admits(&mut sa, THIEF, 0, 5));
    for _ in 0..100 {
        assert!(l.admits(&mut sa, PHONE, 1, 5));
        sa.opened();
    }
    // It is the newest numbers that a forger does not know.
    assert!(l.admits(&mut sa, PHONE, AHEAD, 5));
    assert!(!l.admits(&mut sa, PHONE, AHEAD + 1, 5));
}

#[test]
fn who_forges_the_phones_address_gets_a_few_tries() {
    let (mut l, mut sa) = (Limiter::default(), OfSa::new(PHONE.tag));
    exhaust(&mut l, &mut sa, PHONE, 5);
    let tries = |l: &mut Limiter, sa: &mut OfSa, now| {
        (0..1000).filter(|_| l.admits(sa, PHONE, 1, now)).count()
    };
    assert_eq!(tries(&mut l, &mut sa, 5), TRIES.burst as usize);
    assert_eq!(tries(&mut l, &mut sa, 6), 2);
    assert_eq!(tries(&mut l, &mut sa, 8), 4);
}

#[test]
fn a_limit_ends_a_second_after_the_last_failure() {
    let (mut l, mut sa) = (Limiter::default(), OfSa::new(PHONE.tag));
    exhaust(&mut l, &mut sa, THIEF, 5);
    l.failed(&mut sa, THIEF, 800);
    assert!(!sa.ends(1799) && sa.limited());
    assert!(!l.admits(&mut sa, THIEF, 0, 1799));
    assert!(sa.ends(1800) && !sa.limited() && !sa.ends(1800));
    assert!(l.admits(&mut sa, THIEF, 0, 1800));
    // And comes back at once while the attack goes on.
    assert!(exhaust(&mut l, &mut sa, THIEF, 1800) <= OF_SA.per_second * 2 + 1);
}

#[test]
fn a_source_is_limited_over_all_sas_but_not_for_its_own() {
    let mut l = Limiter::default();
    let mut sas: Vec<OfSa> = (100..300).map(OfSa::new).collect();
    let mut over = None;
    for (n, sa) in sas.iter_mut().enumerate() {
        if l.failed(sa, THIEF, 5).source {
            over = Some(n);
        }
    }
    assert_eq!(over, Some(OF_SOURCE.burst as usize));
    assert!(sas.iter().all(|sa| !sa.limited()));
    let mut other = OfSa::new(PHONE.tag);
    assert!(!l.admits(&mut other, THIEF, 0, 5));
    assert!(l.admits(&mut other, PHONE, 0, 5));
    // A subscriber of the same prefix, whose SA it is.
    let mut own = OfSa::new(THIEF.tag);
    assert!((0..1000).all(|_| l.admits(&mut own, THIEF, 0, 5)));
    // One that has just registered behind the same NAT.
    let mut new = OfSa::new(0);
    assert!(l.admits(&mut new, THIEF, 0, 5));
    assert_eq!(
        (0..1000)
            .filter(|_| l.admits(&mut new, THIEF, 0, 5))
            .count(),
        TRIES.burst as usize - 1
    );

    let mut ended = Vec::new();
    l.end_sources(1004, |p| ended.push(p));
    assert!(ended.is_empty());
    l.end_sources(1005, |p| ended.push(p));
    assert_eq!(ended, [THIEF.prefix]);
    assert!(l.admits(&mut other, THIEF, 0, 1005));
}

#[test]
fn a_forged_address_does_not_limit_the_phone_that_has_it() {
    let mut l = Limiter::default();
    for _ in 0..1000 {
        let mut sa = OfSa::new(PHONE.tag);
        assert!(!l.failed(&mut sa, PHONE, 5).source);
    }
    // On other phones' SAs it is a stranger's; the phone's own SAs go on.
    for tag in 100..400 {
        l.failed(&mut OfSa::new(tag), PHONE, 5);
    }
    assert!(!l.admits(&mut OfSa::new(100), PHONE, 0, 5));
    assert!((0..1000).all(|_| l.admits(&mut OfSa::new(PHONE.tag), PHONE, 0, 5)));
}

#[test]
fn strangers_do_not_push_a_limited_source_out() {
    let (mut l, mut sa) = (Limiter::default(), OfSa::new(PHONE.tag));
    for _ in 0..100 {
        l.failed(&mut OfSa::new(9), THIEF, 5);
    }
    for n in 0..100_000 {
        l.failed(&mut OfSa::new(9), source(1 << 20 | n), 5);
    }
    assert!(!l.admits(&mut sa, THIEF, 0, 5));
    assert!(l.limited <= PLACES);
    l.end_sources(2000, |_| ());
    assert_eq!(l.limited, 0);
}

#[test]
fn the_phones_place_is_told_once_and_again_when_it_moves() {
    let mut sa = OfSa::new(0);
    assert!(!sa.untold());
    sa.verified(PHONE);
    assert!(sa.untold() && !sa.untold());
    sa.verified(PHONE);
    assert!(!sa.untold());
    sa.verified(THIEF);
    assert!(sa.untold());
}

proptest! {
    /// Whatever comes, forgeries that get as far as the cryptography stay below
    /// a line, and of the phone nothing is refused by another's failures alone.
    #[test]
    fn failures_stay_below_a_line(
        steps in prop::collection::vec((0u64..40, 0usize..4, 0u64..8, any::<bool>()), 1..3000)
    ) {
        let mut l = Limiter::default();
        let mut sas: Vec<OfSa> = (1..5).map(OfSa::new).collect();
        let (mut now, mut tried) = (0, [0u64; 4]);
        for (wait, at, from, near) in steps {
            now += wait / 8;
            let (sa, from) = (&mut sas[at], source(from + 1));
            let ahead = if near { 1 } else { AHEAD + 1 };
            let own = sa.phone == from.tag;
            if !sa.limited() && own {
                prop_assert!(l.admits(sa, from, ahead, now), "the phone of a quiet SA");
            }
            if l.admits(sa, from, ahead, now) {
                tried[at] += 1;
                l.failed(sa, from, now);
            }
            for sa in &mut sas {
                sa.ends(now);
            }
            l.end_sources(now, |_| ());
        }
        // Free failures, those that bring a limit back, and the tries.
        let line = u64::from(OF_SA.burst) + now / 100 + now / LASTS + 1
            + u64::from(TRIES.burst) + 2 * now;
        for n in tried {
            prop_assert!(n <= line, "{n} of {line} in {now} ms");
        }
    }

    /// Every limit ends, whatever led to it.
    #[test]
    fn every_limit_ends(
        failures in prop::collection::vec((0u64..3, 0usize..4, 0u64..6), 1..2000)
    ) {
        let mut l = Limiter::default();
        let mut sas: Vec<OfSa> = (1..5).map(OfSa::new).collect();
        let (mut now, mut begun, mut ended) = (0, 0, 0);
        for (wait, at, from) in failures {
            now += wait;
            begun += usize::from(l.failed(&mut sas[at], source(from + 1), now).source);
            l.end_sources(now, |_| ended += 1);
        }
        now += LASTS;
        l.end_sources(now, |_| ended += 1);
        prop_assert_eq!(begun, ended);
        for sa in &mut sas {
            sa.ends(now);
            for from in 1..7 {
                prop_assert!(l.admits(sa, source(from), AHEAD + 1, now));
            }
        }
    }
}
