//! An edge with one registered phone, and a message from one of three sides.

use std::net::{IpAddr, SocketAddr};

use gm_esp::{Ck, Ik};
use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::edge::{Edge, EdgeConfig, Input, Output};
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure, Ue, UeConfig, UeInput, UeOutput};
use gm_sip::{Message, Randomness, Transport};

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A stranger, in clear.
    Clear,
    /// The registered phone, through its SA.
    Phone,
    /// The home network.
    Core,
}

const EDGE: &str = "203.0.113.1";
const PHONE: &str = "192.0.2.16";
const NOW: u64 = 1_000_000;

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

struct Steps(u64);

impl Randomness for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

fn subscriber() -> Subscriber {
    let impus = ["sip:user0@home.example"];
    Subscriber::new(
        "user0@home.example",
        &impus,
        [0x46; 16],
        Operator::Opc([0xcd; 16]),
        0,
    )
}

/// A SIM that trusts the network: the home's own functions with the RAND it gets.
struct Sim;

impl Aka for Sim {
    fn answer(&mut self, rand: &[u8; 16], _autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        let vector = subscriber().vector_at(*rand, 1);
        Ok(AkaAnswer {
            res: vector.xres.clone(),
            ik: Ik::from_bytes(vector.keys.ik),
            ck: Ck::from_bytes(vector.keys.ck),
        })
    }
}

pub struct Rig {
    edge: Edge,
}

impl Rig {
    /// The phone is registered, from 192.0.2.16 with ports 31100 and 31800.
    pub fn new() -> Rig {
        let mut random = Steps(7);
        let (core, own) = (at("203.0.113.2", 5060), at(EDGE, 5080));
        let mut config = EdgeConfig::new(core, own);
        config.client_ports = 5064..=5066;
        let mut edge = Edge::new(config, &mut random).expect("a configuration");
        edge.add_spis([1_000_000_001, 1_000_000_002]);
        edge.add_spis([1_000_000_003, 1_000_000_004]);
        let mut home = Home::new(HomeConfig {
            domain: "home.example".into(),
            local: core,
            max_expires: 3600,
        });
        home.add(subscriber());
        let phone: IpAddr = PHONE.parse().expect("an address");
        let user = ("user0@home.example", "sip:user0@home.example");
        let mut ue = UeConfig::new(user.0, user.1, "home.example", phone, at(EDGE, 5060));
        ue.client_ports = 31100..=31100;
        let mut ue = Ue::new(ue, Box::new(Sim), Box::new(Steps(9)));
        ue.add_spis([5001, 5002]);
        ue.register(NOW).expect("it begins");
        loop {
            if let Some(output) = ue.poll() {
                match output {
                    UeOutput::Send(p) => edge.handle(
                        NOW,
                        Input::FromUe {
                            local: p.remote,
                            remote: p.local,
                            transport: p.transport,
                            bytes: &p.bytes,
                        },
                    ),
                    UeOutput::Install(r) => ue.handle(
                        NOW,
                        UeInput::Installed {
                            set: r.token,
                            ok: true,
                        },
                    ),
                    _ => {}
                }
            } else if let Some(output) = edge.poll() {
                match output {
                    Output::ToUe(p) => ue.handle(
                        NOW,
                        UeInput::FromNetwork {
                            local: p.remote,
                            remote: p.local,
                            transport: p.transport,
                            bytes: &p.bytes,
                        },
                    ),
                    Output::ToCore {
                        bytes, transport, ..
                    } => {
                        for (_, bytes) in home.handle(NOW, own, &bytes, &mut random) {
                            let (remote, bytes) = (core, &bytes);
                            edge.handle(
                                NOW,
                                Input::FromCore {
                                    remote,
                                    transport,
                                    bytes,
                                },
                            );
                        }
                    }
                    Output::Install(r) => edge.handle(
                        NOW,
                        Input::Installed {
                            set: r.token,
                            ok: true,
                        },
                    ),
                    _ => {}
                }
            } else {
                assert!(ue.is_registered());
                return Rig { edge };
            }
        }
    }

    /// What the edge wants when this comes.
    pub fn send(&mut self, side: Side, bytes: &[u8]) -> Vec<Output> {
        let transport = Transport::Udp;
        let input = match side {
            Side::Clear => Input::FromUe {
                local: at(EDGE, 5060),
                remote: at("198.51.100.77", 5060),
                transport,
                bytes,
            },
            Side::Phone => Input::FromUe {
                local: at(EDGE, 5063),
                remote: at(PHONE, 31100),
                transport,
                bytes,
            },
            Side::Core => Input::FromCore {
                remote: at("203.0.113.2", 5060),
                transport,
                bytes,
            },
        };
        self.edge.handle(NOW, input);
        let mut out = Vec::new();
        while let Some(output) = self.edge.poll() {
            if let Output::Resolve { id, .. } = output {
                let addresses: &[IpAddr] = &[];
                self.edge.handle(NOW, Input::Resolved { id, addresses });
            }
            out.push(output);
        }
        out
    }

    /// `up`, `down`, the status of an answer, `name` for a question, or a dash.
    pub fn verdict(&mut self, side: Side, bytes: &[u8]) -> String {
        let out = self.send(side, bytes);
        let words: Vec<_> = out.iter().filter_map(|output| word(side, output)).collect();
        if words.is_empty() {
            "-".into()
        } else {
            words.join("+")
        }
    }

    /// The request that goes on, when one does.
    pub fn forwarded(&mut self, side: Side, bytes: &[u8]) -> Option<Vec<u8>> {
        let request = |b: &&Vec<u8>| !b.starts_with(b"SIP/2.0");
        let out = self.send(side, bytes);
        let sent = out.iter().filter_map(|output| match output {
            Output::ToUe(packet) => Some(&packet.bytes),
            Output::ToCore { bytes, .. } => Some(bytes),
            _ => None,
        });
        sent.into_iter().find(request).cloned()
    }

    /// A request that goes through, and its answer with `more` lines on the way back
    /// from the other side: as sent, and as it comes out.
    pub fn answered(&mut self, from: Side, more: &str, body: &[u8]) -> (Message, Message) {
        let (uri, via, back) = match from {
            Side::Core => (
                "sip:user0@192.0.2.16:31800",
                "203.0.113.2:5060",
                Side::Phone,
            ),
            Side::Clear | Side::Phone => ("sip:echo@home.example", "192.0.2.16:31800", Side::Core),
        };
        let request = format!(
            "MESSAGE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bKx\r\nMax-Forwards: 70\r\n\
             From: <sip:user0@home.example>;tag=1\r\nTo: <{uri}>\r\nCall-ID: a\r\nCSeq: 1 MESSAGE\r\n\r\n"
        );
        let forwarded = self
            .forwarded(from, request.as_bytes())
            .expect("it goes on");
        let request = Message::parse(&forwarded).expect("SIP");
        let bytes = Message::response(&request, 200, "OK", "t2").to_bytes();
        let head = &bytes[..bytes.len() - 2];
        let length = format!("{more}Content-Length: {}\r\n\r\n", body.len());
        let answer = [head, length.as_bytes(), body].concat();
        let out = self.send(back, &answer);
        let came = out.iter().find_map(|output| match output {
            Output::ToUe(packet) => Some(&packet.bytes),
            Output::ToCore { bytes, .. } => Some(bytes),
            _ => None,
        });
        let came = Message::parse(came.expect("the answer goes on")).expect("SIP");
        (Message::parse(&answer).expect("SIP"), came)
    }
}

fn word(side: Side, output: &Output) -> Option<String> {
    let (bytes, to_core) = match output {
        Output::ToUe(packet) => (&packet.bytes, false),
        Output::ToCore { bytes, .. } => (bytes, true),
        Output::Resolve { .. } => return Some("name".into()),
        _ => return None,
    };
    let message = Message::parse(bytes).expect("what an edge sends is SIP");
    let back = to_core == (side == Side::Core);
    Some(match message.status() {
        Some(status) if back => status.to_string(),
        _ if to_core => "up".into(),
        _ => "down".into(),
    })
}
