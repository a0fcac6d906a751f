//! A P-CSCF and phones, joined by a veth pair of several queues.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gm_dataplane::{Config, DataPlane, Dir, Event, NewSa, Reason, SetId, SetSpec, Stats};
use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_tests::netns::NetNs;

/// Protected ports (TS 33.203 7.1).
pub const PORT_PS: u16 = 5063;
pub const PORT_PC: u16 = 5064;
pub const PORT_US: u16 = 6063;
pub const PORT_UC: u16 = 6064;

/// The uplinks: the P-CSCF's and the phones'.
pub const P: &str = "p0";
pub const U: &str = "u0";

/// Longer than a loaded machine takes, shorter than patience.
pub const WAIT: Duration = Duration::from_secs(10);

/// The words of `ip` for so many queues.
pub fn queues(n: u32) -> String {
    format!("numrxqueues {n} numtxqueues {n}")
}

/// The P-CSCF's address for a phone's family.
pub fn pcscf(v6: bool) -> IpAddr {
    match v6 {
        true => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1).into(),
        false => Ipv4Addr::new(10, 77, 0, 1).into(),
    }
}

/// Phone `n`; the odd ones speak IPv6.
pub fn phone(n: u16) -> IpAddr {
    match n % 2 == 1 {
        true => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, n).into(),
        false => Ipv4Addr::new(10, 77, 1, n as u8).into(),
    }
}

/// A socket; that another test is just starting a program, which still holds a
/// closed one, is waited for.
pub fn udp(ip: IpAddr, port: u16) -> UdpSocket {
    let end = Instant::now() + WAIT;
    loop {
        match UdpSocket::bind((ip, port)) {
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.unwrap(),
        }
    }
}

pub struct Side {
    pub ns: NetNs,
    pub plane: DataPlane,
}

/// Both ends, each phone with a set of four SAs.
pub struct Net {
    pub p: Side,
    pub u: Side,
    pub phones: Vec<IpAddr>,
    pub sets: Vec<[SetId; 2]>,
}

/// A pair of `n` queues with addresses and without neighbour discovery delays.
pub fn join(p: &NetNs, u: &NetNs, n: u32, phones: &[IpAddr]) {
    let n = queues(n);
    p.ip(&format!(
        "link add {P} {n} type veth peer name {U} {n} netns {}",
        u.path()
    ));
    for (ns, name, mine) in [
        (p, P, vec![pcscf(false), pcscf(true)]),
        (u, U, phones.to_vec()),
    ] {
        for address in mine {
            let (bits, nodad) = if address.is_ipv6() {
                (64, "nodad")
            } else {
                (16, "")
            };
            ns.ip(&format!("addr add {address}/{bits} dev {name} {nodad}"));
        }
        ns.ip(&format!("link set {name} up"));
    }
}

pub fn p_config(workers: u32) -> Config {
    config(
        P,
        vec![pcscf(false), pcscf(true)],
        [PORT_PS, PORT_PC],
        workers,
    )
}

pub fn u_config(phones: &[IpAddr], workers: u32) -> Config {
    config(U, phones.to_vec(), [PORT_US, PORT_UC], workers)
}

fn config(uplink: &str, addresses: Vec<IpAddr>, ports: [u16; 2], workers: u32) -> Config {
    Config {
        uplink: uplink.into(),
        addresses,
        server_ports: vec![ports[0]..=ports[0]],
        client_ports: vec![ports[1]..=ports[1]],
        max_sas: 256,
        replay_window: 4096,
        workers,
        ..Config::default()
    }
}

pub fn start(ns: &NetNs, config: Config) -> DataPlane {
    ns.run(|| DataPlane::start(config))
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The four SAs between the P-CSCF and a phone, as both sides install them.
pub fn install(p: &DataPlane, u: &DataPlane, phone: IpAddr, mode: Mode, n: u8) -> [SetId; 2] {
    let pcscf = pcscf(phone.is_ipv6());
    let suite = Suite::NullAesGcm;
    let keys = EspKeys::expand(suite, &Ik::from_bytes([n; 16]), &Ck::from_bytes([0x22; 16]));
    let spi = |plane: &DataPlane, avoid: &[u32]| plane.reserve(avoid).unwrap().spi;
    let [uc, us] = [spi(u, &[]), spi(u, &[])];
    let [pc, ps] = [spi(p, &[uc, us]), spi(p, &[uc, us])];
    let four = [
        (PORT_UC, PORT_PS, ps, true),
        (PORT_PS, PORT_UC, uc, false),
        (PORT_PC, PORT_US, us, false),
        (PORT_US, PORT_PC, pc, true),
    ];
    let set = |at_p: bool| SetSpec {
        set: None,
        sas: four
            .iter()
            .map(|(from, to, spi, to_p)| {
                let (src, dst) = if *to_p {
                    (phone, pcscf)
                } else {
                    (pcscf, phone)
                };
                NewSa {
                    spec: SaSpec {
                        spi: *spi,
                        mode,
                        selector: Selector {
                            src,
                            dst,
                            src_port: Some(*from),
                            dst_port: Some(*to),
                            proto: SelProto::UdpTcp,
                        },
                        suite,
                        outer: (mode == Mode::UdpEncTun).then_some(Outer {
                            src,
                            dst,
                            sport: None,
                            dport: to_p.then_some(4500),
                        }),
                        esn: false,
                        replay_window: 4096,
                    },
                    keys: keys.clone(),
                    dir: if *to_p == at_p { Dir::In } else { Dir::Out },
                    first_seq: None,
                }
            })
            .collect(),
    };
    [(p, true), (u, false)].map(|(plane, at_p)| {
        let id = plane.install(set(at_p)).unwrap();
        plane.activate(id).unwrap();
        id
    })
}

impl Net {
    /// `n` queues, these workers at the P-CSCF and at the phones; every third
    /// phone is behind a NAT (UDP-enc-tun).
    pub fn new(n: u32, [p_workers, u_workers]: [u32; 2], phones: u16) -> Net {
        let (p, u) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let phones: Vec<IpAddr> = (1..=phones).map(phone).collect();
        join(&p, &u, n, &phones);
        let p_plane = start(&p, p_config(p_workers));
        let u_plane = start(&u, u_config(&phones, u_workers));
        let sets = phones
            .iter()
            .zip(1..)
            .map(|(phone, i)| {
                let mode = if i % 3 == 0 {
                    Mode::UdpEncTun
                } else {
                    Mode::Trans
                };
                install(&p_plane, &u_plane, *phone, mode, i)
            })
            .collect();
        Net {
            p: Side {
                ns: p,
                plane: p_plane,
            },
            u: Side {
                ns: u,
                plane: u_plane,
            },
            phones,
            sets,
        }
    }

    /// Every phone is heard and answered.
    pub fn all_pass(&self) {
        Talk::new(self).rounds(2);
    }

    /// Neither side has lost a frame or dropped a packet for want of room.
    pub fn nothing_lost(&self) {
        for side in [&self.p, &self.u] {
            let stats = side.plane.stats().unwrap();
            for reason in [Reason::RingFull, Reason::NoFrame, Reason::HandoverFull] {
                assert_eq!(stats.get(reason), 0, "{:?}", named(&stats));
            }
            leaks(&stats);
        }
    }
}

/// No frame is missing.
pub fn leaks(stats: &Stats) {
    for w in &stats.workers {
        assert_eq!(w.frames_leaked, 0, "worker {}", w.worker);
    }
}

/// The non-zero counters, for messages.
pub fn named(stats: &Stats) -> Vec<(&'static str, u64)> {
    let named = Reason::ALL.iter().map(|r| (r.name(), stats.get(*r)));
    named.filter(|(_, n)| *n > 0).collect()
}

pub fn count(plane: &DataPlane, reason: Reason) -> u64 {
    plane.stats().unwrap().get(reason)
}

/// Waits for an event that `wanted` wants; others pass by.
pub fn event(plane: &DataPlane, wanted: impl Fn(&Event) -> bool) -> Event {
    let end = Instant::now() + WAIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let event = plane.events().recv_timeout(left).expect("no such event");
        if wanted(&event) {
            return event;
        }
    }
}

/// Phones that say something and are answered, as often as is wanted. A datagram
/// or answer that gets lost is missed, not repeated.
pub struct Talk {
    ps: [UdpSocket; 2],
    phones: Vec<UdpSocket>,
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    stop: AtomicBool,
}

/// Ends the answering, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Datagrams of one phone that are under way at a time.
const WINDOW: usize = 4;

impl Talk {
    pub fn new(net: &Net) -> Talk {
        let bind = |ip: IpAddr, port| {
            let s = udp(ip, port);
            s.set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            s
        };
        let ps = net
            .p
            .ns
            .run(|| [false, true].map(|v6| bind(pcscf(v6), PORT_PS)));
        let phones = net.phones.iter();
        let phones = net
            .u
            .ns
            .run(|| phones.map(|ip| bind(*ip, PORT_UC)).collect());
        Talk {
            ps,
            phones,
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// The length of datagram `n`: most in one piece, some in fragments.
    fn len(n: u32) -> usize {
        match n % 8 {
            7 => 3500,
            n => 40 + 100 * n as usize,
        }
    }

    /// Phone `s` sends one datagram.
    fn say(&self, s: &UdpSocket, n: u32) {
        let mut bytes = vec![n as u8; Talk::len(n)];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let to = pcscf(s.local_addr().unwrap().is_ipv6());
        // Without a link there is no way.
        if s.send_to(&bytes, (to, PORT_PS)).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hears answers until none comes for `patience`; how many.
    fn hear(&self, s: &UdpSocket, want: usize, patience: Duration) -> usize {
        let mut got = vec![0; 8192];
        let (mut heard, mut last) = (0, Instant::now());
        while heard < want && last.elapsed() < patience {
            if let Ok(n) = s.recv(&mut got) {
                let number = u32::from_be_bytes(*got.first_chunk().unwrap());
                assert_eq!(n, Talk::len(number), "a piece of something else");
                assert!(got[4..n].iter().all(|b| *b == number as u8));
                self.answered.fetch_add(1, Ordering::Relaxed);
                (heard, last) = (heard + 1, Instant::now());
            }
        }
        heard
    }

    fn answer(&self, s: &UdpSocket) {
        let mut bytes = vec![0; 8192];
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok((n, from)) = s.recv_from(&mut bytes) {
                let _ = s.send_to(&bytes[..n], from);
            }
        }
    }

    /// All phones talk while `f` runs. Whoever misses an answer waits for it as
    /// long as `patience`.
    pub fn during<T>(&self, patience: Duration, f: impl FnOnce() -> T) -> T {
        self.stop.store(false, Ordering::Relaxed);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for s in &self.ps {
                scope.spawn(|| self.answer(s));
            }
            let phones: Vec<_> = self
                .phones
                .iter()
                .map(|s| {
                    let done = &done;
                    scope.spawn(move || {
                        let mut n = 0;
                        while !done.load(Ordering::Relaxed) {
                            for _ in 0..WINDOW {
                                self.say(s, n);
                                n += 1;
                            }
                            self.hear(s, WINDOW, patience);
                        }
                    })
                })
                .collect();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            done.store(true, Ordering::Relaxed);
            let joined: Vec<_> = phones.into_iter().map(|p| p.join()).collect();
            self.stop.store(true, Ordering::Relaxed);
            joined.into_iter().for_each(|p| p.unwrap());
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Every phone says `n` things and hears all answers.
    pub fn rounds(&self, n: u32) {
        self.stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for s in &self.ps {
                scope.spawn(|| self.answer(s));
            }
            let _stop = Stop(&self.stop);
            let missing: Vec<_> = self
                .phones
                .iter()
                .filter(|s| {
                    (0..n).for_each(|i| self.say(s, i * 7));
                    self.hear(s, n as usize, WAIT) < n as usize
                })
                .map(|s| s.local_addr())
                .collect();
            assert!(missing.is_empty(), "no answers for {missing:?}");
        });
    }

    /// Datagrams without an answer.
    pub fn missed(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) - self.answered.load(Ordering::Relaxed)
    }
}
