//! A million random frames through the program in the kernel, by
//! BPF_PROG_TEST_RUN, against what user space makes of them: the same parser in
//! gm-abi and what stands in the maps. Action, note for the worker, and every
//! counter agree. The guard, which reads packets in another way, gets some too.
//!
//! `GM_AGREE_FRAMES` says how many, `GM_AGREE_SEED` which; a failure prints both
//! the seed and the frame.
#![allow(clippy::print_stdout, reason = "a test says what it did")]

#[path = "agree/dice.rs"]
mod dice;
#[path = "xdp_prog/frames.rs"]
mod frames;
#[allow(dead_code, reason = "xdp_prog takes all of it")]
#[path = "xdp_prog/lab.rs"]
mod lab;
#[path = "agree/make.rs"]
mod make;
#[path = "xdp_prog/model.rs"]
mod model;
#[path = "agree/world.rs"]
mod world;

use std::collections::BTreeMap;

use gm_abi::maps::{META_OUTBOUND, Meta};
use gm_abi::verdict::Reason;
use gm_abi::wire::{self, L3};

use dice::Dice;
use lab::{TC_DROP, TC_NEXT, XDP_DROP, XDP_REDIRECT};
use world::World;

/// Frames between two looks at the counters.
const BATCH: usize = 4096;

fn number(name: &str, default: u64) -> u64 {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse().unwrap_or_else(|_| panic!("{name}={text}"))
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn random_frames_get_the_verdict_of_user_space() {
    let (seed, frames) = (
        number("GM_AGREE_SEED", 20_261_121),
        number("GM_AGREE_FRAMES", 1_000_000),
    );
    println!("seed {seed}, {frames} frames");
    let mut dice = Dice(seed);
    let mut world = World::new(&mut dice);
    let mut reached = BTreeMap::new();
    let mut left = frames as usize;
    while left > 0 {
        let many = left.min(BATCH);
        left -= many;
        world.change(&mut dice);
        let batch: Vec<_> = (0..many).map(|_| make::frame(&mut dice, &world)).collect();
        for frame in &batch {
            let reason = one(&mut world, frame, seed);
            *reached.entry(reason.name()).or_insert(0u64) += 1;
        }
        if world.lab.counters() != world.counted {
            culprit(&mut world, &batch, seed);
        }
    }
    world.settle();
    println!("{reached:?}");
    // The generator reaches every reason that the program has.
    let uplink = [
        Reason::PassOther,
        Reason::PassNonEspMarker,
        Reason::SteerEsp,
        Reason::SteerUdpEsp,
        Reason::SteerFragment,
        Reason::SteerIcmp,
        Reason::Malformed,
        Reason::Keepalive,
        Reason::UnknownSpi,
        Reason::ModeMismatch,
        Reason::Replay,
        Reason::Stale,
        Reason::CleartextProtected,
        Reason::ClearIcmp,
        Reason::IcvLimited,
        Reason::IcmpUnbelieved,
        Reason::FragmentRate,
    ];
    for reason in uplink {
        let n = reached.remove(reason.name()).unwrap_or(0);
        assert!(n >= frames / 2000, "{}: {n} frames", reason.name());
    }
    assert!(reached.is_empty(), "{reached:?}");
}

/// One frame through both. What user space says of it.
fn one(world: &mut World, frame: &[u8], seed: u64) -> Reason {
    let (reason, note) = world.expect(frame);
    let (action, data) = world.lab.xdp_quietly("gm_xdp_uplink", frame);
    let what = || format!("seed {seed}, {reason:?}, {frame:02x?}");
    assert_eq!(action, model::action(reason), "{}", what());
    assert_eq!(read_note(&data, frame), note, "{}", what());
    // What it hands on it leaves as it was; gm0x gets another look at it.
    if frame.len().is_multiple_of(8) {
        let (action, data) = world.lab.xdp_quietly("gm_xdp_gm0x", frame);
        let (expected, note) = match wire::parse_frame(frame) {
            L3::Ip(ip) => (
                XDP_REDIRECT,
                Some(world::note(META_OUTBOUND, 0, &ip, ip.l4)),
            ),
            _ => (XDP_DROP, None),
        };
        if note.is_none() {
            world.counted[Reason::OutMalformed.index()] += 1;
        }
        assert_eq!(action, expected, "gm0x: {}", what());
        assert_eq!(read_note(&data, frame), note, "gm0x: {}", what());
    }
    if is_for_guard(frame) {
        let expected = world.expect_of_guard(frame);
        let ran = world.lab.tc("gm_tc_guard", frame, 0);
        let action = if expected.is_some() { TC_DROP } else { TC_NEXT };
        assert_eq!(ran.action, action, "guard, {expected:?}: {}", what());
        assert!(ran.data == frame, "guard: {}", what());
    }
    reason
}

/// Another program, and another way to read the same bytes. Of shorter ones the
/// kernel makes no packet.
fn is_for_guard(frame: &[u8]) -> bool {
    frame.len() % 8 == 1 && frame.len() > 54
}

/// The note in front of a frame; behind it the frame is as it was.
fn read_note(data: &[u8], frame: &[u8]) -> Option<Meta> {
    assert!(data.ends_with(frame), "{data:02x?}");
    if data.len() == frame.len() {
        return None;
    }
    assert_eq!(data.len(), frame.len() + size_of::<Meta>());
    Some(Meta::from_bytes(data[..16].try_into().unwrap()).expect("a note"))
}

/// The counters differ: which frame was it?
fn culprit(world: &mut World, batch: &[Vec<u8>], seed: u64) -> ! {
    let got = world.lab.counters();
    let all = Reason::ALL.iter().zip(got.iter().zip(&world.counted));
    let differ: Vec<_> = all.filter(|(_, (got, want))| got != want).collect();
    println!("seed {seed}: reason, (counted, expected): {differ:?}");
    world.lab.uplink(&batch[0]);
    for frame in batch {
        let (reason, _) = world.expect(frame);
        let counted = world.lab.uplink(frame).counted;
        let tokens = [
            Reason::SteerFragment,
            Reason::FragmentRate,
            Reason::SteerIcmp,
            Reason::IcmpUnbelieved,
        ]
        .contains(&reason);
        assert!(
            tokens || counted == [(reason, 1)],
            "seed {seed}: counted {counted:?}, not {reason:?}: {frame:02x?}"
        );
        if is_for_guard(frame) {
            let reason = world.expect_of_guard(frame);
            let counted = world.lab.tc("gm_tc_guard", frame, 0).counted;
            let expected: Vec<_> = reason.iter().map(|r| (*r, 1)).collect();
            assert!(
                counted == expected,
                "seed {seed}: the guard counted {counted:?}, not {reason:?}: {frame:02x?}"
            );
        }
    }
    panic!("seed {seed}: no frame alone is counted for another reason");
}
