//! Samples of what was dropped, from every program.

use gm_abi::maps::MODE_UDP_ENC_TUN;
use gm_abi::sample::*;
use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;

fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap()
}

/// The one sample that there is.
fn one(lab: &mut Lab) -> Sample {
    let samples = lab.samples();
    assert_eq!(samples.len(), 1, "{samples:?}");
    samples[0]
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_sample_tells_addresses_ports_spi_number_and_time() {
    let mut lab = Lab::new();
    lab.give_samples(100);
    let b = v6(UDP, &udp(33333, ENCAP_PORT, &esp(0x1234_5678, 77)));
    let before = now();
    lab.uplink(&b);
    let sample = one(&mut lab);
    assert!((before..=now()).contains(&sample.time));
    assert_eq!(
        Sample { time: 0, ..sample },
        Sample {
            time: 0,
            src: THEIRS_V6,
            dst: OURS_V6,
            spi: 0x1234_5678,
            seq: 77,
            ifindex: sample.ifindex,
            length: b.len() as u32,
            sport: 33333,
            dport: ENCAP_PORT,
            reason: Reason::UnknownSpi as u8,
            place: PLACE_UPLINK,
            proto: UDP,
            flags: SAMPLE_ESP | SAMPLE_PORTS,
        }
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn every_program_tells_what_it_drops() {
    let mut lab = Lab::new();
    lab.give_samples(100);
    lab.install(8, Sa::of_slot(8, 0, OURS_V4, MODE_UDP_ENC_TUN));
    let spi = gm_abi::maps::SPI_BASE + 8;
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let clear = v4(UDP, &udp(5060, PROTECTED, b"REGISTER"));
    let out = frame(OURS_V4, THEIRS_V4, UDP, 0, &udp(PROTECTED, 5060, b"x"));
    let short_udp = frame(OURS_V4, THEIRS_V4, UDP, 0, &[0x13]);
    let short_esp = v4(ESP, &esp(9, 4)[..19]);

    let told = |lab: &mut Lab, name: &str, b: &[u8]| {
        if name.starts_with("gm_xdp") {
            lab.xdp(name, b);
        } else {
            lab.tc(name, b, 0);
        }
        let s = one(lab);
        (
            s.reason().unwrap(),
            s.place,
            s.src,
            s.dst,
            s.esp(),
            s.ports(),
        )
    };
    use Reason::*;
    let none = [0; 16];
    assert_eq!(
        told(&mut lab, "gm_xdp_uplink", &v4(ESP, &esp(spi, 5))),
        (
            ModeMismatch,
            PLACE_UPLINK,
            THEIRS_V4,
            OURS_V4,
            Some((spi, 5)),
            None
        )
    );
    assert_eq!(
        told(&mut lab, "gm_xdp_uplink", &short_esp),
        (
            Malformed,
            PLACE_UPLINK,
            THEIRS_V4,
            OURS_V4,
            Some((9, 4)),
            None
        )
    );
    assert_eq!(
        told(&mut lab, "gm_tc_guard", &clear),
        (
            CleartextProtected,
            PLACE_GUARD,
            THEIRS_V4,
            OURS_V4,
            None,
            Some((5060, PROTECTED))
        )
    );
    assert_eq!(
        told(&mut lab, "gm_tc_guard", &v4(ESP, &esp(7, 6))),
        (
            UnknownSpi,
            PLACE_GUARD,
            THEIRS_V4,
            OURS_V4,
            Some((7, 6)),
            None
        )
    );
    assert_eq!(
        told(&mut lab, "gm_tc_egress", &short_udp),
        (OutMalformed, PLACE_EGRESS, OURS_V4, THEIRS_V4, None, None)
    );
    assert_eq!(
        told(&mut lab, "gm_xdp_gm0x", &arp),
        (OutMalformed, PLACE_GM0X, none, none, None, None)
    );
    assert_eq!(
        told(&mut lab, "gm_tc_gm0", &arp),
        (Malformed, PLACE_GM0, none, none, None, None)
    );
    lab.set_socket(false);
    assert_eq!(
        told(&mut lab, "gm_xdp_gm0x", &out),
        (
            NoWorker,
            PLACE_GM0X,
            OURS_V4,
            THEIRS_V4,
            None,
            Some((PROTECTED, 5060))
        )
    );
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn what_is_not_dropped_is_not_told() {
    let mut lab = Lab::new();
    lab.give_samples(100);
    for frame in [
        v4(UDP, &udp(1, 5060, b"x")),
        frame(THEIRS_V4, OURS_V4, UDP, 185, b"abc"),
        frame(THEIRS_V4, THEIRS_V4, ESP, 0, &esp(1, 1)),
    ] {
        lab.uplink(&frame);
    }
    assert_eq!(lab.samples(), []);
    assert_eq!(lab.word("SAMPLE_TOKENS", 0), 100);
    assert_eq!(lab.dropped_for(&THEIRS_V4), []);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_tokens_there_are_no_samples() {
    let mut lab = Lab::new();
    let stray = v4(ESP, &esp(1, 1));
    let clear = v4(UDP, &udp(1, PROTECTED, b"x"));
    lab.uplink(&stray);
    assert_eq!(lab.samples(), [], "nobody has asked");

    let at = Reason::UnknownSpi as u32;
    lab.set_word("SAMPLE_TOKENS", at, 3);
    lab.set_word("SAMPLE_TOKENS", Reason::CleartextProtected as u32, 1);
    for _ in 0..10 {
        lab.uplink(&stray);
        lab.uplink(&clear);
    }
    let samples = lab.samples();
    let of = |reason: Reason| {
        let of = |s: &&Sample| s.reason() == Some(reason);
        samples.iter().filter(of).count()
    };
    assert_eq!(
        (of(Reason::UnknownSpi), of(Reason::CleartextProtected)),
        (3, 1)
    );
    assert_eq!(lab.word("SAMPLE_TOKENS", at), 0);
    // Two CPUs took the last one at once.
    lab.set_word("SAMPLE_TOKENS", at, u64::MAX);
    lab.uplink(&stray);
    assert_eq!(lab.samples(), []);
    // All drops are counted nevertheless.
    assert_eq!(lab.counters()[Reason::UnknownSpi.index()], 12);
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn a_ring_buffer_that_nobody_reads_fills_and_nothing_else_happens() {
    const DROPS: usize = 5000;
    let mut lab = Lab::new();
    lab.give_samples(1 << 32);
    let stray = v4(ESP, &esp(1, 1));
    for _ in 0..DROPS {
        assert_eq!(lab.xdp_quietly("gm_xdp_uplink", &stray).0, XDP_DROP);
    }
    // 64 bytes and a header of eight each.
    let room = SAMPLES_BYTES as usize / 72;
    assert!(room < DROPS);
    assert_eq!(lab.samples().len(), room);
    assert_eq!(lab.counters()[Reason::UnknownSpi.index()], DROPS as u64);
    assert_eq!(
        lab.dropped_for(&THEIRS_V4),
        [(Reason::UnknownSpi, DROPS as u64)]
    );
    lab.uplink(&stray);
    assert_eq!(lab.samples().len(), 1, "it goes on");
}
