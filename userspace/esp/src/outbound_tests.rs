//! What sealed packets look like, and what is not sealed.

#[path = "outbound_tests/padding.rs"]
mod padding;
#[path = "outbound_tests/rfc3602.rs"]
mod rfc3602;

use std::net::IpAddr;
use std::sync::atomic::Ordering;

use gm_abi::wire::{TCP, UDP};

use super::*;
use crate::testing::{Link, PHONE_PORT, Plain, SPI, ends, ip, outer_ends, spec};
use crate::{Ck, EspKeys, Ik, Mode, Suite};

/// The cleartext of a packet that no cipher has touched.
fn null(mode: Mode, v6: bool) -> Link {
    Link::new(Suite::HmacSha1Null, mode, v6)
}

fn checksum_holds(ip: &[u8]) -> bool {
    let header = usize::from(ip[0] & 15) * 4;
    headers::fold(headers::sum(&ip[..header], 0)) == 0xffff
}

#[test]
fn transport_mode_over_ipv4() {
    let mut link = null(Mode::Trans, false);
    let mut plain = Plain::udp(false, 5);
    plain.options = vec![0x94, 4, 0, 0];
    let plain = plain.bytes();
    let sealed = link.seal(&plain).unwrap();
    // Header and options, ESP header, UDP header and payload, 1 2 3, trailer, ICV.
    assert_eq!(sealed.len(), 24 + 8 + 13 + 1 + 2 + 12);
    assert!(checksum_holds(&sealed));
    assert_eq!(
        usize::from(sealed[2]) << 8 | usize::from(sealed[3]),
        sealed.len()
    );
    assert_eq!(sealed[9], ESP);
    assert_eq!(
        (sealed[1], sealed[8]),
        (plain[1], plain[8]),
        "DSCP and TTL stay"
    );
    assert_eq!(sealed[12..24], plain[12..24]);
    assert_eq!(sealed[24..28], SPI.to_be_bytes());
    assert_eq!(sealed[28..32], [0, 0, 0, 1]);
    assert_eq!(sealed[32..45], plain[24..]);
    assert_eq!(sealed[45..48], [1, 1, UDP]);
}

#[test]
fn transport_mode_over_ipv6_goes_behind_what_routers_read() {
    let mut link = null(Mode::Trans, true);
    let mut plain = Plain::udp(true, 3);
    // Hop-by-hop, destination options for the way, routing, destination options.
    plain.extensions = vec![(0, 8), (60, 16), (43, 24), (60, 8)];
    let plain = plain.bytes();
    let sealed = link.seal(&plain).unwrap();
    let esp = 40 + 8 + 16 + 24;
    assert_eq!(sealed[6], 0);
    assert_eq!((sealed[40], sealed[48], sealed[64]), (60, 43, ESP));
    assert_eq!(sealed[esp..esp + 4], SPI.to_be_bytes());
    // The last destination options are protected.
    assert_eq!(sealed[esp + 8..esp + 8 + 8 + 8 + 3], plain[esp..]);
    assert_eq!(sealed[sealed.len() - 13], 60);
    let length = usize::from(sealed[4]) << 8 | usize::from(sealed[5]);
    assert_eq!(length, sealed.len() - 40);
    assert_eq!(link.open(&sealed), Ok(plain));
}

#[test]
fn destination_options_alone_are_protected() {
    let mut link = null(Mode::Trans, true);
    let mut plain = Plain::udp(true, 3);
    plain.extensions = vec![(60, 16)];
    let plain = plain.bytes();
    let sealed = link.seal(&plain).unwrap();
    assert_eq!(sealed[6], ESP);
    assert_eq!(link.open(&sealed), Ok(plain));
}

#[test]
fn udp_tunnel_over_ipv4() {
    let mut link = null(Mode::UdpEncTun, false);
    let plain = Plain::udp(false, 0).bytes();
    let sealed = link.seal(&plain).unwrap();
    assert!(checksum_holds(&sealed));
    assert_eq!(sealed[..2], [0x45, plain[1] & 0xfc]);
    assert_eq!(sealed[6..10], [0, 0, 64, UDP], "may be fragmented, TTL 64");
    let (IpAddr::V4(src), IpAddr::V4(dst)) = outer_ends(false) else {
        panic!()
    };
    assert_eq!(sealed[12..16], src.octets());
    assert_eq!(sealed[16..20], dst.octets());
    assert_eq!(sealed[20..22], PHONE_PORT.to_be_bytes());
    assert_eq!(sealed[22..24], 4500_u16.to_be_bytes());
    assert_eq!(
        usize::from(sealed[24]) << 8 | usize::from(sealed[25]),
        sealed.len() - 20
    );
    assert_eq!(sealed[26..28], [0, 0]);
    assert_eq!(sealed[28..32], SPI.to_be_bytes());
    assert_eq!(sealed[36..64], plain[..]);
    assert_eq!(sealed[64..68], [1, 2, 2, 4]);
}

#[test]
fn udp_tunnel_over_ipv6_has_a_checksum() {
    for payload in [3, 4] {
        let mut link = null(Mode::UdpEncTun, true);
        let plain = Plain::udp(true, payload).bytes();
        let sealed = link.seal(&plain).unwrap();
        assert_eq!(sealed[6..8], [UDP, 64]);
        assert_eq!(sealed[0] << 4 | sealed[1] >> 4, 0xb8, "DSCP, no ECN");
        let pseudo = headers::sum(&sealed[8..40], sealed.len() as u64 - 40 + 17);
        assert_eq!(headers::fold(headers::sum(&sealed[40..], pseudo)), 0xffff);
        assert_ne!(sealed[46..48], [0, 0]);
        assert_eq!(link.open(&sealed), Ok(plain));
    }
}

#[test]
fn the_iv_of_gcm_and_gmac_is_spi_and_number_and_never_twice() {
    for suite in [Suite::NullAesGcm, Suite::AesGmacNull] {
        let mut link = Link::new(suite, Mode::Trans, false);
        link.sent.store(0x0102_0303, Ordering::Relaxed);
        for number in 0x0102_0304..0x0102_0310_u32 {
            let sealed = link.sealed(30);
            assert_eq!(sealed[20..24], SPI.to_be_bytes());
            assert_eq!(sealed[24..28], number.to_be_bytes());
            assert_eq!(sealed[28..36], sealed[20..28]);
        }
    }
}

#[test]
fn the_iv_of_cbc_comes_from_the_source() {
    struct Counting(u8);
    impl IvSource for Counting {
        fn fill(&mut self, iv: &mut [u8; 16]) {
            self.0 += 1;
            *iv = [self.0; 16];
        }
    }
    for (suite, len) in [
        (Suite::HmacSha1AesCbc, 16),
        (Suite::HmacMd5AesCbc, 16),
        (Suite::HmacMd5DesEde3Cbc, 8),
        (Suite::HmacSha1DesEde3Cbc, 8),
        (Suite::NullAesGcm, 0),
        (Suite::HmacMd5Null, 0),
    ] {
        let link = Link::new(suite, Mode::Trans, false);
        let mut buffer = vec![0; 200];
        buffer[80..80 + 36].copy_from_slice(&Plain::udp(false, 8).bytes());
        let packet = PacketBuf::new(&mut buffer, 80, 80 + 36);
        let mut source = Counting(0x40);
        let selected = Selected::new(packet, &link.sa).unwrap();
        let numbered = selected
            .number(&Counter(&link.sent), EncapPorts::default(), &mut source)
            .unwrap();
        assert_eq!(source.0, 0x40 + u8::from(len > 0));
        let sealed = seal_one(gm_engines::reference(), numbered).unwrap();
        assert_eq!(sealed.packet().data()[28..28 + len], [0x41; 16][..len]);
        assert_ne!(sealed.packet().data()[28 + len], 0x41);
    }
}

#[test]
fn numbers_stop_before_they_repeat() {
    for mut link in Link::all() {
        let v6 = link.v6();
        link.sent.store(0xffff_fffd, Ordering::Relaxed);
        let plain = Plain::udp(v6, 10).bytes();
        for low in [0xfe, 0xff] {
            let sealed = link.seal(&plain).unwrap();
            let at = link.esp_at() + 4;
            assert_eq!(sealed[at..at + 4], [0xff, 0xff, 0xff, low]);
        }
        for _ in 0..3 {
            assert_eq!(link.seal(&plain), Err(Reason::OutSeqExhausted));
        }
        assert_eq!(link.sent.load(Ordering::Relaxed), 0xffff_ffff);
    }
}

#[test]
fn esn_goes_on_where_no_nonce_hangs_on_it() {
    for suite in Suite::every() {
        let mut spec = spec(suite, Mode::Trans, false);
        spec.esn = true;
        let mut link = Link::of(spec);
        link.sent.store(0xffff_fffe, Ordering::Relaxed);
        let plain = Plain::udp(false, 100).bytes();
        let last = link.seal(&plain).unwrap();
        assert_eq!(link.open(&last), Ok(plain.clone()));
        let next = link.seal(&plain);
        if suite.transform().has_salt() {
            assert_eq!(next, Err(Reason::OutSeqExhausted), "{suite}");
        } else {
            let next = next.unwrap();
            assert_eq!(next[24..28], [0; 4]);
            assert_eq!(link.open(&next), Ok(plain.clone()));
            assert_eq!(link.window.window().top(), 1 << 32);
            assert_eq!(link.open(&next), Err(Reason::Replay));
            assert_eq!(link.open(&last), Err(Reason::Replay));
        }
    }
}

#[test]
fn an_unknown_port_costs_no_number_and_a_learnt_one_wins() {
    let mut spec = spec(Suite::NullAesGcm, Mode::UdpEncTun, false);
    if let Some(outer) = &mut spec.outer {
        outer.dport = None;
        outer.sport = None;
    }
    let mut link = Link::of(spec);
    let plain = Plain::udp(false, 10).bytes();
    assert_eq!(link.seal(&plain), Err(Reason::OutNoEncapPort));
    assert_eq!(link.sent.load(Ordering::Relaxed), 0);

    let mut buffer = vec![0; 300];
    buffer[100..100 + plain.len()].copy_from_slice(&plain);
    let packet = PacketBuf::new(&mut buffer, 100, 100 + plain.len());
    let ports = EncapPorts {
        sport: None,
        dport: Some(6543),
    };
    let mut iv = crate::BufferedIv::new(|_: &mut [u8]| panic!("GCM draws none"));
    let numbered = Selected::new(packet, &link.sa)
        .unwrap()
        .number(&Counter(&link.sent), ports, &mut iv)
        .unwrap();
    let sealed = seal_one(gm_engines::reference(), numbered).unwrap();
    let data = sealed.into_packet();
    assert_eq!(data.data()[20..22], 4500_u16.to_be_bytes());
    assert_eq!(data.data()[22..24], 6543_u16.to_be_bytes());
}

#[test]
fn only_the_sas_whole_packets_are_sealed() {
    for mut link in Link::all() {
        let v6 = link.v6();
        let good = Plain::udp(v6, 20);
        let stranger = Plain {
            ports: (5060, 5063),
            ..good.clone()
        };
        assert_eq!(link.seal(&stranger.bytes()), Err(Reason::OutNoSa));
        let sctp = Plain {
            proto: 132,
            ..good.clone()
        };
        assert_eq!(link.seal(&sctp.bytes()), Err(Reason::OutNoSa));
        let good = good.bytes();
        for len in 0..good.len() {
            assert_eq!(link.seal(&good[..len]), Err(Reason::OutMalformed));
        }
        let mut fragment = good.clone();
        if !v6 {
            fragment[6] = 0x20;
            assert_eq!(link.seal(&fragment), Err(Reason::OutMalformed));
        }
        assert_eq!(link.sent.load(Ordering::Relaxed), 0);
        // Ethernet padding is cut.
        let padded = [&good[..], &[0xee; 9]].concat();
        let sealed = link.seal(&padded).unwrap();
        assert_eq!(link.open(&sealed), Ok(good));
    }
}

/// Found by fuzzing: ports are enough for the selectors, and the peer drops what
/// has no more than those.
#[test]
fn headers_that_are_cut_off_are_not_sealed() {
    for (proto, least) in [(UDP, 8), (TCP, 20)] {
        let mut link = Link::new(Suite::NullAesGcm, Mode::Trans, false);
        let mut plain = Plain::udp(false, 0);
        plain.proto = proto;
        let whole = plain.bytes();
        let of = |len: usize| ip(&plain, &whole[20..20 + len]);
        assert_eq!(link.seal(&of(least - 1)), Err(Reason::OutMalformed));
        let sealed = link.seal(&of(least)).unwrap();
        assert!(link.open(&sealed).is_ok());
    }
}

#[test]
fn what_outgrows_ip_or_its_buffer_is_refused() {
    for mut link in Link::all() {
        let v6 = link.v6();
        let (mut longest, mut payload) = (0, 65_300);
        for step in [128, 64, 32, 16, 8, 4, 2, 1] {
            match link.seal(&Plain::udp(v6, payload + step).bytes()) {
                Ok(sealed) => {
                    longest = sealed.len();
                    payload += step;
                }
                Err(reason) => assert_eq!(reason, Reason::OutTooBig),
            }
        }
        let limit = 65_535 + if v6 { 40 } else { 0 };
        assert!(
            (limit - 16..=limit).contains(&longest),
            "{} {longest}",
            link.name()
        );
    }
    let link = Link::new(Suite::HmacSha1AesCbc, Mode::UdpEncTun, true);
    let plain = Plain::udp(true, 10).bytes();
    let mut buffer = vec![0; 300];
    let end = 72 + plain.len();
    buffer[72..end].copy_from_slice(&plain);
    assert!(Selected::new(PacketBuf::new(&mut buffer, 72, end), &link.sa).is_ok());
    let back = end + (58_usize + 2).next_multiple_of(16) - 58 + 12;
    assert!(Selected::new(PacketBuf::new(&mut buffer[..back], 72, end), &link.sa).is_ok());
    let short = PacketBuf::new(&mut buffer[..back - 1], 72, end);
    assert_eq!(
        Selected::new(short, &link.sa).err(),
        Some(Reason::OutTooBig)
    );
    let short = PacketBuf::new(&mut buffer[1..], 71, end - 1);
    assert_eq!(
        Selected::new(short, &link.sa).err(),
        Some(Reason::OutTooBig)
    );
}

#[test]
fn specifications_that_are_no_sa_are_refused() {
    use crate::SaError;
    let keys = |suite| EspKeys::expand(suite, &Ik::from_bytes([1; 16]), &Ck::from_bytes([2; 16]));
    let good = spec(Suite::NullAesGcm, Mode::UdpEncTun, false);
    let refused = |change: fn(&mut crate::SaSpec)| {
        let mut spec = good;
        change(&mut spec);
        Sa::new(spec, &keys(Suite::NullAesGcm)).err()
    };
    assert_eq!(refused(|_| ()), None);
    assert_eq!(refused(|s| s.spi = 255), Some(SaError::ReservedSpi(255)));
    assert_eq!(refused(|s| s.spi = 256), None);
    assert_eq!(refused(|s| s.outer = None), Some(SaError::OuterMissing));
    assert_eq!(refused(|s| s.mode = Mode::Trans), Some(SaError::OuterGiven));
    assert_eq!(
        refused(|s| s.replay_window = 31),
        Some(SaError::ReplayWindow(31))
    );
    assert_eq!(
        refused(|s| s.selector.src = ends(true).0),
        Some(SaError::Families)
    );
    assert_eq!(
        refused(|s| s.outer = s.outer.map(|o| crate::Outer {
            src: ends(true).0,
            ..o
        })),
        Some(SaError::OuterFamilies)
    );
    assert!(matches!(
        refused(|s| s.suite = Suite::AesGmacNull),
        Some(SaError::Suite { .. })
    ));
}

#[test]
fn tcp_is_sealed_as_udp_is() {
    for mut link in Link::all() {
        let mut plain = Plain::udp(link.v6(), 77);
        plain.proto = TCP;
        let sealed = link.seal(&plain.bytes()).unwrap();
        assert_eq!(link.open(&sealed), Ok(plain.bytes()));
    }
}
