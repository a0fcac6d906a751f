//! Routers on the way, and between them a link that takes 1300 bytes.
//!
//! ```text
//! P-CSCF ---1500--- router ---1300--- router ---1500--- UE
//! ```

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use gm_dataplane::Reason;
use gm_esp::{Mode, Suite};
use gm_tests::checksum;
use gm_tests::netns::{End, NetNs, veth};
use gm_xsk::LinkSocket;
use nix::sys::socket::{getsockopt, sockopt};

use crate::lab::{Family, Lab, NAMES, PORT_PS, PORT_UC};
use crate::sockets::{WAIT, connect, count, grows, udp};
use crate::{FAMILIES, bulk_both_ways, is_clean};

/// MTU of the link between the routers, if nothing else is said.
const NARROW: u16 = 1300;

/// The lab, and the routers: the P-CSCF's and the UE's.
struct Routed {
    lab: Lab,
    routers: [NetNs; 2],
}

/// Addresses of one end and of its router's leg, IPv4 and IPv6.
const LEGS: [[[&str; 2]; 2]; 2] = [
    [["10.77.0.1", "10.77.1.1"], ["fd77::1", "fd77:1::1"]],
    [["10.77.0.2", "10.77.2.1"], ["fd77::2", "fd77:2::1"]],
];

fn prefix(address: &str) -> &'static str {
    if address.contains(':') { "/128" } else { "/32" }
}

fn set(ns: &NetNs, key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    ns.run(|| std::fs::write(&path, value))
        .unwrap_or_else(|e| panic!("{path}: {e}"));
}

impl Routed {
    fn new() -> Routed {
        Routed::with(NARROW)
    }

    /// With a link that takes so many bytes.
    fn with(mtu: u16) -> Routed {
        let [p, u, a, b] = [(); 4].map(|()| NetNs::new().unwrap());
        for router in [&a, &b] {
            set(router, "ipv4/ip_forward", "1");
            set(router, "ipv6/conf/all/forwarding", "1");
            // A router of the Internet answers many; here one asks often.
            set(router, "ipv4/icmp_ratemask", "0");
            set(router, "ipv6/icmp/ratelimit", "0");
        }
        let join = |a: (&NetNs, &str), b: (&NetNs, &str), addresses: [&[&str]; 2]| {
            let [x, y] = addresses;
            veth(
                End {
                    ns: a.0,
                    name: a.1,
                    addresses: x,
                },
                End {
                    ns: b.0,
                    name: b.1,
                    addresses: y,
                },
            );
        };
        for ((ns, router), (name, legs)) in [(&p, &a), (&u, &b)]
            .into_iter()
            .zip(NAMES.into_iter().zip(LEGS))
        {
            let full = legs.map(|leg| leg.map(|a| format!("{a}{}", prefix(a))));
            let ends = [0, 1].map(|i| [full[0][i].as_str(), full[1][i].as_str()]);
            join((ns, name), (router, "leg"), [&ends[0], &ends[1]]);
            for [own, gateway] in legs {
                ns.ip(&format!(
                    "route add {gateway}{} dev {name}",
                    prefix(gateway)
                ));
                ns.ip(&format!("route add {} via {gateway}", all(own)));
                router.ip(&format!("route add {own}{} dev leg", prefix(own)));
            }
        }
        let between = [
            ["10.77.3.1/30", "fd77:3::1/64"],
            ["10.77.3.2/30", "fd77:3::2/64"],
        ];
        join((&a, "far"), (&b, "far"), [&between[0], &between[1]]);
        for (router, other) in [(&a, 2), (&b, 1)] {
            router.ip(&format!("link set far mtu {mtu}"));
            router.ip(&format!("route add 10.77.0.{other} via 10.77.3.{other}"));
            // Below 1280 bytes there is no IPv6.
            if mtu >= 1280 {
                router.ip(&format!("route add fd77::{other} via fd77:3::{other}"));
            }
        }
        Routed {
            lab: Lab::on(p, u, None),
            routers: [a, b],
        }
    }
}

fn all(address: &str) -> &'static str {
    if address.contains(':') {
        "default"
    } else {
        "0.0.0.0/0"
    }
}

/// Sends `len` bytes until they arrive, as SIP does over UDP.
fn arrives(from: &UdpSocket, to: &UdpSocket, len: usize) {
    let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
    let mut got = vec![0; 65_536];
    to.set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let arrived = (0..20).any(|_| {
        from.send_to(&bytes, to.local_addr().unwrap()).unwrap();
        let read = to.recv_from(&mut got);
        read.is_ok_and(|(n, source)| got[..n] == bytes && source == from.local_addr().unwrap())
    });
    assert!(arrived, "{len} bytes never arrive");
    // What came twice is not the next one's.
    to.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    while to.recv_from(&mut got).is_ok() {}
    to.set_read_timeout(Some(WAIT)).unwrap();
}

fn through_a_narrow_link(mode: Mode) {
    for family in FAMILIES {
        let routed = Routed::new();
        let lab = &routed.lab;
        lab.install_as(Suite::AesGmacNull, family, mode);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        for len in [100, 1200, 1400, 3000, 20_000] {
            arrives(&uc, &ps, len);
            arrives(&ps, &uc, len);
        }
        drop((ps, uc));
        bulk_both_ways(lab, family);
        is_clean(lab);
        // In a tunnel over IPv4 the routers cut, and nobody has to be told.
        let told = family == Family::V6 || mode == Mode::Trans;
        for side in [&lab.p, &lab.u] {
            let learnt = count(&side.plane, Reason::PathMtu);
            assert_eq!(learnt > 0, told, "{family:?} {mode:?}: {learnt}");
            assert_eq!(count(&side.plane, Reason::IcmpUnbelieved), 0);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_and_tcp_pass_a_narrow_link_in_transport_mode() {
    through_a_narrow_link(Mode::Trans);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_and_tcp_pass_a_narrow_link_in_udp_encapsulation() {
    through_a_narrow_link(Mode::UdpEncTun);
}

/// What is on its way already has the size of the uplink: the stack is told, and goes on
/// with smaller segments.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_connection_that_is_too_wide_for_the_path_goes_on_smaller() {
    for family in FAMILIES {
        let routed = Routed::new();
        let lab = &routed.lab;
        lab.install(Suite::AesGmacNull, family);
        bulk_both_ways(lab, family);
        for side in [&lab.p, &lab.u] {
            assert!(count(&side.plane, Reason::PathMtu) > 0, "{family:?}");
            assert!(count(&side.plane, Reason::OutTooBig) > 0, "{family:?}");
        }
        is_clean(lab);
    }
}

/// Where the path takes no more than the least that a stack believes, ESP leaves no room for
/// it: what the stack cannot be told is sealed and cut.
#[test]
#[ignore = "root: namespaces, BPF"]
fn the_narrowest_links_carry_datagrams_and_tcp_too() {
    for (family, mtu) in [(Family::V4, 576), (Family::V4, 552), (Family::V6, 1280)] {
        for mode in [Mode::Trans, Mode::UdpEncTun] {
            let routed = Routed::with(mtu);
            let lab = &routed.lab;
            lab.install_as(Suite::AesGmacNull, family, mode);
            let (p, u) = family.addresses();
            let (ps, uc) = (
                lab.p.ns.run(|| udp(p, PORT_PS)),
                lab.u.ns.run(|| udp(u, PORT_UC)),
            );
            for len in [100, 1300, 3000] {
                arrives(&uc, &ps, len);
                arrives(&ps, &uc, len);
            }
            drop((ps, uc));
            bulk_both_ways(lab, family);
            is_clean(lab);
        }
    }
}

/// The MSS of a connection that the UE opens now.
fn mss(lab: &Lab, family: Family) -> u32 {
    let (p, u) = family.addresses();
    let _listener = lab
        .p
        .ns
        .run(|| std::net::TcpListener::bind((p, PORT_PS)).unwrap());
    let client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
    getsockopt(&client, sockopt::TcpMaxSeg).unwrap()
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn connections_after_a_too_big_begin_with_segments_that_fit() {
    for family in FAMILIES {
        let routed = Routed::new();
        let lab = &routed.lab;
        lab.install(Suite::AesGmacNull, family);
        let before = mss(lab, family);
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        // The UE's side learns; the P-CSCF's SYN and ACK is clamped there.
        arrives(&uc, &ps, 1400);
        assert!(count(&lab.u.plane, Reason::PathMtu) > 0);
        let after = mss(lab, family);
        assert!(before > 1300 && after < 1300, "{before}, then {after}");
    }
}

/// An ICMP "fragmentation needed" from the router's address to the P-CSCF that quotes an ESP
/// packet with this SPI and number.
fn forged(p: IpAddr, u: IpAddr, spi: u32, seq: u32, macs: &[u8]) -> Vec<u8> {
    let (IpAddr::V4(p), IpAddr::V4(u)) = (p, u) else {
        unreachable!("IPv4 only")
    };
    let ip = |proto: u8, len: usize, src: [u8; 4], dst: [u8; 4]| {
        let mut head = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0];
        head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        head.extend(src);
        head.extend(dst);
        let sum = checksum(&head);
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        head
    };
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 2, 100];
    icmp.extend(ip(50, 1480, p.octets(), u.octets()));
    icmp.extend(spi.to_be_bytes());
    icmp.extend(seq.to_be_bytes());
    let check = checksum(&icmp);
    icmp[2..4].copy_from_slice(&check.to_be_bytes());
    let mut frame = macs.to_vec();
    frame.extend([8, 0]);
    frame.extend(ip(1, 20 + icmp.len(), [10, 77, 1, 1], p.octets()));
    frame.extend(icmp);
    frame
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_strangers_too_big_changes_nothing_and_the_routers_own_does() {
    let routed = Routed::new();
    let lab = &routed.lab;
    let family = Family::V4;
    lab.install(Suite::AesGmacNull, family);
    let (p, u) = family.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    for _ in 0..3 {
        arrives(&ps, &uc, 1000);
    }
    let rows = lab.p.plane.list();
    let row = rows
        .iter()
        .find(|r| r.spec.selector.src_port == Some(PORT_PS))
        .unwrap();
    let (spi, seq) = (row.spec.spi, row.seq as u32);
    let router = &routed.routers[0];
    let wire = router.run(|| LinkSocket::bind("leg").unwrap());
    let macs = [lab.p.ns.mac(NAMES[0]), router.mac("leg")].concat();
    let lies = [
        (spi ^ 1, seq),
        (spi, seq + 1),
        (spi, seq.wrapping_sub(5000)),
    ];
    for (spi, seq) in lies {
        wire.send(&forged(p, u, spi, seq, &macs)).unwrap();
    }
    grows(&lab.p.plane, Reason::IcmpUnbelieved, 0, 3);
    assert_eq!(count(&lab.p.plane, Reason::PathMtu), 0);
    let whole = mss(lab, family);
    assert!(whole > 1300, "{whole}");
    // One who has seen the packet, as the router has.
    wire.send(&forged(p, u, spi, seq, &macs)).unwrap();
    grows(&lab.p.plane, Reason::PathMtu, 0, 1);
    arrives(&ps, &uc, 1000);
    assert!(mss(lab, family) < 600);
    is_clean(lab);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_peer_that_cannot_be_reached_is_noted_and_is_there_again_afterwards() {
    let routed = Routed::new();
    let lab = &routed.lab;
    lab.install(Suite::AesGmacNull, Family::V4);
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    arrives(&ps, &uc, 100);
    let far = &routed.routers[1];
    far.ip("route replace unreachable 10.77.0.2/32");
    ps.send_to(b"is anybody there", (u, PORT_UC)).unwrap();
    grows(&lab.p.plane, Reason::PeerUnreachable, 0, 1);
    far.ip("route replace 10.77.0.2/32 dev leg");
    arrives(&ps, &uc, 100);
    arrives(&uc, &ps, 100);
    is_clean(lab);
}
