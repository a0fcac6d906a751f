extern crate std;

use std::vec::Vec;

use super::super::{L3, parse_ip};
use super::*;
use proptest::prelude::*;

const OURS: [u8; 4] = [203, 0, 113, 5];
const THEIRS: [u8; 4] = [198, 51, 100, 1];
const OURS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
const THEIRS_V6: Addr = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const PROTECTED: u16 = 5104;

fn v4(src: [u8; 4], dst: [u8; 4], proto: u8, place: u16, options: usize, body: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let mut b = Vec::from([0x40 | (header / 4) as u8, 0]);
    b.extend(((header + body.len()) as u16).to_be_bytes());
    b.extend([0x12, 0x34]);
    b.extend(place.to_be_bytes());
    b.extend([64, proto, 0, 0]);
    b.extend(src);
    b.extend(dst);
    b.resize(header, 1);
    b.extend(body);
    b
}

fn v6(src: Addr, dst: Addr, next: u8, body: &[u8]) -> Vec<u8> {
    let mut b = Vec::from([0x60, 0, 0, 0]);
    b.extend((body.len() as u16).to_be_bytes());
    b.extend([next, 64]);
    b.extend(src);
    b.extend(dst);
    b.extend(body);
    b
}

fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::from(sport.to_be_bytes());
    b.extend(dport.to_be_bytes());
    b.extend([0, 0, 0, 0]);
    b.extend(payload);
    b
}

fn error_v4(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let body = [&[kind, 4, 0, 0, 0, 0, 5, 0x78], quoted].concat();
    v4(THEIRS, OURS, ICMP, 0, 0, &body)
}

fn error_v6(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let body = [&[kind, 0, 0, 0, 0, 0, 5, 0], quoted].concat();
    v6(THEIRS_V6, OURS_V6, ICMPV6, &body)
}

/// `None`: no ICMP error, or no header is quoted.
fn read(packet: &[u8]) -> Option<Quoted> {
    let L3::Ip(ip) = parse_ip(packet, 0) else {
        return None;
    };
    let mut quoted = Quoted::EMPTY;
    (is_icmp_error(packet, &ip) && read_quoted(packet, &ip, &mut quoted)).then_some(quoted)
}

fn judge(packet: &[u8]) -> Option<About> {
    let quoted = read(packet)?;
    let ours = |a: &Addr| *a == mapped(OURS) || *a == OURS_V6;
    Some(about(packet, &quoted, 4500, ours, |port| port == PROTECTED))
}

#[test]
fn errors_and_nothing_else() {
    let quoted = v4(OURS, THEIRS, ESP, 0, 0, &[1; 8]);
    for kind in 0..=255 {
        let known = matches!(kind, 3 | 4 | 5 | 11 | 12);
        assert_eq!(read(&error_v4(kind, &quoted)).is_some(), known, "{kind}");
    }
    let quoted = v6(OURS_V6, THEIRS_V6, ESP, &[1; 8]);
    for kind in 0..=255 {
        assert_eq!(read(&error_v6(kind, &quoted)).is_some(), kind < 128);
    }
    // The other family's number, a later fragment, nothing at all.
    assert_eq!(read(&v4(THEIRS, OURS, ICMPV6, 0, 0, &[3; 40])), None);
    assert_eq!(read(&v4(THEIRS, OURS, ICMP, 2, 0, &[3; 40])), None);
    assert_eq!(read(&v4(THEIRS, OURS, ICMP, 0, 0, &[])), None);
}

#[test]
fn the_quoted_header_is_read_with_its_options() {
    for options in [0, 4, 40] {
        let quoted = v4(OURS, THEIRS, UDP, 0x4000, options, &udp(5104, 5060, b""));
        let packet = error_v4(3, &quoted);
        let q = read(&packet).unwrap();
        assert_eq!((q.src, q.dst), (mapped(OURS), mapped(THEIRS)));
        assert_eq!((q.proto, q.l4), (UDP, 28 + 20 + options));
        assert!(!q.later && !q.hidden);
        assert_eq!(q.ports(&packet[..]), Some((5104, 5060)));
    }
    let later = v4(OURS, THEIRS, UDP, 0x2001, 0, &udp(5104, 5060, b""));
    let packet = error_v4(11, &later);
    assert!(read(&packet).unwrap().later);
    assert_eq!(read(&packet).unwrap().ports(&packet[..]), None);
}

#[test]
fn one_ipv6_fragment_header_is_stepped_over() {
    let esp = [[1; 8], [2; 8]].concat();
    let cut = |place: u16, next: u8, body: &[u8]| {
        let mut head = Vec::from([next, 0]);
        head.extend(place.to_be_bytes());
        head.extend([0xde, 0xad, 0xbe, 0xef]);
        head.extend(body);
        error_v6(2, &v6(OURS_V6, THEIRS_V6, FRAGMENT, &head))
    };
    let q = read(&cut(1, ESP, &esp)).unwrap();
    assert_eq!(
        (q.proto, q.l4, q.later, q.hidden),
        (ESP, 48 + 48, false, false)
    );
    assert!(read(&cut(8 | 1, ESP, &esp)).unwrap().later);
    assert!(
        read(&cut(1, 60, &esp)).unwrap().hidden,
        "an option behind it"
    );
    assert!(
        read(&cut(1, FRAGMENT, &esp)).unwrap().hidden,
        "a second one"
    );
    let q = read(&error_v6(2, &v6(OURS_V6, THEIRS_V6, 0, &esp))).unwrap();
    assert!(q.hidden);
}

#[test]
fn whose_packet_it_was() {
    use About::*;
    let of = |src, proto, body: &[u8]| error_v4(3, &v4(src, THEIRS, proto, 0, 0, body));
    let six = |proto, body: &[u8]| error_v6(1, &v6(OURS_V6, THEIRS_V6, proto, body));
    let in_udp = |payload: &[u8]| udp(4500, 33333, payload);
    for (name, packet, expected) in [
        ("ESP", of(OURS, ESP, &[1; 8]), Esp),
        ("ESP, nothing of it", of(OURS, ESP, &[]), Esp),
        ("IPv6 ESP", six(ESP, &[1; 8]), Esp),
        ("ESP of others", of(THEIRS, ESP, &[1; 8]), Other),
        ("ESP in UDP", of(OURS, UDP, &in_udp(&[1; 8])), Esp),
        ("ESP in UDP, eight bytes", of(OURS, UDP, &in_udp(&[])), Esp),
        ("IPv6 ESP in UDP", six(UDP, &in_udp(&[1; 8])), Esp),
        ("IKE", of(OURS, UDP, &in_udp(&[0; 8])), Other),
        ("towards 4500", of(OURS, UDP, &udp(9, 4500, &[1; 8])), Other),
        (
            "protected UDP",
            of(OURS, UDP, &udp(5104, 1, b"x")),
            Protected,
        ),
        (
            "protected TCP",
            of(OURS, TCP, &udp(5104, 1, b"x")),
            Protected,
        ),
        ("IPv6 TCP", six(TCP, &udp(5104, 1, b"x")), Protected),
        ("towards it", of(OURS, UDP, &udp(1, 5104, b"x")), Other),
        ("of others", of(THEIRS, UDP, &udp(5104, 1, b"x")), Other),
        ("ports cut off", of(OURS, UDP, &[19]), Protected),
        ("IPv6 options", six(60, &udp(1, 1, b"x")), Protected),
        ("ICMP", of(OURS, ICMP, &[8; 8]), Other),
    ] {
        assert_eq!(judge(&packet), Some(expected), "{name}");
    }
    let later = v4(OURS, THEIRS, UDP, 0x2001, 0, &udp(5104, 1, b"x"));
    assert_eq!(
        judge(&error_v4(11, &later)),
        Some(Protected),
        "as the kernel"
    );
    assert_eq!(judge(&error_v4(3, &later[..19])), None, "no whole header");
}

proptest! {
    #[test]
    fn any_bytes_behind_an_error(body in prop::collection::vec(any::<u8>(), 0..120), six in any::<bool>()) {
        let packet = if six { error_v6(1, &body) } else { error_v4(3, &body) };
        if let Some(q) = read(&packet) {
            prop_assert!(q.l4 >= 28 && q.l4 <= 48 + 60);
            let _ = judge(&packet);
        }
    }
}
