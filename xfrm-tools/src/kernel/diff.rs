//! What the kernel has otherwise than planned.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use super::plan::{Plan, SA_PRIORITY, is_our_state};
use super::policy::{Policy, PolicyId};
use super::state::{State, StateId};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A planned state is not there.
    StateMissing(StateId),
    /// A state is there and not as planned, in these parts.
    StateDiffers(StateId, Vec<&'static str>),
    /// A state of ours is not in the plan.
    StateExtra(StateId),
    /// A planned policy is not there.
    PolicyMissing(PolicyId),
    /// A policy is there and not as planned, in these parts.
    PolicyDiffers(PolicyId, Vec<&'static str>),
    /// A policy of ours is not in the plan.
    PolicyExtra(PolicyId),
}

impl Difference {
    /// "missing", "differs" or "extra".
    pub fn kind(&self) -> &'static str {
        match self {
            Difference::StateMissing(_) | Difference::PolicyMissing(_) => "missing",
            Difference::StateDiffers(..) | Difference::PolicyDiffers(..) => "differs",
            Difference::StateExtra(_) | Difference::PolicyExtra(_) => "extra",
        }
    }

    /// The parts that differ.
    pub fn parts(&self) -> &[&'static str] {
        match self {
            Difference::StateDiffers(_, parts) | Difference::PolicyDiffers(_, parts) => parts,
            _ => &[],
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Difference::StateMissing(id) | Difference::StateExtra(id) => {
                write!(f, "{kind}: state {id}")
            }
            Difference::PolicyMissing(id) | Difference::PolicyExtra(id) => {
                write!(f, "{kind}: policy {id}")
            }
            Difference::StateDiffers(id, parts) => {
                write!(f, "{kind}: state {id}: {}", parts.join(", "))
            }
            Difference::PolicyDiffers(id, parts) => {
                write!(f, "{kind}: policy {id}: {}", parts.join(", "))
            }
        }
    }
}

/// Compares a plan with the tables. Numbers and counters, and ports of UDP
/// around ESP that the plan leaves to be learnt, may differ. Other programs'
/// states and policies count only where they stand in a planned one's place.
pub fn diff(plans: &[Plan], states: &[State], policies: &[Policy]) -> Vec<Difference> {
    let mut found = Vec::new();
    let by_id: HashMap<StateId, &State> = states
        .iter()
        .filter(|state| state.mark.is_none())
        .map(|state| (state.id, state))
        .collect();
    for plan in plans {
        let id = plan.state.id;
        match by_id.get(&id) {
            None => found.push(Difference::StateMissing(id)),
            Some(state) => {
                let parts = state_parts(&plan.state, state);
                if !parts.is_empty() {
                    found.push(Difference::StateDiffers(id, parts));
                }
            }
        }
    }
    let planned: HashSet<StateId> = plans.iter().map(|plan| plan.state.id).collect();
    let extra: BTreeSet<StateId> = states
        .iter()
        .filter(|state| is_our_state(state) && !planned.contains(&state.id))
        .map(|state| state.id)
        .collect();
    found.extend(extra.into_iter().map(Difference::StateExtra));

    let by_id: HashMap<PolicyId, &Policy> =
        policies.iter().map(|policy| (policy.id, policy)).collect();
    let mut planned = HashSet::new();
    for policy in plans.iter().flat_map(|plan| &plan.policies) {
        // Sets that share an inbound policy are planned with the same one.
        if !planned.insert(policy.id) {
            continue;
        }
        match by_id.get(&policy.id) {
            None => found.push(Difference::PolicyMissing(policy.id)),
            Some(now) => {
                let parts = policy_parts(policy, now);
                if !parts.is_empty() {
                    found.push(Difference::PolicyDiffers(policy.id, parts));
                }
            }
        }
    }
    let extra = policies
        .iter()
        .filter(|policy| policy.priority == SA_PRIORITY && !planned.contains(&policy.id));
    found.extend(extra.map(|policy| Difference::PolicyExtra(policy.id)));
    found
}

fn state_parts(planned: &State, now: &State) -> Vec<&'static str> {
    let learnt = |planned: u16, now: u16| planned == 0 || planned == now;
    let encap = match (planned.encap, now.encap) {
        (None, None) => true,
        (Some(planned), Some(now)) => {
            planned.kind == now.kind
                && learnt(planned.sport, now.sport)
                && learnt(planned.dport, now.dport)
        }
        _ => false,
    };
    let names = |state: &State| {
        let all = &state.algorithms;
        [&all.auth, &all.crypt, &all.aead]
            .map(|one| one.as_ref().map(|one| (one.name.clone(), one.icv_bits)))
    };
    let same_names = names(planned) == names(now);
    parts([
        ("source address", planned.src == now.src),
        ("mode", planned.wrap == now.wrap),
        ("reqid", planned.reqid == now.reqid),
        ("selector", planned.selector == now.selector),
        ("algorithms", same_names),
        ("keys", !same_names || planned.algorithms == now.algorithms),
        ("UDP encapsulation", encap),
        (
            "replay window",
            planned.numbers.window == now.numbers.window,
        ),
        ("extended numbers", planned.numbers.esn == now.numbers.esn),
        (
            "flags",
            (planned.flags, planned.extra_flags) == (now.flags, now.extra_flags),
        ),
        ("interface", planned.if_id == now.if_id),
    ])
}

fn policy_parts(planned: &Policy, now: &Policy) -> Vec<&'static str> {
    parts([
        ("action", planned.action == now.action),
        ("priority", planned.priority == now.priority),
        ("templates", planned.templates == now.templates),
        ("flags", planned.flags == now.flags),
    ])
}

fn parts<const N: usize>(same: [(&'static str, bool); N]) -> Vec<&'static str> {
    let differ = same.into_iter().filter(|(_, same)| !same);
    differ.map(|(name, _)| name).collect()
}
