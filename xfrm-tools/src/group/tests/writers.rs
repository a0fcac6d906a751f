//! States and policies as different programs write them, from facts about
//! their sources and from what the kernels then listed.

use std::net::IpAddr;

use gm_api::sad::Dir;
use gm_esp::keys::{Ck, EspKeys, Ik};
use gm_esp::{Mode, Outer, SaSpec, SelProto, Suite};

use crate::kernel::{Numbers, Policy, Ports, Secret, Selector, State, plan, unspecified};

/// A registration at a P-CSCF, which is this host.
#[derive(Clone, Debug)]
pub struct Registration {
    pub pcscf: IpAddr,
    pub ue: IpAddr,
    /// With it the SAs are tunnels in UDP.
    pub nat: Option<(IpAddr, u16)>,
    pub suite: Suite,
    /// port_pc, port_ps, port_uc, port_us.
    pub ports: [u16; 4],
    /// spi_pc, spi_ps, spi_uc, spi_us.
    pub spis: [u32; 4],
    pub ik: Ik,
    pub ck: Ck,
}

impl Registration {
    pub fn example(n: u8, suite: Suite) -> Registration {
        let high = u32::from(n) << 16;
        Registration {
            pcscf: [192, 0, 2, 1].into(),
            ue: [198, 51, 100, n].into(),
            nat: None,
            suite,
            ports: [5100, 6100, 31_000, 32_000].map(|port| port + u16::from(n)),
            spis: [4096, 4097, 0xc14e_0040, 0xdbd3_0081].map(|spi| spi + high),
            ik: Ik::from_bytes([n; 16]),
            ck: Ck::from_bytes([0x80 | n; 16]),
        }
    }

    /// The phone's next registration: the server's ports stay, as both
    /// Kamailio and phones have it.
    pub fn renewed(&self) -> Registration {
        let [pc, ps, uc, us] = self.ports;
        Registration {
            ports: [pc + 100, ps, uc + 100, us],
            spis: self.spis.map(|spi| spi + 2),
            ik: Ik::from_bytes([0x41; 16]),
            ck: Ck::from_bytes([0x42; 16]),
            ..self.clone()
        }
    }

    pub fn keys(&self) -> EspKeys {
        EspKeys::expand(self.suite, &self.ik, &self.ck)
    }

    /// The four SAs, inbound ones first (TS 33.203 7.1).
    pub fn sas(&self) -> [(SaSpec, Dir); 4] {
        let [pc, ps, uc, us] = self.ports;
        let [spi_pc, spi_ps, spi_uc, spi_us] = self.spis;
        let sa = |spi, dir, here: u16, there: u16| {
            let host = |addr: IpAddr, port: u16| (addr, Some(port));
            let (local, remote) = (host(self.pcscf, here), host(self.ue, there));
            let ((src, src_port), (dst, dst_port)) = match dir {
                Dir::In => (remote, local),
                Dir::Out => (local, remote),
            };
            let outer = self.nat.map(|(nat, port)| {
                let (local, remote) = (host(self.pcscf, 4500), host(nat, port));
                let ((src, sport), (dst, dport)) = match dir {
                    Dir::In => (remote, local),
                    Dir::Out => (local, remote),
                };
                Outer {
                    src,
                    dst,
                    sport,
                    dport,
                }
            });
            let spec = SaSpec {
                spi,
                mode: if outer.is_some() {
                    Mode::UdpEncTun
                } else {
                    Mode::Trans
                },
                selector: gm_esp::Selector {
                    src,
                    dst,
                    src_port,
                    dst_port,
                    proto: SelProto::UdpTcp,
                },
                suite: self.suite,
                outer,
                esn: false,
                replay_window: 32,
            };
            (spec, dir)
        };
        [
            sa(spi_ps, Dir::In, ps, uc),
            sa(spi_pc, Dir::In, pc, us),
            sa(spi_us, Dir::Out, pc, us),
            sa(spi_uc, Dir::Out, ps, uc),
        ]
    }
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Kamailio's ims_ipsec_pcscf.
    Kamailio,
    /// OpenSIPS's proto_ipsec.
    OpenSips,
    /// Somebody with iproute2: states without a selector, one reqid for the
    /// registration, a policy for each protocol.
    Iproute2,
    /// The same, with no reqid at all and SPIs in the templates.
    BySpi,
    /// This project.
    Gm,
}

impl Writer {
    pub const ALL: [Writer; 5] = [
        Writer::Kamailio,
        Writer::OpenSips,
        Writer::Iproute2,
        Writer::BySpi,
        Writer::Gm,
    ];

    /// A suite that it can write.
    pub fn suite(self) -> Suite {
        match self {
            Writer::Kamailio => Suite::HmacSha1AesCbc,
            Writer::OpenSips => Suite::HmacMd5DesEde3Cbc,
            Writer::Iproute2 | Writer::BySpi => Suite::AesGmacNull,
            Writer::Gm => Suite::NullAesGcm,
        }
    }

    /// All states and policies of a registration, one SA after the other.
    pub fn write(self, registration: &Registration) -> (Vec<State>, Vec<Policy>) {
        let (mut states, mut policies) = (Vec::new(), Vec::new());
        for (spec, dir) in registration.sas() {
            let numbers = Numbers::fresh(32, false);
            let plan = plan::sa_with(&spec, &registration.keys(), dir, plan::reqid(3), numbers);
            let mut state = plan.state;
            let mut both = plan.policies;
            state.counters.added = 1_700_000_000;
            match self {
                Writer::Gm => {}
                Writer::Kamailio | Writer::OpenSips => {
                    state.reqid = match self {
                        Writer::Kamailio => spec.spi,
                        _ => spec.spi.swap_bytes(),
                    };
                    state.numbers.legacy = true;
                    if let (Writer::Kamailio, Some(auth)) = (self, &mut state.algorithms.auth) {
                        // IK, without the zeros of Annex I.
                        let ik = auth.key.bytes().get(..16).unwrap_or_default();
                        auth.key = Secret::new(ik);
                        state.selector.user = 143_956_232;
                    }
                    both.truncate(1);
                    for policy in &mut both {
                        policy.priority = 2080;
                        policy.id.selector = state.selector;
                        exact(policy, &state);
                        for template in &mut policy.templates {
                            template.spi = match self {
                                Writer::OpenSips => spec.spi,
                                _ => 0,
                            };
                        }
                    }
                }
                Writer::Iproute2 => {
                    state.selector = Selector::all(state.id.dst.is_ipv6());
                    state.reqid = registration.spis.iter().fold(1, |a, b| a ^ b);
                    for policy in &mut both {
                        exact(policy, &state);
                        // One reqid for both directions and all ports: what
                        // tells the SAs apart is the SPI.
                        for template in &mut policy.templates {
                            template.spi = spec.spi;
                        }
                    }
                }
                Writer::BySpi => {
                    state.selector.sport = Ports::ANY;
                    state.selector.dport = Ports::ANY;
                    state.reqid = 0;
                    for policy in &mut both {
                        exact(policy, &state);
                        for template in &mut policy.templates {
                            template.spi = spec.spi;
                            let v6 = template.src.is_ipv6();
                            (template.src, template.dst) = (unspecified(v6), unspecified(v6));
                        }
                    }
                }
            }
            states.push(state);
            policies.extend(both);
        }
        (states, policies)
    }
}

/// Templates with the state's addresses and reqid.
fn exact(policy: &mut Policy, state: &State) {
    for template in &mut policy.templates {
        (template.src, template.dst) = (state.src, state.id.dst);
        template.reqid = state.reqid;
    }
}
