//! Several queues and several workers, real veth devices and sockets: whatever
//! queue brings a packet, the worker of its SA judges it; workers come, go and
//! die, interfaces too, and no SA is lost.

#[path = "workers/bounds.rs"]
mod bounds;
#[path = "workers/bulk.rs"]
mod bulk;
#[path = "workers/inject.rs"]
mod inject;
#[path = "workers/links.rs"]
mod links;
#[path = "workers/net.rs"]
mod net;
#[path = "workers/talk.rs"]
mod talk;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Barrier, Once};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{Error, Event, Fault, Reason};
use net::{Net, WAIT, count, event, leaks, named};
use talk::Talk;

/// Long enough for all queues to have brought something.
const A_WHILE: Duration = Duration::from_millis(300);

#[test]
#[ignore = "root: namespaces, BPF"]
fn every_phone_is_served_by_the_worker_of_its_address() {
    let net = Net::new(4, [4, 3], 12);
    let talk = Talk::new(&net);
    talk.during(WAIT, || thread::sleep(A_WHILE));
    assert_eq!(talk.missed(), 0);
    net.nothing_lost();
    for side in [&net.p, &net.u] {
        let stats = side.plane.stats().unwrap();
        let sum = |f: fn(&gm_dataplane::WorkerStats) -> u64| stats.workers.iter().map(f).sum();
        let (out, into): (u64, u64) = (sum(|w| w.handed_out), sum(|w| w.handed_in));
        assert!(out > 0, "no packet came to another worker than its own");
        assert_eq!(out, into);
        let lanes: Vec<u32> = stats.workers.iter().flat_map(|w| w.lanes.clone()).collect();
        assert_eq!(lanes.len(), 4, "{lanes:?}");
    }
    let queues = net.p.ns.ip("-d link show gm0x");
    assert!(queues.contains("numrxqueues 4"), "{queues}");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_polls_busily_serves_the_phones_and_sleeps_in_the_end() {
    let config = gm_dataplane::Config {
        busy_poll_us: 500_000,
        ..net::p_config(1)
    };
    let net = Net::with(config, 1, 1, 6);
    net.all_pass();
    net.nothing_lost();
    // Every question is an order, after which it looks again for half a second.
    let turns = || {
        let worker = &net.p.plane.stats().unwrap().workers[0];
        (worker.turns, worker.sleeps)
    };
    let (before, end) = (turns(), Instant::now() + WAIT);
    let (mut asked, mut now) = (0, before);
    while now.1 == before.1 {
        assert!(Instant::now() < end, "it never slept: {before:?}, {now:?}");
        thread::sleep(Duration::from_secs(1));
        (asked, now) = (asked + 1, turns());
    }
    let looks = (now.0 - before.0) - (now.1 - before.1) - asked;
    assert!(looks > 10, "it did not look again: {before:?}, {now:?}");
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn workers_come_and_go_under_traffic_and_no_packet_is_lost() {
    let net = Net::new(4, [1, 2], 12);
    let sas = net.p.plane.list().len();
    let talk = Talk::new(&net);
    talk.during(WAIT, || {
        for n in [2, 4, 1, 3, 4, 2, 1, 4] {
            thread::sleep(A_WHILE);
            net.p.plane.set_workers(n).unwrap();
            net.u.plane.set_workers(5 - n).unwrap();
            let stats = net.p.plane.stats().unwrap();
            assert_eq!(stats.workers.len(), n as usize);
            // Nobody is left without a queue.
            assert!(stats.workers.iter().all(|w| !w.lanes.is_empty()));
        }
        thread::sleep(A_WHILE);
    });
    let (p, u) = (net.p.plane.stats().unwrap(), net.u.plane.stats().unwrap());
    assert_eq!(talk.missed(), 0, "{:?} {:?}", named(&p), named(&u));
    net.nothing_lost();
    assert_eq!(net.p.plane.list().len(), sas);
    for stats in [p, u] {
        for reason in [
            Reason::Replay,
            Reason::Stale,
            Reason::UnknownSpi,
            Reason::OutNoSa,
        ] {
            assert_eq!(stats.get(reason), 0, "{:?}", named(&stats));
        }
    }
    // SAs that are installed now go to their worker as well.
    net.p.plane.remove(net.sets[0][0]).unwrap();
    net.u.plane.remove(net.sets[0][1]).unwrap();
    let mode = gm_esp::Mode::Trans;
    net::install(&net.p.plane, &net.u.plane, net.phones[0], mode, 99);
    talk.rounds(2);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn more_workers_than_queues_are_refused_by_name() {
    let net = Net::new(2, [1, 1], 1);
    for n in [0, 3] {
        let refused = net.p.plane.set_workers(n).unwrap_err();
        assert!(matches!(refused, Error::Config(_)), "{refused}");
        assert!(refused.to_string().contains("ethtool -L p0"), "{refused}");
    }
    net.p.plane.set_workers(2).unwrap();
    net.all_pass();
    net.p.plane.shutdown().unwrap();
    let started = net
        .p
        .ns
        .run(|| gm_dataplane::DataPlane::start(net::p_config(3)));
    let refused = started.err().expect("it started").to_string();
    assert!(refused.contains("ethtool -L p0"), "{refused}");
    let links = net.p.ns.ip("link");
    assert!(!links.contains("gm0"), "{links}");
}

/// A worker dies again and again under traffic: its SAs are served again with
/// their numbers and windows, and the others' all the time.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_panics_is_started_again_with_its_sas() {
    let net = Net::new(4, [3, 1], 12);
    let talk = Talk::new(&net);
    let before: HashMap<_, _> = tops(&net);
    talk.during(Duration::from_secs(1), || {
        for (fault, of) in [
            (Fault::Panic(1), 1),
            (Fault::PanicInRings(1), 1),
            (Fault::Panic(0), 0),
        ] {
            thread::sleep(A_WHILE);
            net.p.plane.fault(fault).unwrap();
            let said = event(&net.p.plane, |e| matches!(e, Event::WorkerRestarted { .. }));
            let Event::WorkerRestarted { worker, why } = said else {
                unreachable!()
            };
            assert!(why.contains("a test's fault"), "{why}");
            assert_eq!(worker, of);
        }
        thread::sleep(A_WHILE);
    });
    // What the dead one had in hand, and what its rings held.
    let lost = talk.missed();
    assert!(lost <= 2 * 64 + 512, "{lost} datagrams are lost");
    talk.rounds(2);
    let stats = net.p.plane.stats().unwrap();
    leaks(&stats);
    let restarts: Vec<u64> = stats.workers.iter().map(|w| w.restarts).collect();
    assert_eq!(restarts, [1, 2, 0]);
    let lanes: usize = stats.workers.iter().map(|w| w.lanes.len()).sum();
    assert_eq!(lanes, 4);
    // Numbers and windows go on: nothing was refused as seen, nothing began anew.
    assert_eq!(stats.get(Reason::Replay) + stats.get(Reason::Stale), 0);
    for (slot, top) in tops(&net) {
        assert!(top >= before.get(&slot).copied().unwrap_or(0));
    }
}

/// Once of three times, whatever else the machine has to do; not for machines
/// that are emulated.
#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_panics_is_back_within_a_second() {
    let net = Net::new(2, [2, 1], 6);
    let talk = Talk::new(&net);
    let times = talk.during(Duration::from_secs(1), || {
        [0, 1, 0].map(|worker| {
            let down = Instant::now();
            net.p.plane.fault(Fault::Panic(worker)).unwrap();
            event(&net.p.plane, |e| matches!(e, Event::WorkerRestarted { .. }));
            let took = down.elapsed();
            thread::sleep(A_WHILE);
            took
        })
    });
    let quickest = times.iter().min().unwrap();
    assert!(*quickest < Duration::from_secs(1), "{times:?}");
    talk.rounds(2);
}

/// A worker is down as long as somebody holds what its supervisor needs: phones
/// that need neither it nor its queues are answered all the time.
#[test]
#[ignore = "root: namespaces, BPF"]
fn while_one_worker_is_down_the_others_carry_on() {
    let mut net = Net::new(4, [4, 1], 32);
    // Whoever looks at removed SAs holds it; there has to be one.
    let gone = net.sets.pop().unwrap();
    net.phones.pop();
    net.p.plane.remove(gone[0]).unwrap();
    let talk = Talk::new(&net);
    talk.rounds(1);
    let (held, free) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        net.p.plane.fault(Fault::Panic(1)).unwrap();
        scope.spawn(|| {
            let holds = Once::new();
            net.p.plane.gone(|_| {
                holds.call_once(|| {
                    held.wait();
                    free.wait();
                });
                false
            });
        });
        held.wait();
        let restarted = |e: Event| matches!(e, Event::WorkerRestarted { worker: 1, .. });
        talk.during(Duration::from_millis(300), || {
            let before = talk.answered.load(Ordering::Relaxed);
            let end = Instant::now() + WAIT;
            // More than were under way when it died: 4 of each phone.
            while talk.answered.load(Ordering::Relaxed) < before + 1000 && Instant::now() < end {
                thread::sleep(Duration::from_millis(10));
            }
            let answered = talk.answered.load(Ordering::Relaxed) - before;
            let early = net.p.plane.events().try_iter().any(restarted);
            free.wait();
            assert!(answered >= 1000, "{answered} answers");
            assert!(!early, "it was not down");
            event(&net.p.plane, |e| restarted(e.clone()));
        });
    });
    talk.rounds(2);
    leaks(&net.p.plane.stats().unwrap());
}

fn tops(net: &Net) -> HashMap<u32, u64> {
    let rows = net.p.plane.list().into_iter();
    rows.map(|row| (row.slot, row.top.max(row.seq))).collect()
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_keeps_panicking_is_given_up_and_the_others_have_its_work() {
    let net = Net::new(4, [2, 1], 12);
    let talk = Talk::new(&net);
    talk.during(Duration::from_secs(1), || {
        for n in 1..=5 {
            net.p.plane.fault(Fault::Panic(1)).unwrap();
            let said = event(&net.p.plane, |e| {
                matches!(e, Event::WorkerRestarted { .. } | Event::WorkerGone { .. })
            });
            assert_eq!(n == 5, matches!(said, Event::WorkerGone { worker: 1, .. }));
        }
    });
    talk.rounds(2);
    let stats = net.p.plane.stats().unwrap();
    assert_eq!(stats.workers.len(), 1);
    assert_eq!(stats.workers[0].lanes, [0, 1, 2, 3]);
    leaks(&stats);
    // Asked for, it gets another chance.
    net.p.plane.set_workers(2).unwrap();
    talk.rounds(2);
    assert_eq!(net.p.plane.stats().unwrap().workers.len(), 2);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn the_last_worker_that_is_given_up_stops_the_plane_with_the_policy_in_force() {
    let net = Net::new(1, [1, 1], 2);
    let talk = Talk::new(&net);
    talk.during(Duration::from_millis(300), || {
        for n in 1..=5 {
            net.p.plane.fault(Fault::Panic(0)).unwrap();
            let said = event(&net.p.plane, |e| {
                matches!(
                    e,
                    Event::WorkerRestarted { .. } | Event::WorkerStopped { .. }
                )
            });
            assert_eq!(
                n == 5,
                matches!(said, Event::WorkerStopped { worker: 0, .. })
            );
        }
    });
    assert!(matches!(
        net.p.plane.fault(Fault::Panic(0)),
        Err(Error::WorkerGone)
    ));
    // Nothing comes through in clear, neither way.
    drop(talk);
    let before = count(&net.p.plane, Reason::NoWorker);
    let talk = Talk::new(&net);
    talk.during(Duration::from_millis(300), || thread::sleep(A_WHILE));
    assert_eq!(talk.answered.into_inner(), 0);
    assert!(count(&net.p.plane, Reason::NoWorker) > before);
    net.p.plane.shutdown().unwrap();
}
