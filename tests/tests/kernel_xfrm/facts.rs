//! What the plans count on the kernel for, with packets.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use gm_esp::Suite;
use gm_xfrm::kernel::plan::{self, Plan};
use gm_xfrm::kernel::sets;
use gm_xfrm::kernel::{Event, Numbers, Topic, Watch};

use crate::ground::{PHONE, PORTS, Way, address, tables};
use crate::pair::{PATIENCE, Two, drops, encap, ends, hears, socket, waits};

fn udp_and_tcp_cross(way: Way) {
    gm_tests::needs_esp!();
    let two = Two::new();
    let _encap = encap(&two);
    // kernel_peer.rs has all of them.
    let suites = [Suite::HmacSha1AesCbc, Suite::NullAesGcm];
    for (n, suite) in suites.into_iter().enumerate() {
        let plans = two.install(0x1000 + 16 * n as u32, 1, suite, way);
        let (ours, theirs) = ends(way);
        let ps = socket(&two.us, ours, PORTS[1]);
        let uc = socket(&two.phone, theirs, PORTS[2]);
        for round in 1..=3u64 {
            uc.send_to(b"up", (ours, PORTS[1])).expect("sent");
            let from = hears(&ps, b"up");
            ps.send_to(b"down", from).expect("sent");
            hears(&uc, b"down");
            assert_eq!(two.sent(&plans), (round, round), "{suite} {way:?}");
        }
        // TCP with the same ports in the same SAs.
        let listener = two
            .us
            .run(|| TcpListener::bind((ours, PORTS[1])))
            .expect("a listener");
        let client = two
            .phone
            .run(|| connect((theirs, PORTS[2]).into(), (ours, PORTS[1]).into()));
        let (mut server, _) = listener.accept().expect("a connection");
        let mut client = client;
        client.write_all(b"up").expect("sent");
        let mut buffer = [0; 2];
        server.read_exact(&mut buffer).expect("received");
        let (top, seq) = two.sent(&plans);
        assert!(top > 5 && seq >= top, "{suite} {way:?}: {top} {seq}");
        drop((client, server, ps, uc));
        assert_eq!(drops(&two.us), BTreeMap::new(), "{suite} {way:?}");
        assert_eq!(drops(&two.phone), BTreeMap::new(), "{suite} {way:?}");
        for (ns, plans) in [(&two.us, &plans[0]), (&two.phone, &plans[1])] {
            tables(ns, |xfrm| sets::remove(xfrm, plans, |_| false)).expect("removed");
        }
        // What TCP still says at the end goes nowhere.
        for ns in [&two.us, &two.phone] {
            ns.sh("ss", &["-K", "-a", "-t"]);
        }
    }
}

/// From a port; both sockets are gone with the test.
fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};
    let family = match from {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = socket(family, SocketType::STREAM, None).expect("a socket");
    sockopt::set_socket_reuseaddr(&fd, true).expect("a setting");
    bind(&fd, &from).expect("a port");
    connect(&fd, &to).expect("a connection");
    TcpStream::from(fd)
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn one_state_carries_udp_and_tcp_of_its_ports() {
    udp_and_tcp_cross(Way::Trans4);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn one_state_carries_udp_and_tcp_of_its_ports_over_ipv6() {
    udp_and_tcp_cross(Way::Trans6);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn one_state_carries_udp_and_tcp_of_its_ports_in_a_tunnel() {
    udp_and_tcp_cross(Way::Tunnel);
}

/// A packet in the right SA with other ports than the SA's (RFC 4301 5.2).
#[test]
#[ignore = "needs a kernel with ESP"]
fn the_ports_of_a_state_are_compared_after_opening() {
    gm_tests::needs_esp!();
    let two = Two::new();
    let [_, phone] = two.install(0x1000, 1, Suite::NullAesGcm, Way::Trans4);
    // The phone sends what it should not: any port of its own.
    let mut wrong = phone[0].clone();
    wrong.state.selector.sport = gm_xfrm::kernel::Ports::ANY;
    for policy in &mut wrong.policies {
        policy.id.selector.sport = gm_xfrm::kernel::Ports::ANY;
    }
    tables(&two.phone, |xfrm| {
        xfrm.delete_state(wrong.state.id)?;
        xfrm.add_state(&wrong.state)?;
        wrong
            .policies
            .iter()
            .try_for_each(|policy| xfrm.add_policy(policy))
    })
    .expect("a wrong set");
    let (ours, theirs) = ends(Way::Trans4);
    let ps = socket(&two.us, ours, PORTS[1]);
    let other = socket(&two.phone, theirs, PORTS[2] + 1);
    other.send_to(b"wrong", (ours, PORTS[1])).expect("sent");
    waits("the kernel refuses the ports", || {
        drops(&two.us).get("XfrmInStateMismatch") == Some(&1)
    });
    // Another port of ours is not the policy's and goes in the clear: that is
    // what the base policies are for.
    let uc = socket(&two.phone, theirs, PORTS[2]);
    uc.send_to(b"right", (ours, PORTS[1])).expect("sent");
    hears(&ps, b"right");
    assert_eq!(drops(&two.us).len(), 1);
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn one_update_of_a_policy_moves_the_traffic_to_another_state() {
    gm_tests::needs_esp!();
    let two = Two::new();
    let old = two.install(0x1000, 1, Suite::NullAesGcm, Way::Trans4);
    let new = two.install(0x2000, 2, Suite::HmacSha1AesCbc, Way::Trans4);
    // The new one is used from its installation on; back, and there again.
    let (ours, theirs) = ends(Way::Trans4);
    let ps = socket(&two.us, ours, PORTS[1]);
    let uc = socket(&two.phone, theirs, PORTS[2]);
    // A connected socket keeps its route, and must notice all the same.
    uc.connect((ours, PORTS[1])).expect("connected");
    let turn = |plans: &[Vec<Plan>; 2]| {
        tables(&two.phone, |xfrm| sets::activate(xfrm, &plans[1])).expect("activated");
    };
    for (round, plans) in [&new, &old, &new, &old].into_iter().enumerate() {
        turn(plans);
        let before = (two.sent(&old).1, two.sent(&new).1);
        uc.send(b"which?").expect("sent");
        hears(&ps, b"which?");
        let after = (two.sent(&old).1, two.sent(&new).1);
        let moved = (after.0 - before.0, after.1 - before.1);
        assert_eq!(moved, if round % 2 == 0 { (0, 1) } else { (1, 0) });
    }
    // Without its state the policy lets nothing out, in clear neither.
    tables(&two.phone, |xfrm| xfrm.delete_state(old[1][0].state.id)).expect("removed");
    let refused = uc.send(b"in clear?");
    assert!(
        refused.is_err() || drops(&two.phone).contains_key("XfrmOutNoStates"),
        "{refused:?}"
    );
    assert_eq!(two.sent(&new).0, 2);
    assert_eq!(drops(&two.us), BTreeMap::new());
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_phone_from_another_port_is_told_once_it_is_authentic_and_an_update_follows_it() {
    gm_tests::needs_esp!();
    let two = Two::new();
    let _encap = encap(&two);
    let [us, phone] = two.install(0x1000, 1, Suite::HmacSha1AesCbc, Way::Tunnel);
    let mut watch = two
        .us
        .run(|| Watch::open(&[Topic::Mappings]))
        .expect("a socket");
    let (ours, theirs) = ends(Way::Tunnel);
    let ps = socket(&two.us, ours, PORTS[1]);
    let uc = socket(&two.phone, theirs, PORTS[2]);
    uc.send_to(b"up", (ours, PORTS[1])).expect("sent");
    hears(&ps, b"up");
    assert_eq!(watch.next(Some(Duration::ZERO)).expect("a socket"), None);

    // The NAT forgets the phone's port: what it sends has another one now.
    let moved = socket(&two.phone, address(PHONE[0]), 40_000);
    gm_xsk::esp_in_udp(&moved).expect("ESP in UDP");
    let mut state = phone[0].state.clone();
    state.encap.as_mut().expect("UDP").sport = 40_000;
    tables(&two.phone, |xfrm| xfrm.update_state(&state)).expect("an update");
    uc.send_to(b"up", (ours, PORTS[1])).expect("sent");
    hears(&ps, b"up");
    let heard = watch.next(Some(PATIENCE)).expect("a socket");
    let Some(Event::Mapping {
        id,
        old,
        new,
        reqid,
    }) = heard
    else {
        panic!("{heard:?}");
    };
    assert_eq!((id, reqid), (us[0].state.id, plan::reqid(1)));
    assert_eq!(
        (old, new),
        ((address(PHONE[0]), 4500), (address(PHONE[0]), 40_000))
    );

    // Both of ours follow; numbers and keys are as they were.
    tables(&two.us, |xfrm| {
        let before = xfrm.numbers(us[0].state.id)?;
        let (mut inbound, mut outbound) = (us[0].state.clone(), us[1].state.clone());
        inbound.encap.as_mut().expect("UDP").sport = 40_000;
        outbound.encap.as_mut().expect("UDP").dport = 40_000;
        xfrm.update_state(&inbound)?;
        xfrm.update_state(&outbound)?;
        assert_eq!(xfrm.numbers(us[0].state.id)?, before);
        let now = xfrm.state(us[1].state.id)?;
        assert!(now.is_same_sa(&us[1].state));
        assert_eq!(now.encap.map(|e| e.dport), Some(40_000));
        Ok::<_, gm_xfrm::kernel::XfrmError>(())
    })
    .expect("updates");
    // The phone's state takes what comes to its new port.
    ps.send_to(b"down", (theirs, PORTS[2])).expect("sent");
    hears(&uc, b"down");
    uc.send_to(b"up", (ours, PORTS[1])).expect("sent");
    hears(&ps, b"up");
    assert_eq!(
        watch.next(Some(Duration::from_secs(1))).expect("a socket"),
        None
    );
}

/// The kernel reckons places in its window as remainders of 2^32. That is why
/// [`Numbers`] rounds windows up: this is what happens with another size.
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_window_that_is_no_power_of_two_takes_the_first_packet_twice() {
    gm_tests::needs_esp!();
    let two = Two::new();
    let take_twice = |window: u32, spi: u32| {
        let plans = two.install(spi, 1, Suite::HmacSha1Null, Way::Trans4);
        let mut state = plans[0][0].state.clone();
        state.numbers = Numbers::fresh(64, false);
        state.numbers.window = window;
        state.numbers.seen.resize(window.div_ceil(64) as usize, 0);
        tables(&two.us, |xfrm| {
            xfrm.delete_state(state.id)?;
            xfrm.add_state(&state)
        })
        .expect("a state");
        let (ours, theirs) = ends(Way::Trans4);
        let ps = socket(&two.us, ours, PORTS[1]);
        let uc = socket(&two.phone, theirs, PORTS[2]);
        let id = plans[1][0].state.id;
        // The phone sends its first number twice.
        let fresh = tables(&two.phone, |xfrm| xfrm.numbers(id)).expect("numbers");
        uc.send_to(b"once", (ours, PORTS[1])).expect("sent");
        hears(&ps, b"once");
        tables(&two.phone, |xfrm| xfrm.set_numbers(id, &fresh)).expect("numbers");
        uc.send_to(b"twice", (ours, PORTS[1])).expect("sent");
        let replays = || {
            let state = tables(&two.us, |xfrm| xfrm.state(state.id)).expect("a state");
            state.counters.replay
        };
        ps.set_nonblocking(true).expect("a setting");
        let mut buffer = [0; 100];
        let mut taken = false;
        waits("the second one is taken or refused", || {
            taken = ps.recv(&mut buffer).is_ok();
            taken || replays() == 1
        });
        for (ns, plans) in [(&two.us, &plans[0]), (&two.phone, &plans[1])] {
            tables(ns, |xfrm| sets::remove(xfrm, plans, |_| false)).expect("removed");
        }
        taken
    };
    assert!(
        take_twice(100, 0x1000),
        "this kernel is better: round no longer"
    );
    for window in [64, 4096] {
        assert_eq!(gm_xfrm::kernel::kernel_window(window), window);
        assert!(!take_twice(window, 0x1000 + window), "{window}");
    }
}
