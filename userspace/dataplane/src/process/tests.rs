//! Batches in memory: each reason, the accounting of frames, and hostile input.

mod limits;
mod many;
mod outbound;
mod path;
mod pieces;
mod worker;

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use gm_abi::maps::{META_ESP, META_FRAGMENT, META_UDP_ESP};
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Suite};
use gm_sadb::{Dir, SetId};
use proptest::prelude::*;

use super::bench::{self, Bench, SLOTS, fix, frame, meta, reseal, sa};
use crate::Event;

const IN: u32 = 1;
const OUT: u32 = 2;
const SPI: u32 = 1_000_000_001;

/// The near end with one SA in and one out.
fn near(suite: Suite, mode: Mode) -> Bench {
    let mut b = Bench::new(256);
    b.load(IN, Dir::In, sa(suite, mode, true, SPI), &[OUT]);
    b.load(OUT, Dir::Out, sa(suite, mode, false, 4096), &[]);
    b
}

/// What the far end sends: `n` sealed packets of `payload` bytes.
fn sealed(suite: Suite, mode: Mode, n: usize, payload: usize) -> Vec<Vec<u8>> {
    let mut far = Bench::new(256);
    far.load(0, Dir::Out, sa(suite, mode, true, SPI), &[]);
    far.hot(0).encap_port.store(4500, Ordering::Relaxed);
    let plain = frame(true, 17, payload, false);
    let mut wire = Vec::new();
    for _ in 0..n {
        far.outbound(&[&plain]);
        wire.extend(far.wire());
    }
    far.settle();
    wire
}

#[test]
fn a_batch_of_each_suite_and_mode_comes_out_plain() {
    for suite in Suite::every() {
        for (mode, kind) in [(Mode::Trans, META_ESP), (Mode::UdpEncTun, META_UDP_ESP)] {
            let wire = sealed(suite, mode, 64, 200);
            let mut b = near(suite, mode);
            let batch: Vec<_> = wire
                .iter()
                .map(|w| (w.as_slice(), meta(IN, kind)))
                .collect();
            b.inbound(&batch);
            let plain = frame(true, 17, 200, false);
            assert_eq!(b.stack(), vec![plain; 64], "{suite} {mode:?}");
            assert_eq!(b.count(Reason::Ok), 64);
            assert_eq!(b.hot(IN).packets.load(Ordering::Relaxed), 64);
            b.settle();
        }
    }
}

#[test]
fn eight_copies_in_a_batch_give_one_packet() {
    let wire = sealed(Suite::NullAesGcm, Mode::Trans, 1, 100);
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    b.inbound(&[(wire[0].as_slice(), meta(IN, META_ESP)); 8]);
    assert_eq!(b.stack().len(), 1);
    assert_eq!((b.count(Reason::Ok), b.count(Reason::Replay)), (1, 7));
    assert_eq!(b.drops(IN, Reason::Replay), 7);
    b.settle();
}

#[test]
fn a_bad_packet_does_not_poison_its_batch() {
    let mut wire = sealed(Suite::HmacSha1AesCbc, Mode::Trans, 9, 100);
    *wire[4].last_mut().unwrap() ^= 1;
    let mut b = near(Suite::HmacSha1AesCbc, Mode::Trans);
    let batch: Vec<_> = wire
        .iter()
        .map(|w| (w.as_slice(), meta(IN, META_ESP)))
        .collect();
    b.inbound(&batch);
    assert_eq!(b.stack().len(), 8);
    assert_eq!((b.count(Reason::Ok), b.count(Reason::BadIcv)), (8, 1));
    b.settle();
}

#[test]
fn each_inbound_reason() {
    let wire = sealed(Suite::HmacSha1Null, Mode::Trans, 80, 100);
    let change = |nth: usize, f: &dyn Fn(&mut Vec<u8>)| {
        let mut w = wire[nth].clone();
        f(&mut w);
        reseal(&mut w);
        w
    };
    let mut b = near(Suite::HmacSha1Null, Mode::Trans);
    let mut one = |bytes: &[u8], m, reason| {
        let before = b.count(reason);
        b.inbound(&[(bytes, m)]);
        assert_eq!(b.count(reason), before + 1, "{}", reason.name());
    };
    let esp = meta(IN, META_ESP);
    one(&wire[79], esp, Reason::Ok);
    one(&wire[79], esp, Reason::Replay);
    one(&wire[10], esp, Reason::Stale);
    one(&wire[70], None, Reason::Malformed);
    one(&wire[70], meta(5, META_ESP), Reason::UnknownSpi);
    one(&wire[70], meta(SLOTS + 1, META_ESP), Reason::UnknownSpi);
    one(&wire[70][..40], esp, Reason::Malformed);
    // Next header 59, and the port of somebody else, both authentic.
    let icv = wire[70].len() - 12;
    one(&change(70, &|w| w[icv - 1] = 59), esp, Reason::Dummy);
    one(
        &change(71, &|w| w[14 + 20 + 8 + 3] ^= 1),
        esp,
        Reason::SelectorMismatch,
    );
    one(&change(72, &|w| w[icv - 2] = 255), esp, Reason::Malformed);
    // Raw ESP on an SA that wants UDP.
    b.load(
        IN,
        Dir::In,
        sa(Suite::HmacSha1Null, Mode::UdpEncTun, true, SPI),
        &[],
    );
    b.inbound(&[(&wire[74], esp)]);
    assert_eq!(b.count(Reason::ModeMismatch), 1);
    b.settle();
}

#[test]
fn large_datagrams_come_out_of_a_tunnel_as_they_went_in() {
    let plain = frame(true, 17, 1472, true);
    let mut far = Bench::new(256);
    far.load(
        0,
        Dir::Out,
        sa(Suite::AesGmacNull, Mode::UdpEncTun, true, SPI),
        &[],
    );
    far.hot(0).encap_port.store(4500, Ordering::Relaxed);
    far.outbound(&[&plain]);
    let wire = far.wire();
    assert_eq!(wire.len(), 2);
    let mut b = near(Suite::AesGmacNull, Mode::UdpEncTun);
    let batch: Vec<_> = wire
        .iter()
        .map(|w| (w.as_slice(), meta(0, META_FRAGMENT)))
        .collect();
    b.inbound(&batch);
    assert!(b.stack() == [plain]);
    far.settle();
    b.settle();
}

/// Cuts an Ethernet frame with IPv4 into fragments.
fn cut(frame: &[u8], mtu: usize, ident: u32) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    gm_esp::fragment::split(&frame[14..], mtu, ident, |head, payload| {
        out.push([&frame[..14], head, payload].concat());
    })
    .unwrap();
    out
}

#[test]
fn fragments_are_judged_whole() {
    let mut b = near(Suite::AesGmacNull, Mode::Trans);
    let mut give = |frames: &[Vec<u8>]| {
        let batch: Vec<_> = frames
            .iter()
            .rev()
            .map(|f| (f.as_slice(), meta(0, META_FRAGMENT)))
            .collect();
        b.inbound(&batch);
        b.stack()
    };
    // ESP in fragments, opened.
    let wire = sealed(Suite::AesGmacNull, Mode::Trans, 1, 1000);
    let got = give(&cut(&wire[0], 576, 7));
    assert_eq!(got, [frame(true, 17, 1000, false)]);
    // Cleartext to a protected port.
    assert!(give(&cut(&frame(true, 17, 1000, false), 576, 2)).is_empty());
    // To another port: handed on whole, and in fragments when it is larger
    // than gm0 takes.
    for (payload, pieces) in [(1000, 1), (5000, 2)] {
        let mut open = frame(true, 17, payload, false);
        open[14 + 22..14 + 24].copy_from_slice(&5060u16.to_be_bytes());
        assert_eq!(give(&cut(&open, 576, 3 + payload as u32)).len(), pieces);
    }
    assert_eq!(b.count(Reason::Ok), 1);
    assert_eq!(b.count(Reason::CleartextProtected), 1);
    assert_eq!(b.count(Reason::ClearReassembled), 2);
    b.settle();
}

#[test]
fn late_fragments_are_counted_and_gone() {
    let mut b = near(Suite::AesGmacNull, Mode::Trans);
    let pieces = cut(&frame(true, 17, 1000, false), 576, 9);
    b.inbound(&[(&pieces[0], meta(0, META_FRAGMENT))]);
    assert!(b.process.has_to_expire());
    b.process.expire(1000 + 14_999);
    assert_eq!(b.count(Reason::FragmentTimeout), 0);
    b.process.expire(1000 + 15_001);
    assert_eq!(b.count(Reason::FragmentTimeout), 1);
    assert!(!b.process.has_to_expire());
}

#[test]
fn the_port_of_the_nat_is_learnt_from_verified_new_packets_only() {
    let wire = sealed(Suite::NullAesGcm, Mode::UdpEncTun, 5, 60);
    let from = |nth: usize, port: u16| {
        let mut w = wire[nth].clone();
        w[14 + 20..14 + 22].copy_from_slice(&port.to_be_bytes());
        w
    };
    let mut b = near(Suite::NullAesGcm, Mode::UdpEncTun);
    let udp = meta(IN, META_UDP_ESP);
    let plain = frame(false, 17, 100, false);
    b.outbound(&[&plain]);
    assert_eq!(b.count(Reason::OutNoEncapPort), 1);
    assert_eq!(b.hot(OUT).seq.load(Ordering::Relaxed), 0);

    b.inbound(&[(&from(1, 30_001), udp)]);
    // Older: taken, but says nothing of where the phone is now.
    b.inbound(&[(&from(0, 30_002), udp)]);
    // Not authentic.
    let mut forged = from(3, 30_003);
    *forged.last_mut().unwrap() ^= 1;
    b.inbound(&[(&forged, udp)]);
    assert_eq!(b.hot(OUT).encap_port.load(Ordering::Relaxed), 30_001);
    b.outbound(&[&plain]);
    let sent = b.wire();
    assert_eq!(
        sent[0][14 + 20..14 + 24],
        [4500u16.to_be_bytes(), 30_001u16.to_be_bytes()].concat()
    );
    // The NAT has bound another port.
    b.inbound(&[(&from(2, 30_004), udp)]);
    assert_eq!(b.hot(OUT).encap_port.load(Ordering::Relaxed), 30_004);
    let events: Vec<_> = b.events.try_iter().collect();
    let set = SetId(1);
    assert_eq!(
        events,
        [30_001, 30_004].map(|port| Event::EncapPortLearned { set, port })
    );

    b.process.ctx.settings.follow = false;
    b.inbound(&[(&from(4, 30_005), udp)]);
    assert_eq!(b.hot(OUT).encap_port.load(Ordering::Relaxed), 30_004);
    b.settle();

    // Not followed, but the first port is learnt: without it nothing is sent.
    let mut b = near(Suite::NullAesGcm, Mode::UdpEncTun);
    b.process.ctx.settings.follow = false;
    b.inbound(&[(&from(0, 30_001), udp), (&from(1, 30_002), udp)]);
    assert_eq!(b.hot(OUT).encap_port.load(Ordering::Relaxed), 30_001);
    b.settle();
}

/// One stranger cannot drive others' datagrams out: its own bound comes first.
#[test]
fn a_source_of_many_beginnings_leaves_others_alone() {
    let mut b = near(Suite::AesGmacNull, Mode::Trans);
    let wire = sealed(Suite::AesGmacNull, Mode::Trans, 1, 1000);
    let pieces = cut(&wire[0], 576, 7);
    let (last, begin) = pieces.split_last().unwrap();
    for piece in begin {
        b.inbound(&[(piece, meta(0, META_FRAGMENT))]);
    }
    // As small as they get: eight bytes of payload.
    let mut flood = cut(&frame(true, 17, 1000, false), 28, 1)[0].clone();
    flood[14 + 15] ^= 0xff;
    for ident in 0..5000u16 {
        flood[14 + 4..14 + 6].copy_from_slice(&ident.to_be_bytes());
        b.inbound(&[(&flood, meta(0, META_FRAGMENT))]);
    }
    b.inbound(&[(last, meta(0, META_FRAGMENT))]);
    assert_eq!(b.stack(), [frame(true, 17, 1000, false)]);
    assert!(b.count(Reason::FragmentLimit) > 3000);
}

#[test]
fn fragments_that_make_room_for_others_are_counted() {
    let mut b = near(Suite::AesGmacNull, Mode::Trans);
    let pieces = cut(&frame(true, 17, 1000, false), 576, 1);
    // Beginnings of datagrams, each from a source of its own.
    let begun = 5000u16;
    for source in 0..begun {
        let mut piece = pieces[0].clone();
        piece[14 + 14..14 + 16].copy_from_slice(&source.to_be_bytes());
        b.inbound(&[(&piece, meta(0, META_FRAGMENT))]);
    }
    b.process.expire(1000 + 15_001);
    let kept = b.count(Reason::FragmentTimeout);
    assert!((1..begun.into()).contains(&kept), "{kept} were kept");
    assert_eq!(b.count(Reason::Fragment), begun.into());
    // A datagram's end, beside that of each of its fragments.
    assert_eq!(b.count(Reason::FragmentLimit) + kept, begun.into());
}

#[test]
fn without_frames_nothing_is_half_sent() {
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    // One for the packet, one for the copy; the second piece finds none.
    b.starve(2);
    b.outbound(&[&frame(false, 17, 1472, false)]);
    assert_eq!((b.wire().len(), b.count(Reason::NoFrame)), (0, 1));
    b.settle();
}

#[test]
fn a_vlan_tag_stays_on_the_frame() {
    let wire = sealed(Suite::NullAesGcm, Mode::Trans, 1, 60);
    let tag = |f: &[u8]| [&f[..12], &[0x81, 0, 0, 5], &f[12..]].concat();
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    let m = meta(IN, META_ESP).map(|m| gm_abi::maps::Meta {
        l3: 18,
        esp: 38,
        ..m
    });
    b.inbound(&[(&tag(&wire[0]), m)]);
    assert_eq!(b.stack(), [tag(&frame(true, 17, 60, false))]);
    b.settle();
}

#[test]
fn selectors_are_for_addresses_too() {
    let mut b = near(Suite::NullAesGcm, Mode::Trans);
    let mut other = frame(false, 17, 60, false);
    other[14 + 16..14 + 20].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 3).octets());
    fix(&mut other[14..]);
    b.outbound(&[&other]);
    assert_eq!(b.count(Reason::OutNoSa), 1);
    b.settle();
}

fn kinds() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![META_ESP, META_UDP_ESP, META_FRAGMENT, 4, 0])
}

proptest! {
    /// Whatever comes: one end for each packet, no frame lost, no panic.
    #[test]
    fn hostile_batches_are_accounted_for(
        packets in prop::collection::vec(
            (kinds(), 0..SLOTS + 2, 0u8..40, 0usize..3, prop::collection::vec(any::<(u16, u8)>(), 0..6), 1usize..200),
            1..20,
        ),
        mode in prop::sample::select(vec![Mode::Trans, Mode::UdpEncTun]),
    ) {
        let wire = sealed(Suite::NullAesGcm, mode, 1, 100);
        let pieces = cut(&frame(true, 17, 1000, false), 576, 9);
        let bases = [&wire[0], &pieces[0], &pieces[1]];
        let mut b = near(Suite::NullAesGcm, mode);
        let made: Vec<_> = packets.iter().map(|(kind, slot, l3, base, edits, len)| {
            let mut f = bases[*base].clone();
            for (at, value) in edits {
                let at = usize::from(*at) % f.len().min(80);
                f[at] = *value;
            }
            f.truncate((*len).max(1));
            let m = meta(*slot, *kind).map(|m| gm_abi::maps::Meta { l3: if *l3 < 20 { 14 } else { *l3 }, ..m });
            (f, m)
        }).collect();
        let batch: Vec<_> = made.iter().map(|(f, m)| (f.as_slice(), *m)).collect();
        b.inbound(&batch);
        let outbound: Vec<&[u8]> = made.iter().map(|(f, _)| f.as_slice()).collect();
        b.outbound(&outbound);
        b.settle();
    }
}
