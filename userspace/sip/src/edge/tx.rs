//! The transactions that an edge remembers: where a response goes. Bounded in all,
//! per contact, and for strangers per source.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::Limits;
use crate::Transport;
use crate::lifecycle::{ContactId, ContactKey};
use crate::sa_set::SetToken;
use crate::sec_agree::SecList;

/// How an answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// In clear to a UE.
    Clear {
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
    },
    /// Through a set: over UDP from port_pc to port_us, over TCP on the request's connection.
    Set {
        set: SetToken,
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
    },
    /// To the core, where a request came from.
    Core {
        remote: SocketAddr,
        transport: Transport,
    },
    /// A request to the configured core, over what its topmost Via says.
    Up,
}

/// What a REGISTER on its way to the core leaves behind.
#[derive(Debug, Clone)]
pub(super) struct RegisterTx {
    pub key: ContactKey,
    pub path: String,
    /// To: the public identity.
    pub aor: String,
    /// The UE's contact URI.
    pub contact_uri: String,
    /// Security-Client.
    pub offer: Option<SecList>,
    /// Behind a NAT, or over a set that is.
    pub tunnel: bool,
    /// Our address and the UE's in the packet.
    pub local: SocketAddr,
    pub ue: SocketAddr,
    /// The set that carried it.
    pub over: Option<SetToken>,
    /// It was SM7 over its registration set.
    pub answer: bool,
    /// What integrity-protected says.
    pub integrity: bool,
    /// It asks for zero seconds.
    pub leaves: bool,
    /// The set made for its challenge.
    pub challenged: Option<SetToken>,
    /// By which its retransmissions are known.
    pub print: [u8; 16],
}

/// One transaction.
#[derive(Debug, Clone)]
pub(super) struct Tx {
    pub reply: Reply,
    pub register: Option<Box<RegisterTx>>,
    pub contact: Option<ContactId>,
    /// Counted for this source: a REGISTER in clear.
    pub source: Option<Source>,
    /// What its request went over, for what must go the same way.
    pub sent: Option<Transport>,
    deadline: u64,
}

impl Tx {
    pub fn new(reply: Reply) -> Tx {
        Tx {
            reply,
            register: None,
            contact: None,
            source: None,
            sent: None,
            deadline: 0,
        }
    }

    pub fn of(reply: Reply, contact: ContactId) -> Tx {
        Tx {
            contact: Some(contact),
            ..Tx::new(reply)
        }
    }

    /// Its request went over this.
    pub fn over(mut self, transport: Transport) -> Tx {
        self.sent = Some(transport);
        self
    }
}

/// Strangers are counted by IPv4 address or IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Source(IpAddr);

impl Source {
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
pub(super) struct Pending {
    total: usize,
    /// Those of them that have a set already.
    challenged: usize,
    by_source: HashMap<Source, usize>,
}

impl Pending {
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

    /// One that has a set is over.
    pub fn leave_challenged(&mut self, source: Source) {
        self.challenged = self.challenged.saturating_sub(1);
        self.leave(source);
    }

    pub fn leave(&mut self, source: Source) {
        self.total = self.total.saturating_sub(1);
        if let Some(n) = self.by_source.get_mut(&source) {
            *n -= 1;
            if *n == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

/// All of them, by the branch of our Via.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    all: HashMap<String, Tx>,
    ends: BTreeSet<(u64, String)>,
    per_contact: HashMap<ContactId, usize>,
}

impl Transactions {
    pub fn has_room(&self, contact: Option<ContactId>, limits: &Limits) -> bool {
        let of_contact = contact
            .and_then(|c| self.per_contact.get(&c))
            .copied()
            .unwrap_or(0);
        self.all.len() < limits.transactions && of_contact < limits.transactions_per_contact
    }

    pub fn get(&self, branch: &str) -> Option<&Tx> {
        self.all.get(branch)
    }

    pub fn get_mut(&mut self, branch: &str) -> Option<&mut Tx> {
        self.all.get_mut(branch)
    }

    /// Remembers one until `deadline`; one of the same branch is replaced.
    pub fn insert(&mut self, branch: &str, mut tx: Tx, deadline: u64) -> Option<Source> {
        let gone = self.remove(branch);
        tx.deadline = deadline;
        if let Some(contact) = tx.contact {
            *self.per_contact.entry(contact).or_default() += 1;
        }
        self.ends.insert((deadline, branch.to_owned()));
        self.all.insert(branch.to_owned(), tx);
        gone
    }

    /// Makes one live longer.
    pub fn extend(&mut self, branch: &str, deadline: u64) {
        if let Some(tx) = self.all.get_mut(branch) {
            self.ends.remove(&(tx.deadline, branch.to_owned()));
            tx.deadline = deadline;
            self.ends.insert((deadline, branch.to_owned()));
        }
    }

    /// Gives the source for which it was counted.
    pub fn remove(&mut self, branch: &str) -> Option<Source> {
        let tx = self.all.remove(branch)?;
        self.ends.remove(&(tx.deadline, branch.to_owned()));
        if let Some(contact) = tx.contact
            && let Some(n) = self.per_contact.get_mut(&contact)
        {
            *n -= 1;
            if *n == 0 {
                self.per_contact.remove(&contact);
            }
        }
        tx.source
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Forgets one that has ended; call until `None`.
    pub fn expire(&mut self, now: u64) -> Option<Option<Source>> {
        let (at, branch) = self.ends.first()?;
        if *at > now {
            return None;
        }
        let branch = branch.clone();
        Some(self.remove(&branch))
    }
}
