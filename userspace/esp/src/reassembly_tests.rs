//! Fragments that lie, and floods of them.

use proptest::prelude::*;

use super::*;
use crate::fragment::split;
use crate::testing::Plain;

const LIMITS: Limits = Limits {
    bytes: 40_000,
    per_source_bytes: 20_000,
    datagrams: 16,
    timeout_ms: 1000,
};

fn pieces(v6: bool, payload: usize, ident: u32) -> Vec<Vec<u8>> {
    let mut pieces = vec![];
    let packet = Plain::udp(v6, payload).bytes();
    split(&packet, 600, ident, |head, payload| {
        pieces.push([head, payload].concat());
    })
    .unwrap();
    pieces
}

/// A fragment of UDP over IPv4 from the source 192.0.2.`host`.
fn piece(host: u8, id: u16, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut ip = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, host, 198, 51, 100, 2,
    ];
    ip[4..6].copy_from_slice(&id.to_be_bytes());
    let place = (offset / 8) as u16 | u16::from(more) << 13;
    ip[6..8].copy_from_slice(&place.to_be_bytes());
    ip.extend_from_slice(payload);
    headers::set_length(&mut ip, false);
    ip
}

fn stored(result: Result<Pushed, Reason>) -> Result<bool, Reason> {
    result.map(|pushed| matches!(pushed, Pushed::Stored))
}

#[test]
fn two_datagrams_at_once() {
    for v6 in [false, true] {
        let (a, b) = (pieces(v6, 2000, 1), pieces(v6, 3000, 2));
        let mut reassembler = Reassembler::new(LIMITS);
        let mut done = vec![];
        for piece in a.iter().rev().chain(&b) {
            if let Ok(Pushed::Whole(mut whole)) = reassembler.push(piece, 0) {
                let bytes = whole.packet().to_vec();
                assert_eq!(whole.buf().data(), bytes);
                assert!(whole.buf().headroom() >= MAX_FRONT);
                assert!(whole.buf().tailroom() >= MAX_BACK);
                done.push(whole.packet().len());
            }
        }
        let header = if v6 { 48 } else { 28 };
        assert_eq!(done, [2000 + header, 3000 + header]);
        assert!(reassembler.is_empty());
    }
}

#[test]
fn overlaps_end_the_datagram_and_duplicates_do_not() {
    // The second fragment begins inside the first, covers it, ends inside the
    // third, or repeats a place with other bytes.
    for (offset, len, fill) in [(8, 24, 1), (0, 32, 1), (32, 16, 1), (40, 16, 2), (40, 8, 1)] {
        let mut reassembler = Reassembler::new(LIMITS);
        let push = |r: &mut Reassembler, offset, more, bytes: &[u8]| {
            stored(r.push(&piece(1, 9, offset, more, bytes), 0))
        };
        assert_eq!(push(&mut reassembler, 0, true, &[1; 24]), Ok(true));
        assert_eq!(push(&mut reassembler, 40, true, &[1; 16]), Ok(true));
        assert_eq!(
            push(&mut reassembler, 40, true, &[1; 16]),
            Ok(true),
            "a duplicate"
        );
        let lie = push(&mut reassembler, offset, true, &vec![fill; len]);
        assert_eq!(lie, Err(Reason::FragmentOverlap), "{offset} {len}");
        assert_eq!((reassembler.len(), reassembler.bytes()), (0, 0));
    }
}

#[test]
fn there_is_one_end() {
    let mut reassembler = Reassembler::new(LIMITS);
    for (id, first, second) in [
        // A second end, before and behind the first; a piece behind the end.
        (1, (48, false), (24, false)),
        (2, (24, false), (48, false)),
        (3, (24, false), (48, true)),
        (4, (48, true), (24, false)),
    ] {
        let push = |r: &mut Reassembler, (offset, more)| {
            stored(r.push(&piece(1, id, offset, more, &[1; 16]), 0))
        };
        assert_eq!(push(&mut reassembler, first), Ok(true));
        assert_eq!(
            push(&mut reassembler, second),
            Err(Reason::FragmentOverlap),
            "{id}"
        );
    }
    assert_eq!(reassembler.bytes(), 0);
}

#[test]
fn pieces_of_no_datagram_are_refused() {
    let mut reassembler = Reassembler::new(LIMITS);
    let bad = [
        // Not a fragment, odd length before the end, nothing, past 64 kB.
        Plain::udp(false, 20).bytes(),
        Plain::udp(true, 20).bytes(),
        piece(1, 1, 8, true, &[1; 9]),
        piece(1, 1, 8, true, &[]),
        piece(1, 1, 65_528, false, &[1; 16]),
        vec![],
        vec![0x45; 10],
        piece(1, 1, 8, true, &[1; 16])[..30].to_vec(),
    ];
    for packet in bad {
        assert_eq!(stored(reassembler.push(&packet, 0)), Err(Reason::Malformed));
    }
    assert!(reassembler.is_empty());
}

#[test]
fn an_atomic_fragment_is_whole_and_meets_nobody() {
    let plain = Plain::udp(true, 64).bytes();
    let mut atomic = plain[..40].to_vec();
    atomic[6] = 44;
    atomic.extend_from_slice(&[17, 0, 0, 0, 0, 0, 0, 1]);
    atomic.extend_from_slice(&plain[40..]);
    headers::set_length(&mut atomic, true);
    let mut reassembler = Reassembler::new(LIMITS);
    let waiting = &pieces(true, 2000, 1)[1];
    assert_eq!(stored(reassembler.push(waiting, 0)), Ok(true));
    match reassembler.push(&atomic, 0) {
        Ok(Pushed::Whole(whole)) => assert_eq!(whole.packet(), plain),
        _ => panic!("whole at once"),
    }
    assert_eq!(reassembler.len(), 1);
}

#[test]
fn time_ends_what_does_not_come() {
    let mut reassembler = Reassembler::new(LIMITS);
    for (id, now) in [(1, 0), (2, 400), (3, 400)] {
        reassembler
            .push(&piece(1, id, 8, true, &[0; 8]), now)
            .ok()
            .unwrap();
    }
    // Later fragments do not lengthen a life.
    reassembler
        .push(&piece(1, 1, 24, true, &[0; 8]), 900)
        .ok()
        .unwrap();
    assert_eq!(reassembler.expire(999), 0);
    assert_eq!(reassembler.expire(1000), 1);
    assert_eq!(reassembler.len(), 2);
    assert_eq!(reassembler.expire(1400), 2);
    assert_eq!((reassembler.bytes(), reassembler.expire(9999)), (0, 0));
}

#[test]
fn a_greedy_source_is_refused_and_others_are_not() {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut refused = 0;
    for id in 0..1000 {
        let greedy = piece(66, id, 8, true, &[0; 1400]);
        match stored(reassembler.push(&greedy, 0)) {
            Ok(true) => (),
            other => {
                assert_eq!(other, Err(Reason::FragmentLimit));
                refused += 1;
            }
        }
        assert!(reassembler.bytes() <= LIMITS.per_source_bytes);
    }
    assert!(refused > 900);
    assert_eq!(reassembler.take_evicted(), 0);
    let packets = pieces(false, 2000, 1);
    let results: Vec<_> = packets
        .iter()
        .map(|p| stored(reassembler.push(p, 0)))
        .collect();
    assert_eq!(results.last(), Some(&Ok(false)), "whole");
}

#[test]
fn a_flood_from_everywhere_stays_within_bounds() {
    let mut reassembler = Reassembler::new(LIMITS);
    for i in 0..20_000_u32 {
        let flood = piece(i as u8, (i >> 8) as u16, 8, true, &[0; 1400]);
        assert_eq!(stored(reassembler.push(&flood, i.into())), Ok(true));
        assert!(reassembler.bytes() <= LIMITS.bytes && reassembler.len() <= LIMITS.datagrams);
        // In between somebody's datagram comes, its pieces close together.
        if i % 1000 == 500 {
            let mut whole = false;
            for piece in pieces(false, 3000, i) {
                whole |= stored(reassembler.push(&piece, i.into())) == Ok(false);
            }
            assert!(whole, "newest stay, oldest go");
        }
    }
    assert!(reassembler.take_evicted() > 19_000);
    assert_eq!(reassembler.take_evicted(), 0);
}

#[test]
fn crumbs_are_charged_for_their_bookkeeping() {
    let mut reassembler = Reassembler::new(LIMITS);
    let mut limit = 0;
    for offset in (8..8000).step_by(16) {
        if stored(reassembler.push(&piece(1, 1, offset, true, &[0; 8]), 0)).is_err() {
            limit = offset / 16;
            break;
        }
    }
    assert_eq!(limit, MAX_PARTS);
    assert!(reassembler.is_empty(), "the whole datagram goes");
    assert_eq!(reassembler.bytes(), 0);
}

#[test]
fn bounds_of_nothing_hold_nothing() {
    let mut reassembler = Reassembler::new(Limits {
        bytes: 0,
        per_source_bytes: 0,
        datagrams: 0,
        timeout_ms: 0,
    });
    let result = stored(reassembler.push(&piece(1, 1, 8, true, &[0; 8]), 0));
    assert_eq!(result, Err(Reason::FragmentLimit));
    assert_eq!((reassembler.len(), reassembler.bytes()), (0, 0));
}

proptest! {
    #[test]
    fn any_stream_of_fragments_stays_within_bounds_and_balances(
        stream in prop::collection::vec((0..4_u8, 0..6_u16, 0..40_usize, any::<bool>(), 1..80_usize, 0..50_u64), 1..300),
    ) {
        let limits = Limits { bytes: 6000, per_source_bytes: 4000, datagrams: 5, timeout_ms: 400 };
        let mut reassembler = Reassembler::new(limits);
        let mut now = 0;
        for (host, id, place, more, len, wait) in stream {
            now += wait;
            reassembler.expire(now);
            let _ = reassembler.push(&piece(host, id, place * 8, more, &vec![host; len]), now);
            prop_assert!(reassembler.bytes() <= limits.bytes);
            prop_assert!(reassembler.len() <= limits.datagrams);
            let charged: usize = reassembler.partials.values().map(|partial| partial.charged).sum();
            prop_assert_eq!(charged, reassembler.bytes());
            let sources: usize = reassembler.per_source.values().sum();
            prop_assert_eq!(sources, charged);
            prop_assert!(reassembler.per_source.values().all(|source| *source <= limits.per_source_bytes));
            prop_assert_eq!(reassembler.by_age.len(), reassembler.len());
        }
        reassembler.expire(now + 400);
        prop_assert_eq!((reassembler.len(), reassembler.bytes(), reassembler.per_source.len()), (0, 0, 0));
    }
}

#[test]
fn pieces_of_two_sas_or_of_none_are_never_put_together() {
    for v6 in [false, true] {
        let all = pieces(v6, 1000, 5);
        let mut reassembler = Reassembler::new(Limits {
            datagrams: 1024,
            ..LIMITS
        });
        let (last, others) = all.split_last().unwrap();
        for piece in others {
            assert_eq!(stored(reassembler.push_of(7, piece, 0)), Ok(true));
        }
        assert_eq!(stored(reassembler.push_of(8, last, 0)), Ok(true));
        assert_eq!(stored(reassembler.push(last, 0)), Ok(true));
        assert_eq!(reassembler.len(), 3);
        assert_eq!(stored(reassembler.push_of(7, last, 0)), Ok(false));
        // An SA that fills its own bound takes nothing from another one, whose
        // packets carry the same source address.
        let full =
            (0..60).map(|id| stored(reassembler.push_of(7, &pieces(v6, 900, 100 + id)[0], 0)));
        assert!(full.last().unwrap().is_err());
        assert_eq!(stored(reassembler.push_of(9, last, 0)), Ok(true));
        assert!(reassembler.bytes() <= LIMITS.bytes);
    }
}
