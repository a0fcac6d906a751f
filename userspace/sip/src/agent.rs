//! The registration security of a P-CSCF, without SIP messages and without I/O
//! (TS 33.203 clauses 6.1.5, 7 and M.7): one engine for two doors, [`crate::edge`],
//! which speaks SIP itself, and an interface for proxies that keep their own SIP.
//!
//! ```text
//! REGISTER of a UE    -> register()  -> Attempt: goes on, with this integrity mark
//! 401 of the core     -> challenge() -> Install .. installed() -> SM6 may leave
//! other final answer  -> answered()  -> over which set it travels
//! other messages      -> owner(), heard(); hold() while a transaction is pending
//! requests to the UE  -> way_to()
//! ```
//!
//! After each call [`Agent::poll`] gives the [`Command`]s, to be carried out in order
//! and before anything is sent. Time is an argument, in milliseconds of a clock that
//! never goes back; [`Agent::next_timeout`] says when [`Agent::handle_timeout`] is due.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::lifecycle::{Change, Contact, ContactId, SaSet, SetState, Table};
use crate::numbered::Numbered;
use crate::rand::{self, Randomness};
use crate::sa_set::SetToken;

mod challenge;
mod config;
mod event;
mod pending;
mod refusal;
mod register;

pub use crate::lifecycle::{ContactKey, RemoveReason, Timers};
pub use challenge::{Answered, Challenged, Granted};
pub use config::{AgentConfig, ConfigError, Limits};
pub use event::{Command, FlowEvent};
pub use pending::{Attempt, AttemptId, Kind, Source};
pub use refusal::{Refusal, offered};
pub use register::Register;

use pending::{Attempts, Strangers};

/// A registration set between SM4 and SM12.
struct Held {
    /// The data plane has said yes.
    installed: bool,
    /// Counted for this stranger.
    source: Option<Source>,
    /// The REGISTER that was challenged.
    attempt: AttemptId,
}

/// Who may speak over an inbound SA.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The set.
    pub set: SetToken,
    /// Where it stands: requests other than REGISTER come over established and
    /// replaced ones only (clause 7.4.2a).
    pub state: SetState,
    /// The contact's name.
    pub id: ContactId,
    /// The contact with its identities.
    pub contact: &'a Contact,
}

/// How a request to a UE travels: over UDP from port_pc to port_us, over TCP on a
/// connection that was opened so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The set for requests to the UE.
    pub set: SetToken,
    /// Our address and protected client port.
    pub local: SocketAddr,
    /// The UE's address and protected server port.
    pub remote: SocketAddr,
}

/// The engine.
pub struct Agent {
    config: AgentConfig,
    secret: [u8; 16],
    table: Table,
    attempts: Attempts,
    strangers: Strangers,
    held: Numbered<SetToken, Held>,
    spis: VecDeque<[u32; 2]>,
    next_set: u64,
    commands: VecDeque<Command>,
}

impl Agent {
    /// An agent with nobody registered. The randomness seeds the contacts' names.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(config: AgentConfig, random: &mut dyn Randomness) -> Result<Agent, ConfigError> {
        config.check()?;
        let mut secret = [0; 16];
        random.fill(&mut secret);
        let table = Table::new(
            config.timers,
            config.limits.contacts,
            config.limits.sets_per_contact,
            config.limits.contacts_per_user,
        );
        Ok(Agent {
            config,
            secret,
            table,
            attempts: Attempts::default(),
            strangers: Strangers::default(),
            held: Numbered::default(),
            spis: VecDeque::new(),
            next_set: 0,
            commands: VecDeque::new(),
        })
    }

    /// What it was told at its start.
    pub fn config(&self) -> &AgentConfig {
        &self.config
    }

    /// Two reserved SPIs for the inbound SAs of one set. They are used up by an
    /// Install, whatever becomes of it.
    pub fn add_spis(&mut self, pair: [u32; 2]) {
        self.spis.push_back(pair);
    }

    /// Whether fewer pairs than [`Limits::spi_low`] are left.
    pub fn wants_spis(&self) -> bool {
        self.spis.len() < self.config.limits.spi_low
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The answer to [`Command::Install`]. True: the inbound SAs are live and SM6 may
    /// leave (ARCHITECTURE, reading A-02). False: the set is gone, the UE gets
    /// [`Refusal::NotInstalled`]; or it had gone already and there is nothing to send.
    pub fn installed(&mut self, set: SetToken, ok: bool) -> bool {
        let Some(held) = self.held.get_mut(&set) else {
            return false;
        };
        held.installed = ok;
        if ok {
            self.table.activate(set);
        } else {
            self.table.remove_set(set, RemoveReason::NotInstalled);
        }
        self.carry_out();
        ok
    }

    /// Whether SM6 of this set may leave.
    pub fn is_installed(&self, set: SetToken) -> bool {
        self.held.get(&set).is_some_and(|held| held.installed)
    }

    /// When [`Agent::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<u64> {
        [self.table.next_timeout(), self.attempts.next_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: u64) {
        while let Some(attempt) = self.attempts.expire(now) {
            attempt
                .source
                .into_iter()
                .for_each(|s| self.strangers.leave(s));
        }
        self.table.handle_timeout(now);
        self.carry_out();
    }

    /// An attempt, until its time is over: the answer to it can be repeated.
    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        self.attempts.get(id)
    }

    /// The attempt comes to nothing: no answer will come of the core. An unfinished
    /// set of it goes; established ones stay.
    pub fn abort(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.remove(id) else {
            return;
        };
        attempt
            .source
            .into_iter()
            .for_each(|s| self.strangers.leave(s));
        let set = attempt.challenged.or(attempt.over);
        if let Some(set) = set.and_then(|t| self.table.set(t))
            && set.state == SetState::Registration
        {
            self.table.remove_set(set.token, RemoveReason::Aborted);
        }
        self.carry_out();
    }

    /// The network ends the registrations of a private identity: all its sets go
    /// after [`Timers::linger`]. Says how many contacts it had.
    pub fn deregister(&mut self, impi: &str, now: u64) -> usize {
        let ids = self.table.contacts_of(impi);
        for id in &ids {
            self.table.end(*id, now);
            self.event(FlowEvent::Deregistered { impi: impi.into() });
        }
        self.carry_out();
        ids.len()
    }

    /// Rule 4 of clause 7.1: who may speak over the SA from `ue` to `local`.
    pub fn owner(&self, ue: SocketAddr, local: SocketAddr) -> Option<Owner<'_>> {
        let set = self.table.by_flow(ue, local)?;
        let contact = self.table.contact(set.contact)?;
        Some(Owner {
            set: set.token,
            state: set.state,
            id: set.contact,
            contact,
        })
    }

    /// The way of requests to a contact; `None` when it is not registered.
    pub fn way_to(&self, id: ContactId) -> Option<Way> {
        let set = self.table.contact(id)?.current;
        set.and_then(|t| self.table.set(t)).map(|set| Way {
            set: set.token,
            local: set.local(),
            remote: set.remote(),
        })
    }

    /// A message other than REGISTER came over this set. When it is newer than the
    /// one in use it takes over for requests to the UE (clause 7.4.2a).
    pub fn heard(&mut self, set: SetToken, now: u64) {
        self.table.heard(set, now);
        self.carry_out();
    }

    /// A transaction begins over this set, in either direction: while it is pending the
    /// set stays, though a newer one replaces it (clause 7.4.2a). To be followed by
    /// [`Agent::let_go`] when it is completed or has timed out; but not after a false:
    /// then the set is gone, or replaced already, and does not stay for it.
    pub fn hold(&mut self, set: SetToken) -> bool {
        self.table.hold(set)
    }

    /// A transaction over this set is over.
    pub fn let_go(&mut self, set: SetToken, now: u64) {
        self.table.let_go(set, now);
    }

    /// A set by name.
    pub fn set(&self, token: SetToken) -> Option<&SaSet> {
        self.table.set(token)
    }

    /// The SA table, to look things up in.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Turns what the table has decided into commands.
    fn carry_out(&mut self) {
        for change in self.table.take_changes() {
            let command = match change {
                Change::Activate(set) => Command::Activate(set),
                Change::Retire(set) => Command::Retire(set),
                Change::Switched { from, to } => {
                    Command::Event(FlowEvent::SwitchedOver { from, to })
                }
                Change::Remove(set, why) => {
                    self.release(set, false);
                    self.commands.push_back(Command::Remove(set));
                    Command::Event(FlowEvent::Removed { set, why })
                }
            };
            self.commands.push_back(command);
        }
    }

    /// Forgets what is held for a set whose registration is over. The stranger's count
    /// goes back to the attempt while that lives, unless the registration succeeded:
    /// else one could have any number of attempts, each ended by the next.
    fn release(&mut self, set: SetToken, succeeded: bool) {
        let Some(held) = self.held.remove(&set) else {
            return;
        };
        let Some(source) = held.source else {
            return;
        };
        self.strangers.unchallenge();
        match self.attempts.get_mut(held.attempt) {
            Some(attempt) if !succeeded => attempt.source = Some(source),
            _ => self.strangers.leave(source),
        }
    }

    fn event(&mut self, event: FlowEvent) {
        self.commands.push_back(Command::Event(event));
    }

    /// The agent's name for a contact: the same as long as the agent lives, and
    /// nobody else can make one.
    fn path(&self, key: &ContactKey) -> Arc<str> {
        let parts = [
            b"path".as_slice(),
            key.impi.as_bytes(),
            key.instance.as_bytes(),
        ];
        rand::hex(&rand::keyed(&self.secret, &parts)[..12]).into()
    }
}

#[cfg(test)]
#[path = "agent/tests.rs"]
mod tests;
