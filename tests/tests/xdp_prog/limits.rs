//! What XDP drops while ICVs keep failing, and how many fragments it takes.

use gm_abi::maps::{
    Addr, LIMITED_AHEAD, MODE_TRANS, MODE_UDP_ENC_TUN, STATE_FRAGMENT_RATE, STATE_LIMITED, mapped,
};
use gm_abi::source::{place_of, prefix_of, tag_of};
use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;

const PORT: u16 = 33333;
const ATTACKER: Addr = mapped([198, 51, 100, 66]);

/// A phone behind a NAT, and one without, both with a window at 5000.
fn lab(limited: bool, known: bool) -> (Lab, Sa, Sa) {
    let mut lab = Lab::new();
    let mut sa = |slot, mode, port| {
        let mut sa = Sa::of_slot(slot, 0, OURS_V4, mode);
        sa.window = Some((5000, 64, super::cells(&[4990, 5000])));
        sa.limited = limited;
        sa.tag = if known {
            tag_of(&THEIRS_V4, port, SEED)
        } else {
            0
        };
        lab.install(slot, sa);
        sa
    };
    let (tun, trans) = (sa(1, MODE_UDP_ENC_TUN, PORT), sa(2, MODE_TRANS, 0));
    (lab, tun, trans)
}

fn in_udp(src: Addr, port: u16, sa: &Sa, seq: u32) -> Vec<u8> {
    frame(
        src,
        OURS_V4,
        UDP,
        0,
        &udp(port, ENCAP_PORT, &esp(sa.spi, seq)),
    )
}

fn raw(src: Addr, sa: &Sa, seq: u32) -> Vec<u8> {
    frame(src, OURS_V4, ESP, 0, &esp(sa.spi, seq))
}

fn why(lab: &mut Lab, frame: &[u8]) -> Reason {
    let counted = lab.uplink(frame).counted;
    assert_eq!(counted.len(), 1);
    counted[0].0
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_limited_sa_takes_packets_only_from_where_one_verified() {
    let (mut lab, tun, trans) = lab(true, true);
    use Reason::*;
    for (name, packet, reason) in [
        (
            "the phone",
            in_udp(THEIRS_V4, PORT, &tun, 5001),
            SteerUdpEsp,
        ),
        (
            "its other port",
            in_udp(THEIRS_V4, PORT + 1, &tun, 5001),
            IcvLimited,
        ),
        (
            "another host",
            in_udp(ATTACKER, PORT, &tun, 5001),
            IcvLimited,
        ),
        ("the phone, raw", raw(THEIRS_V4, &trans, 5001), SteerEsp),
        ("another host, raw", raw(ATTACKER, &trans, 5001), IcvLimited),
        // What the window says comes first.
        ("a replay", raw(ATTACKER, &trans, 4990), Replay),
        ("stale", raw(ATTACKER, &trans, 4936), Stale),
    ] {
        assert_eq!(why(&mut lab, &packet), reason, "{name}");
    }
    assert_eq!((lab.drops(1), lab.drops(2)), ([0, 0, 0, 2], [1, 1, 0, 1]));
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_limited_sa_takes_numbers_near_its_own_only() {
    let (mut lab, _, trans) = lab(true, true);
    use Reason::*;
    for (seq, reason) in [
        (4937, SteerEsp),
        (4936, Stale),
        (5001, SteerEsp),
        (5000 + LIMITED_AHEAD, SteerEsp),
        (5000 + LIMITED_AHEAD + 1, IcvLimited),
        (u32::MAX, IcvLimited),
        (0, Replay),
    ] {
        assert_eq!(why(&mut lab, &raw(THEIRS_V4, &trans, seq)), reason, "{seq}");
    }
    // Nothing was accepted yet: the phone may begin anywhere.
    let mut fresh = trans;
    fresh.window = Some((0, 64, [0; 4]));
    lab.install(2, fresh);
    assert_eq!(why(&mut lab, &raw(THEIRS_V4, &fresh, 700_000)), SteerEsp);
    // With extended numbers nothing is published, and numbers say nothing.
    fresh.window = None;
    lab.install(2, fresh);
    assert_eq!(why(&mut lab, &raw(THEIRS_V4, &fresh, 9)), SteerEsp);
    assert_eq!(why(&mut lab, &raw(ATTACKER, &fresh, 9)), IcvLimited);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_limited_sa_of_which_nothing_verified_takes_anybody() {
    let (mut lab, tun, _) = lab(true, false);
    for packet in [
        in_udp(THEIRS_V4, PORT, &tun, 5001),
        in_udp(ATTACKER, 1, &tun, 5002),
    ] {
        assert_eq!(why(&mut lab, &packet), Reason::SteerUdpEsp);
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_a_limit_source_and_number_do_not_matter() {
    let (mut lab, tun, trans) = lab(false, true);
    for packet in [
        in_udp(ATTACKER, 1, &tun, 5001),
        in_udp(THEIRS_V4, PORT, &tun, 99_999),
    ] {
        assert_eq!(why(&mut lab, &packet), Reason::SteerUdpEsp);
    }
    assert_eq!(
        why(&mut lab, &raw(ATTACKER, &trans, u32::MAX)),
        Reason::SteerEsp
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_limited_source_reaches_only_sas_that_verified_it_and_new_ones() {
    let (mut lab, tun, trans) = lab(false, true);
    let prefix = prefix_of(&THEIRS_V4);
    lab.set_word("SOURCE_LIMITS", place_of(prefix, SEED), prefix);
    let other_port = in_udp(THEIRS_V4, PORT + 1, &tun, 5001);
    // Nobody says that there are any.
    assert_eq!(why(&mut lab, &other_port), Reason::SteerUdpEsp);

    lab.set_word("STATE", STATE_LIMITED, 1);
    use Reason::*;
    let mut unknown = trans;
    (unknown.spi, unknown.tag) = (trans.spi + 5, 0);
    lab.install(7, unknown);
    let mut attacked = unknown;
    (attacked.spi, attacked.limited) = (trans.spi + 6, true);
    lab.install(8, attacked);
    for (name, packet, reason) in [
        ("its SA", in_udp(THEIRS_V4, PORT, &tun, 5001), SteerUdpEsp),
        ("its SA, raw", raw(THEIRS_V4, &trans, 5001), SteerEsp),
        ("its SA, another port", other_port, IcvLimited),
        // A phone that has just registered, behind the same NAT.
        ("an SA of nobody", raw(THEIRS_V4, &unknown, 5001), SteerEsp),
        (
            "an SA of nobody that is attacked",
            raw(THEIRS_V4, &attacked, 5001),
            IcvLimited,
        ),
        (
            "the same from elsewhere",
            raw(ATTACKER, &attacked, 5001),
            SteerEsp,
        ),
        (
            "no SA",
            raw(THEIRS_V4, &Sa::of_slot(9, 0, OURS_V4, 1), 1),
            UnknownSpi,
        ),
        ("another source", raw(ATTACKER, &trans, 5001), SteerEsp),
    ] {
        assert_eq!(why(&mut lab, &packet), reason, "{name}");
    }
    // Another source has the place: this one is not limited.
    lab.set_word("SOURCE_LIMITS", place_of(prefix, SEED), prefix + 1);
    let packet = raw(THEIRS_V4, &attacked, 5001);
    assert_eq!(why(&mut lab, &packet), SteerEsp);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn fragments_are_limited_by_source_and_in_all() {
    let mut lab = Lab::new();
    let fragment = |src| frame(src, OURS_V4, UDP, 185, b"abc");
    let word = |src: &Addr| 1 + place_of(prefix_of(src), SEED);
    // Nobody refills: no limit.
    assert_eq!(why(&mut lab, &fragment(ATTACKER)), Reason::SteerFragment);

    lab.set_word("STATE", STATE_FRAGMENT_RATE, 1);
    lab.set_word("FRAGMENT_TOKENS", 0, 6);
    for src in [ATTACKER, THEIRS_V4] {
        lab.set_word("FRAGMENT_TOKENS", word(&src), 4);
    }
    use Reason::*;
    for (src, reason) in [
        (ATTACKER, SteerFragment),
        (ATTACKER, SteerFragment),
        (ATTACKER, SteerFragment),
        (ATTACKER, SteerFragment),
        // Its own are used up, and cost the others nothing.
        (ATTACKER, FragmentRate),
        (ATTACKER, FragmentRate),
        (THEIRS_V4, SteerFragment),
        (THEIRS_V4, SteerFragment),
        // All are.
        (THEIRS_V4, FragmentRate),
    ] {
        assert_eq!(why(&mut lab, &fragment(src)), reason, "{src:?}");
    }
    assert_eq!(lab.dropped_for(&ATTACKER), [(FragmentRate, 2)]);
    // IPv6's are counted alike; ESP and cleartext are no fragments.
    let six = v6(FRAGMENT, &super::frames::fragment(UDP, 1, &udp(1, 2, b"x")));
    assert_eq!(why(&mut lab, &six), FragmentRate);
    assert_eq!(why(&mut lab, &v4(ESP, &esp(1, 1))), UnknownSpi);
    lab.set_word("FRAGMENT_TOKENS", 0, 1);
    lab.set_word("FRAGMENT_TOKENS", word(&THEIRS_V6), 1);
    assert_eq!(why(&mut lab, &six), SteerFragment);
}
