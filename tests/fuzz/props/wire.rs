//! The parser that BPF and user space share: what it says of a frame is in the
//! frame, its entrances agree, and a frame that is cut off never looks better.

use gm_abi::maps::{Addr, mapped};
use gm_abi::wire::{
    Class, ESP, EncapPort, IpPacket, L3, TCP, UDP, classify, is_extension, parse_frame, parse_ip,
};

const PORT: u16 = 4500;
const DST: EncapPort = EncapPort::Dst(PORT);
const EITHER: EncapPort = EncapPort::Either(PORT);
/// Up to here every truncation is tried.
const SHORT: usize = 160;

/// The first two bytes say where to cut, the rest is the frame.
pub fn check(data: &[u8]) {
    let Some((cut, frame)) = data.split_at_checked(2) else {
        return;
    };
    // Without a link layer too: a datagram that was put together, an inner packet.
    for l3 in [parse_ip(frame, 0), parse_frame(frame)] {
        let L3::Ip(ip) = l3 else { continue };
        inside(frame, &ip);
        kind(frame, &ip);
        behind_the_end(frame, &ip);
    }
    entrances(frame);
    let cut = usize::from(u16::from_be_bytes([cut[0], cut[1]])) % (frame.len() + 1);
    truncated(frame, cut);
    if frame.len() <= SHORT {
        (0..frame.len()).for_each(|cut| truncated(frame, cut));
    }
}

fn be16(b: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([b[at], b[at + 1]]))
}

/// Offsets lie in the frame, and numbers are what stands there.
fn inside(b: &[u8], ip: &IpPacket) {
    let header = if ip.v6 { 40 } else { 20 };
    assert!(ip.l3 + header <= b.len() && ip.end <= b.len());
    assert!(ip.l4 >= ip.l3 + header);
    assert!(ip.hidden || ip.l4 <= ip.end);
    let (src, dst, promised): (Addr, Addr, usize) = match ip.v6 {
        true => (
            b[ip.l3 + 8..ip.l3 + 24].try_into().unwrap(),
            b[ip.l3 + 24..ip.l3 + 40].try_into().unwrap(),
            match be16(b, ip.l3 + 4) {
                0 => 0,
                n => n + 40,
            },
        ),
        false => (
            mapped(b[ip.l3 + 12..ip.l3 + 16].try_into().unwrap()),
            mapped(b[ip.l3 + 16..ip.l3 + 20].try_into().unwrap()),
            be16(b, ip.l3 + 2),
        ),
    };
    assert_eq!((ip.src, ip.dst), (src, dst));
    let short = promised == 0 || ip.l3 + promised > b.len();
    assert_eq!(ip.end, if short { b.len() } else { ip.l3 + promised });
    assert!(ip.contradicts || !short, "a length that is not there");
    assert!(ip.v6 || ip.contradicts == (short || ip.l4 > ip.end));
    if ip.v6 {
        chain(b, ip);
    } else {
        assert_eq!(ip.l4, ip.l3 + usize::from(b[ip.l3] & 15) * 4);
        assert_eq!(ip.proto, b[ip.l3 + 9]);
        let place = be16(b, ip.l3 + 6);
        assert_eq!(ip.frag.is_some(), place & 0x3fff != 0);
        if let Some(frag) = ip.frag {
            assert_eq!(frag.offset, place % 0x2000 * 8);
            assert_eq!(frag.more, place & 0x2000 != 0);
            assert_eq!(frag.id as usize, be16(b, ip.l3 + 4));
        }
    }
    let shown = !ip.hidden && !ip.is_later_fragment() && matches!(ip.proto, TCP | UDP);
    assert_eq!(ip.ports.is_some(), shown && ip.l4 + 4 <= ip.end);
    if let Some((sport, dport)) = ip.ports {
        assert_eq!(usize::from(sport), be16(b, ip.l4));
        assert_eq!(usize::from(dport), be16(b, ip.l4 + 2));
        assert!(!ip.hides_ports());
    } else {
        assert!(ip.hides_ports() == (ip.hidden || matches!(ip.proto, TCP | UDP)));
    }
}

/// The chain of extension headers, walked by recursion over what is left.
fn chain(b: &[u8], ip: &IpPacket) {
    /// What a chain ends with: protocol and bytes walked, or nothing.
    fn end(next: u8, rest: &[u8], left: usize) -> Option<(u8, usize)> {
        if !is_extension(next) {
            return Some((next, 0));
        }
        let head = rest.get(..8).filter(|_| left > 0)?;
        let later = next == 44 && be16(head, 2) & 0xfff8 != 0;
        let len = if next == 44 {
            8
        } else {
            8 + 8 * usize::from(head[1])
        };
        if later {
            return Some((head[0], len));
        }
        let (proto, more) = end(head[0], rest.get(len..)?, left - 1)?;
        Some((proto, len + more))
    }
    let walked = end(b[ip.l3 + 6], b.get(ip.l3 + 40..ip.end).unwrap_or(&[]), 6);
    // Only a later fragment, which ends the walk at once, may lie further.
    let walked = walked.filter(|(_, len)| 40 + len <= 512 || ip.is_later_fragment());
    assert_eq!(ip.hidden, walked.is_none());
    if let Some((proto, len)) = walked {
        assert_eq!((ip.proto, ip.l4), (proto, ip.l3 + 40 + len));
    }
}

/// Each class is what the bytes say, and none is left out.
fn kind(b: &[u8], ip: &IpPacket) {
    let class = classify(b, ip, DST);
    let either = classify(b, ip, EITHER);
    let (sport, dport) = ip.ports.unwrap_or_default();
    let in_udp = ip.proto == UDP && ip.frag.is_none() && !ip.hidden;
    if dport == PORT || !in_udp {
        assert_eq!(class, either);
    } else if sport != PORT {
        assert_eq!((class, either), (Class::Other, Class::Other));
    }
    assert_eq!(either == Class::Fragment, ip.frag.is_some());
    let at = |class: Class| match class {
        Class::Esp { spi, seq, esp } | Class::UdpEsp { spi, seq, esp } => Some((spi, seq, esp)),
        _ => None,
    };
    if let Some((spi, seq, esp)) = at(either) {
        assert!(!ip.contradicts && !ip.hidden && ip.frag.is_none());
        assert!(esp + 20 <= ip.end, "no room for the shortest ESP");
        assert_eq!(b[esp..esp + 4], spi.to_be_bytes());
        assert_eq!(b[esp + 4..esp + 8], seq.to_be_bytes());
    }
    match either {
        Class::Esp { esp, .. } => assert_eq!((ip.proto, esp), (ESP, ip.l4)),
        Class::UdpEsp { spi, esp, .. } => {
            assert_eq!((ip.proto, esp), (UDP, ip.l4 + 8));
            assert_ne!(spi, 0, "this is the non-ESP marker");
            let length = be16(b, ip.l4 + 4);
            assert!(length >= 28 && ip.l4 + length <= ip.end);
        }
        Class::Keepalive => {
            assert_eq!((be16(b, ip.l4 + 4), b[ip.l4 + 8]), (9, 0xff));
            assert!(in_udp && !ip.contradicts);
        }
        Class::NonEspMarker => {
            assert!(in_udp && ip.l4 + 12 <= ip.end && b[ip.l4 + 8..ip.l4 + 12] == [0; 4]);
        }
        Class::Malformed { head } => {
            assert!(ip.hidden || ip.proto == ESP || in_udp);
            assert!(head.is_none() || !ip.hidden);
        }
        Class::Other => {
            assert!(ip.proto != ESP && !ip.hidden);
            assert!(!in_udp || (sport != PORT && dport != PORT));
        }
        Class::Fragment => {}
    }
}

/// Padding behind the IP length changes nothing.
fn behind_the_end(b: &[u8], ip: &IpPacket) {
    if ip.contradicts {
        return;
    }
    let mut other = b[..ip.end].to_vec();
    for tail in [&[][..], &[0x11; 3], &[0xff; 60]] {
        other.truncate(ip.end);
        other.extend_from_slice(tail);
        assert_eq!(parse_ip(&other[..], ip.l3), L3::Ip(*ip));
        assert_eq!(classify(&other[..], ip, DST), classify(b, ip, DST));
    }
}

/// The frame's parser and the packet's say the same.
fn entrances(frame: &[u8]) {
    let L3::Ip(ip) = parse_frame(frame) else {
        return;
    };
    assert!([14, 18, 22].contains(&ip.l3));
    let name = if ip.v6 { 0x86dd } else { 0x0800 };
    assert_eq!(be16(frame, ip.l3 - 2), name);
    assert_eq!(parse_ip(frame, ip.l3), L3::Ip(ip));
    let packet = &frame[ip.l3..];
    let alone = IpPacket {
        l3: 0,
        l4: ip.l4 - ip.l3,
        end: ip.end - ip.l3,
        ..ip
    };
    assert_eq!(parse_ip(packet, 0), L3::Ip(alone));
    let moved = match classify(packet, &alone, DST) {
        Class::Esp { spi, seq, esp } => Class::Esp {
            spi,
            seq,
            esp: esp + ip.l3,
        },
        Class::UdpEsp { spi, seq, esp } => Class::UdpEsp {
            spi,
            seq,
            esp: esp + ip.l3,
        },
        other => other,
    };
    assert_eq!(moved, classify(frame, &ip, DST));
}

/// What is left of a frame is the same, or worse.
fn truncated(frame: &[u8], cut: usize) {
    let rest = &frame[..cut];
    let L3::Ip(now) = parse_frame(rest) else {
        return;
    };
    let L3::Ip(whole) = parse_frame(frame) else {
        panic!("only the part of it has an IP header");
    };
    let (class, before) = (classify(rest, &now, DST), classify(frame, &whole, DST));
    if cut >= whole.end && !whole.contradicts {
        assert_eq!((now, class), (whole, before));
        return;
    }
    assert!(now.contradicts, "cut to {cut} of {}", whole.end);
    assert!(
        !matches!(
            class,
            Class::Esp { .. } | Class::UdpEsp { .. } | Class::Keepalive
        ),
        "{before:?} cut to {cut} is {class:?}"
    );
    assert!(!whole.hidden || now.hidden, "cut to {cut} it shows more");
    // A filter by ports sees the same ones, or that there are none to see.
    assert!(now.ports == whole.ports || now.hides_ports());
    if class == Class::Other && before != Class::Other {
        assert!(now.hides_ports(), "{before:?} cut to {cut} passes");
    }
}
