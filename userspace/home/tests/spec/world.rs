//! Phones, an edge and a home network in one process. Every datagram on Gm is kept with
//! the set that carried it, can be changed or lost on its way, and can be forged.

use std::net::{IpAddr, SocketAddr};

use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output};
use gm_sip::ue::{Ue, UeConfig, UeEvent, UeInput, UeOutput};
use gm_sip::{Packet, SaSetRequest, SetToken, Transport};

pub use crate::look::{another, response};
pub use crate::parts::{Sas, SoftSim, Steps};
pub use crate::setup::*;

pub const K: [u8; 16] = [0x46; 16];
pub const OPC: [u8; 16] = [0xcd; 16];

/// One datagram on Gm.
#[derive(Debug, Clone)]
pub struct Sent {
    /// From a phone to the edge.
    pub up: bool,
    /// The phone's number.
    pub phone: usize,
    /// From and to, as SIP sees them.
    pub packet: Packet,
    /// The sender's name of the set that carried it; none: in clear.
    pub over: Option<SetToken>,
}

impl Sent {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.packet.bytes).into_owned()
    }

    pub fn ports(&self) -> (u16, u16) {
        (self.packet.local.port(), self.packet.remote.port())
    }
}

pub struct Phone {
    pub ue: Ue,
    pub sas: Sas,
    pub events: Vec<UeEvent>,
    pub local: IpAddr,
    /// Behind a NAT with this address.
    pub nat: Option<IpAddr>,
    pub impu: String,
}

pub struct World {
    pub now: u64,
    pub phones: Vec<Phone>,
    pub edge: Edge,
    pub edge_sas: Sas,
    pub home: Home,
    pub random: Steps,
    pub up: Way,
    pub down: Way,
    /// What the home network sends to the edge.
    pub core_down: Way,
    pub log: Vec<Sent>,
    /// NAT keepalives (RFC 3948) of phones, and when.
    pub keepalives: Vec<(u64, Packet)>,
    pub to_core: Vec<String>,
    pub events: Vec<FlowEvent>,
    pub installs: Vec<SaSetRequest>,
    next_spi: u32,
}

impl World {
    /// One phone, not behind a NAT.
    pub fn new() -> World {
        World::with(ue_config(0), edge_config())
    }

    pub fn with(ue: UeConfig, edge: EdgeConfig) -> World {
        let config = HomeConfig {
            domain: DOMAIN.into(),
            local: addr(HOME),
            max_expires: 3600,
        };
        let mut random = Steps(42);
        let mut world = World {
            now: 1_000_000,
            phones: Vec::new(),
            edge: Edge::new(edge, &mut random).expect("a configuration"),
            edge_sas: Sas::default(),
            home: Home::new(config),
            random,
            up: pass_all(),
            down: pass_all(),
            core_down: pass_all(),
            log: Vec::new(),
            keepalives: Vec::new(),
            to_core: Vec::new(),
            events: Vec::new(),
            installs: Vec::new(),
            next_spi: 1_000_000_000,
        };
        world.add(ue, None);
        world
    }

    /// One phone, behind a NAT or not.
    pub fn at(nat: bool) -> World {
        if nat {
            World::behind_nat()
        } else {
            World::new()
        }
    }

    /// One phone behind a NAT.
    pub fn behind_nat() -> World {
        let mut world = World::new();
        world.phones[0].nat = Some(PUBLIC.parse().expect("address"));
        world
    }

    /// Another phone with a subscription of its own.
    pub fn add(&mut self, config: UeConfig, nat: Option<IpAddr>) -> usize {
        let number = self.phones.len();
        let tel = format!("tel:+1555010{number}");
        let subscriber = Subscriber::new(
            &config.impi,
            &[&config.impu, &tel],
            K,
            Operator::Opc(OPC),
            0,
        );
        self.home.add(subscriber);
        self.phones.push(Phone {
            local: config.local,
            impu: config.impu.clone(),
            nat,
            sas: Sas::default(),
            events: Vec::new(),
            ue: Ue::new(
                config,
                Box::new(SoftSim { k: K, sqn: 0 }),
                Box::new(Steps(7 + number as u64)),
            ),
        });
        number
    }

    /// The first phone forgets everything and starts again, with this SIM.
    pub fn restart(&mut self, config: UeConfig, sim: SoftSim) {
        let phone = &mut self.phones[0];
        phone.local = config.local;
        phone.sas = Sas::default();
        phone.ue = Ue::new(config, Box::new(sim), Box::new(Steps(99)));
    }

    pub fn register(&mut self) {
        self.register_phone(0);
    }

    pub fn register_phone(&mut self, number: usize) {
        self.top_up();
        self.phones[number].ue.register(self.now).expect("starts");
        self.run();
    }

    /// A re-registration that the network challenges.
    pub fn authenticate_again(&mut self) {
        self.home.registrar().always_challenge = true;
        self.register();
    }

    pub fn top_up(&mut self) {
        for _ in 0..4 {
            for phone in &mut self.phones {
                phone.ue.add_spis([self.next_spi, self.next_spi + 1]);
                self.next_spi += 2;
            }
            self.edge.add_spis([self.next_spi, self.next_spi + 1]);
            self.next_spi += 2;
        }
    }

    /// Carries everything out until all are quiet.
    pub fn run(&mut self) {
        loop {
            let mut quiet = true;
            for number in 0..self.phones.len() {
                while let Some(output) = self.phones[number].ue.poll() {
                    quiet = false;
                    self.ue_does(number, output);
                }
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
            let phones = self.phones.iter().filter_map(|p| p.ue.next_timeout());
            let next = phones.chain(self.edge.next_timeout()).min();
            let Some(next) = next.filter(|n| *n <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for phone in &mut self.phones {
                phone.ue.handle_timeout(self.now);
            }
            self.edge.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    #[allow(unreachable_patterns, reason = "a phone may learn more")]
    fn ue_does(&mut self, number: usize, output: UeOutput) {
        let now = self.now;
        let phone = &mut self.phones[number];
        match output {
            UeOutput::Send(packet) => self.uplink(number, packet),
            UeOutput::Install(request) => {
                let set = request.token;
                phone.sas.0.push((*request, false));
                phone.ue.handle(now, UeInput::Installed { set, ok: true });
            }
            UeOutput::Activate { set } => phone.sas.set(set, true),
            UeOutput::Retire { set } => phone.sas.set(set, false),
            UeOutput::Remove { set } => phone.sas.remove(set),
            UeOutput::Event(event) => phone.events.push(event),
            _ => {}
        }
    }

    fn uplink(&mut self, number: usize, mut packet: Packet) {
        if packet.bytes == [0xff] {
            return self.keepalives.push((self.now, packet));
        }
        let phone = &self.phones[number];
        let sealed = phone.sas.outbound(&packet);
        self.log.push(Sent {
            up: true,
            phone: number,
            over: sealed.as_ref().map(|(set, _)| set.token),
            packet: packet.clone(),
        });
        let text = String::from_utf8(packet.bytes).expect("text");
        let Some(text) = (self.up)(text) else {
            return;
        };
        match sealed {
            Some((set, spec)) if self.edge_sas.opens(&set, &spec) => {}
            Some(_) => return,
            None if edge_config().is_protected(packet.remote.port()) => return,
            // Each phone has ports of its own at the NAT.
            None => {
                if let Some(public) = phone.nat {
                    let port = packet.local.port() + 10_000 * (1 + number as u16);
                    packet.local = SocketAddr::new(public, port);
                }
            }
        }
        self.edge_hears(packet.local, packet.remote, text.as_bytes());
    }

    /// What comes to the edge as if from `source`: in clear, or to a protected port
    /// through the SA of these ends.
    pub fn edge_hears(&mut self, source: SocketAddr, local: SocketAddr, bytes: &[u8]) {
        let input = Input::FromUe {
            local,
            remote: source,
            transport: Transport::Udp,
            bytes,
        };
        self.edge.handle(self.now, input);
    }

    /// The same for the first phone.
    pub fn ue_hears(&mut self, source: SocketAddr, local: SocketAddr, bytes: &[u8]) {
        let input = UeInput::FromNetwork {
            local,
            remote: source,
            transport: Transport::Udp,
            bytes,
        };
        self.phones[0].ue.handle(self.now, input);
        self.run();
    }

    #[allow(unreachable_patterns, reason = "an edge may learn more")]
    fn edge_does(&mut self, output: Output) {
        match output {
            Output::ToUe(packet) => self.downlink(packet),
            Output::ToCore { bytes, .. } => {
                self.to_core
                    .push(String::from_utf8_lossy(&bytes).into_owned());
                let from = edge_config().core_local;
                let answers = self.home.handle(self.now, from, &bytes, &mut self.random);
                self.home_sends(answers);
            }
            Output::Install(request) => {
                let set = request.token;
                self.installs.push((*request).clone());
                self.edge_sas.0.push((*request, false));
                self.edge
                    .handle(self.now, Input::Installed { set, ok: true });
            }
            Output::Activate { set } => self.edge_sas.set(set, true),
            Output::Retire { set } => self.edge_sas.set(set, false),
            Output::Remove { set } => self.edge_sas.remove(set),
            Output::Event(event) => self.events.push(event),
            _ => {}
        }
    }

    pub fn home_sends(&mut self, datagrams: Vec<(SocketAddr, Vec<u8>)>) {
        for (_, bytes) in datagrams {
            let text = String::from_utf8(bytes).expect("text");
            if let Some(text) = (self.core_down)(text) {
                self.core_sends(&text);
            }
        }
    }

    /// What comes to the edge from the core.
    pub fn core_sends(&mut self, text: &str) {
        let input = Input::FromCore {
            remote: addr(HOME),
            transport: Transport::Udp,
            bytes: text.as_bytes(),
        };
        self.edge.handle(self.now, input);
    }

    fn downlink(&mut self, packet: Packet) {
        let sealed = self.edge_sas.outbound(&packet);
        let to = packet.remote;
        let number = match &sealed {
            Some((set, spec)) => self.phones.iter().position(|p| p.sas.opens(set, spec)),
            None => self.phones.iter().position(|p| match p.nat {
                Some(public) => public == to.ip(),
                None => p.local == to.ip(),
            }),
        };
        // Behind one NAT the port says which phone it is.
        let number = match number {
            Some(n) if sealed.is_none() && self.phones[n].nat.is_some() => {
                Some(usize::from(to.port() / 10_000) - 1)
            }
            other => other,
        };
        self.log.push(Sent {
            up: false,
            phone: number.unwrap_or(usize::MAX),
            over: sealed.as_ref().map(|(set, _)| set.token),
            packet: packet.clone(),
        });
        let text = String::from_utf8(packet.bytes).expect("text");
        let (Some(text), Some(number)) = ((self.down)(text), number) else {
            return;
        };
        if sealed.is_none() && edge_config().is_protected(packet.local.port()) {
            return;
        }
        let phone = &mut self.phones[number];
        let mut local = to;
        if sealed.is_none() && phone.nat.is_some() {
            local = SocketAddr::new(phone.local, to.port() - 10_000 * (1 + number as u16));
        }
        let input = UeInput::FromNetwork {
            local,
            remote: packet.local,
            transport: Transport::Udp,
            bytes: text.as_bytes(),
        };
        phone.ue.handle(self.now, input);
    }
}
