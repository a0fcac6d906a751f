//! Tests of the parser: real layouts, every truncation, random bytes.

extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::ip::{DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING, SERVICE_VLAN, VLAN};
use super::*;
use crate::maps::mapped;

mod plain;

const SPI: u32 = 1_000_000_007;
const SEQ: u32 = 0x0102_0304;
const XDP: EncapPort = EncapPort::Dst(4500);

fn esp(payload: usize) -> Vec<u8> {
    let mut b = SPI.to_be_bytes().to_vec();
    b.extend(SEQ.to_be_bytes());
    b.resize(8 + payload, 0xa5);
    b
}

fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(sport.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend((8 + payload.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(payload);
    b
}

fn v4_frag(proto: u8, options: usize, place: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut b = vec![0x40 | (header / 4) as u8, 0];
    b.extend(((header + payload.len()) as u16).to_be_bytes());
    b.extend([0x12, 0x34]);
    b.extend(place.to_be_bytes());
    b.extend([64, proto, 0, 0, 198, 51, 100, 1, 203, 0, 113, 5]);
    b.resize(header, 1);
    b.extend(payload);
    b
}

fn v4(proto: u8, payload: &[u8]) -> Vec<u8> {
    v4_frag(proto, 0, 0x4000, payload)
}

fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut b = vec![0x60, 0, 0, 0];
    b.extend((payload.len() as u16).to_be_bytes());
    b.extend([next, 64]);
    b.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    b.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    b.extend(payload);
    b
}

/// An extension header of `8 + 8 * extra` bytes before `rest`.
fn extension(next: u8, extra: u8, rest: &[u8]) -> Vec<u8> {
    let mut b = vec![next, extra, 1, 4, 0, 0, 0, 0];
    b.resize(8 + 8 * usize::from(extra), 0);
    b.extend(rest);
    b
}

fn fragment(next: u8, place: u16, rest: &[u8]) -> Vec<u8> {
    let mut b = vec![next, 0];
    b.extend(place.to_be_bytes());
    b.extend([0xde, 0xad, 0xbe, 0xef]);
    b.extend(rest);
    b
}

fn frame(tags: &[u16], ip: &[u8]) -> Vec<u8> {
    let mut b = vec![2; 12];
    for tag in tags {
        b.extend(tag.to_be_bytes());
        b.extend([0, 100]);
    }
    b.extend(if ip[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    b.extend(ip);
    b
}

fn ip(b: &[u8]) -> IpPacket {
    match parse_ip(b, 0) {
        L3::Ip(ip) => ip,
        other => panic!("{other:?}"),
    }
}

fn class(b: &[u8]) -> Class {
    classify(b, &ip(b), XDP)
}

#[test]
fn raw_esp_in_both_versions() {
    assert_eq!(
        class(&v4(ESP, &esp(24))),
        Class::Esp {
            spi: SPI,
            seq: SEQ,
            esp: 20
        }
    );
    assert_eq!(
        class(&v6(ESP, &esp(24))),
        Class::Esp {
            spi: SPI,
            seq: SEQ,
            esp: 40
        }
    );
    let p = ip(&v4(ESP, &esp(24)));
    assert_eq!(p.src, mapped([198, 51, 100, 1]));
    assert_eq!(p.dst, mapped([203, 0, 113, 5]));
    let p = ip(&v6(ESP, &esp(24)));
    assert_eq!((p.src[15], p.dst[15], p.v6), (1, 2, true));
}

#[test]
fn ipv4_options_are_stepped_over() {
    for options in (0..=40).step_by(4) {
        let b = v4_frag(ESP, options, 0, &esp(24));
        assert_eq!(
            class(&b),
            Class::Esp {
                spi: SPI,
                seq: SEQ,
                esp: 20 + options
            }
        );
        let b = v4_frag(UDP, options, 0, &udp(4500, 4500, &esp(24)));
        assert_eq!(
            class(&b),
            Class::UdpEsp {
                spi: SPI,
                seq: SEQ,
                esp: 28 + options
            }
        );
    }
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let chain = extension(
        ROUTING,
        1,
        &extension(DESTINATION, 0, &extension(ESP, 2, &esp(24))),
    );
    let b = v6(HOP_BY_HOP, &chain);
    assert_eq!(
        class(&b),
        Class::Esp {
            spi: SPI,
            seq: SEQ,
            esp: 40 + 16 + 8 + 24
        }
    );
    let b = v6(HOP_BY_HOP, &extension(UDP, 0, &udp(1, 4500, &esp(24))));
    assert_eq!(
        class(&b),
        Class::UdpEsp {
            spi: SPI,
            seq: SEQ,
            esp: 56
        }
    );
}

#[test]
fn six_extension_headers_are_enough_seven_hide() {
    let mut rest = esp(24);
    let mut next = ESP;
    for n in 1..=8 {
        rest = extension(next, 0, &rest);
        next = DESTINATION;
        let b = v6(DESTINATION, &rest);
        assert_eq!(ip(&b).hidden, n > MAX_EXTENSIONS, "{n}");
        assert_eq!(matches!(class(&b), Class::Esp { .. }), n <= MAX_EXTENSIONS);
        assert_eq!(ip(&b).hides_ports(), n > MAX_EXTENSIONS);
    }
}

#[test]
fn a_chain_that_reaches_too_far_or_out_of_the_packet_hides() {
    let b = v6(DESTINATION, &extension(UDP, 100, &udp(1, 5060, b"x")));
    assert!(ip(&b).hidden);
    let mut b = v6(DESTINATION, &extension(UDP, 0, &udp(1, 5060, b"x")));
    b[41] = 9;
    assert!(ip(&b).hidden && ip(&b).ports.is_none());
    assert_eq!(class(&b), Class::Malformed { head: None });
}

#[test]
fn vlan_tags() {
    let inner = v4(ESP, &esp(24));
    for (tags, l3) in [(&[][..], 14), (&[VLAN], 18), (&[SERVICE_VLAN, VLAN], 22)] {
        let b = frame(tags, &inner);
        let L3::Ip(p) = parse_frame(&b[..]) else {
            panic!("{tags:?}")
        };
        assert_eq!(p.l3, l3);
        assert_eq!(
            classify(&b[..], &p, XDP),
            Class::Esp {
                spi: SPI,
                seq: SEQ,
                esp: l3 + 20
            }
        );
    }
    assert_eq!(parse_frame(&frame(&[VLAN; 3], &inner)[..]), L3::NotIp);
}

#[test]
fn ethertype_and_version_must_agree() {
    let mut b = frame(&[], &v4(ESP, &esp(24)));
    b[12] = 0x86;
    b[13] = 0xdd;
    assert_eq!(parse_frame(&b[..]), L3::Malformed);
    b[13] = 0x06;
    assert_eq!(parse_frame(&b[..]), L3::NotIp);
}

#[test]
fn padding_behind_the_packet_is_cut() {
    let mut b = v4(UDP, &udp(1, 4500, &[0xff]));
    b.resize(46, 0);
    assert_eq!(ip(&b).end, 29);
    assert_eq!(class(&b), Class::Keepalive);
}

#[test]
fn keepalive_marker_and_too_short() {
    let at = |payload: &[u8]| class(&v4(UDP, &udp(33333, 4500, payload)));
    assert_eq!(at(&[0xff]), Class::Keepalive);
    assert_eq!(at(&[0xfe]), Class::Malformed { head: None });
    assert_eq!(at(&[]), Class::Malformed { head: None });
    assert_eq!(at(&[0xff, 0xff]), Class::Malformed { head: None });
    assert_eq!(at(&[0; 3]), Class::Malformed { head: None });
    assert_eq!(at(&[0; 4]), Class::NonEspMarker);
    assert_eq!(at(&[0; 64]), Class::NonEspMarker);
    assert_eq!(
        at(&esp(11)),
        Class::Malformed {
            head: Some((SPI, SEQ))
        }
    );
    assert_eq!(
        at(&esp(12)),
        Class::UdpEsp {
            spi: SPI,
            seq: SEQ,
            esp: 28
        }
    );
    assert_eq!(
        class(&v4(ESP, &esp(11))),
        Class::Malformed {
            head: Some((SPI, SEQ))
        }
    );
    assert_eq!(
        class(&v4(ESP, &esp(12)[..7])),
        Class::Malformed { head: None }
    );
}

#[test]
fn the_encapsulation_port() {
    let to = v4(UDP, &udp(1, 4500, &esp(24)));
    let from = v4(UDP, &udp(4500, 1, &esp(24)));
    assert!(matches!(
        classify(&to[..], &ip(&to), XDP),
        Class::UdpEsp { .. }
    ));
    assert_eq!(classify(&from[..], &ip(&from), XDP), Class::Other);
    for b in [&to, &from] {
        assert!(matches!(
            classify(&b[..], &ip(b), EncapPort::Either(4500)),
            Class::UdpEsp { .. }
        ));
    }
    let zero = v4(UDP, &udp(1, 0, &esp(24)));
    assert_eq!(
        classify(&zero[..], &ip(&zero), EncapPort::Dst(0)),
        Class::Other
    );
}

#[test]
fn udp_lengths_that_contradict() {
    let mut b = v4(UDP, &udp(1, 4500, &esp(24)));
    for length in [0u16, 7, 41, 200, 0xffff] {
        b[24..26].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            class(&b),
            Class::Malformed {
                head: Some((SPI, SEQ))
            },
            "{length}"
        );
    }
    // Bytes behind the UDP length are trimmed.
    b[24..26].copy_from_slice(&39u16.to_be_bytes());
    assert!(matches!(class(&b), Class::UdpEsp { .. }));
    b[24..26].copy_from_slice(&9u16.to_be_bytes());
    b[28] = 0xff;
    assert_eq!(class(&b), Class::Keepalive);
}

#[test]
fn ip_lengths_that_contradict() {
    let mut b = v4(ESP, &esp(24));
    for length in [0u16, 53, 0xffff] {
        b[2..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(
            class(&b),
            Class::Malformed {
                head: Some((SPI, SEQ))
            },
            "{length}"
        );
    }
    b[2..4].copy_from_slice(&19u16.to_be_bytes());
    assert!(ip(&b).hidden);
    // Ports of other traffic are still read: a guard needs them.
    let mut b = v6(TCP, &udp(5060, 5061, b"a jumbogram"));
    b[4..6].copy_from_slice(&[0, 0]);
    assert_eq!(ip(&b).ports, Some((5060, 5061)));
    assert_eq!(class(&b), Class::Other);
}

#[test]
fn fragments() {
    let first = ip(&v4_frag(UDP, 0, 0x2000, &udp(5060, 4500, &esp(24))));
    assert_eq!(
        first.frag,
        Some(Frag {
            id: 0x1234,
            offset: 0,
            more: true
        })
    );
    assert_eq!(first.ports, Some((5060, 4500)));
    let later = v4_frag(UDP, 0, 185, &udp(5060, 4500, &esp(24)));
    assert_eq!(
        ip(&later).frag,
        Some(Frag {
            id: 0x1234,
            offset: 1480,
            more: false
        })
    );
    assert_eq!(ip(&later).ports, None);
    assert!(ip(&later).hides_ports());
    assert_eq!(class(&later), Class::Fragment);

    let b = v6(
        HOP_BY_HOP,
        &extension(FRAGMENT, 0, &fragment(UDP, 1, &udp(1, 2, b""))),
    );
    let p = ip(&b);
    assert_eq!(
        p.frag,
        Some(Frag {
            id: 0xdead_beef,
            offset: 0,
            more: true
        })
    );
    assert_eq!((p.l4, p.ports), (56, Some((1, 2))));
    // The payload of a later fragment is not a header, whatever it claims.
    let b = v6(FRAGMENT, &fragment(DESTINATION, 1448, &[0xff; 4]));
    let p = ip(&b);
    assert_eq!(
        p.frag,
        Some(Frag {
            id: 0xdead_beef,
            offset: 1448,
            more: false
        })
    );
    assert_eq!((p.l4, p.proto, p.hidden), (48, DESTINATION, false));
    // An atomic fragment is still one.
    let b = v6(FRAGMENT, &fragment(ESP, 0, &esp(24)));
    assert_eq!(class(&b), Class::Fragment);
    // A first fragment that hides its ports.
    let b = v6(FRAGMENT, &fragment(UDP, 1, &[0, 1]));
    assert!(ip(&b).hides_ports());
}

#[test]
fn every_truncation_is_safe_and_never_whole_esp() {
    let chain = extension(ROUTING, 1, &extension(UDP, 0, &udp(1, 4500, &esp(24))));
    for whole in [
        frame(&[], &v4(ESP, &esp(24))),
        frame(&[VLAN], &v4_frag(UDP, 8, 0, &udp(1, 4500, &esp(24)))),
        frame(&[SERVICE_VLAN, VLAN], &v6(HOP_BY_HOP, &chain)),
    ] {
        let L3::Ip(p) = parse_frame(&whole[..]) else {
            panic!()
        };
        assert!(matches!(
            classify(&whole[..], &p, XDP),
            Class::Esp { .. } | Class::UdpEsp { .. }
        ));
        for length in 0..whole.len() {
            let cut = &whole[..length];
            if let L3::Ip(p) = parse_frame(cut) {
                assert!(p.contradicts);
                let class = classify(cut, &p, XDP);
                assert!(
                    matches!(class, Class::Malformed { .. } | Class::Other),
                    "{length} {class:?}"
                );
                assert!(class != Class::Other || p.hides_ports());
            }
        }
    }
}

/// Random bytes that get past the first checks more often than noise does.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let next = prop::sample::select(vec![0u8, 6, 17, 43, 44, 50, 51, 58, 59, 60]);
    (
        prop::collection::vec(any::<u8>(), 0..160),
        0..4usize,
        0..8u8,
        next.clone(),
        next,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(mut b, tags, kind, proto, inner, honest, esp_port)| {
            let mut set = |at: usize, bytes: &[u8]| {
                for (i, byte) in bytes.iter().enumerate() {
                    if let Some(place) = b.get_mut(at + i) {
                        *place = *byte;
                    }
                }
            };
            for tag in 0..tags {
                set(12 + 4 * tag, &[0x81, 0]);
            }
            let l3 = 14 + 4 * tags;
            match kind {
                0..=2 => {
                    set(l3 - 2, &[8, 0, 0x45]);
                    set(l3 + 9, &[proto]);
                    if honest {
                        set(l3 + 6, &[0, 0]);
                    }
                    if esp_port {
                        set(l3 + 22, &[0x11, 0x94]);
                    }
                }
                3..=6 => {
                    set(l3 - 2, &[0x86, 0xdd, 0x60]);
                    set(l3 + 6, &[proto]);
                    set(l3 + 40, &[inner, 0]);
                    if esp_port {
                        set(l3 + 42, &[0x11, 0x94]);
                    }
                }
                _ => {}
            }
            if honest && b.len() > l3 + 40 {
                let v6 = kind > 2;
                let length = (b.len() - l3 - if v6 { 40 } else { 0 }) as u16;
                let at = l3 + if v6 { 4 } else { 2 };
                b[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            b
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn offsets_stay_in_bounds(b in noise()) {
        for l3 in [parse_frame(&b[..]), parse_ip(&b[..], 0), parse_ip(&b[..], 14)] {
            let L3::Ip(p) = l3 else { continue };
            prop_assert!(p.l3 + 20 <= b.len());
            prop_assert!(p.end <= b.len());
            prop_assert!(p.hidden || p.l4 <= p.end);
            prop_assert!(p.ports.is_none() || p.l4 + 4 <= p.end);
            for encap in [XDP, EncapPort::Either(4500)] {
                match classify(&b[..], &p, encap) {
                    Class::Esp { spi, seq, esp } | Class::UdpEsp { spi, seq, esp } => {
                        prop_assert!(esp >= p.l4 && esp + 20 <= p.end);
                        prop_assert_eq!(&b[esp..esp + 4], &spi.to_be_bytes()[..]);
                        prop_assert_eq!(&b[esp + 4..esp + 8], &seq.to_be_bytes()[..]);
                        prop_assert!(p.frag.is_none() && !p.contradicts);
                    }
                    Class::Fragment => prop_assert!(p.frag.is_some()),
                    Class::Keepalive | Class::NonEspMarker => prop_assert_eq!(p.proto, UDP),
                    Class::Malformed { .. } | Class::Other => {}
                }
            }
        }
    }

    #[test]
    fn what_is_behind_the_ip_length_does_not_matter(
        b in noise(),
        tail in prop::collection::vec(any::<u8>(), 1..32),
    ) {
        let L3::Ip(p) = parse_ip(&b[..], 0) else { return Ok(()) };
        if p.contradicts {
            return Ok(());
        }
        let mut longer = b[..p.end].to_vec();
        let class = classify(&b[..], &p, XDP);
        longer.extend(&tail);
        prop_assert_eq!(parse_ip(&longer[..], 0), L3::Ip(p));
        prop_assert_eq!(classify(&longer[..], &p, XDP), class);
    }
}
