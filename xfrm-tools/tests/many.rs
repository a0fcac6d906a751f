//! 100 000 packets through one SA, with duplicates and out of order: none is
//! accepted twice, and none is lost that the window allows.

mod common;

use std::collections::HashSet;

use common::*;
use gm_api::sad::Sad;
use gm_xfrm::capture::{Item, Packet, Reader};
use gm_xfrm::open::Opener;
use gm_xfrm::verdict::Verdict;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const PACKETS: u32 = 100_000;
const WINDOW: u64 = 64;

/// A capture of `PACKETS` numbered UDP packets that the SA protects.
fn plain() -> Vec<u8> {
    let first = &records(&read(&case("more/window-model/plain.pcap")))[0];
    let mut all = Vec::with_capacity(PACKETS as usize);
    for number in 0..PACKETS {
        let mut record = first.clone();
        let len = record.data.len();
        record.data[len - 4..].copy_from_slice(&number.to_be_bytes());
        all.push(record);
    }
    pcap(Order::Little, 0xa1b2_c3d4, 101, &all)
}

fn packets_of(capture: &[u8]) -> Vec<Packet> {
    let mut reader = Reader::new(capture).expect("a capture");
    let mut all = Vec::new();
    while let Some(item) = reader.next().expect("whole") {
        if let Item::Packet(packet) = item {
            all.push(packet);
        }
    }
    all
}

#[test]
fn none_twice_and_none_lost() {
    // The same every time: what fails here fails again.
    let seed: [u8; 32] = *b"a hundred thousand packets, seed";
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut draw = |below: u32| (0..below).new_tree(&mut runner).expect("number").current();

    let sad_path = case("more/window-model/sad.toml");
    let Ok(sad) = Sad::load(&sad_path) else {
        panic!("a good file");
    };
    let dir = Dir::new();
    let (sealed, _) = dir.seal(&sad_path, &dir.put("plain.pcap", plain()));
    let sealed = packets_of(&sealed);
    assert_eq!(sealed.len(), PACKETS as usize);

    // Every packet once, late by up to 100 places; every third once more.
    let mut order: Vec<(u32, u32)> = Vec::new();
    for number in 0..PACKETS {
        order.push((number + draw(100), number));
        if draw(3) == 0 {
            order.push((number + draw(200), number));
        }
    }
    order.sort_unstable();

    let Ok(mut opener) = Opener::new(&sad, Some(WINDOW as u32)) else {
        panic!("good SAs");
    };
    let (mut top, mut seen, mut fresh) = (0, HashSet::new(), 0);
    for (_, number) in order {
        let seq = u64::from(number) + 1;
        let wanted = if seq + WINDOW <= top {
            Verdict::Stale
        } else if !seen.insert(seq) {
            Verdict::Replay
        } else {
            top = top.max(seq);
            fresh += 1;
            Verdict::Ok
        };
        let judged = opener.judge(&sealed[number as usize]).expect("judged");
        assert_eq!(judged.line.verdict, wanted, "number {seq}, top {top}");
        if let Some(plain) = judged.plain {
            assert!(plain.ends_with(&number.to_be_bytes()));
        }
    }
    // Late ones are stale; the test is about both sides of the edge.
    assert!((50_000..PACKETS).contains(&fresh), "{fresh}");
}
