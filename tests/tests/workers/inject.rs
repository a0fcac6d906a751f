//! The packets of one SA on all queues at once, chosen by the test and by no
//! hash: sealed by a phone's data plane, captured, and sent by four threads,
//! each on a queue of its own.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gm_dataplane::{DataPlane, Direction, Reason};
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
        while let Ok(packet) = frames.recv_timeout(Duration::from_millis(300)) {
            assert_eq!(packet.direction, Direction::Out);
            sealed.push(packet.frame);
        }
        self.u_plane.tap(None).unwrap();
        sealed
    }

    /// Sends on each queue the frames that `of` gives it, all queues at once.
    fn send(&self, frames: &[Vec<u8>], of: impl Fn(usize, u32) -> bool + Sync) {
        // Not faster than a debug build opens, or fragments of one source are
        // taken; and no queue runs ahead of the others by more than what a
        // source may have waiting.
        let pause = match frames.iter().any(|f| f.len() > 1000) {
            true => Duration::from_millis(8),
            false => Duration::from_millis(2),
        };
        let (of, together) = (&of, &Barrier::new(QUEUES as usize));
        self.s.run(|| {
            thread::scope(|scope| {
                for queue in 0..QUEUES {
                    scope.spawn(move || {
                        let mut sender = Sender::new(queue);
                        for (n, some) in frames.chunks(64).enumerate() {
                            for (i, frame) in some.iter().enumerate() {
                                if of(n * 64 + i, queue) {
                                    sender.send(frame);
                                }
                            }
                            sender.flush();
                            together.wait();
                            thread::sleep(pause);
                        }
                        sender.socket.close(&mut sender.umem);
                    });
                }
            });
        });
    }
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

    fn send(&mut self, bytes: &[u8]) {
        let mut frame = self.umem.alloc().unwrap();
        assert!(frame.write(bytes));
        assert!(self.socket.send(&mut self.umem, frame).is_ok());
    }

    fn flush(&mut self) {
        while self.socket.flush(&mut self.umem).unwrap().queued > 0 {}
    }
}

/// Reads numbered datagrams until told that all were sent and none comes any
/// more; each number once.
fn read(socket: &UdpSocket, sent: &AtomicBool) -> HashSet<u32> {
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let (mut numbers, mut bytes) = (HashSet::new(), vec![0; 65_536]);
    loop {
        let over = sent.load(Ordering::Relaxed);
        match socket.recv(&mut bytes) {
            Ok(_) => {
                let n = u32::from_be_bytes(*bytes.first_chunk().unwrap());
                assert!(numbers.insert(n), "datagram {n} came twice");
            }
            Err(_) if over => return numbers,
            Err(_) => {}
        }
    }
}

/// Sends frames and returns the numbers of the datagrams that arrive.
fn arrive(lab: &Lab, frames: &[Vec<u8>], of: impl Fn(usize, u32) -> bool + Sync) -> HashSet<u32> {
    let ps = lab.p.run(|| udp(pcscf(false), PORT_PS));
    // What is lost here was not lost by the workers.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&ps, 64 << 20).unwrap();
    let sent = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(&ps, &sent));
        lab.send(frames, of);
        sent.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    })
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
