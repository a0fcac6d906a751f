//! Phones, edge, home network and what is under way between them.

use std::net::{IpAddr, SocketAddr};

use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::edge::{Edge, EdgeConfig, Input, Output, Timers};
use gm_sip::ue::{UeEvent, UeInput, UeOutput};
use gm_sip::{Packet, SetToken, Transport};

use crate::phone::{DOMAIN, Kind, Phone};
use crate::plane::{Plane, Seal};
use crate::rules::Rules;
use crate::script::{Script, Step};
use crate::sim::{OPC, Steps};

/// What a sequence did, so that a test that does nothing is seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub packets: u64,
    pub protected: u64,
    pub installs: u64,
    pub registrations: u64,
    pub refreshes: u64,
    pub switches: u64,
    pub resyncs: u64,
    pub refused: u64,
    pub failures: u64,
    pub tunnels: u64,
    pub tcp: u64,
}

impl Tally {
    fn fields(&mut self) -> [&mut u64; 11] {
        [
            &mut self.packets,
            &mut self.protected,
            &mut self.installs,
            &mut self.registrations,
            &mut self.refreshes,
            &mut self.switches,
            &mut self.resyncs,
            &mut self.refused,
            &mut self.failures,
            &mut self.tunnels,
            &mut self.tcp,
        ]
    }

    pub fn add(&mut self, other: &Tally) {
        let mut other = *other;
        for (sum, more) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }

    /// Many sequences together have done everything.
    pub fn saw_everything(mut self) {
        self.tcp += 1; // Only where messages are long.
        let zero = self.fields().into_iter().any(|n| *n == 0);
        assert!(!zero, "something never happened: {self:?}");
    }
}

/// Something under way.
enum Flight {
    Up {
        phone: usize,
        source: SocketAddr,
        packet: Packet,
        seal: Option<Seal>,
    },
    Down {
        packet: Packet,
        seal: Option<Seal>,
    },
    ToCore {
        transport: Transport,
        bytes: Vec<u8>,
    },
    FromCore {
        transport: Transport,
        bytes: Vec<u8>,
    },
    /// The data plane's answer; is never lost.
    Installed {
        set: SetToken,
        ok: bool,
    },
}

impl Flight {
    /// One line for a trace.
    fn line(&self) -> String {
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| *b == b'\r').unwrap_or(0);
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let seal = |s: &Option<Seal>| {
            s.as_ref()
                .map_or(String::new(), |s| format!(" esp {}", s.spec.spi))
        };
        match self {
            Flight::Up {
                source,
                packet,
                seal: s,
                ..
            } => {
                format!(
                    "{source} -> {}{} {}",
                    packet.remote,
                    seal(s),
                    text(&packet.bytes)
                )
            }
            Flight::Down { packet, seal: s } => {
                format!(
                    "{} -> {}{} {}",
                    packet.local,
                    packet.remote,
                    seal(s),
                    text(&packet.bytes)
                )
            }
            Flight::ToCore { bytes, .. } => format!("edge -> core {}", text(bytes)),
            Flight::FromCore { bytes, .. } => format!("core -> edge {}", text(bytes)),
            Flight::Installed { set, ok } => format!("installed {set:?} {ok}"),
        }
    }
}

pub struct World {
    pub now: u64,
    pub edge: Edge,
    home: Home,
    pub phones: Vec<Phone>,
    pub plane: Plane,
    flights: Vec<Flight>,
    random: Steps,
    next_spi: u32,
    installs: bool,
    pub calm: bool,
    pub config: EdgeConfig,
    pub rules: Rules,
    pub tally: Tally,
    /// Tells what happens, for one sequence that is looked at.
    pub trace: bool,
}

fn home_address() -> SocketAddr {
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
                if let Some(copy) = copy(&self.flights[at]) {
                    self.flights.push(copy);
                }
            }
            Step::Falsify { which, what } if !self.flights.is_empty() => {
                let at = which as usize % self.flights.len();
                falsify(&mut self.flights[at], what);
            }
            Step::Wait { ms } => self.wait(u64::from(ms))?,
            Step::Restart { who: n, moves } => self.phones[who(n)].restart(moves),
            Step::Move { who: n } => {
                self.phones[who(n)].top_up();
                self.phones[who(n)].move_on(self.now);
            }
            Step::LoseStep { who: n } => self.phones[who(n)].lose_step(),
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

    /// Nothing is lost in a calm.
    fn lost(&self, place: &str) -> Result<(), String> {
        if self.calm {
            return Err(format!("a packet is lost in {place}"));
        }
        Ok(())
    }

    fn home_sends(&mut self, all: Vec<(SocketAddr, Vec<u8>)>, transport: Transport) {
        for (to, bytes) in all {
            assert_eq!(
                to, self.config.core_local,
                "everything goes through the edge"
            );
            let answer = bytes.starts_with(b"SIP/2.0");
            let transport = if answer { transport } else { Transport::Udp };
            self.flights.push(Flight::FromCore { transport, bytes });
        }
    }

    fn ue_does(&mut self, n: usize, output: UeOutput) -> Result<(), String> {
        let now = self.now;
        let phone = &mut self.phones[n];
        match output {
            UeOutput::Send(packet) => self.ue_sends(n, packet)?,
            UeOutput::Install(request) => {
                let (set, ok) = (request.token, std::mem::replace(&mut phone.installs, true));
                let until = now + self.config.timers.registration;
                phone.plane.install(*request, until, ok)?;
                phone.ue.handle(now, UeInput::Installed { set, ok });
            }
            UeOutput::Activate { set } => phone.plane.activate(set)?,
            UeOutput::Retire { set } => phone.plane.retire(set)?,
            UeOutput::Remove { set } => phone.plane.remove(set)?,
            UeOutput::Event(event) if self.trace => {
                println!("{:9}   phone {n} {event:?}", self.now);
                self.hear(n, event)?;
            }
            UeOutput::Event(event) => self.hear(n, event)?,
        }
        Ok(())
    }

    /// What a phone tells.
    fn hear(&mut self, n: usize, event: UeEvent) -> Result<(), String> {
        let now = self.now;
        let phone = &mut self.phones[n];
        match event {
            UeEvent::Registered {
                set,
                expires,
                authenticated,
            } => {
                self.tally.registrations += u64::from(authenticated);
                let until = now + u64::from(expires) * 1000 + self.config.timers.margin;
                if let Some(set) = phone.plane.sets.get_mut(&set) {
                    set.until = set.until.max(until);
                }
                if !matches!(phone.kind, Kind::Good | Kind::Contested) {
                    return Err(format!("{:?} is registered", phone.kind));
                }
            }
            UeEvent::Resynchronising => self.tally.resyncs += 1,
            UeEvent::Failed(why) => {
                self.tally.failures += 1;
                if self.calm {
                    return Err(format!("phone {n} failed in a calm: {why}"));
                }
            }
            UeEvent::Request { .. } => phone.served += 1,
            UeEvent::Answered { status: 200, .. } => phone.answered += 1,
            _ => {}
        }
        Ok(())
    }

    fn ue_sends(&mut self, n: usize, packet: Packet) -> Result<(), String> {
        if packet.bytes == [0xff] {
            return Ok(());
        }
        let phone = &self.phones[n];
        let seal = phone.plane.seal(&packet);
        if let Some(seal) = &seal
            && !self.plane.has_had(seal)
        {
            return Err(format!(
                "phone {n} sends over a set that the edge does not have yet"
            ));
        }
        if seal.is_none() && self.config.is_protected(packet.remote.port()) {
            // Fail closed: what no SA protects does not leave.
            return self.lost("the phone, for want of an SA");
        }
        let source = match seal {
            Some(_) => packet.local,
            None => phone.seen_as(packet.local),
        };
        self.tally.tcp += u64::from(packet.transport == Transport::Tcp);
        self.flights.push(Flight::Up {
            phone: n,
            source,
            packet,
            seal,
        });
        Ok(())
    }

    fn edge_does(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::ToUe(packet) => {
                let seal = self.check_to_ue(&packet)?;
                self.tally.protected += u64::from(seal.is_some());
                self.tally.tcp += u64::from(packet.transport == Transport::Tcp);
                if seal.is_none() && self.config.is_protected(packet.local.port()) {
                    return self.lost("the edge, for want of an SA");
                }
                self.flights.push(Flight::Down { packet, seal });
            }
            Output::ToCore {
                remote,
                transport,
                bytes,
            } => {
                assert_eq!(remote, home_address());
                self.flights.push(Flight::ToCore { transport, bytes });
            }
            Output::Install(request) => {
                self.tally.installs += 1;
                self.tally.tunnels += u64::from(request.params.tunnel.is_some());
                self.check_install(&request)?;
                let (set, ok) = (request.token, std::mem::replace(&mut self.installs, true));
                let until = self.now + self.config.timers.registration;
                self.plane.install(*request, until, ok)?;
                self.flights.push(Flight::Installed { set, ok });
            }
            Output::Activate { set } => self.plane.activate(set)?,
            Output::Retire { set } => self.plane.retire(set)?,
            Output::Remove { set } => self.plane.remove(set)?,
            Output::Resolve { id, .. } => {
                let addresses: &[IpAddr] = &[];
                self.edge
                    .handle(self.now, Input::Resolved { id, addresses });
            }
            Output::Event(event) => {
                if self.trace {
                    println!("{:9}   edge {event:?}", self.now);
                }
                self.note(event);
            }
        }
        Ok(())
    }

    /// Nothing is under way.
    pub fn is_silent(&self) -> bool {
        self.flights.is_empty()
    }
}

fn copy(flight: &Flight) -> Option<Flight> {
    match flight {
        Flight::Up {
            phone,
            source,
            packet,
            seal: None,
        } if packet.transport == Transport::Udp => Some(Flight::Up {
            phone: *phone,
            source: *source,
            packet: packet.clone(),
            seal: None,
        }),
        Flight::Down { packet, seal: None } if packet.transport == Transport::Udp => {
            Some(Flight::Down {
                packet: packet.clone(),
                seal: None,
            })
        }
        Flight::ToCore { transport, bytes } => Some(Flight::ToCore {
            transport: *transport,
            bytes: bytes.clone(),
        }),
        Flight::FromCore { transport, bytes } => Some(Flight::FromCore {
            transport: *transport,
            bytes: bytes.clone(),
        }),
        _ => None,
    }
}

/// Writes something else into a message; the packet stays authentic.
fn falsify(flight: &mut Flight, what: u32) {
    let bytes = match flight {
        Flight::Up { packet, .. } | Flight::Down { packet, .. } => &mut packet.bytes,
        Flight::ToCore { bytes, .. } | Flight::FromCore { bytes, .. } => bytes,
        Flight::Installed { .. } => return,
    };
    let words: [(&str, &str); 8] = [
        ("response=\"", "response=\"0"),
        ("nonce=\"", "nonce=\"AAAA"),
        ("port-s=", "port-s=1"),
        ("spi-c=", "spi-c=9"),
        ("Security-Verify:", "X-Verify:"),
        ("Security-Client:", "X-Client:"),
        ("alg=hmac-sha-1-96", "alg=aes-gmac"),
        ("Authorization:", "X-Authorization:"),
    ];
    let (from, to) = words[what as usize % words.len()];
    *bytes = String::from_utf8_lossy(bytes)
        .replace(from, to)
        .into_bytes();
}
