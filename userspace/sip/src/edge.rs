//! The P-CSCF's edge: a stateless proxy between UEs and the core that holds the
//! security agreement (TS 33.203 clauses 7 and M.7, RFC 3261 clause 16.11).
//!
//! Give it what happens with [`Edge::handle`] and [`Edge::handle_timeout`], keep it
//! in SPIs with [`Edge::add_spis`], and carry out what [`Edge::poll`] gives, in order.
//!
//! What SAs there are and who may use them is decided by [`crate::agent`]; here are the
//! messages. A registration by function: `register::register` (SM1) ->
//! `challenge::challenge` (SM4, Install) -> `Edge::installed` (Activate, SM6) ->
//! `register::register` (SM7, SM8) -> `challenge::register_response` (SM12).

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::agent::{Agent, Command};
use crate::header::Host;
use crate::lifecycle::SetState;
use crate::message::{Message, ParseError};
use crate::numbered::Numbered;
use crate::rand::Randomness;
use crate::sa_set::SetToken;
use crate::{Packet, Transport};

mod branch;
mod challenge;
mod config;
mod dialog;
mod down;
mod emergency;
mod forward;
mod identity;
mod io;
mod peers;
mod refuse;
mod register;
mod resolve;
mod transport;
mod tx;

pub use crate::agent::{ConfigError, FlowEvent, Limits, Refusal, RemoveReason, Timers};
use branch::{clear_reply, top_via};
pub use config::{EdgeConfig, ServiceRoute};
pub use io::{Input, Output};
use peers::Peers;
use transport::via_transport;
use tx::{Reply, Transactions};

/// A registration set between SM4 and SM12.
struct Held {
    /// SM6, until SM7 has come: for retransmissions of SM1.
    sm6: Option<Vec<u8>>,
    /// How SM6 travels, and failures too (clause 7.4.2a).
    reply: Reply,
}

/// The edge.
pub struct Edge {
    config: EdgeConfig,
    secret: [u8; 16],
    /// `core_local` as it is written.
    core_local: String,
    agent: Agent,
    txs: Transactions,
    held: Numbered<SetToken, Held>,
    peers: Peers,
    calls: emergency::Calls,
    names: resolve::Names,
    /// Until then TCP to the core is not tried where UDP can do it.
    core_tcp_failed: u64,
    now: u64,
    out: VecDeque<Output>,
}

impl Edge {
    /// An edge with nobody registered. The randomness seeds branches and tokens.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(config: EdgeConfig, random: &mut dyn Randomness) -> Result<Edge, ConfigError> {
        let agent = Agent::new(config.agent(), random)?;
        let mut secret = [0; 16];
        random.fill(&mut secret);
        let at = config.core_local;
        let core_local = format!("{}:{}", Host::Ip(at.ip()), at.port());
        Ok(Edge {
            core_local,
            config,
            secret,
            agent,
            txs: Transactions::default(),
            held: Numbered::default(),
            peers: Peers::default(),
            calls: emergency::Calls::default(),
            names: resolve::Names::default(),
            core_tcp_failed: 0,
            now: 0,
            out: VecDeque::new(),
        })
    }

    /// Two reserved SPIs for the inbound SAs of one set. They are used up by an
    /// Install, whatever becomes of it.
    pub fn add_spis(&mut self, pair: [u32; 2]) {
        self.agent.add_spis(pair);
    }

    /// Whether fewer pairs than [`Limits::spi_low`] are left.
    pub fn wants_spis(&self) -> bool {
        self.agent.wants_spis()
    }

    /// Takes in what happened at `now` (milliseconds of a clock that never goes back).
    pub fn handle(&mut self, now: u64, input: Input<'_>) {
        self.now = now;
        if let Input::Installed { set, ok } = input {
            self.installed(set, ok);
        } else if self.out.len() < self.config.limits.outputs {
            match input {
                Input::FromUe {
                    local,
                    remote,
                    transport,
                    bytes,
                } => {
                    self.ue_sent(
                        now,
                        Packet {
                            local,
                            remote,
                            transport,
                            bytes: Vec::new(),
                        },
                        bytes,
                    );
                }
                Input::FromCore {
                    remote,
                    transport,
                    bytes,
                } => self.core_sent(now, remote, transport, bytes),
                Input::UnsentToUe {
                    local,
                    remote,
                    bytes,
                } => self.unsent_to_ue(local, remote, bytes),
                Input::UnsentToCore { remote, bytes } => self.unsent_to_core(remote, bytes),
                Input::Resolved { id, addresses } => self.resolved(now, id, addresses),
                Input::Installed { .. } => {}
            }
        }
        self.carry_out();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Edge::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        let all = [
            self.agent.next_timeout(),
            self.txs.next_timeout(),
            self.calls.next_timeout(),
            self.names.next_timeout(),
        ];
        all.into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: u64) {
        self.now = now;
        while let Some(tx) = self.txs.expire(now) {
            self.over(now, &tx);
        }
        self.calls.expire(now);
        self.expire_names(now);
        self.agent.handle_timeout(now);
        self.carry_out();
    }

    /// Contacts and sets in the table.
    pub fn len(&self) -> (usize, usize) {
        self.agent.table().len()
    }

    /// Whether nobody is registered and nobody registers.
    pub fn is_empty(&self) -> bool {
        self.agent.table().is_empty()
    }

    fn ue_sent(&mut self, now: u64, at: Packet, bytes: &[u8]) {
        let protected = self.config.is_protected(at.local.port());
        if !protected && bytes.len() > self.config.limits.clear_message {
            return self.refused(at.remote, Refusal::Malformed);
        }
        let mut message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(ParseError::Empty) => return,
            Err(error) => return self.refused(at.remote, error.into()),
        };
        // The core is to see the headers that are seen here.
        message.end_lines();
        if protected {
            self.protected_message(now, &at, message, bytes);
        } else {
            self.clear_message(now, &at, message, bytes);
        }
    }

    /// Clause 7.1: what unprotected ports take.
    fn clear_message(&mut self, now: u64, at: &Packet, message: Message, bytes: &[u8]) {
        let reply = clear_reply(at, &message);
        let done = match message.method() {
            Some("REGISTER") => self.register(now, at, None, reply, (&message, bytes)),
            Some(_) => self.emergency_up(now, at, reply, &message),
            None => self.emergency_response_up(now, at, &message),
        };
        if let Err(why) = done {
            self.refuse(at.remote, &message, reply, why);
        }
    }

    /// Clause 7.1 rule 4: the set is found by addresses and ports.
    fn protected_message(&mut self, now: u64, at: &Packet, message: Message, bytes: &[u8]) {
        let Some(set) = self.agent.table().by_flow(at.remote, at.local) else {
            return self.refused(at.remote, Refusal::NoSa);
        };
        let (token, state) = (set.token, set.state);
        let reply = Reply::Set {
            set: token,
            local: at.local,
            remote: at.remote,
            transport: at.transport,
        };
        let done = match message.method() {
            Some("REGISTER") => self.register(now, at, Some(token), reply, (&message, bytes)),
            _ if matches!(state, SetState::Registration | SetState::Lingering) => {
                Err(Refusal::WrongSa)
            }
            Some(_) => self.request_up(now, at, token, reply, &message),
            None => self.response_up(now, token, &message),
        };
        if let Err(why) = done {
            self.refuse(at.remote, &message, reply, why);
        }
    }

    fn core_sent(&mut self, now: u64, remote: SocketAddr, transport: Transport, bytes: &[u8]) {
        if !self.config.is_core(remote) {
            return self.refused(remote, Refusal::CoreUntrusted);
        }
        let message = match Message::parse(bytes) {
            Ok(message) => message,
            Err(ParseError::Empty) => return,
            Err(error) => return self.refused(remote, error.into()),
        };
        if message.method().is_none() {
            if let Err(why) = self.response_down(now, message) {
                self.refused(remote, why);
            }
            return;
        }
        let to = match transport {
            Transport::Udp => top_via(&message).map_or(remote, |via| via.reply_to(remote)),
            Transport::Tcp => remote,
        };
        let reply = Reply::Core {
            remote: to,
            transport,
        };
        if let Err(why) = self.request_down(now, remote, reply, &message) {
            self.refuse(remote, &message, reply, why);
        }
    }

    /// SM6 leaves once the inbound SAs are live (ARCHITECTURE, reading A-02).
    fn installed(&mut self, set: SetToken, ok: bool) {
        if self.agent.installed(set, ok) {
            self.carry_out();
            self.send_sm6(set);
        } else if !ok && let Some(held) = self.held.remove(&set) {
            self.carry_out();
            self.not_installed(held.reply, held.sm6);
        }
    }

    /// Sends SM6 when it is there and may go; for retransmissions too.
    fn send_sm6(&mut self, set: SetToken) {
        let installed = self.agent.is_installed(set);
        let Some(held) = self.held.get(&set).filter(|_| installed) else {
            return;
        };
        let (Some(bytes), reply) = (held.sm6.clone(), held.reply) else {
            return;
        };
        if let Some(ue) = self.send(reply, bytes) {
            self.event(FlowEvent::Sm6 { set, ue });
        }
    }

    /// Sends on the way of a reply; says where to, or `None` when the set is gone.
    fn send(&mut self, reply: Reply, bytes: Vec<u8>) -> Option<SocketAddr> {
        let packet = match reply {
            Reply::Core { remote, transport } => {
                return self.send_core(remote, transport, bytes);
            }
            Reply::Up => {
                let transport = via_transport(&bytes);
                return self.send_core(self.config.core, transport, bytes);
            }
            Reply::Clear {
                local,
                remote,
                transport,
            } => Packet {
                local,
                remote,
                transport,
                bytes,
            },
            Reply::Set {
                set,
                local,
                remote,
                transport,
            } => {
                let set = self.agent.set(set)?;
                match transport {
                    Transport::Udp => Packet {
                        local: set.local(),
                        remote: set.remote(),
                        transport,
                        bytes,
                    },
                    Transport::Tcp => Packet {
                        local,
                        remote,
                        transport,
                        bytes,
                    },
                }
            }
        };
        let (remote, transport) = (packet.remote, packet.transport);
        let bytes = self.framed(remote, transport, packet.bytes)?;
        self.out.push_back(Output::ToUe(Packet { bytes, ..packet }));
        Some(remote)
    }

    /// Passes on what the agent has decided.
    fn carry_out(&mut self) {
        while let Some(command) = self.agent.poll() {
            let output = match command {
                Command::Install(request) => Output::Install(request),
                Command::Activate(set) => Output::Activate { set },
                Command::Retire(set) => Output::Retire { set },
                Command::Remove(set) => {
                    self.held.remove(&set);
                    Output::Remove { set }
                }
                Command::Event(event) => Output::Event(event),
            };
            self.out.push_back(output);
        }
    }

    fn event(&mut self, event: FlowEvent) {
        self.out.push_back(Output::Event(event));
    }

    fn refused(&mut self, from: SocketAddr, why: Refusal) {
        self.event(FlowEvent::Refused {
            from,
            why,
            offered: None,
        });
    }
}

#[cfg(test)]
#[path = "edge/tests.rs"]
mod tests;
