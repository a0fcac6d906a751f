//! A moment of each attack and of the soak: what must never happen, however
//! slow the machine is. The measurements are `gm-attack`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ValueEnum;
use gm_attack::floods::Kind;
use gm_attack::measure::{Bench, Options};
use gm_attack::{machine, soak};

/// Packets of the phones in one attack, and of the attacker.
const PHONES: u64 = 400;
const FLOOD: u64 = 4000;
/// Of fragments: more than reassembly has memory for.
const FRAGMENTS: u64 = 16_000;
/// Bytes of datagrams that are not whole, at most: one worker's.
const REASSEMBLY: u64 = 4 << 20;

fn bench() -> Bench {
    Bench::new(&Options {
        phones: 40,
        payload: 300,
        time: Duration::from_secs(1),
        rounds: 1,
        rate: None,
        factor: 10,
        generator: None,
        gmesp: None,
        bridge: false,
        xdp: false,
        kinds: Vec::new(),
    })
    .unwrap()
}

/// The reasons that an attack may end with, one of which it has to.
fn ends(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::UnknownSpi => &["unknown-spi"],
        Kind::Cleartext => &["cleartext-protected"],
        Kind::Replay => &["replay", "stale"],
        Kind::IcvOne
        | Kind::IcvOneSpoofed
        | Kind::IcvOneNear
        | Kind::IcvAll
        | Kind::IcvAllSpoofed
        | Kind::IcvAllRandom => &["bad-icv", "icv-limited"],
        Kind::FragmentFirst | Kind::FragmentRandom => {
            &["fragment", "fragment-limit", "fragment-rate"]
        }
        Kind::FragmentOverlap => &["fragment-overlap", "fragment-rate", "fragment-limit"],
        Kind::Keepalive => &["keepalive"],
        Kind::Truncated | Kind::Random => &["malformed"],
    }
}

/// One attack while the phones go on; returns what gmesp has counted.
fn attack(b: &mut Bench, kind: Kind) -> BTreeMap<&'static str, u64> {
    let sent = b.seal(PHONES).unwrap();
    let quiet = b.measure(&sent, PHONES, None);
    assert!(quiet.verified > 0, "{}: {:?}", kind.name(), quiet.reasons);
    let flood = kind.frames(&b.lab, &b.phones, &sent, 1);
    let frames = b.seal(PHONES).unwrap();
    let rate = match kind {
        Kind::FragmentFirst | Kind::FragmentRandom | Kind::FragmentOverlap => FRAGMENTS,
        _ => FLOOD,
    };
    let m = b.measure(&frames, PHONES, Some((&flood, rate)));
    assert!(m.reassembly.1 <= REASSEMBLY, "{}: {m:?}", kind.name());
    assert!(m.flood.1 > 0, "{}", kind.name());
    let ended: u64 = ends(kind).iter().filter_map(|r| m.reasons.get(r)).sum();
    assert!(ended > 0, "{}: {:?}", kind.name(), m.reasons);
    assert!(m.verified > 0, "{}: {:?}", kind.name(), m.reasons);
    m.reasons
}

/// Nothing was accepted that must not be, and no frame is lost.
fn clean(b: &Bench) {
    let a = &b.sink.arrived;
    let load = |n: &std::sync::atomic::AtomicU64| n.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((load(&a.forged), load(&a.replayed)), (0, 0));
    let stats = b.lab.plane.stats().unwrap();
    assert!(stats.workers.iter().all(|w| w.frames_leaked == 0));
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn no_flood_brings_a_forgery_or_a_replay_to_a_socket() {
    let mut b = bench();
    let before = machine::rss();
    for kind in Kind::value_variants() {
        attack(&mut b, *kind);
    }
    clean(&b);
    // Reassembly's memory is full by now, and the frames of this test take some.
    let grown = machine::rss().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes more than before");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn bad_icvs_for_one_phone_are_limited_and_cost_no_other_phone_a_packet() {
    let mut b = bench();
    for kind in [Kind::IcvOne, Kind::IcvOneSpoofed, Kind::IcvAll] {
        let reasons = attack(&mut b, kind);
        let tried = reasons.get("bad-icv").copied().unwrap_or(0);
        let limited = reasons.get("icv-limited").copied().unwrap_or(0);
        // A few before the limit is there, and a few more each second.
        assert!(
            limited > 0 && tried < FLOOD / 4,
            "{}: {reasons:?}",
            kind.name()
        );
    }
    clean(&b);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn sas_that_come_and_go_under_traffic_leave_nothing_behind() {
    let outcome = soak::run(
        &soak::Options {
            time: Duration::from_secs(20),
            sas: 2000,
            churn: 20,
            rate: 1000,
            late: 200,
            payload: 300,
            every: Duration::from_secs(4),
        },
        |_| (),
    )
    .unwrap();
    assert!(outcome.wrong.is_empty(), "{:#?}", outcome.wrong);
    assert!(outcome.end.churned > 0 && outcome.end.late > 0 && outcome.end.delivered.1 > 0);
    assert!(outcome.reasons.contains_key("unknown-spi"));
}
