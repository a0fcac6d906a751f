//! Drops by source: whose they are, exactness, and who gives way to whom.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use gm_abi::maps::{Addr, mapped};
use gm_abi::source::{MOST_CREDIT, PrefixDrops, place_of, prefix_of};
use gm_abi::verdict::Reason;

use super::cases::uplink_cases;
use super::frames::*;
use super::lab::*;

/// A packet from there that is dropped: as a stray, or as cleartext.
fn stray(src: Addr) -> Vec<u8> {
    frame(src, OURS_V4, ESP, 0, &esp(1, 1))
}

fn clear(src: Addr) -> Vec<u8> {
    frame(src, OURS_V4, UDP, 0, &udp(1, PROTECTED, b"x"))
}

/// IPv4 addresses that share one place.
fn neighbours(n: usize) -> Vec<Addr> {
    let place = |addr: &Addr| place_of(prefix_of(addr), SEED);
    let all = (0..=u32::MAX).map(|i| mapped((0x0a00_0000 | i).to_be_bytes()));
    let first = mapped([10, 0, 0, 0]);
    all.filter(|a| place(a) == place(&first)).take(n).collect()
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn drops_count_for_the_phone_whichever_way_they_went() {
    let mut lab = Lab::new();
    let other = mapped([198, 51, 100, 2]);
    lab.uplink(&stray(THEIRS_V4));
    lab.uplink(&clear(other));
    lab.tc("gm_tc_guard", &clear(THEIRS_V4), 0);
    let short = frame(OURS_V4, THEIRS_V4, UDP, 0, &[0x13]);
    lab.tc("gm_tc_egress", &short, 0);
    lab.set_socket(false);
    let out = frame(OURS_V4, THEIRS_V4, UDP, 0, &udp(PROTECTED, 5060, b"x"));
    lab.xdp("gm_xdp_gm0x", &out);
    use Reason::*;
    let expected = [
        (UnknownSpi, 1),
        (CleartextProtected, 1),
        (OutMalformed, 1),
        (NoWorker, 1),
    ];
    assert_eq!(lab.dropped_for(&THEIRS_V4), expected);
    assert_eq!(lab.dropped_for(&other), [(CleartextProtected, 1)]);
    assert_eq!(lab.dropped_for(&OURS_V4), [], "never for ourselves");
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn an_ipv6_source_is_a_64() {
    let mut lab = Lab::new();
    let mut same = THEIRS_V6;
    same[8..].copy_from_slice(&[7; 8]);
    let mut other = THEIRS_V6;
    other[7] = 9;
    for src in [THEIRS_V6, same, other] {
        lab.uplink(&frame(src, OURS_V6, ESP, 0, &esp(1, 1)));
    }
    assert_eq!(lab.dropped_for(&same), [(Reason::UnknownSpi, 2)]);
    assert_eq!(lab.dropped_for(&other), [(Reason::UnknownSpi, 1)]);
}

/// Every case that is dropped, a few times each: the source's counters are the
/// programs' counters.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_sources_drops_are_exact() {
    let mut lab = super::lab();
    let mut expected: HashMap<(Addr, Reason), u64> = HashMap::new();
    for (i, (_, frame, reason)) in uplink_cases().into_iter().enumerate() {
        let gm_abi::wire::L3::Ip(ip) = gm_abi::wire::parse_frame(&frame[..]) else {
            continue;
        };
        for _ in 0..=i % 3 {
            lab.uplink(&frame);
            if reason.drop_index().is_some() {
                *expected.entry((ip.src, reason)).or_default() += 1;
            }
        }
    }
    let mut sum = 0;
    for src in [THEIRS_V4, THEIRS_V6, mapped([198, 51, 100, 2])] {
        for (reason, n) in lab.dropped_for(&src) {
            assert_eq!(expected.remove(&(src, reason)), Some(n), "{reason:?}");
            sum += n;
        }
    }
    assert!(expected.is_empty(), "{expected:?}");
    let counters = lab.counters();
    let dropped = |r: &&Reason| r.drop_index().is_some();
    let all = Reason::ALL.iter().filter(dropped);
    assert_eq!(all.map(|r| counters[r.index()]).sum::<u64>(), sum);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn who_drops_most_keeps_the_place_and_gives_way_in_the_end() {
    let mut lab = Lab::new();
    let two = neighbours(2);
    (0..3).for_each(|_| drop(lab.uplink(&stray(two[0]))));
    for left in (0..3).rev() {
        lab.uplink(&clear(two[1]));
        let (prefix, credit, _) = lab.place(&two[0]);
        assert_eq!((prefix, credit), (prefix_of(&two[0]), left));
        assert_eq!(lab.dropped_for(&two[0]), [(Reason::UnknownSpi, 3)]);
    }
    lab.uplink(&clear(two[1]));
    assert_eq!(lab.dropped_for(&two[0]), []);
    assert_eq!(
        lab.dropped_for(&two[1]),
        [(Reason::CleartextProtected, 1)],
        "nothing of the other one is left"
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn credit_has_an_end() {
    let mut lab = Lab::new();
    let (place, stray) = (neighbours(1)[0], stray(neighbours(1)[0]));
    for _ in 0..MOST_CREDIT + 10 {
        lab.xdp_quietly("gm_xdp_uplink", &stray);
    }
    assert_eq!(lab.place(&place).1, MOST_CREDIT);
    assert_eq!(
        lab.dropped_for(&place),
        [(Reason::UnknownSpi, MOST_CREDIT + 10)]
    );
}

/// The programs and the workers write the same table by the same rule.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn programs_and_user_space_agree_on_the_rule() {
    let mut lab = Lab::new();
    let sources = neighbours(3);
    let model = PrefixDrops::default();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for step in 0..3000 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // The first one is dropped more often than both others.
        let src = sources[[0, 0, 0, 1, 2, 1][(random % 6) as usize]];
        let (packet, reason) = if random >> 32 & 1 == 0 {
            (stray(src), Reason::UnknownSpi)
        } else {
            (clear(src), Reason::CleartextProtected)
        };
        lab.xdp_quietly("gm_xdp_uplink", &packet);
        model.count(prefix_of(&src), reason);
        let (prefix, credit, drops) = lab.place(&src);
        assert_eq!(Some((prefix, drops)), model.read(), "step {step}");
        assert_eq!(credit, model.credit.load(Relaxed), "step {step}");
    }
}
