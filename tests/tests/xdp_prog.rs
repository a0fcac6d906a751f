//! The BPF programs in the kernel: every verdict, its counter and its action,
//! through BPF_PROG_TEST_RUN. `./tests/run` runs them (as root, with
//! `--include-ignored`).

#[path = "xdp_prog/attach.rs"]
mod attach;
#[path = "xdp_prog/cases.rs"]
mod cases;
#[path = "xdp_prog/frames.rs"]
mod frames;
#[path = "xdp_prog/icmp.rs"]
mod icmp;
#[path = "xdp_prog/kernel_sas.rs"]
mod kernel_sas;
#[path = "xdp_prog/lab.rs"]
mod lab;
#[path = "xdp_prog/layers.rs"]
mod layers;
#[path = "xdp_prog/limits.rs"]
mod limits;
#[path = "xdp_prog/model.rs"]
mod model;
#[path = "xdp_prog/samples.rs"]
mod samples;
#[path = "xdp_prog/sources.rs"]
mod sources;
#[path = "xdp_prog/tc.rs"]
mod tc;

use gm_abi::maps::{
    META_ESP, META_FRAGMENT, META_OUTBOUND, META_UDP_ESP, MODE_TRANS, MODE_UDP_ENC_TUN, Meta,
    SPI_BASE, WINDOW_CELLS,
};
use gm_abi::source::tag_of;
use gm_abi::verdict::Reason;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use cases::uplink_cases;
use frames::*;
use lab::*;

const TRANS: u32 = SPI_BASE + 7;
const TUN: u32 = SPI_BASE + 3 * SLOTS + 8;
const FOREIGN: u32 = 0x1234;
/// Foreign too, but in the range of our own SPIs; its slot is not by index.
const FOREIGN_HIGH: u32 = SPI_BASE + 20;
const WINDOWED: u32 = SPI_BASE + 30;
const LIMITED: u32 = SPI_BASE + 31;

/// Six SAs, two of them with a window at 1000 in which 990 was seen; one of
/// these is limited.
fn lab() -> Lab {
    let mut lab = Lab::new();
    lab.install(7, Sa::of_slot(7, 0, OURS_V4, MODE_TRANS));
    lab.install(8, Sa::of_slot(8, 3, OURS_V6, MODE_UDP_ENC_TUN));
    let foreign = Sa {
        spi: FOREIGN,
        dst: OURS_V4,
        mode: MODE_TRANS,
        window: None,
        limited: false,
        tag: 0,
    };
    lab.install_foreign(21, foreign);
    lab.install_foreign(
        22,
        Sa {
            spi: FOREIGN_HIGH,
            dst: OURS_V6,
            ..foreign
        },
    );
    let mut windowed = Sa::of_slot(30, 0, OURS_V4, MODE_TRANS);
    windowed.window = Some((1000, 64, cells(&[990, 1000])));
    lab.install(30, windowed);
    windowed.spi = LIMITED;
    windowed.limited = true;
    windowed.tag = tag_of(&THEIRS_V4, 0, SEED);
    lab.install(31, windowed);
    lab
}

/// Cells in which these numbers are marked; the newest block wins a cell.
fn cells(seen: &[u32]) -> [u64; WINDOW_CELLS] {
    let mut cells = [0u64; WINDOW_CELLS];
    for seq in seen {
        let (block, bit) = (u64::from(seq / 32), seq % 32);
        let cell = &mut cells[block as usize % WINDOW_CELLS];
        if *cell >> 32 != block {
            *cell = block << 32;
        }
        *cell |= 1 << bit;
    }
    cells
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn every_verdict_of_the_uplink() {
    let mut lab = lab();
    for (name, frame, reason) in uplink_cases() {
        assert_eq!(model::uplink(&lab, &frame), reason, "{name}: the model");
        let ran = lab.uplink(&frame);
        assert_eq!(ran.counted, [(reason, 1)], "{name}");
        assert_eq!(ran.action, model::action(reason), "{name}");
        let steered = ran.action == XDP_REDIRECT;
        assert_eq!(
            ran.data.len(),
            frame.len() + if steered { 16 } else { 0 },
            "{name}"
        );
        assert!(ran.data.ends_with(&frame), "{name}: the frame is as it was");
    }
    // WINDOWED: two replays, sequence number zero, one stale.
    assert_eq!(lab.drops(30), [3, 1, 0, 0]);
    assert_eq!(lab.drops(31), [0, 0, 0, 2]);
    assert_eq!((lab.drops(7), lab.drops(8)), ([0, 0, 1, 0], [0, 0, 1, 0]));
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn more_addresses_than_can_be_listed_are_looked_up() {
    let mut lab = lab();
    lab.unlist();
    for (name, frame, reason) in uplink_cases() {
        assert_eq!(lab.uplink(&frame).counted, [(reason, 1)], "{name}");
    }
    let theirs = v4(UDP, &udp(1, 5060, b"x"));
    for port in [5060, PROTECTED] {
        let ours = frame(OURS_V4, THEIRS_V4, UDP, 0, &udp(port, 5060, b"x"));
        let taken = port == PROTECTED;
        let ran = lab.tc("gm_tc_egress", &ours, 0);
        assert_eq!(ran.action, if taken { TC_REDIRECT } else { TC_NEXT });
        assert_eq!(lab.tc("gm_tc_egress", &theirs, 0).action, TC_NEXT);
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_note_for_the_worker() {
    let mut lab = lab();
    let mut note = |frame: &[u8]| {
        let ran = lab.uplink(frame);
        let note = ran.data[..16].try_into().unwrap();
        let meta = Meta::from_bytes(note).expect("metadata");
        assert_eq!(meta.reserved, 0);
        (meta.kind, meta.slot, meta.l3, meta.esp)
    };
    assert_eq!(note(&v4(ESP, &esp(TRANS, 1))), (META_ESP, 7, 14, 34));
    assert_eq!(note(&v4(ESP, &esp(FOREIGN, 1))), (META_ESP, 21, 14, 34));
    let b = v6(0, &extension(UDP, &udp(1, 4500, &esp(TUN, 1))));
    assert_eq!(
        note(&tagged(&b, &[0x8100])),
        (META_UDP_ESP, 8, 18, 18 + 40 + 8 + 8)
    );
    let b = frame(THEIRS_V4, OURS_V4, UDP, 185, b"abc");
    assert_eq!(note(&b), (META_FRAGMENT, 0, 14, 34));
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_cell_of_another_block_says_nothing() {
    let mut lab = Lab::new();
    // Number 960 + 5 is in the window and its cell is taken by block 26.
    let mut sa = Sa::of_slot(1, 0, OURS_V4, MODE_TRANS);
    sa.window = Some((1000, 4096, cells(&[26 * 32 + 5])));
    lab.install(1, sa);
    let mut at = |seq| lab.uplink(&v4(ESP, &esp(sa.spi, seq))).counted;
    assert_eq!(at(26 * 32 + 5), [(Reason::Replay, 1)]);
    assert_eq!(at(30 * 32 + 5), [(Reason::SteerEsp, 1)]);
    assert_eq!(at(22 * 32 + 5), [(Reason::SteerEsp, 1)]);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_a_worker_it_fails_closed() {
    let mut lab = lab();
    lab.set_socket(false);
    for frame in [
        v4(ESP, &esp(TRANS, 1)),
        frame(THEIRS_V4, OURS_V4, UDP, 185, b"abc"),
    ] {
        let ran = lab.uplink(&frame);
        assert_eq!(
            (ran.action, ran.counted),
            (XDP_DROP, vec![(Reason::NoWorker, 1)])
        );
    }
    let ran = lab.xdp("gm_xdp_gm0x", &v4(UDP, &udp(1, 2, b"x")));
    assert_eq!(
        (ran.action, ran.counted),
        (XDP_DROP, vec![(Reason::NoWorker, 1)])
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_a_configuration_the_uplink_passes() {
    let mut lab = Lab::bare();
    let ran = lab.uplink(&v4(ESP, &esp(TRANS, 1)));
    assert_eq!(
        (ran.action, ran.counted),
        (XDP_PASS, vec![(Reason::PassOther, 1)])
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn gm0x_hands_over_ip_and_nothing_else() {
    let mut lab = lab();
    for (b, l3, l4) in [
        (v4(UDP, &udp(PROTECTED, 5060, b"x")), 14, 34),
        (tagged(&v6(TCP, &tcp(PROTECTED, 5060)), &[0x8100]), 18, 58),
    ] {
        let ran = lab.xdp("gm_xdp_gm0x", &b);
        assert_eq!((ran.action, ran.counted), (XDP_REDIRECT, vec![]));
        let meta = Meta::from_bytes(ran.data[..16].try_into().unwrap()).unwrap();
        assert_eq!((meta.kind, meta.l3, meta.esp), (META_OUTBOUND, l3, l4));
    }
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let ran = lab.xdp("gm_xdp_gm0x", &arp);
    assert_eq!(
        (ran.action, ran.counted),
        (XDP_DROP, vec![(Reason::OutMalformed, 1)])
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn every_truncation_agrees_with_the_model() {
    let mut lab = lab();
    for (name, whole, _) in uplink_cases() {
        for length in 14..whole.len() {
            let cut = &whole[..length];
            let reason = model::uplink(&lab, cut);
            let ran = lab.uplink(cut);
            assert_eq!(ran.counted, [(reason, 1)], "{name}, {length} bytes");
            assert_eq!(ran.action, model::action(reason), "{name}, {length} bytes");
        }
    }
}

/// One of the cases, with tags, some bytes changed, and cut or lengthened.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let cases: Vec<Vec<u8>> = uplink_cases()
        .into_iter()
        .map(|(_, frame, _)| frame)
        .collect();
    let interesting = prop::sample::select(vec![
        0u8, 1, 4, 6, 8, 17, 43, 44, 50, 58, 59, 60, 0x45, 0x46, 0x60, 0x81, 0x94, 0x11, 0xff,
    ]);
    let byte = prop_oneof![any::<u8>(), interesting];
    (
        prop::sample::select(cases),
        prop::collection::vec((0..110usize, byte), 0..5),
        0..200usize,
        any::<bool>(),
    )
        .prop_map(|(mut frame, changes, length, resize)| {
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            if resize {
                frame.resize(length.max(14), 0x3c);
            }
            frame
        })
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn random_frames_agree_with_the_model() {
    const FRAMES: u32 = 50_000;
    let lab = std::cell::RefCell::new(lab());
    let expected = std::cell::RefCell::new(vec![0u64; Reason::COUNT]);
    let config = Config {
        cases: FRAMES,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&mutated(), |frame| {
            let mut lab = lab.borrow_mut();
            let reason = model::uplink(&lab, &frame);
            let (action, data) = lab.xdp_quietly("gm_xdp_uplink", &frame);
            expected.borrow_mut()[reason.index()] += 1;
            prop_assert_eq!(action, model::action(reason), "{:?}", reason);
            prop_assert!(data.ends_with(&frame));
            Ok(())
        })
        .unwrap();
    let expected = expected.into_inner();
    assert_eq!(lab.into_inner().counters(), expected);
    // The generator reaches what it should.
    for reason in Reason::ALL {
        let count = expected[reason.index()];
        let reachable = uplink_cases().iter().any(|(_, _, of)| of == reason);
        assert!(!reachable || count > 100, "{reason:?}: {count}");
    }
}
