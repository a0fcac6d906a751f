//! A UE, an edge and a home network in one process, with SAs that are checked as
//! the data plane would: a protected datagram passes only when both ends have
//! installed the same SA and its sender has activated it.

use std::net::{IpAddr, SocketAddr};

use gm_esp::Suite;
use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output, Refusal};
use gm_sip::ue::{Ue, UeConfig, UeEvent, UeFailure, UeInput, UeOutput};
use gm_sip::{Packet, SaSetRequest, Transport};

pub use crate::parts::{Sas, SoftSim, Steps};

pub const K: [u8; 16] = [0x46; 16];
pub const OPC: [u8; 16] = [0xcd; 16];
pub const DOMAIN: &str = "home.example";
pub const IMPI: &str = "user1@home.example";
pub const IMPU: &str = "sip:user1@home.example";
pub const PRIVATE: &str = "10.0.0.2";
pub const PUBLIC: &str = "198.51.100.7";

pub struct World {
    pub now: u64,
    pub ue: Ue,
    pub edge: Edge,
    pub home: Home,
    pub random: Steps,
    pub ue_sas: Sas,
    pub edge_sas: Sas,
    pub nat: bool,
    /// Whether the data plane at each end says yes.
    pub ue_installs: bool,
    pub edge_installs: bool,
    /// Changes what the UE sends; `None` loses it.
    pub uplink: Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>>>,
    pub downlink: Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>>>,
    pub ue_events: Vec<UeEvent>,
    pub events: Vec<FlowEvent>,
    /// Everything that the edge sent to the UE: packet and whether it was protected.
    pub to_ue: Vec<(Packet, bool)>,
    /// Everything that the edge sent to the core.
    pub to_core: Vec<Vec<u8>>,
    /// Every set that the edge ever asked for.
    pub installs: Vec<SaSetRequest>,
    /// Datagrams to protected ports without an SA.
    pub lost: usize,
    next_spi: u32,
}

pub fn ue_config() -> UeConfig {
    let pcscf = "203.0.113.1:5060".parse().expect("address");
    UeConfig::new(IMPI, IMPU, DOMAIN, PRIVATE.parse().expect("address"), pcscf)
}

pub fn edge_config() -> EdgeConfig {
    EdgeConfig::new(home_address(), "203.0.113.1:5080".parse().expect("address"))
}

pub fn home_address() -> SocketAddr {
    "203.0.113.2:5060".parse().expect("address")
}

impl World {
    pub fn new() -> World {
        World::with(ue_config(), edge_config())
    }

    pub fn with(ue: UeConfig, edge: EdgeConfig) -> World {
        let config = HomeConfig {
            domain: DOMAIN.into(),
            local: home_address(),
            max_expires: 3600,
        };
        let mut home = Home::new(config);
        home.add(Subscriber::new(
            IMPI,
            &[IMPU, "tel:+15550100"],
            K,
            Operator::Opc(OPC),
            0,
        ));
        let mut random = Steps(42);
        World {
            now: 1_000_000,
            ue: Ue::new(ue, Box::new(SoftSim { k: K, sqn: 0 }), Box::new(Steps(7))),
            edge: Edge::new(edge, &mut random).expect("a configuration"),
            home,
            random,
            ue_sas: Sas::default(),
            edge_sas: Sas::default(),
            nat: false,
            ue_installs: true,
            edge_installs: true,
            uplink: Box::new(Some),
            downlink: Box::new(Some),
            ue_events: Vec::new(),
            events: Vec::new(),
            to_ue: Vec::new(),
            to_core: Vec::new(),
            installs: Vec::new(),
            lost: 0,
            next_spi: 1_000_000_000,
        }
    }

    /// Another SIM in the phone.
    pub fn swap_sim(&mut self, config: UeConfig, sim: SoftSim) {
        self.ue = Ue::new(config, Box::new(sim), Box::new(Steps(8)));
    }

    pub fn register(&mut self) {
        self.top_up();
        self.ue.register(self.now).expect("starts");
        self.run();
    }

    pub fn top_up(&mut self) {
        for _ in 0..4 {
            self.ue.add_spis([self.next_spi, self.next_spi + 1]);
            self.edge.add_spis([self.next_spi + 2, self.next_spi + 3]);
            self.next_spi += 4;
        }
    }

    /// Carries everything out until all are quiet.
    pub fn run(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(output) = self.ue.poll() {
                quiet = false;
                self.ue_does(output);
            }
            while let Some(output) = self.edge.poll() {
                quiet = false;
                self.edge_does(output);
            }
            if quiet {
                return;
            }
        }
    }

    /// Lets time pass, timers included.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let next = [self.ue.next_timeout(), self.edge.next_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|n| *n <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.ue.handle_timeout(self.now);
            self.edge.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    fn ue_does(&mut self, output: UeOutput) {
        match output {
            // A NAT keepalive ends in the data plane (RFC 3948 clause 2.3).
            UeOutput::Send(packet) if packet.bytes == [0xff] => {}
            UeOutput::Send(mut packet) => {
                let Some(bytes) = (self.uplink)(std::mem::take(&mut packet.bytes)) else {
                    return;
                };
                packet.bytes = bytes;
                self.uplink_packet(packet);
            }
            UeOutput::Install(request) => {
                let set = request.token;
                if self.ue_installs {
                    self.ue_sas.0.push((*request, false));
                }
                self.ue.handle(
                    self.now,
                    UeInput::Installed {
                        set,
                        ok: self.ue_installs,
                    },
                );
            }
            UeOutput::Activate { set } => self.ue_sas.set(set, true),
            UeOutput::Retire { set } => self.ue_sas.set(set, false),
            UeOutput::Remove { set } => self.ue_sas.remove(set),
            UeOutput::Event(event) => self.ue_events.push(event),
        }
    }

    fn uplink_packet(&mut self, packet: Packet) {
        let (mut source, local) = (packet.local, packet.remote);
        match self.ue_sas.outbound(&packet) {
            Some((set, spec)) if self.edge_sas.opens(&set, &spec) => {}
            Some(_) => return self.lost += 1,
            None if edge_config().is_protected(local.port()) => return self.lost += 1,
            None if self.nat => source = SocketAddr::new(ip(PUBLIC), source.port() + 10_000),
            None => {}
        }
        self.inject(source, local, &packet.bytes);
    }

    /// A datagram that reaches the edge as if from `source`.
    pub fn inject(&mut self, source: SocketAddr, local: SocketAddr, bytes: &[u8]) {
        let input = Input::FromUe {
            local,
            remote: source,
            transport: Transport::Udp,
            bytes,
        };
        self.edge.handle(self.now, input);
    }

    fn edge_does(&mut self, output: Output) {
        match output {
            Output::ToUe(packet) => self.downlink_packet(packet),
            Output::ToCore { remote, bytes, .. } => {
                self.to_core.push(bytes.clone());
                assert_eq!(remote, home_address());
                let from = edge_config().core_local;
                let answers = self.home.handle(self.now, from, &bytes, &mut self.random);
                self.home_sends(answers);
            }
            Output::Install(request) => {
                let set = request.token;
                self.installs.push((*request).clone());
                if self.edge_installs {
                    self.edge_sas.0.push((*request, false));
                }
                self.edge.handle(
                    self.now,
                    Input::Installed {
                        set,
                        ok: self.edge_installs,
                    },
                );
            }
            Output::Resolve { id, .. } => {
                let addresses = &[];
                self.edge
                    .handle(self.now, Input::Resolved { id, addresses });
            }
            Output::Activate { set } => self.edge_sas.set(set, true),
            Output::Retire { set } => self.edge_sas.set(set, false),
            Output::Remove { set } => self.edge_sas.remove(set),
            Output::Event(event) => self.events.push(event),
        }
    }

    pub fn home_sends(&mut self, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        for (to, bytes) in datagrams {
            assert_eq!(
                to,
                edge_config().core_local,
                "everything goes through the edge"
            );
            self.edge.handle(
                self.now,
                Input::FromCore {
                    remote: home_address(),
                    transport: Transport::Udp,
                    bytes: &bytes,
                },
            );
        }
    }

    fn downlink_packet(&mut self, packet: Packet) {
        let sealed = self.edge_sas.outbound(&packet);
        self.to_ue.push((packet.clone(), sealed.is_some()));
        let Some(bytes) = (self.downlink)(packet.bytes.clone()) else {
            return;
        };
        let mut local = packet.remote;
        match sealed {
            Some((set, spec)) if self.ue_sas.opens(&set, &spec) => {}
            Some(_) => return self.lost += 1,
            None if edge_config().is_protected(packet.local.port()) => return self.lost += 1,
            None if self.nat => local = SocketAddr::new(ip(PRIVATE), local.port() - 10_000),
            None => {}
        }
        let input = UeInput::FromNetwork {
            local,
            remote: packet.local,
            transport: Transport::Udp,
            bytes: &bytes,
        };
        self.ue.handle(self.now, input);
    }

    pub fn refusals(&self) -> Vec<Refusal> {
        let refused = |e: &FlowEvent| match e {
            FlowEvent::Refused { why, .. } => Some(*why),
            _ => None,
        };
        self.events.iter().filter_map(refused).collect()
    }

    pub fn failure(&self) -> Option<UeFailure> {
        self.ue_events.iter().find_map(|e| match e {
            UeEvent::Failed(failure) => Some(*failure),
            _ => None,
        })
    }

    /// The suite of a set whose registration is complete.
    pub fn suite_in_use(&self) -> Option<Suite> {
        let done = |set| {
            let sm12 = |e: &FlowEvent| matches!(e, FlowEvent::Sm12 { set: s, .. } if *s == set);
            self.events.iter().any(sm12)
        };
        let mut sets = self.edge_sas.0.iter();
        let found = sets.find(|(s, active)| *active && done(s.token));
        found.map(|(s, _)| s.params.suite)
    }

    /// No key that any set was made of is in anything that went to the UE.
    pub fn assert_no_keys_shown(&self) {
        for (packet, _) in &self.to_ue {
            let text = String::from_utf8_lossy(&packet.bytes).to_ascii_lowercase();
            for set in &self.installs {
                let keys = [
                    hex::encode(set.ik.as_bytes()),
                    hex::encode(set.ck.as_bytes()),
                ];
                assert!(
                    keys.iter().all(|k| !text.contains(k.as_str())),
                    "a key went to the UE"
                );
            }
            assert!(!text.contains("ik=") && !text.contains("ck="), "{text}");
        }
        let shown = format!("{:?} {:?} {:?}", self.events, self.ue_events, self.installs);
        for set in &self.installs {
            assert!(
                !shown.contains(&hex::encode(set.ik.as_bytes())),
                "a key is shown"
            );
        }
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}
