//! Counted datagrams both ways between a P-CSCF and phones, and an echo over TCP, all the time.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use gm_tests::netns::NetNs;

use crate::gm::{PORT_PS, WAIT};
use crate::set::Set;
use crate::sockets::connect;

/// Between two datagrams of one phone, one way.
const PACE: Duration = Duration::from_millis(25);

/// One phone's side of the talk.
struct Phone {
    uc: UdpSocket,
    at: SocketAddr,
    ps: SocketAddr,
    /// Sent up and down.
    sent: [AtomicU32; 2],
    /// Came up and down.
    came: [Mutex<Vec<u32>>; 2],
}

pub struct Talk {
    phones: Vec<Phone>,
    /// The application behind port_ps, by address.
    ps: BTreeMap<IpAddr, UdpSocket>,
    tcp: (TcpListener, SocketAddr, SocketAddr),
    echoed: AtomicU64,
    stop: AtomicBool,
    quiet: AtomicBool,
}

struct Stop<'t>(&'t Talk);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Relaxed);
    }
}

fn bound(ns: &NetNs, ip: IpAddr, port: u16) -> UdpSocket {
    let socket = ns.run(|| UdpSocket::bind((ip, port)).expect("a socket"));
    socket.set_nonblocking(true).expect("an option");
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20).expect("an option");
    socket
}

impl Talk {
    /// Of these sets' phones; TCP is the first one's.
    pub fn new(p: &NetNs, ue: &NetNs, sets: &[Set]) -> Talk {
        let phone = |set: &Set| Phone {
            uc: bound(ue, set.ue, set.ports[0]),
            at: (set.ue, set.ports[0]).into(),
            ps: (set.p, PORT_PS).into(),
            sent: Default::default(),
            came: Default::default(),
        };
        let mut ps = BTreeMap::new();
        for set in sets {
            ps.entry(set.p).or_insert_with(|| bound(p, set.p, PORT_PS));
        }
        let first = &sets[0];
        let listener = p.run(|| TcpListener::bind((first.p, PORT_PS)).expect("a listener"));
        Talk {
            phones: sets.iter().map(phone).collect(),
            ps,
            tcp: (
                listener,
                (first.ue, first.ports[0]).into(),
                (first.p, PORT_PS).into(),
            ),
            echoed: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
        }
    }

    fn phone(&self, phone: &Phone) {
        let mut b = [0; 64];
        while !self.stop.load(Relaxed) {
            if !self.quiet.load(Relaxed) {
                let n = phone.sent[0].load(Relaxed);
                phone.uc.send_to(&n.to_be_bytes(), phone.ps).expect("sent");
                phone.sent[0].store(n + 1, Relaxed);
            }
            while let Ok(n) = phone.uc.recv(&mut b) {
                phone.came[1].lock().unwrap().push(number(&b[..n]));
            }
            thread::sleep(PACE);
        }
    }

    fn application(&self, ip: IpAddr, socket: &UdpSocket) {
        let mut b = [0; 64];
        let mine = || self.phones.iter().filter(|phone| phone.ps.ip() == ip);
        while !self.stop.load(Relaxed) {
            for phone in mine().filter(|_| !self.quiet.load(Relaxed)) {
                let n = phone.sent[1].load(Relaxed);
                socket.send_to(&n.to_be_bytes(), phone.at).expect("sent");
                phone.sent[1].store(n + 1, Relaxed);
            }
            while let Ok((n, from)) = socket.recv_from(&mut b) {
                let phone = mine().find(|phone| phone.at == from).expect("a phone");
                phone.came[0].lock().unwrap().push(number(&b[..n]));
            }
            thread::sleep(PACE);
        }
    }

    fn echo(&self) {
        self.tcp.0.set_nonblocking(true).expect("an option");
        let mut stream = loop {
            match self.tcp.0.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if self.stop.load(Relaxed) => return,
                Err(_) => thread::sleep(PACE),
            }
        };
        let short = Some(Duration::from_millis(100));
        stream.set_nonblocking(false).expect("an option");
        stream.set_read_timeout(short).expect("an option");
        let mut b = [0; 4096];
        while !self.stop.load(Relaxed) {
            match stream.read(&mut b) {
                Ok(0) => return,
                Ok(n) => stream.write_all(&b[..n]).expect("echoed"),
                Err(e) => assert!(matches!(
                    e.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut
                )),
            }
        }
    }

    /// Some segments there and back, again and again, on one connection.
    fn ask(&self, ue: &NetNs) {
        let (_, from, to) = &self.tcp;
        let mut stream = ue.run(|| connect((from.ip(), from.port()), (to.ip(), to.port())));
        stream.set_read_timeout(Some(WAIT)).expect("an option");
        while !self.stop.load(Relaxed) && !self.quiet.load(Relaxed) {
            let n = self.echoed.load(Relaxed);
            let said: Vec<u8> = (0..2500).map(|i| (i + n * 7) as u8).collect();
            stream.write_all(&said).expect("written");
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard).expect("heard");
            assert!(said == heard, "other bytes came back");
            self.echoed.store(n + 1, Relaxed);
            thread::sleep(PACE);
        }
    }

    /// Talks as long as `f` takes, and until all has arrived or time is over.
    pub fn during(&self, ue: &NetNs, f: impl FnOnce()) {
        thread::scope(|scope| {
            for phone in &self.phones {
                scope.spawn(|| self.phone(phone));
            }
            for (ip, socket) in &self.ps {
                scope.spawn(|| self.application(*ip, socket));
            }
            scope.spawn(|| self.echo());
            scope.spawn(|| self.ask(ue));
            let stop = Stop(self);
            self.goes_on();
            f();
            self.quiet.store(true, Relaxed);
            let deadline = Instant::now() + WAIT / 3;
            while !self.complete() && Instant::now() < deadline {
                thread::sleep(PACE);
            }
            drop(stop);
        });
    }

    fn complete(&self) -> bool {
        self.phones.iter().all(|phone| {
            (0..2).all(|way| {
                phone.came[way].lock().unwrap().len() as u32 >= phone.sent[way].load(Relaxed)
            })
        })
    }

    /// Waits until every phone has sent and heard some more, and TCP too.
    #[track_caller]
    pub fn goes_on(&self) {
        let now = || -> Vec<u64> {
            let phones = self.phones.iter();
            let came = phones.flat_map(|p| p.came.iter().map(|c| c.lock().unwrap().len() as u64));
            came.chain([self.echoed.load(Relaxed)]).collect()
        };
        let (before, deadline) = (now(), Instant::now() + WAIT);
        loop {
            let after = now();
            if after.iter().zip(&before).all(|(a, b)| *a >= b + 5) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "from {before:?} to {after:?}: each phone up and down, TCP"
            );
            thread::sleep(PACE);
        }
    }

    /// How many have been sent down so far, by phone: when it was that one was lost.
    pub fn sent_down(&self) -> Vec<u32> {
        let sent = self.phones.iter().map(|phone| phone.sent[1].load(Relaxed));
        sent.collect()
    }

    /// Every datagram has come once.
    #[track_caller]
    pub fn all_once(&self, whose: &[Set]) -> u32 {
        let mut all = 0;
        for (phone, set) in self.phones.iter().zip(whose) {
            for (way, name) in ["up", "down"].into_iter().enumerate() {
                let mut came = phone.came[way].lock().unwrap().clone();
                let heard = came.len();
                came.sort_unstable();
                came.dedup();
                let sent = phone.sent[way].load(Relaxed);
                let lost: Vec<u32> = (0..sent)
                    .filter(|n| came.binary_search(n).is_err())
                    .collect();
                let again = heard - came.len();
                assert!(
                    lost.is_empty() && again == 0,
                    "set {} {name}: of {sent} {lost:?} are lost, {again} came again",
                    set.number
                );
                all += sent;
            }
        }
        all
    }

    /// Segments' rounds over TCP.
    pub fn echoed(&self) -> u64 {
        self.echoed.load(Relaxed)
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
