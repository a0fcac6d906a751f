//! IPv4 options, IPv6 extension headers and VLAN tags, before ESP and inside.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use gm_abi::wire::{SERVICE_VLAN, VLAN};
use gm_dataplane::{Direction, Reason};
use gm_esp::Suite;
use gm_tests::{checksum, netns::NetNs};
use gm_xsk::LinkSocket;
use rustix::net::{self, AddressFamily, SendFlags, SocketType, ipproto};

use crate::lab::{Family, Lab, NAMES, PORT_PS, PORT_UC};
use crate::middle::{P, ip_of};
use crate::sockets::{count, grows, pass, sees, silent, udp};
use crate::{FAMILIES, through_a_box, through_a_box_of};

/// MTUs with which frames of the UE still go over this wire with two tags: a veth takes four bytes
/// more than its own.
const ROOM: [usize; 2] = [1400, 1396];

/// Router alert (RFC 2113), and three times nothing.
const OPTIONS: [u8; 8] = [0x94, 4, 0, 0, 1, 1, 1, 0];

/// An extension header of 8 bytes that says nothing (PadN).
fn extension(next: u8) -> [u8; 8] {
    [next, 0, 1, 4, 0, 0, 0, 0]
}

/// Puts options behind the IPv4 header of a frame.
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut long = [&frame[..34], &OPTIONS, &frame[34..]].concat();
    let total = u16::from_be_bytes([long[16], long[17]]) + 8;
    long[16..18].copy_from_slice(&total.to_be_bytes());
    long[14] += 2;
    fix_header(&mut long[14..]);
    long
}

/// The checksum of an IPv4 header with options.
fn fix_header(ip: &mut [u8]) {
    ip[10..12].fill(0);
    let header = usize::from(ip[0] & 15) * 4;
    let sum = checksum(&ip[..header]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Puts hop-by-hop options, destination options, a routing header that has arrived and
/// destination options again behind the IPv6 header of a frame.
fn with_extensions(frame: &[u8]) -> Vec<u8> {
    let next = frame[14 + 6];
    // Of an experimental type, no segments left (RFC 8200 4.4, RFC 4727).
    let routing = [60, 0, 253, 0, 0, 0, 0, 0];
    let chain = [extension(60), extension(43), routing, extension(next)].concat();
    let mut long = [&frame[..54], &chain, &frame[54..]].concat();
    let payload = u16::from_be_bytes([long[18], long[19]]) + 32;
    long[18..20].copy_from_slice(&payload.to_be_bytes());
    long[20] = 0;
    long
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn options_and_extension_headers_before_esp_are_stepped_over() {
    let (lab, middle) = through_a_box();
    for family in FAMILIES {
        lab.install(Suite::HmacSha1AesCbc, family);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        middle.set(move |leg, frame| {
            // Whole packets and each fragment alike.
            let esp = ip_of(&frame).is_some_and(|ip| ip.proto == 50);
            let frame = match (esp, family) {
                (false, _) => frame,
                (true, Family::V4) => with_options(&frame),
                (true, Family::V6) => with_extensions(&frame),
            };
            vec![(1 - leg, frame)]
        });
        // As long as a router may make a packet longer on this wire.
        for len in [1, 100, 1000, 1380] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
        }
        assert_eq!(count(&lab.p.plane, Reason::Malformed), 0);
    }
}

/// UDP from port_uc to port_ps with a good checksum.
fn datagram(family: Family, payload: &[u8]) -> Vec<u8> {
    let (p, u) = family.addresses();
    let octets = |a: IpAddr| match a {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let len = 8 + payload.len() as u16;
    let mut udp = [PORT_UC, PORT_PS, len, 0].map(u16::to_be_bytes).concat();
    udp.extend_from_slice(payload);
    let pseudo = [17u16.to_be_bytes(), len.to_be_bytes()].concat();
    let sum = checksum(&[&octets(u), &octets(p), &pseudo[..], &udp].concat());
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    udp
}

/// A whole IP packet through the local stack, as an application with a raw socket sends it.
fn send_raw(ns: &NetNs, family: Family, packet: &[u8]) {
    let (p, _) = family.addresses();
    let kind = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    ns.run(|| {
        let fd = net::socket(kind, SocketType::RAW, Some(ipproto::RAW)).unwrap();
        let to = SocketAddr::new(p, 0);
        let sent = net::sendto(&fd, packet, SendFlags::empty(), &to).unwrap();
        assert_eq!(sent, packet.len());
    });
}

fn comes(socket: &UdpSocket, payload: &[u8]) {
    let mut got = [0; 4096];
    let (n, from) = socket.recv_from(&mut got).unwrap();
    assert_eq!((&got[..n], from.port()), (payload, PORT_UC));
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn options_and_extension_headers_of_the_local_stack_are_sealed_where_they_belong() {
    let lab = Lab::new(None);
    let (tap, captured) = crossbeam::channel::unbounded();
    lab.u.plane.tap(Some(tap)).unwrap();
    let sealed = || {
        captured
            .try_iter()
            .find(|f| f.direction == Direction::Out)
            .unwrap()
            .frame
    };

    let family = Family::V4;
    lab.install(Suite::HmacSha1AesCbc, family);
    let (p, u) = family.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    for len in [1, 200, 1300] {
        let payload = vec![len as u8; len];
        let mut packet = vec![0x47, 0, 0, 0, 0, 9, 0, 0, 64, 17, 0, 0];
        for address in [u, p] {
            let IpAddr::V4(v4) = address else { panic!() };
            packet.extend(v4.octets());
        }
        packet.extend(OPTIONS);
        packet.extend(datagram(family, &payload));
        // The kernel writes length and checksum.
        send_raw(&lab.u.ns, family, &packet);
        comes(&ps, &payload);
        let frame = sealed();
        assert_eq!((frame[14], frame[14 + 9]), (0x47, 50));
        assert_eq!(frame[34..42], OPTIONS, "they stand before ESP");
    }

    let family = Family::V6;
    lab.install(Suite::HmacSha1AesCbc, family);
    let (p, u) = family.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    // Destination options alone are ESP's inside; behind hop-by-hop options that stay before it.
    for hop_by_hop in [false, true] {
        for len in [1, 200, 1300] {
            let payload = vec![len as u8; len];
            let inside = [&extension(17)[..], &datagram(family, &payload)].concat();
            let rest = match hop_by_hop {
                true => [&extension(60)[..], &inside].concat(),
                false => inside,
            };
            let first = if hop_by_hop { 0 } else { 60 };
            let mut packet = vec![0x60, 0, 0, 0];
            packet.extend((rest.len() as u16).to_be_bytes());
            packet.extend([first, 64]);
            for address in [u, p] {
                let IpAddr::V6(v6) = address else { panic!() };
                packet.extend(v6.octets());
            }
            packet.extend(rest);
            send_raw(&lab.u.ns, family, &packet);
            comes(&ps, &payload);
            let ip = ip_of(&sealed()).unwrap();
            assert_eq!(
                (ip.proto, ip.l4 - ip.l3),
                (50, if hop_by_hop { 48 } else { 40 })
            );
        }
    }
}

/// The frame with these tags, the outer one first.
fn tagged(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    let tags: Vec<u8> = tags
        .iter()
        .flat_map(|(kind, id)| [kind.to_be_bytes(), id.to_be_bytes()].concat())
        .collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// ESP under these tags: `taken` with the number 0, which means a priority and no VLAN, so that
/// the stack takes the packet as its own; `left` with the number of a VLAN.
fn esp_under(taken: &'static [(u16, u16)], left: &'static [(u16, u16)]) {
    let (lab, middle) = through_a_box_of(ROOM);
    for family in FAMILIES {
        lab.install(Suite::NullAesGcm, family);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        let tag = |tags: &'static [(u16, u16)]| {
            middle.set(move |leg, frame| match ip_of(&frame) {
                Some(ip) if leg != P && ip.proto == 50 => vec![(P, tagged(&frame, tags))],
                _ => vec![(1 - leg, frame)],
            });
        };
        // Whole and in fragments.
        tag(taken);
        for len in [1, 1000, 5000] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
        }
        // In a VLAN that this host has no device for it is opened as well; that the stack does not
        // take it shows that it still has its tag.
        let wire = lab.p.ns.run(|| LinkSocket::bind(NAMES[0]).unwrap());
        tag(left);
        let before = count(&lab.p.plane, Reason::Ok);
        uc.send_to(b"in a VLAN of its own", (p, PORT_PS)).unwrap();
        assert!(sees(&wire, b"in a VLAN of its own"));
        grows(&lab.p.plane, Reason::Ok, before, 1);
        silent(&ps);
        middle.clear();
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn esp_under_a_vlan_tag_is_opened_and_keeps_it() {
    esp_under(&[(VLAN, 0xa000)], &[(VLAN, 5)]);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn esp_under_two_vlan_tags_is_opened_and_keeps_them() {
    esp_under(
        &[(SERVICE_VLAN, 0), (VLAN, 0x2000)],
        &[(SERVICE_VLAN, 7), (VLAN, 5)],
    );
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn cleartext_under_vlan_tags_does_not_reach_a_protected_port() {
    let (lab, middle) = through_a_box_of(ROOM);
    for family in FAMILIES {
        lab.install(Suite::NullAesGcm, family);
        let (p, u) = family.addresses();
        let ps = lab.p.ns.run(|| udp(p, PORT_PS));
        let clear = lab.u.ns.run(|| udp(u, 12_345));
        for tags in [
            &[(VLAN, 0)][..],
            &[(VLAN, 5)],
            &[(SERVICE_VLAN, 0), (VLAN, 0)],
            &[(SERVICE_VLAN, 7), (VLAN, 5)],
        ] {
            middle.set(move |leg, frame| match ip_of(&frame) {
                Some(ip) if leg != P && ip.proto != 50 && ip.proto != 58 => {
                    vec![(P, tagged(&frame, tags))]
                }
                _ => vec![(1 - leg, frame)],
            });
            for len in [10, 3000] {
                let before = count(&lab.p.plane, Reason::CleartextProtected);
                clear.send_to(&vec![1; len], (p, PORT_PS)).unwrap();
                grows(&lab.p.plane, Reason::CleartextProtected, before, 1);
            }
        }
        silent(&ps);
        middle.clear();
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn plain_udp_is_told_from_esp() {
    let lab = Lab::new(None);
    for family in FAMILIES {
        let (p, u) = family.addresses();
        // What looks like ESP and is none: to another port, and from 4500 only.
        let esp = [[0x3b, 0x9a, 0xca, 1, 0, 0, 0, 1].as_slice(), &[7; 60]].concat();
        for (from, to) in [(4500, 5060), (12_345, 4501), (4501, 4499)] {
            let there = lab.p.ns.run(|| udp(p, to));
            let here = lab.u.ns.run(|| udp(u, from));
            here.send_to(&esp, (p, to)).unwrap();
            let mut got = [0; 200];
            let (n, _) = there.recv_from(&mut got).unwrap();
            assert_eq!(got[..n], esp, "{from} to {to}");
        }
        // To 4500 it is ESP; with the non-ESP marker, a keepalive or too short it is not.
        let ike = lab.p.ns.run(|| udp(p, 4500));
        let here = lab.u.ns.run(|| udp(u, 12_345));
        for (bytes, reason) in [
            (&esp[..], Reason::UnknownSpi),
            (&[0xff], Reason::Keepalive),
            (&[1, 2, 3, 4, 5, 6, 7], Reason::Malformed),
        ] {
            let before = count(&lab.p.plane, reason);
            here.send_to(bytes, (p, 4500)).unwrap();
            grows(&lab.p.plane, reason, before, 1);
        }
        let marked = [&[0; 4][..], &esp].concat();
        here.send_to(&marked, (p, 4500)).unwrap();
        let mut got = [0; 200];
        let (n, _) = ike.recv_from(&mut got).unwrap();
        assert_eq!(got[..n], marked);
        silent(&ike);
    }
}
