//! Datagrams that were fragmented before they were encapsulated.

use std::sync::atomic::Ordering;

use gm_abi::maps::{META_FRAGMENT, META_UDP_ESP};
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Suite};
use gm_sadb::Dir;

use super::bench::{Bench, fix, frame, meta, reseal_at, sa};
use super::{IN, SPI, cut};

const SUITE: Suite = Suite::HmacSha1Null;
/// Where ESP begins in a frame: behind Ethernet, IPv4 and UDP.
const ESP: usize = 14 + 20 + 8;

/// What the far end sends through the SA `spi`: each frame's IP packet in a
/// tunnel's packet of its own, numbers from 1 on.
fn tunnelled(spi: u32, plain: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut far = Bench::new(256);
    far.load(0, Dir::Out, sa(SUITE, Mode::UdpEncTun, true, spi), &[]);
    far.hot(0).encap_port.store(4500, Ordering::Relaxed);
    let mut wire = Vec::new();
    for p in plain {
        // Nothing is hidden in this suite: another packet of the same length
        // takes the place of the one that was sealed.
        far.outbound(&[&frame(true, 17, p.len() - 14 - 28, false)]);
        let mut w = far.wire().remove(0);
        w[ESP + 8..ESP + 8 + p.len() - 14].copy_from_slice(&p[14..]);
        reseal_at(&mut w, ESP);
        wire.push(w);
    }
    far.settle();
    wire
}

fn near() -> Bench {
    let mut b = Bench::new(256);
    b.load(IN, Dir::In, sa(SUITE, Mode::UdpEncTun, true, SPI), &[]);
    b.load(
        IN + 2,
        Dir::In,
        sa(SUITE, Mode::UdpEncTun, true, SPI + 2),
        &[],
    );
    b
}

fn give(b: &mut Bench, slot: u32, wire: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let batch: Vec<_> = wire
        .iter()
        .map(|w| (w.as_slice(), meta(slot, META_UDP_ESP)))
        .collect();
    b.inbound(&batch);
    b.stack()
}

#[test]
fn pieces_in_a_tunnel_come_out_as_the_datagram_in_any_order() {
    let plain = frame(true, 17, 2000, false);
    let mut wire = tunnelled(SPI, &cut(&plain, 700, 7));
    assert_eq!(wire.len(), 3);
    wire.rotate_left(1);
    let mut b = near();
    assert!(give(&mut b, IN, &wire) == [plain]);
    assert_eq!((b.count(Reason::Fragment), b.count(Reason::Ok)), (2, 1));
    assert_eq!(b.hot(IN).packets.load(Ordering::Relaxed), 3);
    b.settle();
}

#[test]
fn the_whole_has_to_be_its_sas_traffic() {
    let mut other = frame(true, 17, 2000, false);
    other[14 + 23] ^= 1;
    let mut b = near();
    assert!(give(&mut b, IN, &tunnelled(SPI, &cut(&other, 700, 7))).is_empty());
    assert_eq!(b.count(Reason::SelectorMismatch), 1);
    assert_eq!(b.drops(IN, Reason::SelectorMismatch), 1);
    b.settle();
}

/// An address is in every piece: who claims others' addresses must not take
/// room for each of them.
#[test]
fn pieces_from_another_address_than_the_phones_take_no_room() {
    let mut pieces = cut(&frame(true, 17, 1000, false), 700, 7);
    for (n, p) in (0..).zip(&mut pieces) {
        p[14 + 15] = 100 + n;
        fix(&mut p[14..]);
    }
    let mut b = near();
    assert!(give(&mut b, IN, &tunnelled(SPI, &pieces)).is_empty());
    assert_eq!(b.drops(IN, Reason::SelectorMismatch), 2);
    assert_eq!(
        (b.count(Reason::Fragment), b.process.reassembly_bytes()),
        (0, 0)
    );
    b.settle();
}

#[test]
fn pieces_of_two_sas_stay_apart_and_end_in_time() {
    let pieces = cut(&frame(true, 17, 1000, false), 700, 7);
    let (first, second) = pieces.split_at(1);
    let mut b = near();
    assert!(give(&mut b, IN, &tunnelled(SPI, first)).is_empty());
    assert!(give(&mut b, IN + 2, &tunnelled(SPI + 2, second)).is_empty());
    assert_eq!(b.count(Reason::Fragment), 2);
    b.process.expire(1000 + 15_001);
    assert_eq!(b.count(Reason::FragmentTimeout), 2);
}

#[test]
fn pieces_that_overlap_end_the_datagram() {
    let mut pieces = cut(&frame(true, 17, 1000, false), 700, 7);
    pieces[1][14 + 7] -= 1;
    fix(&mut pieces[1][14..]);
    let mut b = near();
    assert!(give(&mut b, IN, &tunnelled(SPI, &pieces)).is_empty());
    assert_eq!(b.count(Reason::FragmentOverlap), 1);
    b.settle();
}

#[test]
fn pieces_whose_tunnel_packets_are_fragmented_too() {
    let plain = frame(true, 17, 2600, false);
    let mut b = near();
    let wire = tunnelled(SPI, &cut(&plain, 1400, 7));
    let wire: Vec<_> = (0..)
        .zip(&wire)
        .flat_map(|(id, w)| cut(w, 900, id))
        .collect();
    assert_eq!(wire.len(), 4);
    let batch: Vec<_> = wire
        .iter()
        .map(|w| (w.as_slice(), meta(0, META_FRAGMENT)))
        .collect();
    b.inbound(&batch);
    assert!(b.stack() == [plain]);
    b.settle();
}
