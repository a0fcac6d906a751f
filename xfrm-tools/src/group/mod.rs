//! From states and policies that anybody put into the kernel to the SA sets of
//! registrations (TS 33.203 7.1).
//!
//! Everybody writes them another way, so that nothing is asked of them but what
//! makes an SA: a state of ESP with a suite of Gm, in transport mode or in a
//! tunnel with ESP in UDP, from one port of one host to one port of another.
//!
//! * `member`: a state's traffic, direction and policies. What the state's own
//!   selector does not say (people with iproute2 often give none) its policies
//!   do.
//! * `sets`: which SAs are of one registration: the same two hosts, mode,
//!   suite and keys, and ports that cross over.
//!
//! Known writers: Kamailio's ims_ipsec_pcscf and OpenSIPS's proto_ipsec give
//! each state an exact selector with protocol 0 and a reqid of its own (the SPI;
//! OpenSIPS: the SPI's octets swapped), and each policy the same selector and
//! one template with that reqid; siphon-sip has reqid 0, and the SPI in the
//! template. [`crate::kernel::plan`] is ours.

mod member;
mod sets;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use gm_api::sad::{Dir, SadEntry};

use crate::kernel::plan::{Found, Unfit};
use crate::kernel::{Policy, PolicyDir, PolicyId, State, StateId};

/// One SA in the kernel, as Gm sees it. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// What it is, its keys and its numbers.
    pub found: Found,
    /// Seen from this host; `None`: nothing says it.
    pub dir: Option<Dir>,
    /// The state as the kernel has it.
    pub state: State,
    /// The policies that it serves, as the kernel has them. One with a template
    /// for any state can be with several members.
    pub policies: Vec<Policy>,
}

/// The SAs of one registration that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// This host's address inside.
    pub local: IpAddr,
    /// The other host's address inside.
    pub remote: IpAddr,
    /// One to four: inbound ones first, each direction in the order of the
    /// local ports.
    pub sas: Vec<Member>,
}

impl Set {
    /// Whether all four are there.
    pub fn is_whole(&self) -> bool {
        self.sas.len() == 4
    }

    /// How many of each direction are missing to four.
    pub fn missing(&self) -> (usize, usize) {
        let inbound = self.sas.iter().filter(|sa| sa.dir == Some(Dir::In)).count();
        let outbound = self.sas.len() - inbound;
        (
            2_usize.saturating_sub(inbound),
            2_usize.saturating_sub(outbound),
        )
    }
}

/// Why a state is in no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is no SA of Gm.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// Neither the state nor its policies say between which ports it is.
    #[error("neither its selector nor its policies say between which hosts and ports it is")]
    Traffic,
    /// Gm's SAs are for UDP and TCP.
    #[error("it is for another protocol than UDP and TCP")]
    Protocol,
    /// Its policies say different things.
    #[error("its selector says less than its policies, and they are for different traffic")]
    Policies,
    /// No policy is for it, or some are in and some out.
    #[error("neither its policies nor its addresses say whether it is inbound or outbound")]
    Direction,
    /// Several sets have these keys and could have this SA.
    #[error("more than one registration has its keys and addresses, and it may be of each")]
    Ambiguous,
}

/// A state that is in no set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The state.
    pub id: StateId,
    /// Why.
    pub why: Why,
    /// The SA all the same, where the state is one: its keys open packets.
    pub sa: Option<Box<Member>>,
}

/// All states, in sets or left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// In the order of the kernel's list, by their first states.
    pub sets: Vec<Set>,
    /// What is in no set.
    pub left_out: Vec<LeftOut>,
    /// Policies, none of them blocking, that no member of a set has.
    pub other_policies: Vec<PolicyId>,
}

/// Groups what is in the kernel. `is_local` says whether an address is this
/// host's; it is asked where policies do not tell the direction.
pub fn group(states: &[State], policies: &[Policy], is_local: impl Fn(IpAddr) -> bool) -> Grouped {
    let index = member::Index::new(policies);
    let mut ready = Vec::new();
    let mut left_out = Vec::new();
    for state in states {
        match index.member(state, &is_local) {
            Ok(member) => ready.push(member),
            Err(left) => left_out.push(*left),
        }
    }
    let (sets, ambiguous) = sets::of(ready);
    left_out.extend(ambiguous);
    let used: std::collections::HashSet<&PolicyId> = sets
        .iter()
        .flat_map(|set| &set.sas)
        .flat_map(|sa| &sa.policies)
        .map(|policy| &policy.id)
        .collect();
    let other_policies = policies
        .iter()
        .filter(|policy| !policy.templates.is_empty() && !used.contains(&policy.id))
        .map(|policy| policy.id)
        .collect();
    Grouped {
        sets,
        left_out,
        other_policies,
    }
}

impl Grouped {
    /// All SAs: those of the sets, then those that are in none.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let in_sets = self.sets.iter().flat_map(|set| &set.sas);
        in_sets.chain(self.left_out.iter().filter_map(|left| left.sa.as_deref()))
    }

    /// The SAs as SAD.toml has them: those of the sets with the set's number,
    /// from 1, then those that are in none.
    ///
    /// `seq` is the next number to send, or the first that an inbound SA
    /// accepts: the one above the highest that has come. What of the window is
    /// still open below is closed with that.
    pub fn entries(&self) -> Vec<SadEntry> {
        let numbered = self.sets.iter().zip(1..);
        let in_sets = numbered.flat_map(|(set, n)| set.sas.iter().map(move |sa| (sa, Some(n))));
        let alone = self.left_out.iter().filter_map(|left| left.sa.as_deref());
        in_sets
            .chain(alone.map(|sa| (sa, None)))
            .zip(1..)
            .map(|((sa, set), table)| sa.entry(table, set))
            .collect()
    }
}

impl Member {
    /// The SA as the table of this number of a SAD.toml.
    pub fn entry(&self, table: usize, set: Option<u64>) -> SadEntry {
        let numbers = &self.found.numbers;
        let seq = match self.dir {
            None => None,
            Some(Dir::Out) => Some(numbers.seq.saturating_add(1)),
            Some(Dir::In) => Some(numbers.top.saturating_add(1)).filter(|n| *n > 1),
        };
        SadEntry {
            table,
            spec: self.found.spec,
            keys: self.found.keys.clone(),
            set,
            dir: self.dir,
            seq,
            replay_window: Some(self.found.spec.replay_window),
        }
    }

    /// Whether the kernel keeps no replay window for an inbound SA (siphon-sip
    /// asks for none): it then does not know which numbers have come.
    pub fn is_unprotected(&self) -> bool {
        self.dir == Some(Dir::In) && self.state.numbers.window == 0
    }
}

/// The direction of SAs that a policy is for.
fn direction(policy: &Policy) -> Dir {
    match policy.id.dir {
        PolicyDir::Out => Dir::Out,
        PolicyDir::In | PolicyDir::Forward => Dir::In,
    }
}
