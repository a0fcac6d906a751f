//! SAs change hands under traffic, between the data plane and another one on the same host,
//! with their numbers and windows: every datagram arrives once, no number is used twice.

// Each of the programs that share the laboratory uses a part of it.
#[allow(dead_code)]
#[path = "dataplane/lab.rs"]
mod lab;
#[path = "transfer/other.rs"]
mod other;
#[allow(dead_code)]
#[path = "dataplane/sockets.rs"]
mod sockets;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{
    DataPlane, Dir, Error, Event, Fault, NewSa, Numbers, ROOM, Reason, SetId, SetSpec,
};
use gm_esp::{Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_tests::netns::NetNs;
use rustix::net::sockopt;

use lab::{Family, PORT_PS, PORT_UC, configs, joined, keys, named, start};
use other::Other;
use sockets::{WAIT, count, udp};

/// What is on its way has arrived after this.
const SETTLED: Duration = Duration::from_millis(60);

/// A P-CSCF's host where another data plane has the SAs, and a UE.
struct Host {
    plane: DataPlane,
    ue: DataPlane,
    other: Other,
    sas: Vec<NewSa>,
    ps: UdpSocket,
    uc: UdpSocket,
    _ns: (NetNs, NetNs),
}

/// The P-CSCF's SAs: one in, one out.
fn sas(mode: Mode, at_p: bool) -> Vec<NewSa> {
    let (p, u) = Family::V4.addresses();
    let one = |src: IpAddr, dst: IpAddr, ports: [u16; 2], spi, to_p: bool| NewSa {
        spec: SaSpec {
            spi,
            mode,
            selector: Selector {
                src,
                dst,
                src_port: Some(ports[0]),
                dst_port: Some(ports[1]),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::NullAesGcm,
            outer: (mode == Mode::UdpEncTun).then_some(Outer {
                src,
                dst,
                sport: None,
                dport: Some(4500),
            }),
            esn: false,
            replay_window: 64,
        },
        keys: keys(Suite::NullAesGcm),
        dir: if to_p == at_p { Dir::In } else { Dir::Out },
        first_seq: None,
    };
    vec![
        one(u, p, [PORT_UC, PORT_PS], 0x1001, true),
        one(p, u, [PORT_PS, PORT_UC], 0x2002, false),
    ]
}

fn set(sas: Vec<NewSa>) -> SetSpec {
    SetSpec { set: None, sas }
}

impl Host {
    fn new(mode: Mode) -> Host {
        let (p, u) = joined();
        let [mut pc, uc] = configs(None);
        pc.kernel_sas = true;
        let (plane, ue) = (start(&p, pc), start(&u, uc));
        let sas_of_u = ue.install(set(sas(mode, false))).unwrap();
        ue.activate(sas_of_u).unwrap();
        let ends = Family::V4.addresses();
        let sas = sas(mode, true);
        let socket = |ns: &NetNs, ip, port| {
            let socket = ns.run(|| udp(ip, port));
            sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
            let short = Some(Duration::from_millis(5));
            socket.set_read_timeout(short).unwrap();
            socket
        };
        Host {
            plane,
            ue,
            other: Other::new(&p, &sas, ends),
            ps: socket(&p, ends.0, PORT_PS),
            uc: socket(&u, ends.1, PORT_UC),
            sas,
            _ns: (p, u),
        }
    }

    /// The other one's SAs come here, as `adopt` of the kernel's does it.
    fn adopt(&self, talk: &Talk) -> SetId {
        let mut adoption = self.plane.adopt(vec![set(self.sas.clone())]).unwrap();
        // From here on the application's packets are not the other one's.
        talk.by_other(false);
        thread::sleep(SETTLED);
        let numbers = self.other.inside().stop(&self.other);
        adoption.finish(&[numbers]).unwrap();
        let set = self.plane.list().first().unwrap().set;
        assert_eq!(adoption.sets(), []);
        set
    }

    /// And go back.
    fn give_back(&self, set: SetId, talk: &Talk) {
        let mut release = self.plane.release(&[set]).unwrap();
        let numbers: Vec<Numbers> = release.sas()[0]
            .1
            .iter()
            .map(|sa| sa.numbers.clone())
            .collect();
        self.other.inside().start(&self.other, &numbers, ROOM);
        talk.by_other(true);
        thread::sleep(SETTLED);
        release.finish().unwrap();
        assert_eq!(self.plane.list(), []);
    }

    fn peer(&self) -> (SocketAddr, SocketAddr) {
        (self.ps.local_addr().unwrap(), self.uc.local_addr().unwrap())
    }
}

/// Counted datagrams both ways.
struct Talk {
    other_sends: RwLock<bool>,
    stop: AtomicBool,
    quiet: AtomicBool,
    /// Sent up and down.
    sent: [AtomicU32; 2],
    /// What came out of port_ps and port_uc.
    came: [Mutex<Vec<u32>>; 2],
}

impl Talk {
    fn new() -> Talk {
        Talk {
            other_sends: RwLock::new(true),
            stop: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            sent: Default::default(),
            came: Default::default(),
        }
    }

    /// Who seals what the P-CSCF sends, from now on.
    fn by_other(&self, other: bool) {
        *self.other_sends.write().unwrap() = other;
    }

    fn came(&self, way: usize) -> usize {
        self.came[way].lock().unwrap().len()
    }

    fn each(&self, mut send: impl FnMut(u32), way: usize) {
        while !self.stop.load(Relaxed) {
            if !self.quiet.load(Relaxed) {
                send(self.sent[way].load(Relaxed));
                self.sent[way].fetch_add(1, Relaxed);
            }
            thread::sleep(Duration::from_micros(300));
        }
    }

    fn hear(&self, socket: &UdpSocket, way: usize) {
        while !self.stop.load(Relaxed) {
            let mut b = [0; 64];
            if let Ok(n) = socket.recv(&mut b) {
                assert_eq!(n, 4);
                let number = u32::from_be_bytes(b[..4].try_into().unwrap());
                self.came[way].lock().unwrap().push(number);
            }
        }
    }

    /// Talks as long as `f` takes, and until all has arrived or time is over.
    fn during(&self, host: &Host, f: impl FnOnce()) {
        let (p, u) = host.peer();
        thread::scope(|scope| {
            scope.spawn(|| self.each(|n| assert!(host.uc.send_to(&n.to_be_bytes(), p).is_ok()), 0));
            scope.spawn(|| {
                let send = |n: u32| match *self.other_sends.read().unwrap() {
                    true => host.other.send(n),
                    false => assert!(host.ps.send_to(&n.to_be_bytes(), u).is_ok()),
                };
                self.each(send, 1);
            });
            scope.spawn(|| self.hear(&host.ps, 0));
            scope.spawn(|| self.hear(&host.uc, 1));
            scope.spawn(|| {
                while !self.stop.load(Relaxed) {
                    host.other.receive();
                }
            });
            let stop = Stop(self);
            self.wait(|| host.other.inside().came.len() + self.came(0) > 20 && self.came(1) > 20);
            f();
            self.quiet.store(true, Relaxed);
            self.wait(|| {
                let up = host.other.inside().came.len() + self.came(0);
                [up, self.came(1)]
                    .into_iter()
                    .zip(&self.sent)
                    .all(|(n, s)| n as u32 >= s.load(Relaxed))
            });
            drop(stop);
        });
    }

    fn wait(&self, until: impl Fn() -> bool) {
        let end = Instant::now() + WAIT;
        while !until() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The numbers that came, and how many came again, up and down.
    fn numbers(&self, host: &Host) -> [(Vec<u32>, usize); 2] {
        let mut up = self.came[0].lock().unwrap().clone();
        up.extend(&host.other.inside().came);
        let down = self.came[1].lock().unwrap().clone();
        [up, down].map(|mut came| {
            let all = came.len();
            came.sort_unstable();
            came.dedup();
            let again = all - came.len();
            (came, again)
        })
    }

    /// Every datagram has arrived once.
    fn all_once(&self, host: &Host) {
        let numbers = self.numbers(host);
        for ((came, again), (sent, way)) in numbers.iter().zip(self.sent.iter().zip(["up", "down"]))
        {
            let sent = sent.load(Relaxed);
            let lost: Vec<u32> = (0..sent)
                .filter(|n| came.binary_search(n).is_err())
                .collect();
            assert!(
                lost.is_empty() && *again == 0,
                "{way}: of {sent} {lost:?} are lost, {again} came again; {:?} {:?} {:?}",
                named(&host.plane.stats().unwrap()),
                named(&host.ue.stats().unwrap()),
                host.other.inside().refused
            );
            assert!(sent > 100, "{way}: {sent}");
        }
    }
}

/// Ends the talk, also after a panic.
struct Stop<'t>(&'t Talk);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

/// Nothing was refused anywhere.
fn nothing_dropped(host: &Host) {
    for plane in [&host.plane, &host.ue] {
        for reason in [
            Reason::Replay,
            Reason::Stale,
            Reason::UnknownSpi,
            Reason::BadIcv,
            Reason::OutNoSa,
            Reason::HandoverFull,
            Reason::NoWorker,
        ] {
            assert_eq!(count(plane, reason), 0, "{}", reason.name());
        }
    }
    assert_eq!(host.other.inside().refused, []);
}

fn there_and_back(mode: Mode) {
    let host = Host::new(mode);
    let talk = Talk::new();
    talk.during(&host, || {
        for _ in 0..3 {
            let set = host.adopt(&talk);
            thread::sleep(SETTLED);
            host.give_back(set, &talk);
            thread::sleep(SETTLED);
        }
    });
    talk.all_once(&host);
    nothing_dropped(&host);
    assert!(count(&host.plane, Reason::PassKernelSa) > 100);
    assert!(talk.came(0) > 20, "nothing came by the data plane");
    // Replays of what came before the first move end at whoever has the SAs now.
    let early = host.other.inside().early.clone();
    assert!(early.len() > 10);
    host.other.inside().came.clear();
    replays(&host, &early, mode);
}

/// Sends packets again, from the UE's namespace: each is refused, once where the other one has
/// the SAs and once here.
fn replays(host: &Host, early: &[Vec<u8>], mode: Mode) {
    use gm_xsk::LinkSocket;
    let (p, u) = (&host._ns.0, &host._ns.1);
    let wire = u.run(|| LinkSocket::bind("u0").unwrap());
    let mut head = [p.mac("p0"), u.mac("u0")].concat();
    head.extend([8, 0]);
    let again = || {
        for packet in early {
            wire.send(&[&head[..], packet].concat()).unwrap();
        }
    };
    let refused = || host.other.inside().refused.len();
    let before = refused();
    again();
    let end = Instant::now() + WAIT;
    while refused() < before + early.len() && Instant::now() < end {
        host.other.receive();
    }
    assert_eq!(refused(), before + early.len());
    assert_eq!(host.other.inside().came, []);

    let mut adoption = host.plane.adopt(vec![set(sas(mode, true))]).unwrap();
    let numbers = host.other.inside().stop(&host.other);
    adoption.finish(&[numbers]).unwrap();
    let old = || count(&host.plane, Reason::Replay) + count(&host.plane, Reason::Stale);
    let (before, good) = (old(), count(&host.plane, Reason::Ok));
    again();
    let end = Instant::now() + WAIT;
    while old() < before + early.len() as u64 && Instant::now() < end {
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(old(), before + early.len() as u64);
    assert_eq!(count(&host.plane, Reason::Ok), good);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn sas_come_and_go_under_traffic_and_every_datagram_arrives_once() {
    there_and_back(Mode::Trans);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn sas_in_udp_come_and_go_under_traffic_and_every_datagram_arrives_once() {
    there_and_back(Mode::UdpEncTun);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn with_three_workers_the_same_holds() {
    lab::again_with_workers(&[
        "sas_come_and_go_under_traffic_and_every_datagram_arrives_once",
        "sas_in_udp_come_and_go_under_traffic_and_every_datagram_arrives_once",
        "a_take_over_that_is_given_up_leaves_all_with_the_other_one",
        "a_hand_over_that_is_given_up_goes_on_behind_what_the_other_one_has_used",
        "a_worker_that_dies_meanwhile_lets_nothing_in_twice",
    ]);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_take_over_that_is_given_up_leaves_all_with_the_other_one() {
    let host = Host::new(Mode::Trans);
    let talk = Talk::new();
    talk.during(&host, || {
        for _ in 0..5 {
            let adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
            thread::sleep(SETTLED / 2);
            drop(adoption);
            thread::sleep(SETTLED / 2);
        }
        // Numbers that cannot be are refused, and nothing has changed.
        let mut adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
        let used_up = Numbers {
            last: u32::MAX.into(),
            seen: Vec::new(),
        };
        let numbers = vec![Numbers::default(), used_up];
        assert!(matches!(adoption.finish(&[numbers]), Err(Error::Sadb(_))));
        drop(adoption);
    });
    assert_eq!(talk.came(0), 0, "the data plane had no SA");
    talk.all_once(&host);
    nothing_dropped(&host);
    assert_eq!(host.plane.list(), []);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_hand_over_that_is_given_up_goes_on_behind_what_the_other_one_has_used() {
    let host = Host::new(Mode::Trans);
    let talk = Talk::new();
    talk.during(&host, || {
        let set = host.adopt(&talk);
        drop(host.plane.release(&[set]).unwrap());
        thread::sleep(SETTLED);
        // The other one begins, and has to stop again.
        let release = host.plane.release(&[set]).unwrap();
        let numbers: Vec<Numbers> = release.sas()[0]
            .1
            .iter()
            .map(|sa| sa.numbers.clone())
            .collect();
        host.other.inside().start(&host.other, &numbers, ROOM);
        talk.by_other(true);
        thread::sleep(SETTLED);
        talk.by_other(false);
        let used = host.other.inside().stop(&host.other);
        assert!(used[1].last > numbers[1].last + ROOM);
        release.take_back(std::slice::from_ref(&used)).unwrap();
        thread::sleep(SETTLED);
        let seq = host.plane.list().iter().map(|sa| sa.seq).max().unwrap();
        assert!(seq > used[1].last);
    });
    // What waited here behind what the other one has sent has higher numbers, so all arrives.
    talk.all_once(&host);
    nothing_dropped(&host);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_worker_that_dies_meanwhile_lets_nothing_in_twice() {
    let host = Host::new(Mode::Trans);
    let talk = Talk::new();
    let dies = || {
        let worker = host.plane.stats().unwrap().workers.len() as u32 - 1;
        // All of them: one has the SAs.
        for worker in 0..=worker {
            host.plane.fault(Fault::Panic(worker)).unwrap();
        }
        let events = host.plane.events();
        let end = Instant::now() + WAIT;
        let mut left = worker + 1;
        while left > 0 && Instant::now() < end {
            let next = events.recv_timeout(Duration::from_millis(100));
            left -= u32::from(matches!(next, Ok(Event::WorkerRestarted { .. })));
            // Those that nothing comes to need something.
            if left > 0 {
                let _ = host
                    .uc
                    .send_to(&u32::MAX.to_be_bytes(), (host.peer().0.ip(), 9));
            }
        }
        left
    };
    let mut early = Vec::new();
    talk.during(&host, || {
        early = host.other.inside().early.clone();
        let mut adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
        talk.by_other(false);
        if lab::workers() == 1 {
            assert_eq!(dies(), 0);
        } else {
            dies();
        }
        thread::sleep(SETTLED);
        let numbers = host.other.inside().stop(&host.other);
        adoption.finish(&[numbers]).unwrap();
        thread::sleep(SETTLED);
        talk.quiet.store(true, Relaxed);
        thread::sleep(SETTLED);
        // Time is not waited for: what the dead one had is lost.
        for (way, sent) in talk.sent.iter().enumerate() {
            sent.store(talk.came(way) as u32, Relaxed);
        }
        talk.sent[0].fetch_add(host.other.inside().came.len() as u32, Relaxed);
    });
    let again = talk.numbers(&host).map(|(_, again)| again);
    assert_eq!(again, [0, 0]);
    let seen = count(&host.ue, Reason::Replay);
    assert_eq!(seen, 0, "a number was used twice");
    assert!(early.len() > 10 && talk.came(0) > 0);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn what_waits_is_bounded_and_stays_in_order() {
    let host = Host::new(Mode::Trans);
    let (p, _) = host.peer();
    let mut adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
    let refused = host.plane.adopt(vec![set(host.sas.clone())]);
    assert!(matches!(refused, Err(Error::Transfer)), "one at a time");
    assert!(matches!(host.plane.set_workers(1), Err(Error::Transfer)));
    let more = 200;
    for n in 0..ROOM as u32 + more {
        host.uc.send_to(&n.to_be_bytes(), p).unwrap();
        if n % 32 == 0 {
            thread::sleep(Duration::from_millis(2));
        }
    }
    sockets::grows(&host.plane, Reason::HandoverFull, 0, more.into());
    let numbers = host.other.inside().stop(&host.other);
    adoption.finish(&[numbers]).unwrap();
    host.ps.set_read_timeout(Some(WAIT)).unwrap();
    for n in 0..ROOM as u32 {
        let mut b = [0; 64];
        let len = host.ps.recv(&mut b).unwrap();
        assert_eq!(b[..len], n.to_be_bytes(), "in order");
    }
    assert_eq!(host.other.inside().refused, []);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn a_set_that_is_removed_meanwhile_ends_its_transfer_and_nobody_waits() {
    let host = Host::new(Mode::Trans);
    let adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
    host.plane.remove(adoption.sets()[0]).unwrap();
    drop(adoption);
    let mut adoption = host.plane.adopt(vec![set(host.sas.clone())]).unwrap();
    let id = adoption.sets()[0];
    let numbers = host.other.inside().stop(&host.other);
    adoption.finish(&[numbers]).unwrap();
    let release = host.plane.release(&[id]).unwrap();
    let numbers = release.sas()[0].1.iter().map(|sa| sa.numbers.clone());
    let numbers: Vec<Numbers> = numbers.collect();
    host.plane.remove(id).unwrap();
    assert!(matches!(release.take_back(&[numbers]), Err(Error::Sadb(_))));
    // The next one may begin.
    drop(host.plane.adopt(vec![set(host.sas.clone())]).unwrap());
    assert_eq!(host.plane.list(), []);
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn what_cannot_be_taken_over_is_refused_and_leaves_nothing() {
    let host = Host::new(Mode::Trans);
    let mut twice = host.sas.clone();
    twice[1].spec.spi = twice[0].spec.spi;
    twice[1].dir = Dir::In;
    twice[1].spec.selector = twice[0].spec.selector;
    let specs = vec![set(host.sas.clone()), set(twice)];
    assert!(matches!(host.plane.adopt(specs), Err(Error::Sadb(_))));
    assert_eq!(host.plane.list(), []);
    assert!(matches!(
        host.plane.release(&[SetId(77)]),
        Err(Error::Sadb(_))
    ));
    // And nothing is under way.
    drop(host.plane.adopt(vec![set(host.sas.clone())]).unwrap());
    let refused = host.ue.adopt(vec![set(sas(Mode::Trans, false))]);
    assert!(
        matches!(refused, Err(Error::Config(_))),
        "without kernel_sas"
    );
}
