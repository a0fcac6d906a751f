//! Forged and true ICMP errors, byte by byte.

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use gm_abi::maps::{META_ICMP, META_MAGIC, Meta};
use gm_abi::verdict::Reason;
use gm_abi::wire::{ICMP, ICMPV6};
use gm_esp::{Mode, Suite};
use gm_sadb::{Dir, SetId};

use super::bench::{self, Bench, FAR, NEAR, fix, frame};
use crate::Event;
use crate::checksum;
use crate::process::path::*;

const OUT: u32 = 2;
const SPI: u32 = 0x0102_0304;
const ROUTER: [u8; 4] = [10, 9, 9, 9];

/// A worker with one outbound SA that has sent packets up to number `last`.
fn sent(mode: Mode, last: u64) -> Bench {
    let mut b = Bench::new(64);
    let sa = bench::sa(Suite::AesGmacNull, mode, false, SPI);
    b.load(OUT, Dir::Out, sa, &[]);
    b.hot(OUT).encap_port.store(45_000, Ordering::Relaxed);
    b.hot(OUT).seq.store(last, Ordering::Relaxed);
    b
}

/// A packet as it left: number `seq`, `len` bytes.
fn quoted(mode: Mode, seq: u32, len: u16) -> Vec<u8> {
    let udp = mode == Mode::UdpEncTun;
    let mut p = vec![
        0x45,
        0,
        0,
        0,
        0,
        0,
        0x40,
        0,
        64,
        if udp { 17 } else { 50 },
        0,
        0,
    ];
    p[2..4].copy_from_slice(&len.to_be_bytes());
    p.extend(NEAR.octets());
    p.extend(FAR.octets());
    if udp {
        p.extend([4500u16.to_be_bytes(), 45_000u16.to_be_bytes()].concat());
        p.extend([(len - 20).to_be_bytes(), [0, 0]].concat());
    }
    p.extend(SPI.to_be_bytes());
    p.extend(seq.to_be_bytes());
    fix(&mut p);
    p
}

/// An ICMP error of a router that quotes `packet`, as a frame.
fn error(kind: u8, code: u8, mtu: u16, packet: &[u8]) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend_from_slice(packet);
    let sum = checksum::fold(checksum::add(0, &icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend(((20 + icmp.len()) as u16).to_be_bytes());
    f.extend([0, 0, 0, 0, 64, ICMP, 0, 0]);
    f.extend(ROUTER);
    f.extend(NEAR.octets());
    fix(&mut f[14..]);
    f.extend(icmp);
    f
}

fn meta() -> Option<Meta> {
    Some(Meta {
        slot: 0,
        esp: 0,
        l3: 14,
        kind: META_ICMP,
        magic: META_MAGIC,
        reserved: 0,
    })
}

fn hear(b: &mut Bench, error: &[u8]) {
    b.inbound(&[(error, meta())]);
}

/// Without the batch, whose clock is fixed.
fn hear_at(b: &Bench, bytes: &[u8], l3: usize) {
    b.process.ctx.icmp_in(bytes, l3);
}

fn mtu(b: &Bench) -> usize {
    let ctx = &b.process.ctx;
    ctx.mtu(ctx.table.get(OUT).unwrap())
}

#[test]
fn a_router_that_quotes_what_was_sent_is_believed() {
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        let mut b = sent(mode, 10);
        assert_eq!(mtu(&b), 1500);
        hear(&mut b, &error(3, 4, 1300, &quoted(mode, 10, 1400)));
        assert_eq!(mtu(&b), 1300);
        // A later, smaller one too; a larger one is an answer of before.
        hear(&mut b, &error(3, 4, 1200, &quoted(mode, 9, 1400)));
        hear(&mut b, &error(3, 4, 1390, &quoted(mode, 8, 1400)));
        assert_eq!(mtu(&b), 1200);
        assert_eq!(b.count(Reason::PathMtu), 3);
        let events: Vec<_> = b.events.try_iter().collect();
        let (set, spi) = (SetId(1), SPI);
        let told = [1300, 1200].map(|mtu| Event::PathMtu { set, spi, mtu });
        assert_eq!(events, told);
        b.settle();
    }
}

#[test]
fn what_was_learnt_is_forgotten_after_ten_minutes() {
    let mut b = sent(Mode::Trans, 10);
    hear(&mut b, &error(3, 4, 1300, &quoted(Mode::Trans, 10, 1400)));
    b.process.ctx.now = 1000 + 599_999;
    assert_eq!(mtu(&b), 1300);
    b.process.ctx.now = 1000 + 600_000;
    assert_eq!(mtu(&b), 1500);
    // And may be more then.
    let error = error(3, 4, 1450, &quoted(Mode::Trans, 10, 1480));
    hear_at(&b, &error, 14);
    assert_eq!(mtu(&b), 1450);
}

#[test]
fn a_stranger_who_has_not_seen_the_packet_changes_nothing() {
    for mode in [Mode::Trans, Mode::UdpEncTun] {
        let good = quoted(mode, 10_000, 1400);
        let change = |at: usize, byte: u8| {
            let mut q = good.clone();
            q[at] = byte;
            q
        };
        let esp = good.len() - 8;
        let lies = [
            ("another SPI", error(3, 4, 1300, &change(esp, 9))),
            (
                "a number never sent",
                error(3, 4, 1300, &quoted(mode, 10_001, 1400)),
            ),
            (
                "a number long ago",
                error(3, 4, 1300, &quoted(mode, 10_000 - 4096, 1400)),
            ),
            ("number 0", error(3, 4, 1300, &quoted(mode, 0, 1400))),
            ("another source", error(3, 4, 1300, &change(15, 77))),
            ("another destination", error(3, 4, 1300, &change(19, 77))),
            (
                "a packet that fits",
                error(3, 4, 1300, &quoted(mode, 10_000, 1300)),
            ),
            ("an MTU above the packet", error(3, 4, 9000, &good)),
            ("a later fragment", error(3, 4, 1300, &change(7, 9))),
            (
                "no whole ESP header",
                error(3, 4, 1300, &good[..good.len() - 1]),
            ),
            ("no error", error(8, 0, 1300, &good)),
            ("a redirect", error(5, 1, 1300, &good)),
            (
                "another mode",
                error(3, 4, 1300, &quoted(other(mode), 10_000, 1400)),
            ),
            ("nothing quoted", error(3, 4, 1300, &[])),
        ];
        let mut b = sent(mode, 10_000);
        let count = lies.len() as u64;
        for (what, lie) in &lies {
            hear(&mut b, lie);
            assert_eq!(mtu(&b), 1500, "{what}");
        }
        let mut damaged = error(3, 4, 1300, &good);
        *damaged.last_mut().unwrap() ^= 1;
        hear(&mut b, &damaged);
        if mode == Mode::UdpEncTun {
            // The port that the NAT has not given to the phone.
            hear(&mut b, &error(3, 4, 1300, &change(23, 9)));
        }
        assert_eq!(mtu(&b), 1500);
        let extra = if mode == Mode::UdpEncTun { 2 } else { 1 };
        assert_eq!(b.count(Reason::IcmpUnbelieved), count + extra);
        // An SA that no longer sends is nobody's either.
        b.process.ctx.table.deactivate(OUT);
        hear(&mut b, &error(3, 4, 1300, &good));
        assert_eq!(mtu(&b), 1500);
        b.process.ctx.table.activate(OUT);
        hear(&mut b, &error(3, 4, 1300, &good));
        assert_eq!(mtu(&b), 1300);
        b.settle();
    }
}

fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Trans => Mode::UdpEncTun,
        Mode::UdpEncTun => Mode::Trans,
    }
}

#[test]
fn the_last_4096_numbers_are_lately() {
    let mut b = sent(Mode::Trans, 10_000);
    hear(
        &mut b,
        &error(3, 4, 1300, &quoted(Mode::Trans, 10_000 - 4095, 1400)),
    );
    assert_eq!(mtu(&b), 1300);
}

#[test]
fn no_path_is_narrower_than_552_bytes_and_no_number_means_a_plateau() {
    let mut b = sent(Mode::Trans, 10);
    hear(&mut b, &error(3, 4, 0, &quoted(Mode::Trans, 10, 1500)));
    assert_eq!(mtu(&b), 1492);
    hear(&mut b, &error(3, 4, 0, &quoted(Mode::Trans, 10, 1492)));
    assert_eq!(mtu(&b), 1006);
    hear(&mut b, &error(3, 4, 300, &quoted(Mode::Trans, 10, 1006)));
    assert_eq!(mtu(&b), 552);
    // From now on routers have to cut, so they may.
    let ctx = &b.process.ctx;
    assert!(ctx.is_tiny(ctx.table.get(OUT).unwrap()));
    b.outbound(&[&frame(false, 6, 100, true)]);
    assert_eq!(b.wire()[0][14 + 6] & 0x40, 0);
    // Never above the uplink's own.
    b.process
        .ctx
        .settings
        .uplink_mtu
        .store(500, Ordering::Relaxed);
    assert_eq!(mtu(&b), 500);
    b.settle();
}

#[test]
fn what_cannot_be_reached_is_noted_and_breaks_nothing() {
    let mut b = sent(Mode::Trans, 10);
    for (kind, code) in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 13), (11, 0), (12, 0)] {
        hear(
            &mut b,
            &error(kind, code, 1300, &quoted(Mode::Trans, 10, 1400)),
        );
    }
    assert_eq!(b.count(Reason::PeerUnreachable), 7);
    assert_eq!(mtu(&b), 1500);
    b.outbound(&[&frame(false, 17, 100, true)]);
    assert_eq!(b.count(Reason::Sealed), 1);
    b.settle();
}

#[test]
fn segments_datagrams_and_syns_follow_the_path() {
    let mut b = sent(Mode::Trans, 10);
    let inbound = bench::sa(Suite::AesGmacNull, Mode::Trans, true, 1_000_000_001);
    b.load(1, Dir::In, inbound, &[OUT]);
    hear(&mut b, &error(3, 4, 1300, &quoted(Mode::Trans, 10, 1400)));
    // 20 + 8 + 8 + 16 around, 2 bytes of trailer, and rounded to 4: 1266 fit.
    b.outbound(&[&frame(false, 6, 1230, true)]);
    assert_eq!(b.count(Reason::OutTooBig), 1);
    let told = b.stack();
    assert_eq!(told[0][14 + 26..14 + 28], 1266u16.to_be_bytes());
    b.outbound(&[&frame(false, 6, 1226, true)]);
    assert_eq!(b.wire()[0].len(), 14 + 1300);
    // A datagram that fitted the uplink is cut for the path now.
    b.outbound(&[&frame(false, 17, 1300, true)]);
    let lens: Vec<_> = b.wire().iter().map(|f| f.len() - 14).collect();
    assert_eq!(lens.len(), 2);
    assert!(lens.iter().all(|len| *len <= 1300), "{lens:?}");
    // What comes back has to fit as well.
    let ctx = &b.process.ctx;
    assert_eq!(ctx.mtu_back(ctx.table.get(1).unwrap()), 1300);
    b.settle();
}

#[test]
fn ipv6_says_it_too_and_never_below_1280() {
    let sum = |src: &[u8], dst: &[u8], icmp: &mut Vec<u8>| {
        let pseudo = checksum::add(checksum::add(0, src), dst) + icmp.len() as u64 + 58;
        let sum = checksum::fold(checksum::add(pseudo, icmp));
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    };
    let (near, far) = ([0xfd; 16], [0xfe; 16]);
    let mut quote = vec![0x60, 0, 0, 0, 5, 0x78, 50, 64];
    quote.extend(near.iter().chain(&far));
    quote.extend([SPI.to_be_bytes(), 3u32.to_be_bytes()].concat());
    let error = |kind: u8, mtu: u32| {
        let mut icmp = vec![kind, 0, 0, 0];
        icmp.extend(mtu.to_be_bytes());
        icmp.extend_from_slice(&quote);
        sum(&[0xfc; 16], &near, &mut icmp);
        let mut p = vec![0x60, 0, 0, 0, 0, icmp.len() as u8, ICMPV6, 64];
        p.extend([0xfc; 16].iter().chain(&near));
        p.extend(icmp);
        p
    };
    let (told, quoted) = read(&error(2, 1300), 4500).unwrap();
    assert_eq!(told, Told::TooBig(Some(1300)));
    assert_eq!((quoted.spi, quoted.seq, quoted.len), (SPI, 3, 1440));
    assert_eq!(quoted.dst, IpAddr::from(far));
    for kind in [1, 3, 4] {
        assert_eq!(read(&error(kind, 0), 4500).unwrap().0, Told::Lost);
    }
    assert_eq!(read(&error(128, 0), 4500), None);
    let b = sent(Mode::Trans, 10);
    let ctx = &b.process.ctx;
    let entry = ctx.table.get(OUT).unwrap();
    assert_eq!(
        ctx.believe(entry, &quoted, Some(600)),
        Some(Reason::PathMtu)
    );
    assert_eq!((ctx.mtu(entry), ctx.is_tiny(entry)), (1280, false));
    assert_eq!(ctx.believe(entry, &quoted, Some(usize::MAX)), None);
}

proptest::proptest! {
    #[test]
    fn noise_is_unbelieved_and_never_panics(bytes in proptest::collection::vec(0u8.., 0..200), first in proptest::sample::select(vec![0x45u8, 0x60, 0x4f]), proto in proptest::sample::select(vec![1u8, 58])) {
        let mut bytes = bytes;
        if bytes.len() > 9 {
            bytes[0] = first;
            bytes[if first == 0x60 { 6 } else { 9 }] = proto;
        }
        let b = sent(Mode::Trans, 10);
        hear_at(&b, &bytes, 0);
        hear_at(&b, &bytes, 300);
        proptest::prop_assert_eq!(b.count(Reason::IcmpUnbelieved), 2);
    }
}

#[test]
fn an_icmp_error_in_fragments_is_judged_as_a_whole_one() {
    let in_pieces = |b: &mut Bench, error: &[u8], ident| {
        let meta = Meta {
            kind: gm_abi::maps::META_FRAGMENT,
            ..meta().unwrap()
        };
        gm_esp::fragment::split(&error[14..], 68, ident, |head, payload| {
            let piece = [&error[..14], head, payload].concat();
            b.inbound(&[(&piece, Some(meta))]);
        })
        .unwrap();
    };
    let mut b = sent(Mode::Trans, 10);
    let mut long = quoted(Mode::Trans, 10, 1400);
    long.resize(120, 7);
    in_pieces(&mut b, &error(3, 4, 1300, &long), 1);
    assert_eq!((b.count(Reason::PathMtu), mtu(&b)), (1, 1300));
    // About a protected port of ours: nobody can have seen that in clear.
    let mut clear = frame(false, 17, 100, false)[14..].to_vec();
    in_pieces(&mut b, &error(3, 3, 0, &clear), 2);
    assert_eq!(b.count(Reason::ClearIcmp), 1);
    // About another: the kernel's.
    clear[20..22].copy_from_slice(&5060u16.to_be_bytes());
    in_pieces(&mut b, &error(3, 3, 0, &clear), 3);
    assert_eq!(b.count(Reason::ClearReassembled), 1);
    b.settle();
}
