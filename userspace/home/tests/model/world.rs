//! Phones, edge, home network and what is under way between them.

use std::net::SocketAddr;

use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::Transport;
use gm_sip::edge::{Edge, EdgeConfig, Input, Timers};
use gm_sip::ue::UeInput;

use crate::flight::Flight;
use crate::phone::{DOMAIN, Kind, Phone};
use crate::plane::Plane;
use crate::rules::Rules;
use crate::script::{Script, Step};
use crate::sim::{OPC, Steps};
use crate::tally::Tally;

pub struct World {
    pub now: u64,
    pub edge: Edge,
    pub home: Home,
    pub phones: Vec<Phone>,
    pub plane: Plane,
    pub flights: Vec<Flight>,
    random: Steps,
    next_spi: u32,
    pub installs: bool,
    pub calm: bool,
    pub config: EdgeConfig,
    pub rules: Rules,
    pub tally: Tally,
    /// Tells what happens, for one sequence that is looked at.
    pub trace: bool,
}

pub fn home_address() -> SocketAddr {
    "203.0.113.2:5060".parse().expect("address")
}

impl World {
    pub fn new(script: &Script) -> World {
        let config = EdgeConfig::new(home_address(), "203.0.113.1:5080".parse().expect("address"));
        let mut random = Steps(script.seed);
        let mut home = Home::new(HomeConfig {
            domain: DOMAIN.into(),
            local: home_address(),
            max_expires: 7200,
        });
        let phones = script.phones();
        for phone in phones.iter().filter(|p| p.kind != Kind::Stranger) {
            let (impi, impu) = (phone.impi(), phone.impu());
            let k = Phone::key(phone.owner);
            home.add(Subscriber::new(impi, &[impu], k, Operator::Opc(OPC), 0));
        }
        World {
            now: 1_000_000,
            edge: Edge::new(config.clone(), &mut random).expect("a configuration"),
            home,
            phones,
            plane: Plane::default(),
            flights: Vec::new(),
            random,
            next_spi: 1_000_000_000,
            installs: true,
            calm: script.calm,
            config,
            rules: Rules::default(),
            tally: Tally::default(),
            trace: std::env::var_os("GM_MODEL_TRACE").is_some(),
        }
    }

    pub fn timers(&self) -> Timers {
        self.config.timers
    }

    /// Does one step, everything that follows from it at once, and looks at the rules.
    pub fn step(&mut self, step: Step) -> Result<(), String> {
        if self.trace {
            println!("{:9} -- {step}", self.now);
        }
        let count = self.phones.len();
        let who = move |n: u32| n as usize % count;
        match step {
            Step::Register { who: n } => self.register(who(n)),
            Step::Deregister { who: n } => {
                let phone = &mut self.phones[who(n)];
                phone.top_up();
                let _ = phone.ue.deregister(self.now);
            }
            Step::Send { who: n, to } => {
                let to = match to as usize {
                    other if other < self.phones.len() => self.phones[other].impu().to_owned(),
                    _ => format!("sip:echo@{DOMAIN}"),
                };
                let phone = &mut self.phones[who(n)];
                let _ = phone
                    .ue
                    .send(self.now, "MESSAGE", &to, "text/plain", b"hello");
            }
            Step::Unanswered { who: n } => {
                self.send_echo(who(n));
                self.settle()?;
                let message = |bytes: &[u8]| bytes.starts_with(b"MESSAGE");
                for at in (0..self.flights.len()).rev() {
                    if matches!(&self.flights[at], Flight::Up { packet, .. } if message(&packet.bytes))
                    {
                        let flight = self.flights.remove(at);
                        self.arrive(flight)?;
                    }
                }
                self.settle()?;
                self.flights
                    .retain(|f| !matches!(f, Flight::ToCore { bytes, .. } if message(bytes)));
            }
            Step::Originate { who: n } => {
                let impu = self.phones[who(n)].impu().to_owned();
                let sent =
                    self.home
                        .originate(self.now, "MESSAGE", &impu, b"news", &mut self.random);
                self.home_sends(sent, Transport::Udp);
            }
            Step::Deliver { which } if !self.flights.is_empty() => {
                let at = which as usize % self.flights.len();
                let flight = self.flights.remove(at);
                self.arrive(flight)?;
            }
            Step::DeliverAll => self.deliver_all()?,
            Step::Lose { which } if !self.flights.is_empty() => {
                let at = which as usize % self.flights.len();
                self.lose(at);
            }
            Step::Duplicate { which } if !self.flights.is_empty() => {
                let at = which as usize % self.flights.len();
                if let Some(copy) = self.flights[at].copy() {
                    self.flights.push(copy);
                }
            }
            Step::Falsify { which, what } if !self.flights.is_empty() => {
                let at = which as usize % self.flights.len();
                self.flights[at].falsify(what);
            }
            Step::Wait { ms } => self.wait(u64::from(ms))?,
            Step::Restart { who: n, moves } => self.phones[who(n)].restart(moves),
            Step::Move { who: n } => {
                self.phones[who(n)].top_up();
                self.phones[who(n)].move_on(self.now);
            }
            Step::Desynchronise { who: n } => self.phones[who(n)].desynchronise(),
            Step::Challenge { always } => self.home.registrar().always_challenge = always,
            Step::FailInstall { who: None } => self.installs = false,
            Step::FailInstall { who: Some(n) } => self.phones[who(n)].installs = false,
            _ => {}
        }
        self.settle()?;
        if self.calm {
            self.deliver_all()?;
        }
        self.check()
    }

    pub fn register(&mut self, who: usize) {
        let phone = &mut self.phones[who];
        phone.top_up();
        let _ = phone.ue.register(self.now);
    }

    /// No more faults are to come.
    pub fn end_faults(&mut self) {
        self.installs = true;
        self.phones.iter_mut().for_each(|p| p.installs = true);
    }

    pub fn send_echo(&mut self, who: usize) {
        let to = format!("sip:echo@{DOMAIN}");
        let phone = &mut self.phones[who];
        let _ = phone
            .ue
            .send(self.now, "MESSAGE", &to, "text/plain", b"quiet");
    }

    /// Carries out what the machines want, until all have nothing more.
    pub fn settle(&mut self) -> Result<(), String> {
        loop {
            let mut quiet = true;
            while self.edge.wants_spis() {
                self.edge.add_spis([self.next_spi, self.next_spi + 1]);
                self.next_spi += 2;
            }
            while let Some(output) = self.edge.poll() {
                quiet = false;
                self.edge_does(output)?;
            }
            for n in 0..self.phones.len() {
                self.phones[n].top_up();
                while let Some(output) = self.phones[n].ue.poll() {
                    quiet = false;
                    self.ue_does(n, output)?;
                }
            }
            if quiet {
                return Ok(());
            }
        }
    }

    pub fn deliver_all(&mut self) -> Result<(), String> {
        for _ in 0..2000 {
            self.settle()?;
            if self.flights.is_empty() {
                return Ok(());
            }
            let flight = self.flights.remove(0);
            self.arrive(flight)?;
        }
        Err("they never stop sending".into())
    }

    /// Lets time pass; what is under way stays so, unless all is calm.
    pub fn wait(&mut self, ms: u64) -> Result<(), String> {
        let end = self.now + ms;
        loop {
            let ues = self.phones.iter().filter_map(|p| p.ue.next_timeout());
            let next = ues.chain(self.edge.next_timeout()).min();
            let Some(next) = next.filter(|n| *n <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for phone in &mut self.phones {
                phone.ue.handle_timeout(self.now);
            }
            self.edge.handle_timeout(self.now);
            self.settle()?;
            if self.calm {
                self.deliver_all()?;
            }
            self.check()?;
        }
        self.now = end;
        Ok(())
    }

    fn lose(&mut self, at: usize) {
        if matches!(self.flights[at], Flight::Installed { .. }) {
            return;
        }
        // What TCP could not deliver comes back.
        match self.flights.remove(at) {
            Flight::Down { packet, .. } if packet.transport == Transport::Tcp => {
                let (local, remote) = (packet.local, packet.remote);
                let bytes = &packet.bytes;
                self.edge.handle(
                    self.now,
                    Input::UnsentToUe {
                        local,
                        remote,
                        bytes,
                    },
                );
            }
            Flight::ToCore {
                transport: Transport::Tcp,
                bytes,
            } => {
                let (remote, bytes) = (home_address(), &bytes);
                self.edge
                    .handle(self.now, Input::UnsentToCore { remote, bytes });
            }
            Flight::Up { phone, packet, .. } if packet.transport == Transport::Tcp => {
                let (local, remote) = (packet.local, packet.remote);
                let ue = &mut self.phones[phone].ue;
                ue.handle(self.now, UeInput::Unreachable { local, remote });
            }
            _ => {}
        }
    }

    fn arrive(&mut self, flight: Flight) -> Result<(), String> {
        self.tally.packets += 1;
        if self.trace {
            println!("{:9} {}", self.now, flight.line());
        }
        match flight {
            Flight::Up {
                source,
                packet,
                seal,
                ..
            } => {
                let open = seal.as_ref().is_some_and(|s| self.plane.opens(s));
                let guarded = self.config.is_protected(packet.remote.port());
                if guarded != open {
                    // The guard, or a set that is not here any more.
                    return self.lost("the edge's data plane");
                }
                self.tally.protected += u64::from(open);
                let input = Input::FromUe {
                    local: packet.remote,
                    remote: source,
                    transport: packet.transport,
                    bytes: &packet.bytes,
                };
                self.edge.handle(self.now, input);
            }
            Flight::Down { packet, seal } => {
                let to = self.phones.iter_mut().find_map(|p| match &seal {
                    Some(seal) => p.plane.opens(seal).then_some((p, packet.remote)),
                    None => p.behind(packet.remote).map(|local| (p, local)),
                });
                let Some((phone, local)) = to else {
                    return self.lost("the phone's data plane");
                };
                let input = UeInput::FromNetwork {
                    local,
                    remote: packet.local,
                    transport: packet.transport,
                    bytes: &packet.bytes,
                };
                phone.ue.handle(self.now, input);
            }
            Flight::ToCore { transport, bytes } => {
                let from = self.config.core_local;
                let sent = self.home.handle(self.now, from, &bytes, &mut self.random);
                self.home_sends(sent, transport);
            }
            Flight::FromCore { transport, bytes } => {
                let (remote, bytes) = (home_address(), &bytes);
                self.edge.handle(
                    self.now,
                    Input::FromCore {
                        remote,
                        transport,
                        bytes,
                    },
                );
            }
            Flight::Installed { set, ok } => {
                if let Some(set) = self.plane.sets.get_mut(&set) {
                    set.confirmed = ok;
                }
                self.edge.handle(self.now, Input::Installed { set, ok });
            }
        }
        Ok(())
    }

    /// Nothing is under way.
    pub fn is_silent(&self) -> bool {
        self.flights.is_empty()
    }
}
