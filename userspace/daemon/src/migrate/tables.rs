//! Steps in the kernel's tables. What was done is written down, so that it can
//! be taken back, the last step first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gm_api::control::ApiError;
use gm_api::sad::Dir;
use gm_xfrm::group::Set;
use gm_xfrm::kernel::{Event, Limits, Policy, PolicyDir, State, StateId, Topic, Watch, Xfrm};

use super::kernel;
use super::late::{self, Late};
use super::pause::until_others_had_a_turn;

/// How long numbers have to stand still.
const STILL: Duration = Duration::from_millis(50);
/// Looks at most: half a second, where nobody waits for a processor.
const LOOKS: u32 = 10;
/// The event of a removal is there before its acknowledgement.
const PATIENCE: Duration = Duration::from_secs(1);
/// Numbers that are left out where the kernel did not tell the last one.
pub(super) const MARGIN: u64 = 16;

/// The kernel's tables, and what was done to them.
pub struct Work {
    pub(super) xfrm: Xfrm,
    watch: Watch,
    pub(super) done: Vec<Step>,
    pub(super) late: Vec<Late>,
    /// See [`late::counts_bursts`].
    pub(super) counts_bursts: bool,
}

pub(super) enum Step {
    RemovedPolicy(Box<Policy>),
    RemovedState(Box<State>),
    /// As it was, with the last number that it may have used since.
    LimitedState(Box<State>),
    AddedPolicy(Box<Policy>),
    AddedState(StateId),
}

impl Work {
    /// Opens the tables of this network namespace.
    pub fn begin() -> Result<Work, ApiError> {
        Ok(Work {
            xfrm: Xfrm::open().map_err(kernel)?,
            watch: Watch::open(&[Topic::States]).map_err(kernel)?,
            done: Vec::new(),
            late: Vec::new(),
            counts_bursts: late::counts_bursts(),
        })
    }

    /// The tables, for looking.
    pub fn xfrm(&mut self) -> &mut Xfrm {
        &mut self.xfrm
    }

    /// All is well: nothing will be taken back.
    pub fn keep(&mut self) {
        let limited = self.done.drain(..).filter_map(|step| match step {
            Step::LimitedState(state) => Some(Late::new(*state)),
            _ => None,
        });
        self.late.extend(limited);
    }

    /// Whether these sets still are what they were when they were read: many may have
    /// moved since, and the other P-CSCF goes on.
    ///
    /// # Errors
    /// `busy` where somebody has put something else in the place of something.
    pub fn are_there(&mut self, sets: &[Set]) -> Result<(), ApiError> {
        let busy = |what: String| {
            let what = format!("somebody has just changed {what}");
            Err(ApiError::new("busy", what).hint("begin again"))
        };
        for sa in sets.iter().flat_map(|set| &set.sas) {
            let there = self.xfrm.state(sa.state.id).map_err(kernel)?;
            if !there.is_same_sa(&sa.state) {
                return busy(format!("the state {}", sa.state.id));
            }
        }
        for policy in [true, false]
            .into_iter()
            .flat_map(|out| policies(sets, out))
        {
            let there = self.xfrm.policy(&policy.id).map_err(kernel)?;
            if !there.is_same(&policy) {
                return busy(format!("the policy {}", policy.id));
            }
        }
        Ok(())
    }

    /// Removes these sets' policies of one direction.
    pub fn remove_policies(&mut self, sets: &[Set], out: bool) -> Result<(), ApiError> {
        for policy in policies(sets, out) {
            self.xfrm.delete_policy(&policy.id).map_err(kernel)?;
            self.done.push(Step::RemovedPolicy(Box::new(policy)));
        }
        Ok(())
    }

    /// Puts them back as they were.
    pub fn add_policies(&mut self, sets: &[Set], out: bool) -> Result<(), ApiError> {
        for mut policy in policies(sets, out) {
            policy_again(&mut policy);
            self.xfrm.add_policy(&policy).map_err(kernel)?;
            self.done.push(Step::AddedPolicy(Box::new(policy)));
        }
        Ok(())
    }

    /// Makes a state.
    pub fn add_state(&mut self, state: &State) -> Result<(), ApiError> {
        self.xfrm
            .add_state(&state_again(state.clone()))
            .map_err(kernel)?;
        self.done.push(Step::AddedState(state.id));
        Ok(())
    }

    /// Removes a state; what it was at its very end.
    pub fn remove_state(&mut self, id: StateId) -> Result<State, ApiError> {
        let last = self.end_state(id)?;
        self.done.push(Step::RemovedState(Box::new(last.clone())));
        Ok(last)
    }

    pub(super) fn end_state(&mut self, id: StateId) -> Result<State, ApiError> {
        let mut before = self.xfrm.state(id).map_err(kernel)?;
        self.xfrm.delete_state(id).map_err(kernel)?;
        // Others' events may be in front of it; as many as fit into the socket.
        while let Ok(Some(event)) = self.watch.next(Some(PATIENCE)) {
            match event {
                Event::StateRemoved { id: of, last } if of == id => {
                    if let Some(last) = last {
                        return Ok(*last);
                    }
                    break;
                }
                Event::Lost => break,
                _ => {}
            }
        }
        // It stood still; if one more packet has left in between, its number is
        // among those that are left out.
        before.numbers.seq = before.numbers.seq.saturating_add(MARGIN);
        Ok(before)
    }

    /// Waits until the inbound numbers of these states stand still.
    pub fn settle(&mut self, sets: &[Set]) -> Result<(), ApiError> {
        let mut last = self.look(sets)?;
        for _ in 0..LOOKS {
            // Packets may be with a thread of the kernel's that waits for a processor.
            until_others_had_a_turn(STILL);
            let now = self.look(sets)?;
            if now == last {
                return Ok(());
            }
            last = now;
        }
        let what = "packets still reach the kernel's SAs after half a second";
        Err(ApiError::new("busy", what)
            .hint("do phones come in by another interface than [gm] uplinks?"))
    }

    fn look(&mut self, sets: &[Set]) -> Result<Vec<(u64, u64, Vec<u64>)>, ApiError> {
        // What leaves late has numbers of its own.
        let both = self.counts_bursts;
        let sas = sets.iter().flat_map(|set| &set.sas);
        let ids = sas.filter(|sa| both || sa.dir == Some(Dir::In));
        let ids: Vec<StateId> = ids.map(|sa| sa.state.id).collect();
        let numbers = |id: StateId| {
            let numbers = self.xfrm.state(id).map_err(kernel)?.numbers;
            Ok((numbers.seq, numbers.top, numbers.seen))
        };
        ids.into_iter().map(numbers).collect()
    }

    /// Takes back all that was done. What added states have used until then, by
    /// their names; an error says what could not be.
    pub fn undo(&mut self) -> (BTreeMap<StateId, State>, Option<String>) {
        let (mut used, mut failed) = (BTreeMap::new(), None);
        while let Some(step) = self.done.pop() {
            let done = match step {
                Step::RemovedPolicy(mut policy) => {
                    policy_again(&mut policy);
                    self.xfrm.add_policy(&policy).map_err(kernel)
                }
                Step::RemovedState(state) => {
                    let state = state_again(*state);
                    self.xfrm.add_state(&state).map_err(kernel)
                }
                Step::LimitedState(state) => self.unlimit(&state),
                Step::AddedPolicy(policy) => self.xfrm.delete_policy(&policy.id).map_err(kernel),
                Step::AddedState(id) => self.end_state(id).map(|state| {
                    used.insert(id, state);
                }),
            };
            if let Err(error) = done {
                tracing::error!(%error, "taking a step in the kernel back");
                failed.get_or_insert(error.message);
            }
        }
        (used, failed)
    }
}

/// A policy of others made again: it ends when it would have, and the kernel gives it
/// another number.
fn policy_again(policy: &mut Policy) {
    policy.index = 0;
    policy.limits = what_is_left(policy.limits, policy.added);
}

/// A state of others made again: it ends when it would have.
pub(super) fn state_again(mut state: State) -> State {
    state.limits = what_is_left(state.limits, state.counters.added);
    state
}

fn what_is_left(limits: Limits, added: u64) -> Limits {
    match added {
        // Nobody knows since when.
        0 => limits,
        added => limits.made_again(added, crate::events::now_ms() / 1000),
    }
}

/// Policies of these sets, each once: the outbound ones, or all others.
fn policies(sets: &[Set], out: bool) -> Vec<Policy> {
    let mut seen = BTreeSet::new();
    let all = sets
        .iter()
        .flat_map(|set| &set.sas)
        .flat_map(|sa| &sa.policies);
    let wanted = all.filter(|policy| (policy.id.dir == PolicyDir::Out) == out);
    let once = wanted.filter(|policy| seen.insert((policy.id.dir, policy.id.to_string())));
    once.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_made_ends_when_it_would_have() {
        let limits = Limits {
            added: [0, 600],
            ..Limits::default()
        };
        let now = crate::events::now_ms() / 1000;
        let [soft, hard] = what_is_left(limits, now - 100).added;
        assert_eq!(soft, 0, "there was none");
        assert!((490..=500).contains(&hard), "{hard}");
        assert_eq!(what_is_left(limits, now - 1000).added, [0, 1]);
        assert_eq!(what_is_left(limits, 0), limits, "nobody knows since when");
    }
}
