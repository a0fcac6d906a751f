//! The transactions that an edge remembers: where a response goes. Bounded in all
//! and per contact.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use super::Limits;
use crate::Transport;
use crate::agent::AttemptId;
use crate::lifecycle::ContactId;
use crate::numbered::Numbered;
use crate::sa_set::SetToken;

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
    pub attempt: AttemptId,
    /// The UE's contact URI.
    pub contact_uri: String,
    /// Where it came from.
    pub ue: SocketAddr,
    /// The set that carried it.
    pub over: Option<SetToken>,
    /// It asks for zero seconds.
    pub leaves: bool,
    /// By which its retransmissions are known.
    pub print: [u8; 16],
}

/// One transaction.
#[derive(Debug, Clone)]
pub(super) struct Tx {
    pub reply: Reply,
    pub register: Option<Arc<RegisterTx>>,
    pub contact: Option<ContactId>,
    /// What its request went over, for what must go the same way.
    pub sent: Option<Transport>,
    /// The set that it was begun on: it stays for it (TS 33.203 clause 7.4.2a).
    pub set: Option<SetToken>,
    deadline: u64,
    /// Its place among those with the same deadline.
    place: u64,
}

impl Tx {
    pub fn new(reply: Reply) -> Tx {
        Tx {
            reply,
            register: None,
            contact: None,
            sent: None,
            set: match reply {
                Reply::Set { set, .. } => Some(set),
                _ => None,
            },
            deadline: 0,
            place: 0,
        }
    }

    pub fn of(reply: Reply, contact: ContactId) -> Tx {
        Tx {
            contact: Some(contact),
            ..Tx::new(reply)
        }
    }

    /// When it is forgotten.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Its request went to the UE through this set.
    pub fn through(mut self, set: SetToken) -> Tx {
        self.set = Some(set);
        self
    }

    /// Its request went over this.
    pub fn over(mut self, transport: Transport) -> Tx {
        self.sent = Some(transport);
        self
    }
}

/// All of them, by the branch of our Via.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    all: HashMap<Arc<str>, Tx>,
    ends: BTreeMap<(u64, u64), Arc<str>>,
    last: u64,
    per_contact: Numbered<ContactId, usize>,
    /// Those of no contact.
    strangers: usize,
}

impl Transactions {
    /// Strangers have half of the room at most.
    pub fn has_room(&self, contact: Option<ContactId>, limits: &Limits) -> bool {
        let own = match contact {
            Some(contact) => self.of(contact) < limits.transactions_per_contact,
            None => self.strangers < limits.transactions / 2,
        };
        own && self.all.len() < limits.transactions
    }

    /// How many are of this contact.
    pub fn of(&self, contact: ContactId) -> usize {
        self.per_contact.get(&contact).copied().unwrap_or(0)
    }

    pub fn get(&self, branch: &str) -> Option<&Tx> {
        self.all.get(branch)
    }

    pub fn get_mut(&mut self, branch: &str) -> Option<&mut Tx> {
        self.all.get_mut(branch)
    }

    /// Remembers one until `deadline`; gives one of the same branch that it replaces.
    pub fn insert(&mut self, branch: &str, mut tx: Tx, deadline: u64) -> Option<Tx> {
        let replaced = self.remove(branch);
        self.last += 1;
        (tx.deadline, tx.place) = (deadline, self.last);
        match tx.contact {
            Some(contact) => *self.per_contact.entry(contact).or_default() += 1,
            None => self.strangers += 1,
        }
        let branch: Arc<str> = branch.into();
        self.ends.insert((deadline, tx.place), Arc::clone(&branch));
        self.all.insert(branch, tx);
        replaced
    }

    /// Gives one another end.
    pub fn extend(&mut self, branch: &str, deadline: u64) {
        if let Some(tx) = self.all.get_mut(branch) {
            if let Some(branch) = self.ends.remove(&(tx.deadline, tx.place)) {
                self.ends.insert((deadline, tx.place), branch);
            }
            tx.deadline = deadline;
        }
    }

    /// Forgets one; gives it.
    pub fn remove(&mut self, branch: &str) -> Option<Tx> {
        let tx = self.all.remove(branch)?;
        self.ends.remove(&(tx.deadline, tx.place));
        if tx.contact.is_none() {
            self.strangers = self.strangers.saturating_sub(1);
        }
        if let Some(contact) = tx.contact
            && let Some(n) = self.per_contact.get_mut(&contact)
        {
            *n -= 1;
            if *n == 0 {
                self.per_contact.remove(&contact);
            }
        }
        Some(tx)
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.ends.first_key_value().map(|((at, _), _)| *at)
    }

    /// Forgets one that has ended; call until `None`.
    pub fn expire(&mut self, now: u64) -> Option<Tx> {
        let ((at, _), branch) = self.ends.first_key_value()?;
        if *at > now {
            return None;
        }
        let branch = Arc::clone(branch);
        self.remove(&branch)
    }
}
