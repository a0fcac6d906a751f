//! Two data planes, each in a network namespace of its own, joined by a veth
//! pair: ordinary sockets on both sides, ESP between them.

// Each of the programs that share the laboratory uses a part of it.
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[path = "dataplane/life.rs"]
mod life;
#[path = "dataplane/links.rs"]
mod links;
#[path = "dataplane/sockets.rs"]
mod sockets;

use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use gm_dataplane::{Direction, Event, Reason};
use gm_esp::{Mode, Suite};
use gm_xsk::LinkSocket;
use lab::{Family, Lab, NAMES, PORT_PC, PORT_PS, PORT_UC, PORT_US};
use sockets::{WAIT, connect, count, fix_ipv4, grows, megabyte, pass, silent, udp};

#[test]
#[ignore = "root: namespaces, BPF"]
fn datagrams_of_all_sizes_cross_in_all_suites() {
    for suite in Suite::every() {
        let lab = Lab::new(None);
        for family in [Family::V4, Family::V6] {
            lab.install(suite, family);
            let (p, u) = family.addresses();
            let (ps, pc) = lab.p.ns.run(|| (udp(p, PORT_PS), udp(p, PORT_PC)));
            let (us, uc) = lab.u.ns.run(|| (udp(u, PORT_US), udp(u, PORT_UC)));
            for len in [1, 100, 1400, 1440, 1460, 1472, 3000, 20_000] {
                pass(&uc, &ps, len);
                pass(&ps, &uc, len);
                pass(&pc, &us, len);
                pass(&us, &pc, len);
            }
        }
        for side in [&lab.p, &lab.u] {
            let stats = side.plane.stats().unwrap();
            assert_eq!(
                stats.get(Reason::Ok),
                32,
                "{suite}: {:?}",
                lab::named(&stats)
            );
            assert_eq!(stats.workers[0].frames_leaked, 0);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn tcp_carries_a_megabyte_both_ways_in_all_suites() {
    for suite in Suite::every() {
        let lab = Lab::new(None);
        for family in [Family::V4, Family::V6] {
            lab.install(suite, family);
            let (p, u) = family.addresses();
            let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
            let client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
            let (server, peer) = listener.accept().unwrap();
            assert_eq!(peer.port(), PORT_UC);
            megabyte(client, server);
            // And the way that the P-CSCF opens, on the set's other pair.
            let listener = lab.u.ns.run(|| TcpListener::bind((u, PORT_US)).unwrap());
            let client = lab.p.ns.run(|| connect((p, PORT_PC), (u, PORT_US)));
            let (server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(WAIT)).unwrap();
            megabyte(server, client);
        }
        for side in [&lab.p, &lab.u] {
            let stats = side.plane.stats().unwrap();
            let bad: u64 = [
                Reason::BadIcv,
                Reason::Malformed,
                Reason::SelectorMismatch,
                Reason::OutNoSa,
            ]
            .map(|r| stats.get(r))
            .iter()
            .sum();
            assert_eq!(bad, 0, "{suite}: {:?}", lab::named(&stats));
            assert!(
                stats.get(Reason::Ok) > 1000,
                "{suite}: {:?}",
                lab::named(&stats)
            );
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn replayed_tampered_and_cleartext_packets_end_each_for_its_reason() {
    let lab = Lab::new(None);
    lab.install(Suite::NullAesGcm, Family::V4);
    let (p, u) = Family::V4.addresses();
    let (tap, captured) = crossbeam::channel::bounded(64);
    lab.p.plane.tap(Some(tap)).unwrap();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let uc = lab.u.ns.run(|| udp(u, PORT_UC));
    pass(&uc, &ps, 200);
    pass(&ps, &uc, 200);
    let seen: Vec<_> = captured.iter().take(2).collect();
    assert_eq!(seen[0].direction, Direction::In);
    assert_eq!(seen[1].direction, Direction::Out);
    let wire = lab.u.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
    let good = &seen[0].frame;
    let plane = &lab.p.plane;

    wire.send(good).unwrap();
    grows(plane, Reason::Replay, 0, 1);

    // A new number, so that nothing before the ICV stops it.
    let mut tampered = good.clone();
    tampered[14 + 20 + 7] += 9;
    wire.send(&tampered).unwrap();
    grows(plane, Reason::BadIcv, 0, 1);

    let mut stranger = good.clone();
    stranger[14 + 20 + 3] ^= 0xff;
    wire.send(&stranger).unwrap();
    grows(plane, Reason::UnknownSpi, 0, 1);

    let mut short = tampered.clone();
    short[14 + 2..14 + 4].copy_from_slice(&40u16.to_be_bytes());
    fix_ipv4(&mut short[14..]);
    wire.send(&short[..14 + 40]).unwrap();
    grows(plane, Reason::Malformed, 0, 1);

    // Cleartext to the protected port, whole and in fragments, and on lo.
    let clear = lab.u.ns.run(|| udp(u, 12_345));
    for (n, len) in [(1, 100), (2, 3000)] {
        clear.send_to(&vec![1; len], (p, PORT_PS)).unwrap();
        grows(plane, Reason::CleartextProtected, 0, n);
    }
    lab.p
        .ns
        .run(|| udp(p, 12_345))
        .send_to(b"from the host itself", (p, PORT_PS))
        .unwrap();
    grows(plane, Reason::CleartextProtected, 0, 3);
    silent(&ps);

    // To an unprotected port the same packets go through.
    let open = lab.p.ns.run(|| udp(p, 5060));
    for len in [100, 3000, 20_000] {
        pass(&clear, &open, len);
        pass(&open, &clear, len);
    }
    assert!(count(plane, Reason::ClearReassembled) >= 2);

    // Nothing of it has hurt the SA.
    pass(&uc, &ps, 300);
    let rows = plane.list();
    let row = rows
        .iter()
        .find(|r| r.spec.selector.dst_port == Some(PORT_PS))
        .unwrap();
    assert_eq!((row.packets, row.top), (2, 2));
    let drops: std::collections::HashMap<_, _> = row.drops.iter().copied().collect();
    assert_eq!(drops.get(&Reason::Replay), Some(&1));
    assert_eq!(drops.get(&Reason::BadIcv), Some(&1));
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_new_interface_gets_the_guard() {
    let lab = Lab::new(None);
    let (p, _) = Family::V4.addresses();
    let late = ["l0", "l1"];
    gm_tests::netns::veth(
        gm_tests::netns::End {
            ns: &lab.p.ns,
            name: late[0],
            addresses: &["10.78.0.1/24"],
        },
        gm_tests::netns::End {
            ns: &lab.u.ns,
            name: late[1],
            addresses: &["10.78.0.2/24"],
        },
    );
    lab.u.ns.ip("route add 10.77.0.1/32 via 10.78.0.1");
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let before = count(&lab.p.plane, Reason::CleartextProtected);
    // The guard follows the link event; until it is there nothing listens to
    // the packet, and it is sent again.
    let from = lab.u.ns.run(|| udp("10.78.0.2".parse().unwrap(), 12_345));
    thread::sleep(Duration::from_millis(300));
    from.send_to(b"hello", (p, PORT_PS)).unwrap();
    grows(&lab.p.plane, Reason::CleartextProtected, before, 1);
    silent(&ps);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn policy_without_an_sa_drops_both_ways() {
    let lab = Lab::new(None);
    let (p, u) = Family::V4.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let uc = lab.u.ns.run(|| udp(u, PORT_UC));

    uc.send_to(b"before", (p, PORT_PS)).unwrap();
    ps.send_to(b"before", (u, PORT_UC)).unwrap();
    grows(&lab.u.plane, Reason::OutNoSa, 0, 1);
    grows(&lab.p.plane, Reason::OutNoSa, 0, 1);
    silent(&ps);

    let sets = lab.install(Suite::HmacSha1AesCbc, Family::V4);
    pass(&uc, &ps, 100);
    pass(&ps, &uc, 100);

    // Retired: sends no more, still accepts.
    lab.p.plane.retire(sets[0]).unwrap();
    ps.send_to(b"retired", (u, PORT_UC)).unwrap();
    grows(&lab.p.plane, Reason::OutNoSa, 1, 1);
    pass(&uc, &ps, 100);

    // Removed: accepts no more either; twice is no error.
    lab.p.plane.remove(sets[0]).unwrap();
    lab.p.plane.remove(sets[0]).unwrap();
    uc.send_to(b"removed", (p, PORT_PS)).unwrap();
    grows(&lab.p.plane, Reason::UnknownSpi, 0, 1);
    silent(&ps);
    assert!(lab.p.plane.list().is_empty());
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn udp_encapsulation_learns_the_port_and_carries_all_sizes() {
    for (suite, family) in [
        (Suite::NullAesGcm, Family::V4),
        (Suite::HmacSha1AesCbc, Family::V6),
    ] {
        let lab = Lab::new(None);
        let sets = lab.install_as(suite, family, Mode::UdpEncTun);
        let (p, u) = family.addresses();
        let ps = lab.p.ns.run(|| udp(p, PORT_PS));
        let uc = lab.u.ns.run(|| udp(u, PORT_UC));
        // The P-CSCF cannot send before it has heard the phone.
        ps.send_to(b"too early", (u, PORT_UC)).unwrap();
        grows(&lab.p.plane, Reason::OutNoEncapPort, 0, 1);
        pass(&uc, &ps, 100);
        let event = lab.p.plane.events().recv_timeout(WAIT).unwrap();
        assert_eq!(
            event,
            Event::EncapPortLearned {
                set: sets[0],
                port: 4500
            }
        );
        for len in [100, 1400, 1472, 3000, 20_000] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
        }
        // A keepalive is swallowed, something for an IKE daemon is not.
        let keepalive = lab.u.ns.run(|| udp(u, 4501));
        let ike = lab.p.ns.run(|| udp(p, 4500));
        keepalive.send_to(&[0xff], (p, 4500)).unwrap();
        grows(&lab.p.plane, Reason::Keepalive, 0, 1);
        pass_bytes(&keepalive, &ike, &[0, 0, 0, 0, 1, 2, 3]);
    }
}

/// Sends these bytes and expects them.
fn pass_bytes(from: &UdpSocket, to: &UdpSocket, bytes: &[u8]) {
    from.send_to(bytes, to.local_addr().unwrap()).unwrap();
    let mut got = [0; 2048];
    let n = to.recv(&mut got).unwrap();
    assert_eq!(&got[..n], bytes);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn sas_set_up_by_hand_keep_their_spis_and_open_ports() {
    let lab = Lab::new(None);
    lab.install_by_hand(Suite::HmacSha1Null);
    let (p, u) = Family::V4.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let uc = lab.u.ns.run(|| udp(u, PORT_UC));
    for len in [100, 3000] {
        pass(&uc, &ps, len);
        pass(&ps, &uc, len);
    }
    assert_eq!(count(&lab.p.plane, Reason::UnknownSpi), 0);
    let spis: Vec<u32> = lab.p.plane.list().iter().map(|r| r.spec.spi).collect();
    assert_eq!(spis, [0x1001, 0x2002]);
}
