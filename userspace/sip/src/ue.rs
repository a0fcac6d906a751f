//! The UE's side of registration (TS 33.203 clauses 7.2, 7.4.1a, M.7).
//!
//! Drive it with [`Ue::register`], [`Ue::deregister`], [`Ue::send`],
//! [`Ue::handle`] and [`Ue::handle_timeout`]; take everything from [`Ue::poll`]
//! after each. Before each registration two SPIs must be there ([`Ue::add_spis`]).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::message::{Message, ParseError};
use crate::rand::Randomness;

mod again;
mod carry;
mod challenge;
mod client;
mod config;
mod fault;
mod io;
mod procedure;
mod reg_event;
mod register;
mod server;
mod set;

use carry::Flow;
pub use challenge::may_be_public;
use client::{Clients, Purpose};
pub use config::{Carrier, Retry, UeConfig};
pub use fault::Fault;
pub use io::{
    Aka, AkaAnswer, AkaFailure, Ignored, RequestId, UeEvent, UeFailure, UeInput, UeOutput,
};
use procedure::Procedure;
use server::Answered;
use set::UeSet;

/// A UE.
pub struct Ue {
    config: UeConfig,
    aka: Box<dyn Aka + Send>,
    random: Box<dyn Randomness + Send>,
    spis: VecDeque<[u32; 2]>,
    /// Client ports that were offered, the one longest ago first.
    drawn: VecDeque<u16>,
    next_token: u64,
    next_request: u64,
    call_id: String,
    from_tag: String,
    cseq: u32,
    /// The last Authorization that answered a challenge.
    last_answer: Option<String>,
    /// The set in use, after SM12.
    current: Option<UeSet>,
    /// Sets that end soon: replaced or de-registered.
    old: Vec<UeSet>,
    procedure: Option<Procedure>,
    service_route: Vec<String>,
    registered_until: Option<u64>,
    /// When to register again before the registration ends.
    renew_at: Option<u64>,
    /// When to begin again after a failure, and how often that was done in a row.
    again_at: Option<u64>,
    attempts: u32,
    /// Protected requests in a row that nobody answered.
    silent: u8,
    keepalive_at: Option<u64>,
    flow: Option<Flow>,
    clients: Clients,
    answered: Answered,
    out: VecDeque<UeOutput>,
}

impl Ue {
    /// A UE that is not registered. The SIM and the randomness are its own.
    pub fn new(
        config: UeConfig,
        aka: Box<dyn Aka + Send>,
        mut random: Box<dyn Randomness + Send>,
    ) -> Ue {
        let (call_id, from_tag) = (random.token(12), random.token(6));
        Ue {
            config,
            aka,
            random,
            spis: VecDeque::new(),
            drawn: VecDeque::new(),
            next_token: 0,
            next_request: 0,
            call_id,
            from_tag,
            cseq: 0,
            last_answer: None,
            current: None,
            old: Vec::new(),
            procedure: None,
            service_route: Vec::new(),
            registered_until: None,
            renew_at: None,
            again_at: None,
            attempts: 0,
            silent: 0,
            keepalive_at: None,
            flow: None,
            clients: Clients::default(),
            answered: Answered::default(),
            out: VecDeque::new(),
        }
    }

    /// Two reserved SPIs for the inbound SAs of one registration.
    pub fn add_spis(&mut self, pair: [u32; 2]) {
        self.spis.push_back(pair);
    }

    /// Whether fewer than two pairs are left: one registration may need two.
    pub fn wants_spis(&self) -> bool {
        self.spis.len() < 2
    }

    /// Whether SM12 has come and the registration has not ended.
    pub fn is_registered(&self) -> bool {
        self.current.is_some() && self.registered_until.is_some()
    }

    /// The address that the P-CSCF knows us by: ours, or the public one behind a NAT.
    pub fn public_address(&self) -> IpAddr {
        self.current
            .as_ref()
            .map_or(self.config.local, |s| s.params.ue)
    }

    /// Until when the registration is granted, in milliseconds. Renew before it ends
    /// (24.229: 600 s before, or half of it when it is shorter).
    pub fn registered_until(&self) -> Option<u64> {
        self.registered_until
    }

    /// Registers, or registers again through the SAs that there are.
    ///
    /// # Errors
    /// [`UeFailure::Busy`], [`UeFailure::NoSpi`], [`UeFailure::NoPort`].
    pub fn register(&mut self, now: u64) -> Result<(), UeFailure> {
        self.attempts = 0;
        self.begin(now, true)
    }

    /// Registers in clear although there are SAs, as a UE may at any time (clause
    /// 7.4.0): it is challenged, and the SAs in use serve until SM12.
    ///
    /// # Errors
    /// Those of [`Ue::register`].
    pub fn register_in_clear(&mut self, now: u64) -> Result<(), UeFailure> {
        self.attempts = 0;
        self.begin(now, false)
    }

    /// A registration, in place of any that was planned.
    fn begin(&mut self, now: u64, protect: bool) -> Result<(), UeFailure> {
        let expires = self.config.expires;
        self.start(now, expires, protect)?;
        (self.again_at, self.renew_at) = (None, None);
        Ok(())
    }

    /// De-registers through the SAs.
    ///
    /// # Errors
    /// [`UeFailure::NotRegistered`] and those of [`Ue::register`].
    pub fn deregister(&mut self, now: u64) -> Result<(), UeFailure> {
        // Nothing begins again by itself any more.
        (self.again_at, self.renew_at) = (None, None);
        if self.current.is_none() {
            return Err(UeFailure::NotRegistered);
        }
        self.start(now, 0, true)
    }

    /// Sends a request through the SAs: MESSAGE, OPTIONS. The final answer comes as
    /// [`UeEvent::Answered`].
    ///
    /// # Errors
    /// [`UeFailure::NotRegistered`].
    pub fn send(
        &mut self,
        now: u64,
        method: &str,
        to: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<RequestId, UeFailure> {
        let set = self.current.clone().ok_or(UeFailure::NotRegistered)?;
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let (branch, call, tag) = (
            self.new_branch(),
            self.random.token(12),
            self.random.token(6),
        );
        let port_s = set.params.ue_ends.port_s;
        let mut message = Message::request(method, to)
            .with("Via", &self.via(set.address(port_s), &branch, false))
            .with("Max-Forwards", "70");
        let pcscf = SocketAddr::new(set.params.pcscf, set.params.pcscf_ends.port_s);
        message.push("Route", &format!("<sip:{pcscf};lr>"));
        for route in &self.service_route {
            message.push("Route", route);
        }
        message.push("From", &format!("<{}>;tag={tag}", self.config.impu));
        message.push("To", &format!("<{to}>"));
        message.push("Call-ID", &call);
        message.push("CSeq", &format!("1 {method}"));
        message.push("P-Preferred-Identity", &format!("<{}>", self.config.impu));
        message.push("Require", "sec-agree");
        message.push("Proxy-Require", "sec-agree");
        for line in &set.server_lines {
            message.push("Security-Verify", line);
        }
        message.push("User-Agent", &self.config.user_agent);
        if !body.is_empty() {
            message.push("Content-Type", content_type);
        }
        let message = message.with_body(body);
        self.request(now, &branch, Purpose::Request(id), Some(&set), message);
        Ok(id)
    }

    /// Takes in what happened at `now`, milliseconds of a clock that never goes back.
    pub fn handle(&mut self, now: u64, input: UeInput<'_>) {
        match input {
            UeInput::Installed { set, ok } => self.installed(now, set, ok),
            UeInput::Unreachable { local, remote } => self.unreachable(now, local, remote),
            UeInput::Closed { local, remote } => self.closed(now, local, remote),
            UeInput::FromNetwork {
                local,
                remote,
                transport,
                bytes,
            } => {
                let message = match Message::parse(bytes) {
                    Ok(message) => message,
                    Err(ParseError::Empty) => return,
                    Err(_) => return self.ignored(Ignored::Malformed),
                };
                if remote.ip() != self.config.pcscf.ip() {
                    return self.ignored(Ignored::Stranger);
                }
                if message.method().is_some() {
                    self.serve(now, local, remote, transport, &message);
                } else {
                    self.answer(now, local, remote, &message);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<UeOutput> {
        self.out.pop_front()
    }

    /// When [`Ue::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        let sets = self.current.iter().chain(&self.old).map(|s| s.deadline);
        let procedure = self.procedure.iter().map(Procedure::deadline);
        let plans = [self.again_at, self.renew_at, self.keepalive_at];
        sets.chain(procedure)
            .chain(self.clients.next_timeout())
            .chain(plans.into_iter().flatten())
            .chain(self.flow.map(|f| f.ping_at))
            .min()
    }

    /// Does what is due at `now`: retransmissions, keepalives, the ends of sets and
    /// procedures, what begins again by itself.
    pub fn handle_timeout(&mut self, now: u64) {
        for packet in self.clients.due(now) {
            self.emit(now, packet);
        }
        for client in self.clients.take_expired(now) {
            match client.purpose {
                Purpose::Request(id) => {
                    self.event(UeEvent::Answered {
                        id,
                        status: 408,
                        body: Vec::new(),
                    });
                    if client.set.is_some() && client.set == self.current.as_ref().map(|s| s.token)
                    {
                        self.no_answer(now);
                    }
                }
                Purpose::Register => self.abandon(now, UeFailure::Timeout, 0),
                Purpose::Report => {}
            }
        }
        if self.procedure.as_ref().is_some_and(|p| p.deadline() <= now) {
            self.abandon(now, UeFailure::Timeout, 0);
        }
        self.settle(now);
        self.expire_sets(now);
        self.keep_alive(now);
        self.begin_again(now);
    }

    fn event(&mut self, event: UeEvent) {
        self.out.push_back(UeOutput::Event(event));
    }

    fn ignored(&mut self, why: Ignored) {
        self.event(UeEvent::Ignored { why });
    }

    fn new_branch(&mut self) -> String {
        format!("z9hG4bK{}", self.random.token(10))
    }

    /// Via as it is written over UDP; the transaction puts its transport in.
    fn via(&self, at: SocketAddr, branch: &str, rport: bool) -> String {
        let rport = if rport { ";rport" } else { "" };
        format!("SIP/2.0/UDP {at};branch={branch}{rport}")
    }

    fn does(&self, fault: Fault) -> bool {
        self.config.faults.contains(&fault)
    }
}

#[cfg(test)]
#[path = "ue/tests.rs"]
mod tests;
