//! A phone of `gm_sip::ue` on the kernel's sockets and the kernel's ESP.
//!
//! It speaks UDP from two sockets: requests and answers leave from port_uc, what the
//! network sends comes to port_us (TS 33.203 clause 7.1). Or it keeps what it would
//! send through an SA for somebody else, who sends it over TCP.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use gm_esp::{Mode, Suite};
use gm_sip::sa_set::SetToken;
use gm_sip::ue::{Ignored, Ue, UeConfig, UeEvent, UeInput, UeOutput};
use gm_sip::{Packet, Randomness, SaSetRequest, Transport};
use gm_ue::agent::{Sim, System};
use gm_ue::usim::Usim;

use crate::ip_xfrm::IpXfrm;
use crate::lab::{DOMAIN, K, OPC};
use crate::net::Net;
use crate::wire::Wire;

/// Longer than an emulated machine takes for any step.
const WAIT: Duration = Duration::from_secs(60);
/// Longer than a phone keeps SAs after the end of its registration.
const SETTLED: Duration = Duration::from_secs(6);
/// Where ESP in UDP comes to (RFC 3948).
const ENCAP: u16 = 4500;
/// port_uc of the first phone.
const FIRST_PORT: u16 = 31_100;
/// The P-CSCF's port for messages in clear.
const SIP: u16 = 5060;

/// A phone.
pub struct Phone<'a> {
    ue: Ue,
    net: &'a Net,
    /// The kernel of the phone's namespace.
    pub kernel: IpXfrm<'a>,
    clear: SocketAddr,
    sockets: HashMap<SocketAddr, UdpSocket>,
    sets: HashMap<SetToken, SaSetRequest>,
    events: VecDeque<UeEvent>,
    wire: &'a mut Wire,
    began: Instant,
    ahead: Duration,
    /// What goes through SAs is sent by somebody else.
    by_others: bool,
    kept: VecDeque<Packet>,
}

impl<'a> Phone<'a> {
    /// A phone that offers one suite, and the mode that its network needs. `wire`
    /// is told of its keys.
    pub fn new(net: &'a Net, suite: Suite, wire: &'a mut Wire) -> Phone<'a> {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let local = address(net.map.phone);
        let pcscf = SocketAddr::new(address(net.map.pcscf), SIP);
        let (impi, impu) = (format!("ue1@{DOMAIN}"), format!("sip:ue1@{DOMAIN}"));
        let mut config = UeConfig::new(&impi, &impu, DOMAIN, local, pcscf);
        config.suites = vec![suite];
        // The SAs of the phone before may be there for a moment yet.
        let at = Suite::ALL.iter().position(|s| *s == suite).unwrap_or(0) as u16;
        config.client_ports = FIRST_PORT + 10 * at..=FIRST_PORT + 10 * at + 9;
        config.modes = vec![if net.map.phone == net.map.public {
            Mode::Trans
        } else {
            Mode::UdpEncTun
        }];
        let sim = Box::new(Sim(Usim::new(key(K), key(OPC))));
        let mut phone = Phone {
            clear: SocketAddr::new(local, config.clear_port),
            ue: Ue::new(config, sim, Box::new(System)),
            net,
            kernel: IpXfrm::new(&net.lab.ue, net.lab.dir.path()),
            sockets: HashMap::new(),
            sets: HashMap::new(),
            events: VecDeque::new(),
            wire,
            began: Instant::now(),
            ahead: Duration::ZERO,
            by_others: false,
            kept: VecDeque::new(),
        };
        if net.map.phone != net.map.public {
            let at = SocketAddr::new(local, ENCAP);
            gm_xsk::esp_in_udp(phone.socket(at)).expect("the kernel knows ESP in UDP");
        }
        phone
    }

    /// From now on somebody else sends what goes through SAs.
    pub fn leaves_esp_to_others(&mut self) {
        self.by_others = true;
    }

    /// A request through an SA that is somebody else's to send.
    pub fn next_request(&mut self) -> Packet {
        self.until("a request", |phone| phone.kept.pop_front())
    }

    /// The answer to such a request.
    pub fn answered(&mut self, request: &Packet, bytes: &[u8]) {
        self.take_in(request.local, request.remote, bytes);
    }

    /// Registers, the second time over the SAs.
    pub fn register(&mut self) {
        self.supply();
        self.ue.register(self.now()).expect("a registration begins");
        self.carry_out();
    }

    /// Ends the registration, over the SAs, with keys of its own.
    pub fn deregister(&mut self) {
        self.supply();
        let begun = self.ue.deregister(self.now());
        begun.expect("a de-registration begins");
        self.carry_out();
    }

    /// Has a MESSAGE sent to the network's echo, and waits for its answer and for the
    /// MESSAGE that comes back.
    pub fn talks(&mut self, text: &str) {
        let to = format!("sip:echo@{DOMAIN}");
        let sent = self
            .ue
            .send(self.now(), "MESSAGE", &to, "text/plain", text.as_bytes());
        let sent = sent.expect("it is registered");
        self.carry_out();
        let (mut answer, mut echo) = (None, None);
        while answer.is_none() || echo.is_none() {
            match self.event("a MESSAGE and its answer") {
                UeEvent::Answered { id, status, .. } if id == sent => answer = Some(status),
                UeEvent::Request { body, status, .. } => echo = Some((body, status)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(answer, Some(200));
        assert_eq!(echo, Some((text.as_bytes().to_vec(), 200)));
    }

    /// Waits until it is registered with this suite and says through which set.
    pub fn registered(&mut self, suite: Suite, protected: bool) -> SaSetRequest {
        let mut chosen = None;
        loop {
            match self.event("a registration") {
                UeEvent::Sm1 { protected: is } => assert_eq!(is, protected),
                UeEvent::Sm6 { suite, .. } => chosen = Some(suite),
                UeEvent::Sm7 { .. } => {}
                UeEvent::Registered {
                    set, authenticated, ..
                } => {
                    assert!(authenticated);
                    assert_eq!(chosen, Some(suite));
                    return self.sets[&set].clone();
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Waits until it is not registered any more.
    pub fn deregistered(&mut self) {
        loop {
            match self.event("a de-registration") {
                UeEvent::Sm1 { protected } => assert!(protected),
                UeEvent::Sm6 { .. } | UeEvent::Sm7 { .. } => {}
                UeEvent::Deregistered => return,
                other => panic!("{other:?}"),
            }
        }
    }

    /// The set that was installed last.
    pub fn newest(&self) -> &SaSetRequest {
        let newest = self.sets.values().max_by_key(|set| set.token);
        newest.expect("a set")
    }

    /// Waits until the last set is gone. The phone's clock is ahead for that.
    pub fn forgets(&mut self) {
        self.ahead += SETTLED;
        self.until("the end of its sets", |phone| {
            phone.sets.is_empty().then_some(())
        });
        assert_eq!(self.kernel.left(), "");
    }

    fn event(&mut self, what: &str) -> UeEvent {
        self.until(what, |phone| phone.events.pop_front())
    }

    /// Goes on until there is what is wanted.
    fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + WAIT;
        loop {
            if let Some(found) = wanted(self) {
                return found;
            }
            let drops = || self.kernel.drops();
            assert!(
                Instant::now() < deadline,
                "{what} does not come; {:?}",
                drops()
            );
            if !self.receive() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let now = self.now();
            // Who sends for it repeats for it, too.
            if self.kept.is_empty() && self.ue.next_timeout().is_some_and(|at| at <= now) {
                self.ue.handle_timeout(now);
                self.carry_out();
            }
        }
    }

    /// Takes in what has come to the sockets; false: nothing.
    fn receive(&mut self) -> bool {
        let mut buffer = vec![0; 65_535];
        let mut come = Vec::new();
        for (local, socket) in &self.sockets {
            match socket.recv_from(&mut buffer) {
                Ok((len, remote)) => come.push((*local, remote, buffer[..len].to_vec())),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => panic!("{local}: {e}"),
            }
        }
        for (local, remote, bytes) in &come {
            self.take_in(*local, *remote, bytes);
        }
        !come.is_empty()
    }

    fn take_in(&mut self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        let input = UeInput::FromNetwork {
            local,
            remote,
            transport: Transport::Udp,
            bytes,
        };
        self.ue.handle(self.now(), input);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.ue.poll() {
            match output {
                UeOutput::Send(packet) => self.send(packet),
                UeOutput::Install(request) => {
                    let set = request.token;
                    self.install(*request);
                    let input = UeInput::Installed { set, ok: true };
                    self.ue.handle(self.now(), input);
                }
                UeOutput::Activate { set } => self.kernel.activate(&self.sets[&set]),
                UeOutput::Retire { set } => self.kernel.retire(&self.sets[&set]),
                UeOutput::Remove { set } => {
                    let set = self.sets.remove(&set).expect("a set that is there");
                    self.kernel.remove(&set);
                    let sets = &self.sets;
                    let used = |at: &SocketAddr| sets.values().flat_map(ports).any(|p| p == *at);
                    for port in ports(&set).filter(|p| !used(p)) {
                        self.sockets.remove(&port);
                    }
                }
                // The answer to what was repeated: an emulated machine is slow.
                UeOutput::Event(UeEvent::Ignored {
                    why: Ignored::NoTransaction,
                }) => {}
                UeOutput::Event(event) => self.events.push_back(event),
            }
        }
    }

    fn install(&mut self, request: SaSetRequest) {
        self.kernel.install(&request);
        self.wire.installed(&request);
        if !self.by_others {
            for port in ports(&request) {
                self.socket(port);
            }
        }
        self.sets.insert(request.token, request);
    }

    fn send(&mut self, packet: Packet) {
        let encapsulation = packet.local.port() == ENCAP;
        if self.by_others && packet.local != self.clear && !encapsulation {
            // A repetition is not to be sent again.
            let again = self.kept.back().is_some_and(|k| k.bytes == packet.bytes);
            return if !again {
                self.kept.push_back(packet);
            };
        }
        let sent = self
            .socket(packet.local)
            .send_to(&packet.bytes, packet.remote);
        // What is lost is repeated; what is blocked must not leave.
        if let Err(e) = sent {
            println!("{packet:?}: {e}");
        }
    }

    /// The socket of an address, opened in the phone's namespace when there is none.
    fn socket(&mut self, local: SocketAddr) -> &UdpSocket {
        self.sockets.entry(local).or_insert_with(|| {
            let bound = self.net.lab.ue.run(|| UdpSocket::bind(local));
            let socket = bound.unwrap_or_else(|e| panic!("{local}: {e}"));
            socket.set_nonblocking(true).expect("a socket");
            socket
        })
    }

    /// SPIs that nobody else has: the kernel gives none to anybody else here.
    fn supply(&mut self) {
        while self.ue.wants_spis() {
            let first = (System.u32() | 1 << 16) & !1;
            self.ue.add_spis([first, first | 1]);
        }
    }

    fn now(&self) -> u64 {
        (self.began.elapsed() + self.ahead).as_millis() as u64
    }
}

/// port_uc and port_us with the phone's public address.
fn ports(set: &SaSetRequest) -> impl Iterator<Item = SocketAddr> + use<> {
    let (ue, ends) = (set.params.ue, set.params.ue_ends);
    [ends.port_c, ends.port_s]
        .map(|port| SocketAddr::new(ue, port))
        .into_iter()
}

fn key(digits: &str) -> [u8; 16] {
    std::array::from_fn(|i| {
        let digits = digits.get(2 * i..2 * i + 2);
        u8::from_str_radix(digits.expect("32 digits"), 16).expect("hex digits")
    })
}
