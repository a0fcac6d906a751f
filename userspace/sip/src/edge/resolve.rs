//! REGISTERs whose Via names a host: they wait until the name's addresses are known
//! (TS 33.203 clauses 7.1 rule 2 and M.7.2 note 3). Few, and not for long: names come
//! from strangers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::tx::Reply;
use super::{Edge, Output, Refusal};
use crate::Packet;
use crate::agent::Source;
use crate::message::Message;
use crate::sa_set::SetToken;

/// REGISTERs that wait; of them such in clear, and such in clear of one source or through
/// one set.
const WAITING: usize = 64;
const WAITING_CLEAR: usize = 48;
const WAITING_EACH: usize = 4;
/// How long one waits, in milliseconds. Phones repeat theirs after 2 s and more.
const PATIENCE: u64 = 5_000;
/// The longest name (RFC 1035 clause 2.3.4).
const NAME: usize = 253;

/// A REGISTER on its way, as far as it has come.
pub(super) struct Arrival {
    pub at: Packet,
    /// The set that carried it.
    pub over: Option<SetToken>,
    pub reply: Reply,
    pub branch: String,
    /// By which its retransmissions are known.
    pub print: [u8; 16],
}

struct Waiting {
    arrival: Arrival,
    message: Message,
    deadline: u64,
}

/// Those that wait, oldest first.
#[derive(Default)]
pub(super) struct Names {
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

impl Names {
    fn has_room(&self, arrival: &Arrival) -> bool {
        let clear = || self.waiting.values().filter(|w| w.arrival.over.is_none());
        let source = Source::of(arrival.at.remote.ip());
        let same = |w: &&Waiting| Source::of(w.arrival.at.remote.ip()) == source;
        let own = |w: &&Waiting| w.arrival.over == arrival.over;
        let room = match arrival.over {
            Some(_) => self.waiting.values().filter(own).count() < WAITING_EACH,
            None => clear().count() < WAITING_CLEAR && clear().filter(same).count() < WAITING_EACH,
        };
        room && self.waiting.len() < WAITING
    }

    pub fn next_timeout(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(_, w)| w.deadline)
    }
}

impl Edge {
    /// Asks for the addresses of a Via's host. A retransmission waits with the first one.
    pub(super) fn resolve(
        &mut self,
        now: u64,
        arrival: Arrival,
        name: &str,
        message: &Message,
    ) -> Result<(), Refusal> {
        if !self.config.resolve_via || name.len() > NAME {
            return Err(Refusal::ViaName);
        }
        let mut waiting = self.names.waiting.values();
        if waiting.any(|w| w.arrival.branch == arrival.branch && w.arrival.over == arrival.over) {
            return Ok(());
        }
        if !self.names.has_room(&arrival) {
            return Err(Refusal::Overload);
        }
        self.names.next += 1;
        let id = self.names.next;
        let waiting = Waiting {
            arrival,
            message: message.clone(),
            deadline: now.saturating_add(PATIENCE),
        };
        self.names.waiting.insert(id, waiting);
        let name = name.to_owned();
        self.out.push_back(Output::Resolve { id, name });
        Ok(())
    }

    /// The addresses are there: it goes on as if they stood in the Via.
    pub(super) fn resolved(&mut self, now: u64, id: u64, addresses: &[IpAddr]) {
        let Some(Waiting {
            arrival, message, ..
        }) = self.names.waiting.remove(&id)
        else {
            return;
        };
        let at = &arrival.at;
        let (from, reply) = (at.remote, arrival.reply);
        let same_set = match arrival.over {
            None => true,
            Some(set) => self
                .agent
                .owner(at.remote, at.local)
                .is_some_and(|o| o.set == set),
        };
        let done = match addresses {
            _ if !same_set => Err(Refusal::NoSa),
            [] => Err(Refusal::ViaName),
            _ => self.register_from(now, arrival, &message, addresses),
        };
        if let Err(why) = done {
            self.refuse(from, &message, reply, why);
        }
    }

    /// Those whose names nobody has found in time are refused.
    pub(super) fn expire_names(&mut self, now: u64) {
        while let Some((id, waiting)) = self.names.waiting.first_key_value() {
            if waiting.deadline > now {
                return;
            }
            let id = *id;
            self.resolved(now, id, &[]);
        }
    }
}
