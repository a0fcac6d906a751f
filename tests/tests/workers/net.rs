//! A P-CSCF and phones, joined by a veth pair of several queues.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

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

/// Longer than a loaded machine takes, shorter than patience. Nothing that goes
/// well takes it.
pub const WAIT: Duration = Duration::from_secs(30);

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
        Net::with(p_config(p_workers), n, u_workers, phones)
    }

    /// The same, with this at the P-CSCF.
    pub fn with(p_config: Config, n: u32, u_workers: u32, phones: u16) -> Net {
        let (p, u) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let phones: Vec<IpAddr> = (1..=phones).map(phone).collect();
        join(&p, &u, n, &phones);
        let p_plane = start(&p, p_config);
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
        super::talk::Talk::new(self).rounds(2);
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
