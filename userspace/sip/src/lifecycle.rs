//! The SA table of the P-CSCF and the life of its sets (TS 33.203 clauses 7.1, 7.4.2a).
//!
//! ```text
//!           SM4              SM12, SM1 in clear: all others go
//! (nothing) ---> Registration ---------------------------> Established (current)
//!                 |  \  SM12, SM1 over an old set             ^   | a newer set heard of,
//!      time-out,  |   `---> Established, old one stays current |   | or short time left
//!      new SM4,   v         until the new one is heard of -----'   v
//!      failure  Remove                        Replaced --pending transactions--> Remove
//! ```
//!
//! Decides only; the edge turns [`Change`]s into commands.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::numbered::Numbered;
use crate::sa_set::{SetParams, SetToken};
use crate::sec_agree::SecList;

mod enter;
mod identity;
mod lookup;
mod table;

/// Periods in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Lifetime of registration SAs: from the challenge to SM12 (await timer, 4 min).
    pub registration: u64,
    /// What SAs live longer than the registration (30 s).
    pub margin: u64,
    /// From the 200 of a de-registration to the removal of its SAs (4 s).
    pub linger: u64,
    /// How long replaced SAs serve pending transactions, and how long a transaction
    /// other than INVITE is remembered: 64 * T1 (32 s).
    pub transaction: u64,
    /// How long an INVITE is remembered (RFC 3261 timer C, above 3 min).
    pub invite: u64,
    /// Remaining life of the old set at which the new one is taken without a sign of the UE (10 s).
    pub short_left: u64,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            registration: 240_000,
            margin: 30_000,
            linger: 4_000,
            transaction: 32_000,
            invite: 190_000,
            short_left: 10_000,
        }
    }
}

/// Which registered contact: SAs belong to one (ARCHITECTURE, reading A-06).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContactKey {
    /// The private identity.
    pub impi: Arc<str>,
    /// Instance id, reg-id and emergency mark; empty where the UE writes none.
    pub instance: Arc<str>,
}

/// Names a contact of the table.
pub type ContactId = u64;

/// Where a set stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SetState {
    /// Its registration is not finished; carries authentication only.
    Registration,
    /// In use, or waiting to be taken into use.
    Established,
    /// A newer set has taken over; serves pending transactions until its deadline.
    Replaced,
    /// De-registered or failed; carries the last answer until its deadline.
    Lingering,
}

/// Why a set goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemoveReason {
    /// A newer set has taken over.
    Replaced,
    /// De-registration.
    Deregistered,
    /// Its lifetime has ended.
    Expired,
    /// The registration was not finished in time.
    Unfinished,
    /// A newer challenge, a failure, or a wrong SM7.
    Aborted,
    /// It could not be installed.
    NotInstalled,
}

/// One set in the table: two entries of clause 7.1 rule 1 per direction.
#[derive(Debug, Clone)]
pub struct SaSet {
    /// Its name.
    pub token: SetToken,
    /// Whose it is.
    pub contact: ContactId,
    /// Addresses, ports, SPIs, suite and mode.
    pub params: SetParams,
    /// Where it stands.
    pub state: SetState,
    /// When it goes, in milliseconds.
    pub deadline: u64,
    /// End of its lifetime in milliseconds, which never shrinks (clause 7.4.1a, note). It
    /// goes before that when a newer set has replaced it.
    pub life: u64,
    /// Security-Client of SM1.
    pub client_list: SecList,
    /// Security-Server of SM6.
    pub server_list: SecList,
    /// The challenge's nonce, which SM7 must answer.
    pub nonce: String,
    /// The established set that protected SM1.
    pub over: Option<SetToken>,
    /// Transactions that were begun on it and are not over.
    pub pending: usize,
    /// Outbound has gone live.
    pub(crate) active: bool,
    /// Replaced: until then the UE may begin transactions that it had begun on it.
    grace: u64,
    wake: u64,
    reason: RemoveReason,
}

impl SaSet {
    /// A registration set that is to be finished until `deadline`.
    pub fn new(token: SetToken, params: SetParams, deadline: u64) -> SaSet {
        SaSet {
            token,
            contact: 0,
            params,
            state: SetState::Registration,
            deadline,
            life: deadline,
            client_list: SecList::default(),
            server_list: SecList::default(),
            nonce: String::new(),
            over: None,
            pending: 0,
            active: false,
            grace: 0,
            wake: deadline,
            reason: RemoveReason::Unfinished,
        }
    }

    /// From our protected client port: where UDP to the UE leaves (clause 7.1).
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.params.pcscf, self.params.pcscf_ends.port_c)
    }

    /// The UE's protected server port: where UDP to the UE goes.
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.params.ue, self.params.ue_ends.port_s)
    }

    /// The two inbound flows: (UE address, UE port, our port).
    fn flows(&self) -> [Flow; 2] {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        [
            (self.params.ue, u.port_c, p.port_s),
            (self.params.ue, u.port_s, p.port_c),
        ]
    }
}

/// A registered contact, or one that registers.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Who.
    pub key: ContactKey,
    /// User part of our Path and Record-Route for it.
    pub path: Arc<str>,
    /// Its sets, oldest first.
    pub sets: Vec<SetToken>,
    /// The set for requests to the UE.
    pub current: Option<SetToken>,
    /// Public identities that may be used over its SAs, the default one first.
    pub impus: Vec<Arc<str>>,
    /// What was registered and not de-registered, each with its implicit registrations.
    pub registrations: Vec<Registration>,
}

/// One address of record of a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// To of the REGISTER.
    pub aor: Arc<str>,
    /// P-Associated-URI of its 200: what was registered with it, the default one first.
    pub identities: Vec<Arc<str>>,
}

/// What follows from a decision, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Outbound of the set goes live.
    Activate(SetToken),
    /// Outbound of the set ends.
    Retire(SetToken),
    /// The set goes.
    Remove(SetToken, RemoveReason),
    /// Requests to the UE use another set.
    Switched {
        /// Before.
        from: SetToken,
        /// From now on.
        to: SetToken,
    },
}

/// Why a set cannot enter the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableError {
    /// Six SAs per direction are there.
    TooManySets,
    /// The private identity has as many registered contacts as it may.
    TooManyContacts,
    /// The table is full.
    Full,
    /// A flow or SPI of another set.
    Collision,
}

type Flow = (IpAddr, u16, u16);

/// All contacts and their sets.
#[derive(Debug, Default)]
pub struct Table {
    timers: Timers,
    max_contacts: usize,
    max_sets: usize,
    max_siblings: usize,
    next_contact: ContactId,
    contacts: Numbered<ContactId, Contact>,
    by_key: HashMap<ContactKey, ContactId>,
    by_impi: HashMap<Arc<str>, Vec<ContactId>>,
    by_path: HashMap<Arc<str>, ContactId>,
    sets: Numbered<SetToken, SaSet>,
    by_flow: HashMap<Flow, SetToken>,
    by_server_port: HashMap<(IpAddr, u16), Vec<SetToken>>,
    by_spi: HashMap<(IpAddr, u32), SetToken>,
    wakes: BTreeSet<(u64, SetToken)>,
    changes: Vec<Change>,
}

impl Table {
    /// An empty table: at most so many contacts, sets of one contact, and registered
    /// contacts of one private identity.
    pub fn new(timers: Timers, contacts: usize, sets: usize, siblings: usize) -> Table {
        Table {
            timers,
            max_contacts: contacts,
            max_sets: sets,
            max_siblings: siblings,
            ..Table::default()
        }
    }

    /// What the last calls decided, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Contacts and sets in the table.
    pub fn len(&self) -> (usize, usize) {
        (self.contacts.len(), self.sets.len())
    }

    /// Whether nothing is in the table.
    pub fn is_empty(&self) -> bool {
        self.contacts.is_empty() && self.sets.is_empty()
    }
}

#[cfg(test)]
#[path = "lifecycle/tests.rs"]
mod tests;
