//! What is unfinished, bounded: REGISTERs on their way to the core, and how many
//! of them are of which stranger.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::Limits;
use crate::lifecycle::{ContactId, ContactKey};
use crate::numbered::Numbered;
use crate::sa_set::SetToken;
use crate::sec_agree::{Proposal, SecList};

/// Names an [`Attempt`]. Never reused by one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub u64);

/// Which step of a registration a REGISTER is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// SM1 in clear.
    First,
    /// Through an established set: SM1 of a re-registration, a refresh, a de-registration.
    Again,
    /// SM7: the answer to the challenge, over the new set.
    Answer,
}

/// A REGISTER that was let through to the core, until its answer has been.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Whose it is.
    pub key: ContactKey,
    /// The agent's name for that contact, a keyed hash of 24 hex digits: user part
    /// of Path and Record-Route.
    pub path: Arc<str>,
    /// To: the public identity.
    pub aor: Arc<str>,
    /// Which step.
    pub kind: Kind,
    /// Whether the REGISTER goes on as integrity-protected (clause 6.1.5).
    pub integrity: bool,
    /// It asks for zero seconds.
    pub leaves: bool,
    /// The set that carried it.
    pub over: Option<SetToken>,
    /// The set made for its challenge.
    pub challenged: Option<SetToken>,
    /// Behind a NAT, or over a set that is.
    pub tunnel: bool,
    /// Our address in the packet.
    pub local: SocketAddr,
    /// The UE's address in the packet.
    pub ue: SocketAddr,
    /// It asks for zero seconds for all contacts of the identity (`Contact: *`).
    pub(super) everywhere: bool,
    /// Security-Client, where it opens a procedure, and what was chosen of it.
    pub(super) offer: Option<(SecList, Proposal)>,
    /// The stranger for whom it counts.
    pub(super) source: Option<Source>,
    pub(super) contact: Option<ContactId>,
    pub(super) deadline: u64,
}

/// Strangers are counted by IPv4 address or IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address counts for.
    pub fn of(ip: IpAddr) -> Source {
        match ip {
            IpAddr::V4(_) => Source(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Source(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
        }
    }
}

/// Unfinished registrations of strangers.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    total: usize,
    /// Those of them that have a set already.
    challenged: usize,
    by_source: HashMap<Source, usize>,
}

impl Strangers {
    pub fn has_room(&self, source: Source, limits: &Limits) -> bool {
        let of_source = self.by_source.get(&source).copied().unwrap_or(0);
        self.total < limits.pending && of_source < limits.pending_per_source
    }

    pub fn enter(&mut self, source: Source) {
        self.total += 1;
        *self.by_source.entry(source).or_default() += 1;
    }

    /// Registrations that may still ask for a set.
    pub fn unchallenged(&self) -> usize {
        self.total.saturating_sub(self.challenged)
    }

    /// One that was entered has a set now.
    pub fn challenge(&mut self) {
        self.challenged += 1;
    }

    /// One that had a set has none any more.
    pub fn unchallenge(&mut self) {
        self.challenged = self.challenged.saturating_sub(1);
    }

    pub fn leave(&mut self, source: Source) {
        self.total = self.total.saturating_sub(1);
        if let Some(n) = self.by_source.get_mut(&source) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// All attempts by name and by end.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    all: Numbered<AttemptId, Attempt>,
    ends: BTreeSet<(u64, AttemptId)>,
    per_contact: Numbered<ContactId, usize>,
    /// Those of strangers.
    strangers: usize,
    next: u64,
}

impl Attempts {
    /// Strangers have half of the room at most.
    pub fn has_room(&self, contact: Option<ContactId>, limits: &Limits) -> bool {
        let own = match contact {
            Some(contact) => {
                let count = self.per_contact.get(&contact).copied().unwrap_or(0);
                count < limits.transactions_per_contact
            }
            None => self.strangers < limits.transactions / 2,
        };
        own && self.all.len() < limits.transactions
    }

    pub fn insert(&mut self, attempt: Attempt) -> AttemptId {
        self.next += 1;
        let id = AttemptId(self.next);
        match attempt.contact {
            Some(contact) => *self.per_contact.entry(contact).or_default() += 1,
            None => self.strangers += 1,
        }
        self.ends.insert((attempt.deadline, id));
        self.all.insert(id, attempt);
        id
    }

    pub fn get(&self, id: AttemptId) -> Option<&Attempt> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.all.get_mut(&id)
    }

    pub fn remove(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.all.remove(&id)?;
        self.ends.remove(&(attempt.deadline, id));
        if attempt.contact.is_none() {
            self.strangers = self.strangers.saturating_sub(1);
        }
        if let Some(contact) = attempt.contact
            && let Some(n) = self.per_contact.get_mut(&contact)
        {
            *n = n.saturating_sub(1);
            if *n == 0 {
                self.per_contact.remove(&contact);
            }
        }
        Some(attempt)
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Takes out one whose time is over; call until `None`.
    pub fn expire(&mut self, now: u64) -> Option<Attempt> {
        let (at, id) = *self.ends.first()?;
        if at > now {
            return None;
        }
        self.remove(id)
    }
}
