//! The UE's side of registration (TS 33.203 clauses 7.2, 7.4.1a, M.7).
//!
//! Drive it with [`Ue::register`], [`Ue::deregister`], [`Ue::send`],
//! [`Ue::handle`] and [`Ue::handle_timeout`]; take everything from [`Ue::poll`]
//! after each. Before each registration two SPIs must be there ([`Ue::add_spis`]).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use crate::message::{Message, ParseError};
use crate::rand::Randomness;
use crate::sa_set::{SetParams, SetToken};
use crate::sec_agree::Ends;
use crate::{Packet, Transport};

mod challenge;
mod client;
mod io;
mod procedure;
mod register;
mod server;

use client::{Clients, Purpose};
pub use io::{
    Aka, AkaAnswer, AkaFailure, Ignored, RequestId, UeConfig, UeEvent, UeFailure, UeInput, UeOutput,
};
use procedure::Procedure;
use server::Answered;

/// A set that the UE holds.
#[derive(Debug, Clone)]
struct UeSet {
    token: SetToken,
    params: SetParams,
    /// Security-Server of SM6, to be echoed in Security-Verify.
    server_text: String,
    /// When it goes, in milliseconds.
    deadline: u64,
}

impl UeSet {
    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.params.ue, port)
    }

    /// Requests and responses leave from port_uc to port_ps (clause 7.1, UDP case).
    fn way_out(&self) -> (SocketAddr, SocketAddr) {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        (
            self.address(u.port_c),
            SocketAddr::new(self.params.pcscf, p.port_s),
        )
    }

    /// Whether a message came through one of its inbound SAs (clause 7.1 rule 7).
    fn carries(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        let ports = (remote.port(), local.port());
        local.ip() == self.params.ue
            && remote.ip() == self.params.pcscf
            && (ports == (p.port_c, u.port_s) || ports == (p.port_s, u.port_c))
    }
}

/// A UE.
pub struct Ue {
    config: UeConfig,
    aka: Box<dyn Aka + Send>,
    random: Box<dyn Randomness + Send>,
    spis: VecDeque<[u32; 2]>,
    next_token: u64,
    next_request: u64,
    call_id: String,
    from_tag: String,
    cseq: u32,
    /// The set in use, after SM12.
    current: Option<UeSet>,
    /// Sets that end soon: replaced or de-registered.
    old: Vec<UeSet>,
    procedure: Option<Procedure>,
    service_route: Vec<String>,
    registered_until: Option<u64>,
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
            next_token: 0,
            next_request: 0,
            call_id,
            from_tag,
            cseq: 0,
            current: None,
            old: Vec::new(),
            procedure: None,
            service_route: Vec::new(),
            registered_until: None,
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

    /// Whether this is a protected address and port of one of our sets.
    pub fn has_port(&self, local: SocketAddr) -> bool {
        let procedure = self.procedure.as_ref().and_then(|p| p.set.as_ref());
        self.current
            .iter()
            .chain(&self.old)
            .chain(procedure)
            .any(|set| {
                let ends = set.params.ue_ends;
                set.params.ue == local.ip() && [ends.port_c, ends.port_s].contains(&local.port())
            })
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
        let expires = self.config.expires;
        self.start(now, expires)
    }

    /// De-registers through the SAs.
    ///
    /// # Errors
    /// [`UeFailure::NotRegistered`] and those of [`Ue::register`].
    pub fn deregister(&mut self, now: u64) -> Result<(), UeFailure> {
        if self.current.is_none() {
            return Err(UeFailure::NotRegistered);
        }
        self.start(now, 0)
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
        message.push("Security-Verify", &set.server_text);
        message.push("User-Agent", &self.config.user_agent);
        if !body.is_empty() {
            message.push("Content-Type", content_type);
        }
        let message = message.with_body(body);
        let (local, remote) = set.way_out();
        self.request(
            now,
            &branch,
            Purpose::Request(id),
            Some(set.token),
            local,
            remote,
            message.to_bytes(),
        );
        Ok(id)
    }

    /// Takes in what happened at `now`, milliseconds of a clock that never goes back.
    pub fn handle(&mut self, now: u64, input: UeInput<'_>) {
        match input {
            UeInput::Installed { set, ok } => self.installed(now, set, ok),
            UeInput::Unreachable { .. } | UeInput::Closed { .. } => {}
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
        sets.chain(procedure)
            .chain(self.clients.next_timeout())
            .min()
    }

    /// Does what is due at `now`: retransmissions, the ends of sets and procedures.
    pub fn handle_timeout(&mut self, now: u64) {
        for (local, remote, bytes) in self.clients.due(now) {
            self.emit(local, remote, bytes);
        }
        for client in self.clients.take_expired(now) {
            match client {
                Purpose::Request(id) => {
                    self.event(UeEvent::Answered {
                        id,
                        status: 408,
                        body: Vec::new(),
                    });
                }
                Purpose::Register => self.abandon(UeFailure::Timeout),
            }
        }
        if self.procedure.as_ref().is_some_and(|p| p.deadline() <= now) {
            self.abandon(UeFailure::Timeout);
        }
        let (gone, kept) = std::mem::take(&mut self.old)
            .into_iter()
            .partition(|s| s.deadline <= now);
        self.old = kept;
        for set in gone {
            self.drop_set(&set);
        }
        if let Some(set) = self.current.take_if(|s| s.deadline <= now) {
            self.drop_set(&set);
            self.registered_until = None;
        }
    }

    fn drop_set(&mut self, set: &UeSet) {
        self.out.push_back(UeOutput::Retire { set: set.token });
        self.out.push_back(UeOutput::Remove { set: set.token });
    }

    /// The set through which a message came; none for one in clear.
    fn set_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<&UeSet> {
        let procedure = self.procedure.as_ref().and_then(|p| p.set.as_ref());
        self.current
            .iter()
            .chain(&self.old)
            .chain(procedure)
            .find(|s| s.carries(local, remote))
    }

    fn emit(&mut self, local: SocketAddr, remote: SocketAddr, bytes: Vec<u8>) {
        self.out.push_back(UeOutput::Send(Packet {
            local,
            remote,
            transport: Transport::Udp,
            bytes,
        }));
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

    fn via(&self, at: SocketAddr, branch: &str, rport: bool) -> String {
        let rport = if rport { ";rport" } else { "" };
        format!("SIP/2.0/UDP {at};branch={branch}{rport}")
    }

    /// A client port that no set of ours uses (clause 7.1 rule 6), drawn at random.
    fn free_port(&mut self) -> Option<u16> {
        let procedure = self.procedure.as_ref().and_then(|p| p.set.as_ref());
        let used: Vec<_> = self
            .current
            .iter()
            .chain(&self.old)
            .chain(procedure)
            .map(|s| s.params.ue_ends.port_c)
            .collect();
        let barred = [
            0,
            5060,
            5061,
            self.config.clear_port,
            self.config.server_port,
        ];
        let free: Vec<_> = self
            .config
            .client_ports
            .clone()
            .filter(|p| !used.contains(p) && !barred.contains(p))
            .collect();
        let at = (self.random.u32() as usize).checked_rem(free.len())?;
        free.get(at).copied()
    }

    /// SPIs that were offered and never installed are the last to be offered again.
    fn give_back(&mut self, ends: Ends) {
        self.spis.push_back([ends.spi_c, ends.spi_s]);
    }

    fn new_ends(&mut self) -> Result<Ends, UeFailure> {
        let port_c = self.free_port().ok_or(UeFailure::NoPort)?;
        let [spi_c, spi_s] = self.spis.pop_front().ok_or(UeFailure::NoSpi)?;
        Ok(Ends {
            spi_c,
            spi_s,
            port_c,
            port_s: self.config.server_port,
        })
    }
}

#[cfg(test)]
#[path = "ue/tests.rs"]
mod tests;
