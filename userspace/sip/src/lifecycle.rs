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
use std::ops::RangeInclusive;

use crate::header::Uri;
use crate::sa_set::{SetParams, SetToken};
use crate::sec_agree::{Ends, SecList};

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
    pub impi: String,
    /// Instance id, reg-id and emergency mark; empty where the UE writes none.
    pub instance: String,
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
    /// Security-Client of SM1.
    pub client_list: SecList,
    /// Security-Server of SM6.
    pub server_list: SecList,
    /// The challenge's nonce, which SM7 must answer.
    pub nonce: String,
    /// The established set that protected SM1.
    pub over: Option<SetToken>,
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
            client_list: SecList::default(),
            server_list: SecList::default(),
            nonce: String::new(),
            over: None,
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
    pub path: String,
    /// Its sets, oldest first.
    pub sets: Vec<SetToken>,
    /// The set for requests to the UE.
    pub current: Option<SetToken>,
    /// Public identities that may be used over its SAs, the default one first.
    pub impus: Vec<String>,
    /// Addresses of record that were registered and not de-registered.
    pub aors: Vec<String>,
}

impl Contact {
    /// Whether a URI is one of its public identities.
    pub fn owns(&self, uri: &str) -> bool {
        let Some(uri) = Uri::parse(uri) else {
            return false;
        };
        let mut own = self.impus.iter().chain(&self.aors);
        own.any(|o| Uri::parse(o).is_some_and(|o| o.same_identity(&uri)))
    }
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
    next_contact: ContactId,
    contacts: HashMap<ContactId, Contact>,
    by_key: HashMap<ContactKey, ContactId>,
    by_impi: HashMap<String, Vec<ContactId>>,
    by_path: HashMap<String, ContactId>,
    sets: HashMap<SetToken, SaSet>,
    by_flow: HashMap<Flow, SetToken>,
    by_server_port: HashMap<(IpAddr, u16), Vec<SetToken>>,
    by_spi: HashMap<(IpAddr, u32), SetToken>,
    wakes: BTreeSet<(u64, SetToken)>,
    changes: Vec<Change>,
}

impl Table {
    /// An empty table with its bounds.
    pub fn new(timers: Timers, max_contacts: usize, max_sets: usize) -> Table {
        Table {
            timers,
            max_contacts,
            max_sets,
            ..Table::default()
        }
    }

    /// What the last calls decided, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The set whose inbound SA has this flow (clause 7.1 rule 4).
    pub fn by_flow(&self, ue: SocketAddr, local: SocketAddr) -> Option<&SaSet> {
        let set = self
            .by_flow
            .get(&(ue.ip(), ue.port(), local.port()))
            .and_then(|t| self.sets.get(t))?;
        (set.params.pcscf == local.ip()).then_some(set)
    }

    /// A set by name.
    pub fn set(&self, token: SetToken) -> Option<&SaSet> {
        self.sets.get(&token)
    }

    /// A contact by name.
    pub fn contact(&self, id: ContactId) -> Option<&Contact> {
        self.contacts.get(&id)
    }

    /// A contact by user and instance.
    pub fn by_key(&self, key: &ContactKey) -> Option<ContactId> {
        self.by_key.get(key).copied()
    }

    /// All contacts of a private identity, oldest first.
    pub fn contacts_of(&self, impi: &str) -> Vec<ContactId> {
        self.by_impi.get(impi).cloned().unwrap_or_default()
    }

    /// All contacts, in no order.
    pub fn contacts(&self) -> impl Iterator<Item = (ContactId, &Contact)> {
        self.contacts.iter().map(|(id, contact)| (*id, contact))
    }

    /// A contact by the user part of our Path.
    pub fn by_path(&self, path: &str) -> Option<ContactId> {
        self.by_path.get(path).copied()
    }

    /// A contact by the address and server port in its Contact.
    pub fn by_server_port(&self, ue: SocketAddr) -> Option<ContactId> {
        let tokens = self.by_server_port.get(&(ue.ip(), ue.port()))?;
        tokens
            .iter()
            .filter_map(|t| self.sets.get(t))
            .find(|s| s.state == SetState::Established)
            .map(|s| s.contact)
    }

    /// Contacts and sets in the table.
    pub fn len(&self) -> (usize, usize) {
        (self.contacts.len(), self.sets.len())
    }

    /// Whether nothing is in the table.
    pub fn is_empty(&self) -> bool {
        self.contacts.is_empty() && self.sets.is_empty()
    }

    /// Registration sets of a contact.
    pub fn pending_of(&self, id: ContactId) -> Option<&SaSet> {
        let contact = self.contacts.get(&id)?;
        let sets = contact.sets.iter().filter_map(|t| self.sets.get(t));
        sets.into_iter().find(|s| s.state == SetState::Registration)
    }

    /// The set of the latest successful authentication of a contact (clause 6.1.5).
    pub fn latest(&self, id: ContactId) -> Option<SetToken> {
        let contact = self.contacts.get(&id)?;
        let established = |t: &&SetToken| {
            self.sets
                .get(t)
                .is_some_and(|s| s.state == SetState::Established)
        };
        contact.sets.iter().rev().find(established).copied()
    }

    /// A client port of ours that no set of this UE uses with its server port, looked
    /// for behind the one that the current set uses: it must change (clause 7.4.0).
    pub fn free_client_port(
        &self,
        range: &RangeInclusive<u16>,
        ue: SocketAddr,
        id: Option<ContactId>,
    ) -> Option<u16> {
        let current = id
            .and_then(|id| self.contacts.get(&id)?.current)
            .and_then(|t| self.sets.get(&t));
        let last = current.map(|s| s.params.pcscf_ends.port_c);
        let free = |port: &u16| !self.by_flow.contains_key(&(ue.ip(), ue.port(), *port));
        let behind = range
            .clone()
            .filter(|port| last.is_some_and(|last| *port > last))
            .find(free);
        behind.or_else(|| range.clone().find(free))
    }

    /// Clause 7.1 rule 3 and M.7.1 rule 3: whether ports or SPIs that a REGISTER
    /// offers are those of a set that stays. Unfinished and ended sets of the same
    /// contact do not count: they go when the new one comes (ARCHITECTURE, readings A-04, A-05, A-32).
    pub fn collides(&self, key: &ContactKey, ue: IpAddr, ends: &Ends, port_ps: u16) -> bool {
        let own = self.by_key(key);
        let gives_way = |s: &SaSet| {
            Some(s.contact) == own
                && matches!(s.state, SetState::Registration | SetState::Lingering)
        };
        let stays = |t: &SetToken| self.sets.get(t).is_some_and(|s| !gives_way(s));
        let flow = self
            .by_flow
            .get(&(ue, ends.port_c, port_ps))
            .is_some_and(stays);
        let spi = [ends.spi_c, ends.spi_s]
            .iter()
            .any(|spi| self.by_spi.get(&(ue, *spi)).is_some_and(stays));
        let other_user = |t: &SetToken| {
            let contact = self.sets.get(t).and_then(|s| self.contacts.get(&s.contact));
            contact.is_some_and(|c| c.key.impi != key.impi)
        };
        let server = self
            .by_server_port
            .get(&(ue, ends.port_s))
            .is_some_and(|all| all.iter().any(other_user));
        flow || spi || server
    }
}

#[cfg(test)]
#[path = "lifecycle/tests.rs"]
mod tests;
