//! The laboratory: a P-CSCF and a UE.

use std::net::IpAddr;
use std::path::PathBuf;

use gm_dataplane::{Config, DataPlane, Dir, NewSa, Reason, SetId, SetSpec, Stats};
use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_tests::netns::{End, NetNs, veth_of};

/// Protected ports (TS 33.203 7.1).
pub const PORT_PS: u16 = 5063;
pub const PORT_PC: u16 = 5064;
pub const PORT_US: u16 = 6063;
pub const PORT_UC: u16 = 6064;

/// Names of the uplinks: the P-CSCF's and the UE's.
pub const NAMES: [&str; 2] = ["p0", "u0"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Addresses of the P-CSCF and of the UE.
    pub fn addresses(self) -> (IpAddr, IpAddr) {
        let [p, u] = match self {
            Family::V4 => ["10.77.0.1", "10.77.0.2"],
            Family::V6 => ["fd77::1", "fd77::2"],
        };
        (p.parse().unwrap(), u.parse().unwrap())
    }
}

/// One end of the Gm link.
pub struct Side {
    pub ns: NetNs,
    pub plane: DataPlane,
}

/// Both ends.
pub struct Lab {
    pub p: Side,
    pub u: Side,
}

/// The non-zero counters, for messages.
pub fn named(stats: &Stats) -> Vec<(&'static str, u64)> {
    let named = Reason::ALL.iter().map(|r| (r.name(), stats.get(*r)));
    named.filter(|(_, n)| *n > 0).collect()
}

pub fn config(
    uplink: &str,
    addresses: [IpAddr; 2],
    ports: [u16; 2],
    pins: Option<PathBuf>,
) -> Config {
    Config {
        uplink: uplink.into(),
        addresses: addresses.to_vec(),
        server_ports: vec![ports[0]..=ports[0]],
        client_ports: vec![ports[1]..=ports[1]],
        max_sas: 64,
        replay_window: 4096,
        workers: workers(),
        pin_dir: pins,
        ..Config::default()
    }
}

pub fn keys(suite: Suite) -> EspKeys {
    EspKeys::expand(
        suite,
        &Ik::from_bytes([0x11; 16]),
        &Ck::from_bytes([0x22; 16]),
    )
}

/// Workers of each data plane, and queues of its uplink: one, or as many as `GM_TEST_WORKERS` says.
pub fn workers() -> u32 {
    std::env::var("GM_TEST_WORKERS").map_or(1, |n| n.parse().expect("a number of workers"))
}

/// Runs tests of this program again, with three workers at each data plane.
pub fn again_with_workers(tests: &[&str]) {
    let program = std::env::current_exe().unwrap();
    let out = std::process::Command::new(program)
        .args(["--ignored", "--exact", "--test-threads=1"])
        .args(tests)
        .env("GM_TEST_WORKERS", "3")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}");
    assert!(said.contains(&format!("{} passed", tests.len())), "{said}");
}

/// The namespaces of P-CSCF and UE, joined by a veth pair.
pub fn joined() -> (NetNs, NetNs) {
    let (p, u) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let ends = [
        ["10.77.0.1/24", "fd77::1/64"],
        ["10.77.0.2/24", "fd77::2/64"],
    ];
    veth_of(
        workers(),
        End {
            ns: &p,
            name: NAMES[0],
            addresses: &ends[0],
        },
        End {
            ns: &u,
            name: NAMES[1],
            addresses: &ends[1],
        },
    );
    (p, u)
}

/// The configurations of both.
pub fn configs(pins: Option<PathBuf>) -> [Config; 2] {
    let (v4, v6) = (Family::V4.addresses(), Family::V6.addresses());
    [
        config(NAMES[0], [v4.0, v6.0], [PORT_PS, PORT_PC], pins),
        config(NAMES[1], [v4.1, v6.1], [PORT_US, PORT_UC], None),
    ]
}

/// Starts a data plane in a namespace.
pub fn start(ns: &NetNs, config: Config) -> DataPlane {
    ns.run(|| DataPlane::start(config))
        .unwrap_or_else(|e| panic!("{e}"))
}

impl Lab {
    /// Namespaces, veth, data planes; no SA yet. `pins` is the P-CSCF's.
    pub fn new(pins: Option<PathBuf>) -> Lab {
        let (p, u) = joined();
        Lab::on(p, u, pins)
    }

    /// Data planes in namespaces that have their interfaces.
    pub fn on(p: NetNs, u: NetNs, pins: Option<PathBuf>) -> Lab {
        Lab::with(p, u, configs(pins))
    }

    /// The same with any configuration, the P-CSCF's and the UE's.
    pub fn with(p: NetNs, u: NetNs, [pc, uc]: [Config; 2]) -> Lab {
        let (p_plane, u_plane) = (start(&p, pc), start(&u, uc));
        Lab {
            p: Side {
                ns: p,
                plane: p_plane,
            },
            u: Side {
                ns: u,
                plane: u_plane,
            },
        }
    }

    /// Installs and activates a set of four in transport mode at both ends.
    pub fn install(&self, suite: Suite, family: Family) -> [SetId; 2] {
        self.install_as(suite, family, Mode::Trans)
    }

    /// The same in any mode; behind a NAT the P-CSCF does not know the port.
    pub fn install_as(&self, suite: Suite, family: Family, mode: Mode) -> [SetId; 2] {
        let sets = self.stand_by(suite, family, mode);
        for (side, set) in [&self.p, &self.u].into_iter().zip(sets) {
            side.plane.activate(set).unwrap();
        }
        sets
    }

    /// Installs a set at both ends: it accepts, and sends when it is activated.
    pub fn stand_by(&self, suite: Suite, family: Family, mode: Mode) -> [SetId; 2] {
        self.stand_by_at(suite, family, mode, [PORT_UC, PORT_US])
    }

    /// The same for a UE with other ports, port_uc and port_us.
    pub fn stand_by_at(
        &self,
        suite: Suite,
        family: Family,
        mode: Mode,
        ports: [u16; 2],
    ) -> [SetId; 2] {
        self.stand_by_seen(suite, [family.addresses(); 2], mode, ports)
    }

    /// The same where the P-CSCF sees other addresses (its own, the UE's) than the UE does.
    pub fn stand_by_seen(
        &self,
        suite: Suite,
        [by_p, by_u]: [(IpAddr, IpAddr); 2],
        mode: Mode,
        [port_uc, port_us]: [u16; 2],
    ) -> [SetId; 2] {
        let spi = |side: &Side, avoid: &[u32]| side.plane.reserve(avoid).unwrap().spi;
        let [uc, us] = [spi(&self.u, &[]), spi(&self.u, &[])];
        let [pc, ps] = [spi(&self.p, &[uc, us]), spi(&self.p, &[uc, us])];
        let keys = keys(suite);
        // From, to, SPI; the P-CSCF's direction follows.
        let four = [
            (port_uc, PORT_PS, ps, true),
            (PORT_PS, port_uc, uc, false),
            (PORT_PC, port_us, us, false),
            (port_us, PORT_PC, pc, true),
        ];
        let set = |at_p: bool| {
            let ends = if at_p { by_p } else { by_u };
            let sas = four.iter().map(|(from, to, spi, to_p)| {
                let (src, dst) = if *to_p {
                    (ends.1, ends.0)
                } else {
                    (ends.0, ends.1)
                };
                let selector = Selector {
                    src,
                    dst,
                    src_port: Some(*from),
                    dst_port: Some(*to),
                    proto: SelProto::UdpTcp,
                };
                let spec = SaSpec {
                    spi: *spi,
                    mode,
                    selector,
                    suite,
                    outer: (mode == Mode::UdpEncTun).then_some(Outer {
                        src,
                        dst,
                        sport: None,
                        dport: to_p.then_some(4500),
                    }),
                    esn: false,
                    replay_window: 64,
                };
                let dir = if *to_p == at_p { Dir::In } else { Dir::Out };
                NewSa {
                    spec,
                    keys: keys.clone(),
                    dir,
                    first_seq: None,
                }
            });
            SetSpec {
                set: None,
                sas: sas.collect(),
            }
        };
        [(&self.p, true), (&self.u, false)]
            .map(|(side, at_p)| side.plane.install(set(at_p)).unwrap())
    }

    /// One SA each way with SPIs and open ports as a person writes them.
    pub fn install_by_hand(&self, suite: Suite) {
        self.install_hand(ByHand {
            suite,
            ..ByHand::default()
        });
    }

    /// The same with what else a person may say.
    pub fn install_hand(&self, by: ByHand) {
        let (p, u) = by.family.addresses();
        let keys = keys(by.suite);
        for (side, at_p) in [(&self.p, true), (&self.u, false)] {
            let sas = [(u, p, 0x1001, true), (p, u, 0x2002, false)].map(|(src, dst, spi, to_p)| {
                let selector = Selector {
                    src,
                    dst,
                    src_port: None,
                    dst_port: None,
                    proto: SelProto::Any,
                };
                let spec = SaSpec {
                    spi,
                    mode: Mode::Trans,
                    selector,
                    suite: by.suite,
                    outer: None,
                    esn: by.esn,
                    replay_window: by.window,
                };
                let dir = if to_p == at_p { Dir::In } else { Dir::Out };
                NewSa {
                    spec,
                    keys: keys.clone(),
                    dir,
                    first_seq: Some(by.first_seq),
                }
            });
            let set = SetSpec {
                set: Some(SetId(7)),
                sas: sas.to_vec(),
            };
            assert_eq!(side.plane.install(set.clone()).unwrap(), SetId(7));
            // Again: no error, and nothing is twice.
            side.plane.install(set).unwrap();
            side.plane.activate(SetId(7)).unwrap();
        }
    }
}

/// What a person says of a pair of SAs.
#[derive(Clone, Copy, Debug)]
pub struct ByHand {
    pub suite: Suite,
    pub family: Family,
    pub esn: bool,
    pub window: u32,
    pub first_seq: u64,
}

impl Default for ByHand {
    fn default() -> ByHand {
        ByHand {
            suite: Suite::HmacSha1Null,
            family: Family::V4,
            esn: false,
            window: 32,
            first_seq: 100,
        }
    }
}
