//! The packets of one SA on all queues at once, chosen by the test and by no
//! hash: sealed by a phone's data plane, captured, and sent by four threads,
//! each on a queue of its own.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Direction, Reason, Stats};
use gm_esp::Mode as Esp;
use gm_tests::netns::NetNs;
use gm_xsk::{Mode, RingSizes, Socket, Umem, nic};

use super::net::{
    P, PORT_PS, PORT_UC, U, WAIT, count, install, leaks, named, p_config, pcscf, phone, queues,
    start, u_config, udp,
};

const QUEUES: u32 = 4;
/// The other end of the P-CSCF's uplink.
const S: &str = "s0";

/// A P-CSCF with four queues towards the test, and a phone that seals into the
/// void.
struct Lab {
    p: NetNs,
    s: NetNs,
    u: NetNs,
    _void: NetNs,
    p_plane: DataPlane,
    u_plane: DataPlane,
}

impl Lab {
    fn new(workers: u32) -> Lab {
        let [p, s, u, void] = std::array::from_fn(|_| NetNs::new().unwrap());
        let n = queues(QUEUES);
        p.ip(&format!(
            "link add {P} {n} type veth peer name {S} {n} netns {}",
            s.path()
        ));
        u.ip(&format!(
            "link add {U} type veth peer name v0 netns {}",
            void.path()
        ));
        p.ip(&format!("addr add {}/16 dev {P}", pcscf(false)));
        u.ip(&format!("addr add {}/16 dev {U}", phone(2)));
        for (ns, name) in [(&p, P), (&s, S), (&u, U), (&void, "v0")] {
            ns.ip(&format!("link set {name} up"));
        }
        // What is sealed is addressed to the P-CSCF's uplink.
        let mac = p.run(|| nic::mac(P)).unwrap();
        let mac = mac.map(|b| format!("{b:02x}")).join(":");
        u.ip(&format!(
            "neigh add {} lladdr {mac} dev {U} nud permanent",
            pcscf(false)
        ));
        let p_plane = start(&p, p_config(workers));
        let u_plane = start(&u, u_config(&[phone(2)], 1));
        Lab {
            p,
            s,
            u,
            _void: void,
            p_plane,
            u_plane,
        }
    }

    /// What the phone sends when it says `n` things of `len` bytes, as frames.
    fn sealed(&self, n: u32, len: usize) -> Vec<Vec<u8>> {
        let (to, frames) = crossbeam::channel::bounded(16_384);
        self.u_plane.tap(Some(to)).unwrap();
        let uc = self.u.run(|| udp(phone(2), PORT_UC));
        let pieces = len.div_ceil(1400) as u64;
        for i in 0..n {
            let mut bytes = vec![0; len];
            bytes[..4].copy_from_slice(&i.to_be_bytes());
            uc.send_to(&bytes, (pcscf(false), PORT_PS)).unwrap();
            // The phone's rings are not what is tested.
            if i % 32 == 31 {
                let end = Instant::now() + WAIT;
                while (frames.len() as u64) < u64::from(i + 1) * pieces && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        let mut sealed = Vec::new();
        while (sealed.len() as u64) < u64::from(n) * pieces {
            let packet = frames.recv_timeout(WAIT).expect("it is sealed");
            assert_eq!(packet.direction, Direction::Out);
            sealed.push(packet.frame);
        }
        self.u_plane.tap(None).unwrap();
        sealed
    }

    /// Sends on each queue the frames that `of` gives it, all queues at once.
    /// However slow the workers are, they have two lots before them at most: what
    /// gets lost is not lost for want of room.
    fn send(&self, frames: &[Vec<u8>], of: impl Fn(usize, u32) -> bool + Sync) {
        let pieces = if frames.iter().any(|f| f.len() > 1000) {
            3
        } else {
            1
        };
        // A source may send so many fragments in a tenth of a second; what is
        // whole needs no pause, so that several packets meet.
        let pause = Duration::from_millis(if pieces > 1 { 30 } else { 1 });
        let before = ended(&self.p_plane.stats().unwrap());
        let copies: Vec<u64> = (0..frames.len())
            .map(|i| (0..QUEUES).filter(|queue| of(i, *queue)).count() as u64)
            .collect();
        // Packets that have ended when all up to this lot are through.
        let through = |lot: usize| before + copies[..lot * LOT].iter().sum::<u64>() / pieces;
        let lost = AtomicBool::new(false);
        let (of, together) = (&of, &Barrier::new(QUEUES as usize));
        self.s.run(|| {
            thread::scope(|scope| {
                for queue in 0..QUEUES {
                    let (lost, through) = (&lost, &through);
                    scope.spawn(move || {
                        let mut sender = Sender::new(queue);
                        for (n, some) in frames.chunks(LOT).enumerate() {
                            for (i, frame) in some.iter().enumerate() {
                                if of(n * LOT + i, queue) {
                                    sender.send(frame);
                                }
                            }
                            sender.flush();
                            if together.wait().is_leader() && !self.reaches(through(n)) {
                                lost.store(true, Ordering::Relaxed);
                            }
                            together.wait();
                            if lost.load(Ordering::Relaxed) {
                                break;
                            }
                            thread::sleep(pause);
                        }
                        sender.socket.close(&mut sender.umem);
                    });
                }
            });
        });
        let all = before + copies.iter().sum::<u64>() / pieces;
        assert!(
            !lost.into_inner() && self.reaches(all),
            "packets are lost: {}",
            self.story()
        );
    }

    /// Sends all frames on each queue as fast as may be; how many that is.
    fn flood(&self, frames: &[Vec<u8>]) -> u64 {
        self.s.run(|| {
            thread::scope(|scope| {
                for queue in 0..QUEUES {
                    scope.spawn(move || {
                        let mut sender = Sender::new(queue);
                        for some in frames.chunks(LOT) {
                            some.iter().for_each(|frame| sender.send(frame));
                            sender.flush();
                        }
                        sender.socket.close(&mut sender.umem);
                    });
                }
            });
        });
        frames.len() as u64 * u64::from(QUEUES)
    }

    /// Packets that were lost before a worker could judge them: on the wire, in
    /// front of a socket, on the way to another worker.
    fn lost(&self) -> u64 {
        let stats = self.p_plane.stats().unwrap();
        let sockets = stats.workers.iter().flat_map(|w| &w.sockets);
        let sockets: u64 = sockets.map(|s| s.rx_dropped + s.rx_ring_full).sum();
        let links = self.s.ip(&format!("-s link show {S}"));
        let sent = links.split("TX:").nth(1).unwrap().lines().nth(1).unwrap();
        let wire: u64 = sent.split_whitespace().nth(3).unwrap().parse().unwrap();
        let room = [Reason::HandoverFull, Reason::NoFrame].map(|r| stats.get(r));
        wire + sockets + room.iter().sum::<u64>()
    }

    /// Waits until so many packets have ended.
    fn reaches(&self, n: u64) -> bool {
        let end = Instant::now() + WAIT;
        while ended(&self.p_plane.stats().unwrap()) < n {
            if Instant::now() > end {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// What gmesp and the kernel have counted, for messages.
    fn story(&self) -> String {
        let stats = self.p_plane.stats().unwrap();
        let sockets = stats.workers.iter().flat_map(|w| &w.sockets);
        let sockets: Vec<_> = sockets
            .filter(|s| s.rx_dropped + s.rx_ring_full + s.fill_ring_empty > 0)
            .collect();
        let links = [(&self.p, P), (&self.s, S)].map(|(ns, d)| ns.ip(&format!("-s link show {d}")));
        format!("{:?} {sockets:?} {}", named(&stats), links.concat())
    }
}

/// Frames that are sent before anybody looks at what has become of them.
const LOT: usize = 64;

/// Packets that were judged.
fn ended(stats: &Stats) -> u64 {
    let ends = [Reason::Ok, Reason::Replay, Reason::Stale];
    ends.map(|r| stats.get(r)).iter().sum()
}

/// A socket on one queue of the device towards the P-CSCF.
struct Sender {
    umem: Umem,
    socket: Socket,
}

impl Sender {
    fn new(queue: u32) -> Sender {
        let rings = RingSizes {
            rx: 64,
            tx: 64,
            fill: 64,
            completion: 64,
        };
        let mut umem = Umem::new(256).unwrap();
        let device = nic::index(S).unwrap();
        let socket = Socket::bind(&mut umem, device, queue, rings, Mode::Copy).unwrap();
        Sender { umem, socket }
    }

    /// Waits while the kernel has what was sent before, as a slow receiver makes it.
    fn send(&mut self, bytes: &[u8]) {
        let end = Instant::now() + WAIT;
        loop {
            if let Some(mut frame) = self.umem.alloc() {
                assert!(frame.write(bytes));
                match self.socket.send(&mut self.umem, frame) {
                    Ok(()) => return,
                    Err(frame) => self.umem.free(frame),
                }
            }
            assert!(Instant::now() < end, "the kernel keeps all frames");
            let _ = self.socket.flush(&mut self.umem).unwrap();
            thread::yield_now();
        }
    }

    fn flush(&mut self) {
        while self.socket.flush(&mut self.umem).unwrap().queued > 0 {
            thread::yield_now();
        }
    }
}

/// Reads numbered datagrams, each number once, until so many as `want` says are
/// there and no other comes.
fn read(socket: &UdpSocket, want: &OnceLock<u64>) -> HashSet<u32> {
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let (mut numbers, mut bytes) = (HashSet::new(), vec![0; 65_536]);
    let mut last = Instant::now();
    loop {
        let want = want.get().copied();
        match socket.recv(&mut bytes) {
            Ok(_) => {
                let n = u32::from_be_bytes(*bytes.first_chunk().unwrap());
                assert!(numbers.insert(n), "datagram {n} came twice");
                last = Instant::now();
            }
            Err(_) => match want {
                Some(want) if numbers.len() as u64 >= want => return numbers,
                Some(_) if last.elapsed() > WAIT => return numbers,
                _ => {}
            },
        }
    }
}

/// Sends frames and returns the numbers of the datagrams that arrive.
fn arrive(lab: &Lab, frames: &[Vec<u8>], of: impl Fn(usize, u32) -> bool + Sync) -> HashSet<u32> {
    let ps = lab.p.run(|| udp(pcscf(false), PORT_PS));
    // What is lost here was not lost by the workers.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&ps, 64 << 20).unwrap();
    let (before, want) = (count(&lab.p_plane, Reason::Ok), OnceLock::new());
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&ps, &want));
        let _zero = Final(&want);
        lab.send(frames, of);
        want.set(count(&lab.p_plane, Reason::Ok) - before).unwrap();
        reader.join().unwrap()
    })
}

/// Ends the reading, also when a test fails.
struct Final<'a>(&'a OnceLock<u64>);

impl Drop for Final<'_> {
    fn drop(&mut self) {
        let _ = self.0.set(0);
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn packets_of_one_sa_on_all_queues_are_each_taken_once() {
    const N: u32 = 3000;
    for workers in [4, 1] {
        let lab = Lab::new(workers);
        install(&lab.p_plane, &lab.u_plane, phone(2), Esp::Trans, 1);
        let frames = lab.sealed(N, 100);
        assert_eq!(frames.len(), N as usize);
        // Each on two queues, so that copies race each other.
        let got = arrive(&lab, &frames, |i, queue| {
            let q = i as u32 % QUEUES;
            queue == q || queue == (q + 1) % QUEUES
        });
        let stats = lab.p_plane.stats().unwrap();
        let seen = [Reason::Ok, Reason::Replay].map(|r| stats.get(r));
        assert_eq!(seen, [N.into(), N.into()], "{:?}", named(&stats));
        assert_eq!(got.len(), N as usize);
        leaks(&stats);
        let sa = lab.p_plane.list();
        let sa = sa.iter().find(|r| r.packets > 0).unwrap();
        assert_eq!((sa.packets, sa.top), (N.into(), N.into()));
        // One worker has it, what the others got was handed over.
        let busy = stats
            .workers
            .iter()
            .filter(|w| w.reasons[Reason::Ok.index()] > 0);
        assert_eq!(busy.count(), 1);
        let handed: u64 = stats.workers.iter().map(|w| w.handed_in).sum();
        assert_eq!(handed > 0, workers > 1);

        // Again, all of it, on all queues: nothing is taken twice.
        let got = arrive(&lab, &frames, |_, _| true);
        assert!(got.is_empty(), "{} replays were taken", got.len());
        assert_eq!(count(&lab.p_plane, Reason::Ok), N.into());
    }
}

#[test]
#[ignore = "root: namespaces, BPF"]
fn fragments_on_different_queues_come_together() {
    const N: u32 = 300;
    for mode in [Esp::Trans, Esp::UdpEncTun] {
        let lab = Lab::new(4);
        install(&lab.p_plane, &lab.u_plane, phone(2), mode, 1);
        let frames = lab.sealed(N, 4000);
        assert_eq!(frames.len(), 3 * N as usize);
        let got = arrive(&lab, &frames, |i, queue| i as u32 % QUEUES == queue);
        let stats = lab.p_plane.stats().unwrap();
        assert_eq!(got.len(), N as usize, "{:?}", named(&stats));
        assert_eq!(stats.get(Reason::Ok), N.into());
        leaks(&stats);
    }
}

/// Senders that wait for nobody: whatever is not judged, somebody has counted,
/// packet for packet.
#[test]
#[ignore = "root: namespaces, BPF"]
fn what_is_too_much_for_the_workers_is_counted_to_the_last_packet() {
    let lab = Lab::new(2);
    install(&lab.p_plane, &lab.u_plane, phone(2), Esp::Trans, 1);
    let frames = lab.sealed(3000, 100);
    let (mut sent, end) = (0, Instant::now() + WAIT);
    loop {
        sent += lab.flood(&frames);
        let end_of_round = Instant::now() + WAIT;
        let (ended, lost) = loop {
            let (ended, lost) = (ended(&lab.p_plane.stats().unwrap()), lab.lost());
            if ended + lost >= sent || Instant::now() > end_of_round {
                break (ended, lost);
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(ended + lost, sent, "{}", lab.story());
        // That there is too much, a quick machine needs to be told again.
        if lost > 0 {
            break;
        }
        assert!(Instant::now() < end, "nothing was too much");
    }
    leaks(&lab.p_plane.stats().unwrap());
    // Each was taken once at most, and the SA goes on.
    assert!(count(&lab.p_plane, Reason::Ok) <= 3000);
}

/// SAs change hands while their packets come on all queues, in whole and in
/// pieces of which some wait for the rest.
#[test]
#[ignore = "root: namespaces, BPF"]
fn an_sa_changes_hands_under_its_packets_and_none_is_lost_or_taken_twice() {
    for len in [100, 4000] {
        let lab = Lab::new(1);
        install(&lab.p_plane, &lab.u_plane, phone(2), Esp::Trans, 1);
        let n: u32 = if len > 1400 { 600 } else { 3000 };
        let frames = lab.sealed(n, len);
        let done = AtomicBool::new(false);
        let got = thread::scope(|scope| {
            let changer = scope.spawn(|| {
                let mut changes = 0;
                for workers in (2..=4).chain([3, 1]).cycle() {
                    lab.p_plane.set_workers(workers).unwrap();
                    changes += 1;
                    if done.load(Ordering::Relaxed) && changes > 5 {
                        return;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            });
            let got = arrive(&lab, &frames, |i, queue| {
                let q = i as u32 % QUEUES;
                queue == q || len < 1400 && queue == (q + 1) % QUEUES
            });
            done.store(true, Ordering::Relaxed);
            changer.join().unwrap();
            got
        });
        let stats = lab.p_plane.stats().unwrap();
        assert_eq!(got.len(), n as usize, "{:?}", named(&stats));
        assert_eq!(stats.get(Reason::Ok), n.into(), "{:?}", named(&stats));
        assert_eq!(stats.get(Reason::HandoverFull), 0);
        leaks(&stats);
    }
}
