//! The proxy without I/O: messages and time in, messages and SA commands out.
//!
//! ```text
//!  SIP UE                     Proxy                          P-CSCF
//!    | REGISTER ------------>  + Security-Client  ---------> |   clear
//!    |                         Install <------ 401 --------- |
//!    | <----------- 401        - Security-Server             |
//!    | REGISTER (response) ->  + Security-Verify  =========> |   ESP
//!    | <----------- 200        <============= 200 ========== |
//!    | MESSAGE <------------>  Via, Contact       <========> |
//! ```
//!
//! The digest is the UE's: the proxy computes IK and CK only, from the same K and
//! OP, and does not judge the sequence number.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use gm_esp::Suite;
use gm_sip::message::{Message, ParseError};
use gm_sip::ue::{Aka, UeConfig};
use gm_sip::{Packet, Randomness, SaSetRequest, SetToken, Transport};

use super::sets::Sets;
use super::transactions::Transactions;

/// Who the proxy is on both sides.
pub struct ProxyConfig {
    /// The Gm side: addresses, ports, offer. Its identity stands in for a UE that
    /// sends no Authorization in its first REGISTER.
    pub gm: UeConfig,
    /// The clear side: where the UE sends to.
    pub listen: SocketAddr,
}

/// Something that happened.
#[derive(Clone, Copy)]
pub enum ProxyInput<'a> {
    /// A datagram of the UE on the clear side.
    FromUe {
        /// The UE's address and port.
        remote: SocketAddr,
        /// Its payload.
        bytes: &'a [u8],
    },
    /// A message on the Gm side, in clear or out of an SA.
    FromNetwork {
        /// Our address and port.
        local: SocketAddr,
        /// The sender's.
        remote: SocketAddr,
        /// UDP, or a connection of the P-CSCF's to port_us.
        transport: Transport,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// The answer to [`ProxyOutput::Install`].
    Installed {
        /// The set.
        set: SetToken,
        /// False: nothing of it is there.
        ok: bool,
    },
}

/// Something to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum ProxyOutput {
    /// A datagram to the UE, from [`ProxyConfig::listen`].
    ToUe {
        /// Its address and port.
        remote: SocketAddr,
        /// One message.
        bytes: Vec<u8>,
    },
    /// A message to the P-CSCF; over SAs when `local` is a protected port.
    ToNetwork(Packet),
    /// Install four SAs and answer with [`ProxyInput::Installed`].
    Install(Box<SaSetRequest>),
    /// Outbound of the set goes live.
    Activate(SetToken),
    /// Outbound of the set ends.
    Retire(SetToken),
    /// The set goes.
    Remove(SetToken),
    /// Two SPIs that were offered in vain: they may be reserved by others again.
    Unreserve([u32; 2]),
    /// Something to show.
    Event(ProxyEvent),
}

/// What the proxy tells people. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProxyEvent {
    /// The data path runs and the UE is heard.
    Ready {
        /// Where.
        listen: SocketAddr,
    },
    /// The proxy ends while the UE is registered: its SAs are gone, the registration
    /// is not.
    Left,
    /// The UE's first REGISTER went on with an offer.
    Offered {
        /// Through SAs that are there.
        protected: bool,
    },
    /// The challenge is on its way to the UE; the SAs for its answer are installed.
    Challenged {
        /// Annex H's names, `alg/ealg`.
        suite: String,
        /// Protected ports: the UE's client and server, the P-CSCF's client and server.
        ports: [u16; 4],
    },
    /// 200: the UE is registered.
    Registered {
        /// Granted time in seconds.
        expires: u32,
        /// Whether the UE was challenged and new SAs are in use.
        authenticated: bool,
    },
    /// 200 to a de-REGISTER.
    Deregistered,
    /// A registration came to nothing.
    Failed {
        /// Why, and what to look at.
        reason: String,
    },
    /// A request went through, and in which direction.
    Passed {
        /// MESSAGE, INVITE or another.
        method: String,
        /// From the UE, or to it.
        up: bool,
    },
    /// Something was dropped.
    Dropped {
        /// Why.
        reason: &'static str,
    },
}

impl std::fmt::Display for ProxyEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ProxyEvent::Ready { listen } => write!(f, "ready: the UE sends to {listen}"),
            ProxyEvent::Left => f.write_str("ended while the UE was registered"),
            ProxyEvent::Offered { protected: false } => f.write_str("REGISTER, in clear"),
            ProxyEvent::Offered { protected: true } => f.write_str("REGISTER, through the SAs"),
            ProxyEvent::Challenged { suite, ports } => write!(
                f,
                "401: SAs with {suite}, ports uc {} us {} pc {} ps {}",
                ports[0], ports[1], ports[2], ports[3]
            ),
            ProxyEvent::Registered {
                expires,
                authenticated,
            } => {
                let how = if *authenticated {
                    "new SAs"
                } else {
                    "the same SAs"
                };
                write!(f, "200: registered for {expires} s, {how}")
            }
            ProxyEvent::Deregistered => f.write_str("200: de-registered"),
            ProxyEvent::Failed { reason } => write!(f, "failed: {reason}"),
            ProxyEvent::Passed { method, up: true } => write!(f, "{method} of the UE"),
            ProxyEvent::Passed { method, up: false } => write!(f, "{method} to the UE"),
            ProxyEvent::Dropped { reason } => write!(f, "dropped: {reason}"),
        }
    }
}

/// The proxy of one UE.
pub struct Proxy {
    pub(super) config: ProxyConfig,
    pub(super) aka: Box<dyn Aka + Send>,
    pub(super) random: Box<dyn Randomness + Send>,
    pub(super) spis: VecDeque<[u32; 2]>,
    pub(super) sets: Sets,
    pub(super) txs: Transactions,
    pub(super) ue: Option<Behind>,
    pub(super) service_route: Vec<String>,
    pub(super) out: VecDeque<ProxyOutput>,
}

/// The UE behind us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    /// Its host; other hosts are not heard while it is registered.
    pub ip: IpAddr,
    /// The address in its Contact, for requests to it.
    pub contact: SocketAddr,
}

impl Proxy {
    /// A proxy whose UE has not registered. `aka` has the UE's K and OP.
    pub fn new(
        config: ProxyConfig,
        aka: Box<dyn Aka + Send>,
        random: Box<dyn Randomness + Send>,
    ) -> Proxy {
        Proxy {
            config,
            aka,
            random,
            spis: VecDeque::new(),
            sets: Sets::default(),
            txs: Transactions::default(),
            ue: None,
            service_route: Vec::new(),
            out: VecDeque::new(),
        }
    }

    /// Two reserved SPIs for the inbound SAs of one registration.
    pub fn add_spis(&mut self, pair: [u32; 2]) {
        self.spis.push_back(pair);
    }

    /// Whether fewer than two pairs are left.
    pub fn wants_spis(&self) -> bool {
        self.spis.len() < 2
    }

    /// Takes in what happened at `now`, milliseconds of a clock that never goes back.
    pub fn handle(&mut self, now: u64, input: ProxyInput<'_>) {
        let done = match input {
            ProxyInput::Installed { set, ok } => {
                self.installed(set, ok);
                Ok(())
            }
            ProxyInput::FromUe { remote, bytes } => match Message::parse(bytes) {
                Err(ParseError::Empty) => Ok(()),
                Err(_) => Err("no SIP message of the UE"),
                Ok(message) => self.take_from_ue(now, remote, message),
            },
            ProxyInput::FromNetwork {
                local,
                remote,
                transport,
                bytes,
            } => match Message::parse(bytes) {
                Err(ParseError::Empty) => Ok(()),
                Err(_) => Err("no SIP message of the network"),
                Ok(_) if remote.ip() != self.config.gm.pcscf.ip() => Err("not from the P-CSCF"),
                Ok(message) if message.method().is_some() => {
                    self.request_down(local, remote, transport, message)
                }
                Ok(message) => self.response_down(now, local, remote, message),
            },
        };
        if let Err(reason) = done {
            self.event(ProxyEvent::Dropped { reason });
        }
    }

    fn take_from_ue(
        &mut self,
        now: u64,
        remote: SocketAddr,
        message: Message,
    ) -> Result<(), &'static str> {
        // The SAs vouch for one user: nobody else may borrow them.
        if self.sets.current().is_some() && self.ue.is_some_and(|ue| ue.ip != remote.ip()) {
            return Err("another host than the UE that is registered");
        }
        match message.method() {
            Some("REGISTER") => self.register(now, remote, message),
            Some(_) => self.request_up(remote, message),
            None => self.response_up(message),
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<ProxyOutput> {
        self.out.pop_front()
    }

    /// When [`Proxy::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        self.sets.next_timeout()
    }

    /// Ends what has lived long enough.
    pub fn handle_timeout(&mut self, now: u64) {
        if let Some(reason) = self.sets.expire(now, &mut self.out) {
            self.failed(reason.to_owned());
        }
    }

    /// Whether a registration is in force.
    pub fn is_registered(&self) -> bool {
        self.sets.current().is_some()
    }

    pub(super) fn event(&mut self, event: ProxyEvent) {
        self.out.push_back(ProxyOutput::Event(event));
    }

    pub(super) fn failed(&mut self, reason: String) {
        self.event(ProxyEvent::Failed { reason });
    }

    pub(super) fn send_to_ue(&mut self, remote: SocketAddr, message: &Message) {
        let bytes = message.to_bytes();
        self.out.push_back(ProxyOutput::ToUe { remote, bytes });
    }

    pub(super) fn send_to_network(
        &mut self,
        (local, remote): (SocketAddr, SocketAddr),
        transport: Transport,
        message: &Message,
    ) -> Packet {
        let bytes = match transport {
            Transport::Udp => message.to_bytes(),
            // A stream has no other end of a message (RFC 3261 clause 18.3).
            Transport::Tcp => message.clone().with_body(message.body()).to_bytes(),
        };
        let packet = Packet {
            local,
            remote,
            transport,
            bytes,
        };
        self.out.push_back(ProxyOutput::ToNetwork(packet.clone()));
        packet
    }

    /// An answer of our own to the UE, with the reason for people in it.
    pub(super) fn refuse(&mut self, remote: SocketAddr, request: &Message, code: u16, why: &str) {
        let tag = self.random.token(6);
        let reason = match code {
            403 => "Forbidden",
            503 => "Service Unavailable",
            _ => "Server Internal Error",
        };
        let answer = Message::response(request, code, reason, &tag)
            .with(
                "Warning",
                &format!("399 gm-ue \"{}\"", why.replace('"', "'")),
            )
            .with("Content-Length", "0");
        self.send_to_ue(remote, &answer);
    }

    /// The suite's name for people.
    pub(super) fn suite_name(suite: Suite) -> String {
        format!("{}/{}", suite.alg(), suite.ealg())
    }
}
