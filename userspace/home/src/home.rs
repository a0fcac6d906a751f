//! The home network as one SIP element: registrar, routing to contacts, echo service.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use gm_sip::Transport;
use gm_sip::header::{self, NameAddr, Uri, Via, via::mark_source};
use gm_sip::message::Message;
use gm_sip::rand::Randomness;

use crate::registrar::{Outcome, Registrar};
use crate::vectors::Subscriber;
use zeroize::Zeroizing;

/// Transactions that are remembered; older ones are forgotten first.
const MAX_TRANSACTIONS: usize = 4096;
/// User part of the echo service.
const ECHO: &str = "echo";

/// What a home network is told at its start.
#[derive(Debug, Clone)]
pub struct HomeConfig {
    /// The domain, realm of the challenges.
    pub domain: String,
    /// Our address and port.
    pub local: SocketAddr,
    /// The longest registration in seconds.
    pub max_expires: u32,
}

/// Something to show or log. No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HomeEvent {
    /// A REGISTER was answered.
    Register {
        /// The private identity, or what stood in its place.
        impi: String,
        /// How.
        outcome: Outcome,
    },
    /// A request went on to a contact.
    Routed {
        /// Its method.
        method: String,
        /// The Request-URI that it came with.
        to: String,
    },
    /// A request of the network itself (echo) got its final answer.
    Answered {
        /// The status.
        status: u16,
    },
}

/// The latest entries by key; the oldest goes when there are too many.
struct Recent<T> {
    all: HashMap<String, T>,
    order: VecDeque<String>,
}

impl<T> Recent<T> {
    fn new() -> Recent<T> {
        Recent {
            all: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn insert(&mut self, key: String, value: T) {
        if self.all.insert(key.clone(), value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MAX_TRANSACTIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

/// The home network.
pub struct Home {
    config: HomeConfig,
    registrar: Registrar,
    /// Where responses to forwarded requests go, by our branch.
    forwarded: Recent<SocketAddr>,
    /// Our own requests, by branch: whether the final answer has come.
    originated: Recent<bool>,
    /// Answers to REGISTER and echo requests, for retransmissions. Wiped: a 401 has keys in it.
    answered: Recent<Zeroizing<Vec<u8>>>,
    events: Vec<HomeEvent>,
}

impl Home {
    /// A home network without subscribers.
    pub fn new(config: HomeConfig) -> Home {
        Home {
            registrar: Registrar::new(&config.domain, config.max_expires),
            config,
            forwarded: Recent::new(),
            originated: Recent::new(),
            answered: Recent::new(),
            events: Vec::new(),
        }
    }

    /// Adds or replaces a subscriber.
    pub fn add(&mut self, subscriber: Subscriber) {
        self.registrar.add(subscriber);
    }

    /// Subscribers and registrations.
    pub fn registrar(&mut self) -> &mut Registrar {
        &mut self.registrar
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<HomeEvent> {
        std::mem::take(&mut self.events)
    }

    /// Takes in one message and gives those to send, each with where to. `now` is in
    /// milliseconds of a clock that never goes back. What is no SIP is dropped.
    ///
    /// Over TCP `remote` is the other end of the connection, and so is where an answer
    /// goes, for the edge's Via has `rport`. Our own requests say in their Via what they
    /// go over.
    pub fn handle(
        &mut self,
        now: u64,
        remote: SocketAddr,
        bytes: &[u8],
        random: &mut dyn Randomness,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let Ok(mut message) = Message::parse(bytes) else {
            return Vec::new();
        };
        let Some(element) = message.first_element("Via") else {
            return Vec::new();
        };
        let Some(via) = Via::parse(&element) else {
            return Vec::new();
        };
        if message.method().is_none() {
            return self.response(&via, message);
        }
        let back = via.reply_to(remote);
        if let Some(marked) = mark_source(&element, remote, false) {
            message.replace_first_element("Via", &marked);
        }
        let id = format!("{:?} {} {:?}", via.branch(), back, message.method());
        if let Some(bytes) = self.answered.all.get(&id) {
            return vec![(back, bytes.to_vec())];
        }
        match message.method() {
            Some("REGISTER") => {
                let (response, outcome) = self.registrar.register(now, &message, random);
                let impi = gm_sip::aka::Credentials::from_message(&message)
                    .map(|c| c.username)
                    .unwrap_or_default();
                self.events.push(HomeEvent::Register { impi, outcome });
                vec![self.answer(id, back, &response)]
            }
            Some("ACK") => Vec::new(),
            _ if self.is_echo(&message) => self.echo(now, id, back, &message, random),
            _ => self.route(now, back, message, random),
        }
    }

    /// Sends a request of the network itself to the contacts of an identity: for
    /// tests and the demo. Empty when nobody is registered.
    pub fn originate(
        &mut self,
        now: u64,
        method: &str,
        impu: &str,
        body: &[u8],
        random: &mut dyn Randomness,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let targets: Vec<_> = self
            .registrar
            .bindings(impu, now)
            .into_iter()
            .cloned()
            .collect();
        let mut out = Vec::new();
        for binding in targets {
            let branch = format!("z9hG4bKecho{}", random.token(10));
            let from = format!(
                "<sip:{ECHO}@{}>;tag={}",
                self.config.domain,
                random.token(6)
            );
            let mut message = Message::request(method, &binding.contact).with("Max-Forwards", "70");
            for route in &binding.path {
                message.push("Route", route);
            }
            let mut message = message
                .with("From", &from)
                .with("To", &format!("<{impu}>"))
                .with("Call-ID", &random.token(12))
                .with("CSeq", &format!("1 {method}"));
            if !body.is_empty() {
                message.push("Content-Type", "text/plain");
            }
            let mut message = message.with_body(body);
            if let Some((to, over)) = next_hop(&message) {
                message.insert_top("Via", &self.via(over, &branch));
                self.originated.insert(branch, false);
                out.push((to, message.to_bytes()));
            }
        }
        out
    }

    /// 200 to the sender, and the same body back to its contacts in a new MESSAGE.
    fn echo(
        &mut self,
        now: u64,
        id: String,
        back: SocketAddr,
        message: &Message,
        random: &mut dyn Randomness,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let response =
            Message::response(message, 200, "OK", &random.token(6)).with("Content-Length", "0");
        let mut out = vec![self.answer(id, back, &response)];
        // The P-CSCF vouches for this one, From is only what the phone says.
        let sender = message
            .value("P-Asserted-Identity")
            .or_else(|| message.value("From"));
        let sender = sender.and_then(|s| NameAddr::parse(&s)).map(|s| s.uri);
        if let Some(impu) = sender.filter(|_| message.method() == Some("MESSAGE")) {
            out.extend(self.originate(now, "MESSAGE", &impu, message.body(), random));
        }
        out
    }

    /// To the contact of the Request-URI's identity, along its Path.
    fn route(
        &mut self,
        now: u64,
        back: SocketAddr,
        mut message: Message,
        random: &mut dyn Randomness,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let uri = message.uri().unwrap_or_default().to_owned();
        // A request inside a dialog names a contact and brings its own Route.
        self.strip_own_routes(&mut message);
        let (contact, path) = match self.registrar.bindings(&uri, now).first() {
            Some(binding) => (binding.contact.clone(), binding.path.clone()),
            None if message.value("Route").is_some() => (uri.clone(), Vec::new()),
            None => {
                let code = if message.method() == Some("OPTIONS") && self.is_us(&uri) {
                    200
                } else {
                    480
                };
                let reason = if code == 200 {
                    "OK"
                } else {
                    "Temporarily Unavailable"
                };
                let response = Message::response(&message, code, reason, &random.token(6));
                return vec![(back, response.with("Content-Length", "0").to_bytes())];
            }
        };
        if !path.is_empty() {
            message.remove("Route");
            message.set_uri(&contact);
            path.iter()
                .rev()
                .for_each(|route| message.insert_top("Route", route));
        }
        let Some((to, over)) = next_hop(&message) else {
            return Vec::new();
        };
        let branch = format!("z9hG4bKhome{}", random.token(10));
        message.insert_top("Via", &self.via(over, &branch));
        self.forwarded.insert(branch, back);
        let method = message.method().unwrap_or_default().to_owned();
        self.events.push(HomeEvent::Routed { method, to: uri });
        vec![(to, message.to_bytes())]
    }

    /// A response: of the echo service's request, or back along the Via.
    fn response(&mut self, via: &Via, mut message: Message) -> Vec<(SocketAddr, Vec<u8>)> {
        let branch = via.branch().unwrap_or_default();
        if let Some(done) = self.originated.all.get_mut(&branch) {
            let status = message.status().unwrap_or_default();
            if status >= 200 && !std::mem::replace(done, true) {
                self.events.push(HomeEvent::Answered { status });
            }
            return Vec::new();
        }
        let Some(to) = self.forwarded.all.get(&branch).copied() else {
            return Vec::new();
        };
        message.remove_first_element("Via");
        vec![(to, message.to_bytes())]
    }

    fn answer(
        &mut self,
        id: String,
        back: SocketAddr,
        response: &Message,
    ) -> (SocketAddr, Vec<u8>) {
        let bytes = response.to_bytes();
        self.answered.insert(id, Zeroizing::new(bytes.clone()));
        (back, bytes)
    }

    fn via(&self, over: Transport, branch: &str) -> String {
        let (name, local) = (over.name(), self.config.local);
        format!("SIP/2.0/{name} {local};branch={branch};rport")
    }

    fn strip_own_routes(&self, message: &mut Message) {
        while let Some(route) = message.first_element("Route") {
            let uri = NameAddr::parse(&route).map(|r| r.uri).unwrap_or_default();
            if !self.is_us(&uri) {
                break;
            }
            message.remove_first_element("Route");
        }
    }

    fn is_us(&self, uri: &str) -> bool {
        let Some(uri) = Uri::parse(uri) else {
            return false;
        };
        let domain = header::Host::parse(&self.config.domain);
        let local = uri.host.as_ref().and_then(header::Host::ip) == Some(self.config.local.ip());
        uri.host == domain || (local && uri.port.unwrap_or(5060) == self.config.local.port())
    }

    fn is_echo(&self, message: &Message) -> bool {
        let uri = message.uri().unwrap_or_default();
        let user = Uri::parse(uri).and_then(|u| u.user);
        user.as_deref() == Some(ECHO) && self.is_us(uri)
    }
}

/// Where a request goes: its first Route, else its Request-URI; addresses only. Over UDP,
/// or over TCP where that says so.
fn next_hop(message: &Message) -> Option<(SocketAddr, Transport)> {
    let route = message
        .first_element("Route")
        .and_then(|r| NameAddr::parse(&r))
        .map(|r| r.uri);
    let uri = Uri::parse(&route.unwrap_or_else(|| message.uri().unwrap_or_default().to_owned()))?;
    let transport = uri.params.get("transport").unwrap_or_default();
    let over = if transport.eq_ignore_ascii_case("tcp") {
        Transport::Tcp
    } else {
        Transport::Udp
    };
    let to = SocketAddr::new(uri.host?.ip()?, uri.port.unwrap_or(5060));
    Some((to, over))
}
