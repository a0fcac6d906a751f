//! Requests of the UE that are under way: whose Via comes back into the answer,
//! over which SAs it must come, and what a repeated REGISTER was sent as.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;

use gm_sip::header::Via;
use gm_sip::{Packet, SetToken};

/// Transactions that are kept; the oldest goes when there are more.
pub const MOST: usize = 1024;

/// One request of the UE.
#[derive(Debug, Clone)]
pub struct Tx {
    /// The topmost Via as the UE wrote it, with the source marked.
    pub via: String,
    /// Where the answer goes.
    pub back: SocketAddr,
    /// The SAs that it left through; none for one in clear.
    pub set: Option<SetToken>,
    /// A REGISTER as it was sent: a repeated one must be the same.
    pub register: Option<Packet>,
}

/// All of them, by the branch that we have put in.
#[derive(Debug, Default)]
pub struct Transactions {
    all: HashMap<String, Tx>,
    order: VecDeque<String>,
    hasher: RandomState,
}

impl Transactions {
    /// Our branch for a request of the UE: always the same for the same Via, so that
    /// retransmissions, ACK and CANCEL meet their transaction (RFC 3261 clause 17.2.3).
    pub fn branch(&self, via: &Via) -> String {
        let hash = self
            .hasher
            .hash_one((via.branch(), via.host.to_string(), via.port));
        format!("z9hG4bKgp{hash:016x}")
    }

    /// A transaction by our branch.
    pub fn get(&self, branch: &str) -> Option<&Tx> {
        self.all.get(branch)
    }

    /// Keeps one; a known one gets the new content.
    pub fn keep(&mut self, branch: String, tx: Tx) {
        if self.all.insert(branch.clone(), tx).is_some() {
            return;
        }
        self.order.push_back(branch);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx() -> Tx {
        Tx {
            via: String::new(),
            back: ([127, 0, 0, 1], 5071).into(),
            set: None,
            register: None,
        }
    }

    #[test]
    fn one_via_has_one_branch_and_another_another() {
        let all = Transactions::default();
        let via = |text: &str| Via::parse(text).expect("a Via");
        let one = via("SIP/2.0/UDP 127.0.0.1:5071;branch=z9hG4bK-1");
        let same = via("SIP/2.0/UDP 127.0.0.1:5071;rport;branch=z9hG4bK-1");
        let other = via("SIP/2.0/UDP 127.0.0.1:5072;branch=z9hG4bK-1");
        assert_eq!(all.branch(&one), all.branch(&same));
        assert_ne!(all.branch(&one), all.branch(&other));
        assert!(all.branch(&one).starts_with("z9hG4bK"));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut all = Transactions::default();
        for n in 0..MOST + 5 {
            all.keep(n.to_string(), tx());
            all.keep(n.to_string(), tx());
        }
        assert_eq!((all.all.len(), all.order.len()), (MOST, MOST));
        assert!(all.get("4").is_none() && all.get("5").is_some());
    }
}
