//! Sets of SAs that come, go and take over.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gm_dataplane::{Config, Direction, Error, Reason, SadbError};
use gm_esp::{Mode, Suite};
use gm_xsk::LinkSocket;

use crate::lab::{Family, Lab, NAMES, PORT_PC, PORT_PS, PORT_UC, PORT_US, configs, joined};
use crate::middle::{Out, U, fragment};
use crate::sockets::{WAIT, connect, count, grows, megabyte, pass, silent, udp};
use crate::traffic::{Traffic, during};
use crate::{FAMILIES, through_a_box};

/// The SPI of an ESP frame over IPv4.
fn spi(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[34..38].try_into().unwrap())
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn sets_come_and_go_and_nothing_of_them_stays() {
    let (p_ns, u_ns) = joined();
    // Room for one set: each takes the places of the one before.
    let lab = Lab::with(
        p_ns,
        u_ns,
        configs(None).map(|c| Config { max_sas: 4, ..c }),
    );
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    let wire = lab.u.ns.run(|| LinkSocket::bind(NAMES[1]).unwrap());
    let (tap, captured) = crossbeam::channel::unbounded();
    lab.u.plane.tap(Some(tap)).unwrap();
    let mut old: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut reused = 0;
    for n in 0..40 {
        let suite = Suite::every().nth(n % 8).unwrap();
        let sets = lab.install(suite, Family::V4);
        let inbound = || {
            let rows = lab.p.plane.list();
            let of = |r: &&gm_dataplane::SaStatus| r.spec.selector.dst_port == Some(PORT_PS);
            rows.iter().find(of).unwrap().clone()
        };
        let row = inbound();
        assert_eq!(
            (row.top, row.packets),
            (0, 0),
            "something is left of another"
        );
        assert_eq!(row.drops, [], "something is left of another");
        // Number 1 is new, in the window and in XDP's copy of it.
        for len in [100, 3000, 50] {
            pass(&uc, &ps, len);
            pass(&ps, &uc, len);
        }
        let sent: Vec<_> = captured
            .try_iter()
            .filter(|f| f.direction == Direction::Out)
            .map(|f| f.frame)
            .collect();
        assert!(
            sent.iter()
                .filter(|f| fragment(f).is_none())
                .all(|f| spi(f) == row.spec.spi),
            "a flow goes to an SA that is gone"
        );
        // A replay, so that there is something to be left over.
        wire.send(&sent[0]).unwrap();
        let end = std::time::Instant::now() + crate::sockets::WAIT;
        while inbound().drops != [(Reason::Replay, 1)] {
            assert!(std::time::Instant::now() < end, "{:?}", inbound().drops);
        }
        // What an SA before in this place has sent is nobody's.
        if let Some((_, frame)) = old.iter().find(|(slot, _)| *slot == row.slot) {
            let before = count(&lab.p.plane, Reason::UnknownSpi);
            wire.send(frame).unwrap();
            grows(&lab.p.plane, Reason::UnknownSpi, before, 1);
            reused += 1;
        }
        old.retain(|(slot, _)| *slot != row.slot);
        old.push((row.slot, sent[0].clone()));

        let [at_p, at_u] = sets;
        lab.u.plane.remove(at_u).unwrap();
        let before = count(&lab.u.plane, Reason::OutNoSa);
        uc.send_to(b"nobody seals this", (p, PORT_PS)).unwrap();
        grows(&lab.u.plane, Reason::OutNoSa, before, 1);
        lab.p.plane.remove(at_p).unwrap();
        assert!(lab.p.plane.list().is_empty() && lab.u.plane.list().is_empty());
    }
    silent(&ps);
    assert!(reused > 10, "{reused} slots were used again");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn fragments_that_wait_while_their_sa_goes_come_out_under_no_other() {
    let (lab, middle) = through_a_box();
    let (p, u) = Family::V4.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    for _ in 0..5 {
        let sets = lab.install(Suite::NullAesGcm, Family::V4);
        let held = Arc::new(Mutex::new(Vec::new()));
        let hold = held.clone();
        middle.set(move |leg, frame| match fragment(&frame) {
            Some(true) if leg == U => {
                hold.lock().unwrap().push(frame);
                Out::new()
            }
            _ => vec![(1 - leg, frame)],
        });
        let fragments = count(&lab.p.plane, Reason::Fragment);
        uc.send_to(&[7; 3000], (p, PORT_PS)).unwrap();
        grows(&lab.p.plane, Reason::Fragment, fragments, 2);
        lab.p.plane.remove(sets[0]).unwrap();
        lab.u.plane.remove(sets[1]).unwrap();
        lab.install(Suite::NullAesGcm, Family::V4);
        let before = count(&lab.p.plane, Reason::UnknownSpi);
        for frame in held.lock().unwrap().drain(..) {
            middle.inject(crate::middle::P, &frame);
        }
        grows(&lab.p.plane, Reason::UnknownSpi, before, 1);
        silent(&ps);
        middle.clear();
        pass(&uc, &ps, 3000);
        for side in [&lab.p, &lab.u] {
            let set = side.plane.list()[0].set;
            side.plane.remove(set).unwrap();
        }
    }
}

/// Sets of these suites, one after the other, while traffic flows. None of it is lost.
fn take_over(suites: impl IntoIterator<Item = Suite>, family: Family, mode: Mode) {
    let lab = Lab::new(None);
    let (p, u) = family.addresses();
    let (ps, uc) = (
        lab.p.ns.run(|| udp(p, PORT_PS)),
        lab.u.ns.run(|| udp(u, PORT_UC)),
    );
    let mut suites = suites.into_iter();
    let mut sets = lab.install_as(suites.next().unwrap(), family, mode);
    // In a tunnel the P-CSCF sends when it has heard the phone.
    pass(&uc, &ps, 100);
    during(&uc, &ps, |wait| {
        for suite in suites {
            wait(100);
            let new = lab.stand_by(suite, family, mode);
            wait(100);
            // The phone switches over first: it answers the challenge over the new set.
            lab.u.plane.activate(new[1]).unwrap();
            wait(100);
            lab.p.plane.activate(new[0]).unwrap();
            wait(100);
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.retire(set).unwrap();
            }
            // What was under way has come when as much again has.
            wait(100);
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.remove(set).unwrap();
            }
            sets = new;
        }
        wait(100);
    });
    for side in [&lab.p, &lab.u] {
        let stats = side.plane.stats().unwrap();
        for reason in [
            Reason::UnknownSpi,
            Reason::BadIcv,
            Reason::OutNoSa,
            Reason::Replay,
        ] {
            assert_eq!(stats.get(reason), 0, "{}", reason.name());
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_new_set_takes_over_under_traffic_and_nothing_is_lost() {
    for family in FAMILIES {
        for mode in [Mode::Trans, Mode::UdpEncTun] {
            take_over([Suite::HmacSha1AesCbc; 8], family, mode);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_connection_goes_on_under_the_set_that_has_taken_over() {
    for family in FAMILIES {
        let lab = Lab::new(None);
        let mut sets = lab.install(Suite::AesGmacNull, family);
        let (p, u) = family.addresses();
        let listener = lab.p.ns.run(|| TcpListener::bind((p, PORT_PS)).unwrap());
        let client = lab.u.ns.run(|| connect((u, PORT_UC), (p, PORT_PS)));
        let (server, _) = listener.accept().unwrap();
        // A suite that takes more room than the one whose SYN was clamped, too.
        for suite in [
            Suite::NullAesGcm,
            Suite::HmacSha1AesCbc,
            Suite::HmacSha1Null,
        ] {
            let both = || (client.try_clone().unwrap(), server.try_clone().unwrap());
            let busy = std::thread::spawn({
                let (a, b) = both();
                move || megabyte(a, b)
            });
            let new = lab.install(suite, family);
            busy.join().unwrap();
            for (side, set) in [&lab.p, &lab.u].into_iter().zip(sets) {
                side.plane.retire(set).unwrap();
                side.plane.remove(set).unwrap();
            }
            sets = new;
            let (a, b) = both();
            megabyte(a, b);
        }
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_set_of_another_suite_takes_over_under_traffic_and_nothing_is_lost() {
    let suites = Suite::every().chain(Suite::every().take(1));
    take_over(suites, Family::V4, Mode::Trans);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn all_suites_are_up_at_once_and_carry_side_by_side() {
    let (p_ns, u_ns) = joined();
    let [pc, mut uc] = configs(None);
    uc.client_ports = vec![20_000..=20_999];
    let lab = Lab::with(p_ns, u_ns, [pc, uc]);
    let (p, u) = Family::V4.addresses();
    let ps = lab.p.ns.run(|| udp(p, PORT_PS));
    let phones: Vec<_> = Suite::every()
        .enumerate()
        .map(|(n, suite)| {
            let ports = [20_000 + n as u16, 20_100 + n as u16];
            let sets = lab.stand_by_at(suite, Family::V4, Mode::Trans, ports);
            lab.p.plane.activate(sets[0]).unwrap();
            lab.u.plane.activate(sets[1]).unwrap();
            lab.u.ns.run(|| udp(u, ports[0]))
        })
        .collect();
    let used = || {
        let rows = lab.p.plane.list();
        rows.iter().filter(|r| r.packets > 3).count()
    };
    // All of them into one socket, so that batches mix them; then back to each.
    let traffic = Traffic::default();
    std::thread::scope(|s| {
        for phone in &phones {
            s.spawn(|| traffic.send(phone, &ps));
        }
        s.spawn(|| traffic.receive(&ps));
        traffic.wait(4000);
        // Who sends is the scheduler's choice: each phone gets its turn.
        let end = Instant::now() + WAIT;
        while used() < phones.len() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        traffic.stop();
    });
    let used = used();
    assert!(used >= phones.len(), "{used} SAs have carried something");
    for phone in &phones {
        for len in [10, 1500, 20_000] {
            pass(&ps, phone, len);
        }
    }
    assert_eq!(count(&lab.p.plane, Reason::BadIcv), 0);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn when_all_places_are_taken_one_more_set_is_refused_and_the_others_carry() {
    let (p_ns, u_ns) = joined();
    let [mut pc, mut uc] = configs(None);
    (pc.max_sas, uc.max_sas) = (8, 8);
    let lab = Lab::with(p_ns, u_ns, [pc, uc]);
    lab.install(Suite::NullAesGcm, Family::V4);
    let old = lab.install(Suite::NullAesGcm, Family::V6);
    let full = lab.p.plane.reserve(&[]).unwrap_err();
    assert!(
        matches!(full, Error::Sadb(SadbError::Full { .. })),
        "{full}"
    );
    let rows = lab.p.plane.list();
    for family in [Family::V4, Family::V6] {
        let (p, u) = family.addresses();
        let (ps, uc) = (
            lab.p.ns.run(|| udp(p, PORT_PS)),
            lab.u.ns.run(|| udp(u, PORT_UC)),
        );
        pass(&uc, &ps, 100);
        pass(&ps, &uc, 3000);
    }
    assert_eq!(lab.p.plane.list().len(), rows.len());
    // When one has gone there is room again.
    lab.p.plane.remove(old[0]).unwrap();
    lab.u.plane.remove(old[1]).unwrap();
    lab.install(Suite::NullAesGcm, Family::V6);
    let (p, u) = Family::V6.addresses();
    let (pc, us) = (
        lab.p.ns.run(|| udp(p, PORT_PC)),
        lab.u.ns.run(|| udp(u, PORT_US)),
    );
    pass(&pc, &us, 100);
}
