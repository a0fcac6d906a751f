//! Forged ICVs: what they cost, whom they hurt, what XDP is told.

use gm_abi::maps::{META_ESP, META_UDP_ESP, mapped};
use gm_abi::verdict::Reason;
use gm_esp::{Mode, Suite};

use super::bench::{Bench, meta};
use super::{IN, SPI, near, sealed};

const SUITE: Suite = Suite::NullAesGcm;

/// A packet with this number from that address (`None`: the phone's), its ICV
/// wrong.
fn forged(good: &[u8], seq: u32, from: Option<[u8; 4]>) -> Vec<u8> {
    let mut w = good.to_vec();
    let udp = if w[14 + 9] == 17 { 8 } else { 0 };
    w[34 + udp + 4..34 + udp + 8].copy_from_slice(&seq.to_be_bytes());
    if let Some(from) = from {
        w[14 + 12..14 + 16].copy_from_slice(&from);
    }
    *w.last_mut().unwrap() ^= 1;
    w
}

/// The near end, its SA shown to XDP.
fn shown(mode: Mode) -> Bench {
    let b = near(SUITE, mode);
    let from = mapped([10, 0, 0, 2]);
    let from = (mode == Mode::Trans).then_some(&from);
    let published = &b.process.ctx.published;
    published.install(IN, SPI, &mapped([10, 0, 0, 1]), mode, Some((64, 0)), from);
    b
}

/// Gives the frames one by one, so that each is judged by what was before it.
fn give(b: &mut Bench, kind: u8, frames: impl IntoIterator<Item = Vec<u8>>) {
    for frame in frames {
        b.inbound(&[(frame.as_slice(), meta(IN, kind))]);
    }
}

fn counts(b: &Bench) -> [u64; 3] {
    [Reason::Ok, Reason::BadIcv, Reason::IcvLimited].map(|r| b.count(r))
}

#[test]
fn bad_icvs_are_limited_and_the_phone_of_the_sa_goes_on() {
    for (mode, kind) in [(Mode::Trans, META_ESP), (Mode::UdpEncTun, META_UDP_ESP)] {
        let wire = sealed(SUITE, mode, 60, 100);
        let mut b = shown(mode);
        give(&mut b, kind, wire[..10].iter().cloned());
        let attack = |n: u32| forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
        give(&mut b, kind, (0..500).map(attack));
        // The first 32 and the one that passes the limit; all others end
        // before the cryptography.
        assert_eq!(counts(&b), [10, 33, 467], "{mode:?}");
        assert!(b.process.ctx.published.is_limited(IN));
        assert_eq!(b.drops(IN, Reason::IcvLimited), 467);
        let source = b
            .process
            .ctx
            .published
            .tables
            .drops_of(&mapped([10, 9, 9, 9]));
        let at = Reason::IcvLimited.drop_index().unwrap();
        assert_eq!(source.unwrap()[at], 467);
        // XDP knows who the phone is, and all its packets arrive.
        let known = b.process.ctx.published.is_verified_source(
            IN,
            &mapped([10, 0, 0, 2]),
            if kind == META_UDP_ESP { 4500 } else { 0 },
        );
        assert_eq!(known, Some(true));
        give(&mut b, kind, wire[10..].iter().cloned());
        assert_eq!(counts(&b), [60, 33, 467], "{mode:?}");
        assert_eq!(b.process.ctx.limited(), 1);
        b.settle();
    }
}

#[test]
fn from_the_phones_own_address_only_numbers_near_the_window_are_tried() {
    let wire = sealed(SUITE, Mode::Trans, 60, 100);
    let mut b = shown(Mode::Trans);
    give(&mut b, META_ESP, wire[..10].iter().cloned());
    give(
        &mut b,
        META_ESP,
        (0..500).map(|n| forged(&wire[0], 100_000 + n, None)),
    );
    assert_eq!(counts(&b), [10, 33, 467]);
    // Near ones: a batch of them at once, then a few each millisecond, and none
    // of the phone's is lost while there are fewer.
    give(
        &mut b,
        META_ESP,
        (0..500).map(|n| forged(&wire[0], 500 + n, None)),
    );
    assert_eq!(counts(&b), [10, 97, 903]);
    // The phone's own is one of those that are not tried now.
    give(&mut b, META_ESP, [wire[10].clone()]);
    assert_eq!(counts(&b), [10, 97, 904]);
    b.settle();
}

#[test]
fn a_limit_ends_a_second_after_the_failures_and_xdp_hears_of_it() {
    let wire = sealed(SUITE, Mode::Trans, 60, 100);
    let mut b = shown(Mode::Trans);
    let attack = |n: u32| forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
    give(&mut b, META_ESP, (0..500).map(attack));
    // The batches are of the thousandth millisecond.
    b.process.expire(1999);
    assert!(b.process.has_to_expire());
    assert!(b.process.ctx.published.is_limited(IN));
    b.process.expire(2000);
    assert!(!b.process.ctx.published.is_limited(IN));
    assert_eq!(b.process.ctx.limited(), 0);
    assert!(!b.process.has_to_expire());
    b.settle();
}

#[test]
fn one_sources_bad_icvs_on_many_sas_limit_the_source() {
    let mut b = Bench::new(256);
    let wire = sealed(SUITE, Mode::Trans, 20, 100);
    for slot in 0..6 {
        let sa = super::sa(SUITE, Mode::Trans, true, SPI + slot);
        b.load(slot, gm_sadb::Dir::In, sa, &[]);
    }
    let thief = [10, 9, 9, 9];
    let attack = |slot: u32, n: u32| {
        let mut w = forged(&wire[0], 100 + n, Some(thief));
        w[34..38].copy_from_slice(&(SPI + slot).to_be_bytes());
        (w, meta(slot, META_ESP))
    };
    for n in 0..20 {
        for slot in 0..6 {
            let (w, m) = attack(slot, n);
            b.inbound(&[(w.as_slice(), m)]);
        }
    }
    // No SA has had more than its 32; the source has passed its 64.
    assert_eq!(b.process.ctx.limited(), 0);
    assert_eq!(b.count(Reason::BadIcv), 65);
    let tables = &b.process.ctx.published.tables;
    assert!(tables.is_limited(&mapped(thief)));
    assert!(!tables.is_limited(&mapped([10, 0, 0, 2])));
    // The phone is somebody else.
    let before = b.count(Reason::Ok);
    for w in &wire {
        b.inbound(&[(w.as_slice(), meta(0, META_ESP))]);
    }
    assert_eq!(b.count(Reason::Ok), before + 20);
    b.process.expire(2000);
    assert!(!b.process.ctx.published.tables.is_limited(&mapped(thief)));
    b.settle();
}

/// A phone may send as much at once as ever: a batch is tried before any of it
/// has verified.
#[test]
fn a_batch_of_the_phone_arrives_while_its_sa_is_limited() {
    let wire = sealed(SUITE, Mode::Trans, 180, 100);
    let mut b = shown(Mode::Trans);
    give(&mut b, META_ESP, wire[..10].iter().cloned());
    let attack = |n: u32| forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
    give(&mut b, META_ESP, (0..500).map(attack));
    for batch in wire[10..].chunks(64) {
        let m = meta(IN, META_ESP);
        let batch: Vec<_> = batch.iter().map(|w| (w.as_slice(), m)).collect();
        b.inbound(&batch);
    }
    assert_eq!(counts(&b), [180, 33, 467]);
    b.settle();
}

/// Otherwise a NAT with thousands of phones behind it stays limited for ever.
#[test]
fn a_worker_that_ends_leaves_no_source_limited() {
    let mut b = Bench::new(256);
    let wire = sealed(SUITE, Mode::Trans, 1, 100);
    for slot in 0..6 {
        let sa = super::sa(SUITE, Mode::Trans, true, SPI + slot);
        b.load(slot, gm_sadb::Dir::In, sa, &[]);
    }
    for n in 0..20 {
        for slot in 0..6u32 {
            let mut w = forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
            w[34..38].copy_from_slice(&(SPI + slot).to_be_bytes());
            b.inbound(&[(w.as_slice(), meta(slot, META_ESP))]);
        }
    }
    let published = b.process.ctx.published.clone();
    let limited = || published.tables.is_limited(&mapped([10, 9, 9, 9]));
    assert!(limited());
    drop(b);
    assert!(!limited());
}

#[test]
fn a_limit_goes_with_its_sa() {
    let wire = sealed(SUITE, Mode::Trans, 1, 100);
    let mut b = shown(Mode::Trans);
    let attack = |n: u32| forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
    give(&mut b, META_ESP, (0..100).map(attack));
    assert_eq!(b.process.ctx.limited(), 1);
    b.process.ctx.unload(IN);
    assert_eq!(b.process.ctx.limited(), 0);
    assert!(!b.process.ctx.published.is_limited(IN));
    // A bit that a worker has left that is no more.
    b.process.ctx.published.set_limited(IN, true);
    b.load(
        IN,
        gm_sadb::Dir::In,
        super::sa(SUITE, Mode::Trans, true, SPI),
        &[],
    );
    assert!(!b.process.ctx.published.is_limited(IN));
    b.settle();
}

#[test]
fn who_sends_a_packet_of_the_phone_from_elsewhere_does_not_become_the_phone() {
    let wire = sealed(SUITE, Mode::Trans, 40, 100);
    let mut b = shown(Mode::Trans);
    let mut stolen = wire[0].clone();
    stolen[14 + 12..14 + 16].copy_from_slice(&[10, 9, 9, 9]);
    give(&mut b, META_ESP, [stolen]);
    assert_eq!(b.count(Reason::SelectorMismatch), 1);
    let thief = mapped([10, 9, 9, 9]);
    let known = |b: &Bench, addr| b.process.ctx.published.is_verified_source(IN, addr, 0);
    assert_eq!(known(&b, &thief), Some(false));
    let attack = |n: u32| forged(&wire[0], 100 + n, Some([10, 9, 9, 9]));
    give(&mut b, META_ESP, (0..500).map(attack));
    give(&mut b, META_ESP, wire[1..].iter().cloned());
    assert_eq!(counts(&b), [39, 33, 467]);
    b.settle();
}
