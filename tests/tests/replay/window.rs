//! The window, number by number.

use gm_dataplane::Reason;
use gm_esp::Suite;

use crate::far::{Far, Sender};

/// Windows at, beside and between the sizes of words and blocks.
const WINDOWS: [u32; 12] = [32, 33, 63, 64, 65, 96, 127, 128, 1000, 1024, 4095, 4096];

/// The SA's replays and stale numbers; it is the only one, so the counters of all say the same.
fn dropped(far: &Far, sa: &Sender) -> [u64; 2] {
    let of_all = [Reason::Replay, Reason::Stale].map(|r| far.count(r));
    let of_sa = [Reason::Replay, Reason::Stale].map(|r| far.drops(sa, r));
    assert_eq!(of_all, of_sa);
    of_all
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn numbers_1_to_33_are_accepted_and_their_replays_counted_exactly() {
    // A window of 32 has let go of number 1 when 33 has come.
    for (window, drops) in [(64, [33, 0]), (32, [32, 1])] {
        let far = Far::new();
        let sa = far.install(Suite::HmacSha1AesCbc, window, false);
        let packets = sa.packets(1..=33);
        let all: Vec<u64> = (1..=33).collect();
        assert_eq!(far.carry(&packets), all);
        assert_eq!(far.carry(&packets), [], "a replay arrives");
        assert_eq!(dropped(&far, &sa), drops, "{window}");
        let row = far.row(&sa);
        assert_eq!((row.packets, row.top), (33, 33));
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn every_window_ends_exactly_where_it_says() {
    let far = Far::new();
    for window in WINDOWS {
        let sa = far.install(Suite::NullAesGcm, window, false);
        let (top, size) = (10_000, u64::from(window));
        // The jump; then the edge, a step too far, and inside.
        let sent = [
            top,
            top - size,
            top - size + 1,
            top - size + 1,
            top - 1,
            top,
            top - size / 2,
            top - size / 2,
            // The top moves by one: what was the edge is left of the window now.
            top + 1,
            top - size + 1,
            top - size + 2,
            top - size + 2,
            1,
        ];
        let came = far.carry_singly(&sa.packets(sent));
        let want = [
            top,
            top - size + 1,
            top - 1,
            top - size / 2,
            top + 1,
            top - size + 2,
        ];
        assert_eq!(came, want, "{window}");
        let drops = [Reason::Replay, Reason::Stale].map(|r| far.drops(&sa, r));
        assert_eq!(drops, [4, 3], "{window}");
        far.near.plane.remove(sa.set).unwrap();
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_whole_window_arrives_late_and_once() {
    for window in [32, 128, 4096] {
        let far = Far::new();
        let sa = far.install(Suite::NullAesGcm, window, false);
        let size = u64::from(window);
        let top = 3 * size + 7;
        // The newest one first, then all that the window holds, from the newest to the oldest.
        let sent: Vec<u64> = (top + 1 - size..=top).rev().collect();
        let packets = sa.packets(sent.iter().copied());
        assert_eq!(far.carry(&packets), sent, "{window}");
        assert_eq!(far.carry(&packets), [], "{window}");
        assert_eq!(dropped(&far, &sa), [size, 0]);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_jump_of_any_length_leaves_the_window_behind_it_new() {
    let far = Far::new();
    let sa = far.install(Suite::HmacSha1Null, 64, false);
    let first: Vec<u64> = (1..=64).collect();
    assert_eq!(far.carry(&sa.packets(first.clone())), first);
    let mut top = 64;
    for jump in [1, 31, 32, 63, 64, 65, 127, 128, 1 << 20, 1 << 31] {
        let new = top + jump;
        // What the jump has left out and the window holds is accepted, and nothing else.
        let sent = [new, new - 63, new - 64, top, new - 1];
        let came = far.carry_singly(&sa.packets(sent));
        let want: Vec<u64> = [new, new - 63, new - 1]
            .into_iter()
            .filter(|seq| *seq > top || *seq == new)
            .collect();
        assert_eq!(came, want, "{jump} behind {top}");
        top = new;
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn the_same_number_eight_times_at_once_gives_one_packet() {
    let far = Far::new();
    let sa = far.install(Suite::NullAesGcm, 64, false);
    for seq in 1..=20 {
        let eight = vec![sa.packet(seq); 8];
        assert_eq!(far.carry(&eight), [seq]);
        assert_eq!(dropped(&far, &sa), [7 * seq, 0]);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn what_does_not_verify_moves_neither_the_window_nor_its_hint() {
    let far = Far::new();
    let sa = far.install(Suite::HmacSha1AesCbc, 64, false);
    assert_eq!(far.carry(&sa.packets([1, 2])), [1, 2]);
    let spoil = |seq| {
        let mut packet = sa.packet(seq);
        *packet.last_mut().unwrap() ^= 1;
        packet
    };
    // Far ahead, next, and in the middle of the window, each more than once.
    let forged: Vec<_> = [4_000_000_000, 3, 5000, 66, 3, 5000].map(spoil).to_vec();
    assert_eq!(far.carry(&forged), []);
    assert_eq!(far.drops(&sa, Reason::BadIcv), 6);
    assert_eq!(far.row(&sa).top, 2);
    // The numbers are free for those whose they are; one bad packet harms no other.
    let mixed = [
        sa.packet(3),
        spoil(66),
        sa.packet(66),
        spoil(4),
        sa.packet(4),
    ];
    assert_eq!(far.carry(&mixed), [3, 66, 4]);
    assert_eq!(dropped(&far, &sa), [0, 0]);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn padding_of_255_in_a_packet_that_verifies_is_malformed_and_takes_its_number() {
    let far = Far::new();
    let sa = far.install(Suite::HmacSha1Null, 64, false);
    let udp = &sa.plain(&7_u64.to_be_bytes())[20..];
    let body = |pad: u8| [udp, &[1, 2, pad, 17]].concat();
    let forged = [sa.forged(1, &body(0xff)), sa.forged(2, &body(18))];
    // One of 16 takes payload, padding and all: nothing is left that would be UDP.
    let hollow = sa.forged(3, &body(18 - 2));
    let good = sa.forged(4, &body(2));
    let came = far.carry(&[&forged[..], &[hollow, good]].concat());
    assert_eq!(came, [7]);
    assert_eq!(far.drops(&sa, Reason::Malformed), 3);
    assert_eq!(far.row(&sa).top, 4);
    assert_eq!(far.carry(&forged), []);
    assert_eq!(dropped(&far, &sa), [2, 0]);
}
