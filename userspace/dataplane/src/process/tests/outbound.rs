//! Packets from the local stack: each reason, and what does not fit the MTU.

use std::sync::atomic::Ordering;

use gm_abi::verdict::Reason;
use gm_esp::{Mode, Suite};
use gm_sadb::SetId;

use super::bench::frame;
use super::{OUT, cut, near};
use crate::Event;

#[test]
fn each_outbound_reason() {
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    let plain = frame(false, 17, 100, false);
    let mut stranger = plain.clone();
    stranger[14 + 20] ^= 1;
    let mut cut_off = plain.clone();
    cut_off.truncate(60);
    b.outbound(&[
        &plain,
        &stranger,
        &cut_off,
        b"\xff\xff\xff\xff\xff\xff\0\0\0\0\0\x01\x08\x06",
    ]);
    assert_eq!(b.wire().len(), 1);
    assert_eq!(
        (
            b.count(Reason::Sealed),
            b.count(Reason::OutNoSa),
            b.count(Reason::OutMalformed)
        ),
        (1, 1, 2)
    );

    b.hot(OUT)
        .seq
        .store(u64::from(u32::MAX) - 1, Ordering::Relaxed);
    b.outbound(&[&plain, &plain, &plain]);
    assert_eq!(
        (b.count(Reason::Sealed), b.count(Reason::OutSeqExhausted)),
        (2, 2)
    );
    let events: Vec<_> = b.events.try_iter().collect();
    let set = SetId(1);
    assert_eq!(
        events,
        [
            Event::SeqLow {
                set,
                spi: 4096,
                remaining: 0
            },
            Event::Exhausted { set, spi: 4096 }
        ]
    );

    b.process.ctx.table.deactivate(OUT);
    b.outbound(&[&plain]);
    assert_eq!(b.count(Reason::OutNoSa), 2);
    b.settle();
}

#[test]
fn a_datagram_that_does_not_fit_is_sealed_and_cut() {
    let mut b = near(Suite::HmacSha1AesCbc, Mode::Trans);
    // Also with "don't fragment", which Linux sets on what fits by itself.
    for dont_fragment in [false, true] {
        b.outbound(&[&frame(false, 17, 1472, dont_fragment)]);
        let wire = b.wire();
        assert_eq!(wire.len(), 2);
        assert!(wire.iter().all(|w| w.len() <= 1514));
    }
    // Fragments of one datagram, in any order.
    let pieces = cut(&frame(false, 17, 4000, false), 1500, 77);
    let backwards: Vec<&[u8]> = pieces.iter().rev().map(Vec::as_slice).collect();
    b.outbound(&backwards);
    assert_eq!(b.wire().len(), 3);
    assert_eq!((b.count(Reason::Sealed), b.count(Reason::Fragment)), (3, 2));
    b.settle();
}

#[test]
fn a_tcp_segment_that_does_not_fit_goes_back_to_the_stack() {
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    let big = frame(false, 6, 1460, true);
    b.outbound(&[&big]);
    assert_eq!((b.wire().len(), b.count(Reason::OutTooBig)), (0, 1));
    let told = b.stack();
    assert_eq!(told.len(), 1);
    let t = &told[0];
    // To us, from the peer, with the MTU that fits exactly.
    assert_eq!((&t[..6], &t[6..12]), (&big[6..12], &big[..6]));
    assert_eq!((t[14 + 9], &t[14 + 20..14 + 22]), (1, &[3, 4][..]));
    let mtu = usize::from(u16::from_be_bytes([t[14 + 26], t[14 + 27]]));
    b.outbound(&[
        &frame(false, 6, mtu - 40, true),
        &frame(false, 6, mtu - 39, true),
    ]);
    let wire = b.wire();
    assert_eq!((wire.len(), b.count(Reason::OutTooBig)), (1, 2));
    assert!(wire[0].len() <= 1514 && wire[0].len() > 1514 - 4);
    b.settle();
}
