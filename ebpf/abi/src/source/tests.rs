use super::*;
use crate::maps::mapped;
use core::sync::atomic::Ordering::Relaxed;
use proptest::prelude::*;

const A: u64 = 0xffff_c633_6401;
const B: u64 = 0x2001_0db8_0001_0002;

fn drops_of(place: &PrefixDrops, reason: Reason) -> u64 {
    place.read().unwrap().1[reason.drop_index().unwrap()]
}

#[test]
fn one_subscriber_is_one_source() {
    let v6 = |last: u8, net: u8| {
        let mut a = [0; 16];
        a[..8].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, net]);
        a[15] = last;
        a
    };
    assert_eq!(prefix_of(&mapped([198, 51, 100, 1])), A);
    assert_ne!(prefix_of(&mapped([198, 51, 100, 2])), A);
    assert_eq!(prefix_of(&v6(1, 2)), B);
    assert_eq!(prefix_of(&v6(9, 2)), B);
    assert_ne!(prefix_of(&v6(1, 3)), B);
    // Nobody's addresses are no IPv4 addresses, and no empty place.
    let mut forged = [0; 16];
    forged[2..8].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 1]);
    assert_eq!(prefix_of(&forged), 1);
    assert_eq!(prefix_of(&[0; 16]), 1);
    assert_eq!(prefix_of(&mapped([0; 4])), 0xffff_0000_0000);
    for addr in [mapped([198, 51, 100, 1]), v6(0, 2)] {
        assert_eq!(addr_of(prefix_of(&addr)), addr);
    }
    assert_eq!(addr_of(1), [0; 16]);
}

#[test]
fn a_sources_counters_are_exact() {
    let place = PrefixDrops::default();
    assert_eq!(place.read(), None);
    for _ in 0..5 {
        place.count(A, Reason::BadIcv);
    }
    place.count(A, Reason::HandoverFull);
    place.count(A, Reason::SteerEsp);
    assert_eq!(drops_of(&place, Reason::BadIcv), 5);
    assert_eq!(drops_of(&place, Reason::HandoverFull), 1);
    let (prefix, drops) = place.read().unwrap();
    assert_eq!((prefix, drops.iter().sum::<u64>()), (A, 6));
}

#[test]
fn who_has_credit_stays_and_who_has_none_goes() {
    let place = PrefixDrops::default();
    for _ in 0..3 {
        place.count(A, Reason::UnknownSpi);
    }
    for _ in 0..3 {
        place.count(B, Reason::Replay);
        assert_eq!(drops_of(&place, Reason::UnknownSpi), 3, "the first stays");
    }
    place.count(B, Reason::Replay);
    let (prefix, drops) = place.read().unwrap();
    assert_eq!((prefix, drops.iter().sum::<u64>()), (B, 1));
    assert_eq!(drops_of(&place, Reason::Replay), 1);
    assert_eq!(place.credit.load(Relaxed), 1);
}

#[test]
fn credit_has_an_end() {
    let place = PrefixDrops::default();
    for _ in 0..MOST_CREDIT + 100 {
        place.count(A, Reason::UnknownSpi);
    }
    assert_eq!(place.credit.load(Relaxed), MOST_CREDIT);
    assert_eq!(drops_of(&place, Reason::UnknownSpi), MOST_CREDIT + 100);
    // Two strangers at once took the last credit: that is none.
    place.credit.store(u64::MAX, Relaxed);
    place.count(B, Reason::UnknownSpi);
    assert_eq!(place.read().unwrap().0, B);
}

#[test]
fn places_are_spread_and_depend_on_the_seed() {
    let place = |last: u8, seed| place_of(prefix_of(&mapped([10, 0, 7, last])), seed);
    let mut used = [false; PREFIX_PLACES as usize];
    (0..=255).for_each(|last| used[place(last, 0x5eed) as usize] = true);
    let used = used.iter().filter(|u| **u).count();
    assert!(used > 245, "{used} places for 256 neighbours");
    assert!((0..=255).any(|last| place(last, 1) != place(last, 2)));
}

proptest! {
    #[test]
    fn a_place_is_one_of_the_table(prefix in any::<u64>(), seed in any::<u32>()) {
        prop_assert!(place_of(prefix, seed) < PREFIX_PLACES);
    }

    #[test]
    fn a_tag_is_never_zero(addr in any::<[u8; 16]>(), port in any::<u16>(), seed in any::<u32>()) {
        prop_assert!(tag_of(&addr, port, seed) != 0);
        prop_assert!(prefix_of(&addr) != 0);
    }
}

/// One in 65 536 of the other ports may share a port's tag.
#[test]
fn a_tag_tells_sources_apart() {
    let here = tag_of(&mapped([198, 51, 100, 1]), 4500, 7);
    let others = (0..=u16::MAX).filter(|p| *p != 4500);
    let same = others.filter(|p| tag_of(&mapped([198, 51, 100, 1]), *p, 7) == here);
    assert!(same.count() < 12);
    let neighbours = (2..=255).filter(|i| tag_of(&mapped([198, 51, 100, *i]), 4500, 7) == here);
    assert!(neighbours.count() < 3);
}
