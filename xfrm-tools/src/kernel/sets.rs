//! Several SAs at once: all of them or none.

mod take;

use std::fmt;

use gm_api::sad::Dir;

use super::error::XfrmError;
use super::plan::{Plan, is_our_policy};
use super::policy::{Policy, PolicyId};
use super::state::{State, StateId};
use super::xfrm::Xfrm;

pub use take::{remove, retire, shared};

/// The tables, as this needs them; [`Xfrm`] has them.
pub trait Tables {
    /// One state.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    fn state(&mut self, id: StateId) -> Result<State, XfrmError>;
    /// Makes a state.
    ///
    /// # Errors
    /// [`XfrmError::Exists`].
    fn add_state(&mut self, state: &State) -> Result<(), XfrmError>;
    /// Removes a state.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    fn delete_state(&mut self, id: StateId) -> Result<(), XfrmError>;
    /// One policy.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    fn policy(&mut self, id: &PolicyId) -> Result<Policy, XfrmError>;
    /// Makes a policy.
    ///
    /// # Errors
    /// [`XfrmError::Exists`].
    fn add_policy(&mut self, policy: &Policy) -> Result<(), XfrmError>;
    /// Makes or replaces a policy.
    ///
    /// # Errors
    /// Those of the kernel.
    fn update_policy(&mut self, policy: &Policy) -> Result<(), XfrmError>;
    /// Removes a policy.
    ///
    /// # Errors
    /// [`XfrmError::Missing`].
    fn delete_policy(&mut self, id: &PolicyId) -> Result<(), XfrmError>;
}

impl Tables for Xfrm {
    fn state(&mut self, id: StateId) -> Result<State, XfrmError> {
        Xfrm::state(self, id)
    }
    fn add_state(&mut self, state: &State) -> Result<(), XfrmError> {
        Xfrm::add_state(self, state)
    }
    fn delete_state(&mut self, id: StateId) -> Result<(), XfrmError> {
        Xfrm::delete_state(self, id)
    }
    fn policy(&mut self, id: &PolicyId) -> Result<Policy, XfrmError> {
        Xfrm::policy(self, id)
    }
    fn add_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        Xfrm::add_policy(self, policy)
    }
    fn update_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        Xfrm::update_policy(self, policy)
    }
    fn delete_policy(&mut self, id: &PolicyId) -> Result<(), XfrmError> {
        Xfrm::delete_policy(self, id)
    }
}

/// Which policies to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// Those of both directions.
    AllPolicies,
    /// The inbound ones: the set receives and does not send yet, see
    /// [`activate`].
    InboundPolicies,
}

/// What has become of something that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// States made, or removed.
    pub states: usize,
    /// Policies made, replaced or removed.
    pub policies: usize,
    /// States and policies that were there (or gone) already, or are needed by
    /// others.
    pub kept: usize,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub struct SetError {
    /// The SA at which it went wrong.
    pub id: StateId,
    /// The reason.
    pub why: Box<Reason>,
    /// What became of the rest.
    pub rest: Rest,
}

/// What became of the rest of a request that went wrong.
#[derive(Debug)]
pub enum Rest {
    /// All is as it was before.
    Undone,
    /// These steps back went wrong, too.
    Left(Vec<XfrmError>),
    /// It was done all the same: removing goes on.
    Done(Done),
}

/// The reason of a [`SetError`].
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kernel's.
    #[error(transparent)]
    Kernel(#[from] XfrmError),
    /// Another SA with this name is there.
    #[error("another state has this SPI and destination already")]
    OtherState,
    /// Somebody else's policy has this selector.
    #[error("a policy that is not ours exists: {0}")]
    OtherPolicy(PolicyId),
    /// The state is in the kernel, and is not ours.
    #[error("the state is not one that this program made")]
    NotOurs,
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.id, self.why)?;
        match &self.rest {
            Rest::Undone => f.write_str("; all is as it was before"),
            Rest::Done(_) => f.write_str("; the others were removed"),
            Rest::Left(errors) => {
                write!(f, "; taking back what was done before failed, too:")?;
                errors.iter().try_for_each(|error| write!(f, " {error};"))
            }
        }
    }
}

/// How to take a step back.
enum Undo {
    State(StateId),
    Policy(PolicyId),
    Replaced(Box<Policy>),
}

struct Work<'a, T: Tables> {
    tables: &'a mut T,
    done: Vec<Undo>,
    count: Done,
}

impl<T: Tables> Work<'_, T> {
    fn state(&mut self, state: &State) -> Result<(), Reason> {
        match self.tables.add_state(state) {
            Ok(()) => {
                self.done.push(Undo::State(state.id));
                self.count.states += 1;
                Ok(())
            }
            Err(e) if e.is_exists() => {
                if !self.tables.state(state.id)?.is_same_sa(state) {
                    return Err(Reason::OtherState);
                }
                // Its numbers have gone on since, and stay.
                self.count.kept += 1;
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn policy(&mut self, policy: &Policy) -> Result<(), Reason> {
        match self.tables.policy(&policy.id) {
            Err(e) if e.is_missing() => {
                self.tables.add_policy(policy)?;
                self.done.push(Undo::Policy(policy.id));
                self.count.policies += 1;
            }
            Err(e) => return Err(e.into()),
            Ok(old) if old.is_same(policy) => self.count.kept += 1,
            Ok(old) if is_our_policy(&old) => {
                self.tables.update_policy(policy)?;
                self.done.push(Undo::Replaced(Box::new(old)));
                self.count.policies += 1;
            }
            Ok(_) => return Err(Reason::OtherPolicy(policy.id)),
        }
        Ok(())
    }

    /// Takes all steps back, the last one first.
    fn undo(self) -> Rest {
        let tables = self.tables;
        let steps = self.done.into_iter().rev();
        let left: Vec<XfrmError> = steps
            .filter_map(|step| {
                let back = match step {
                    Undo::State(id) => tables.delete_state(id),
                    Undo::Policy(id) => tables.delete_policy(&id),
                    Undo::Replaced(mut old) => {
                        // The kernel gives a replacement the old one's number.
                        old.index = 0;
                        tables.update_policy(&old)
                    }
                };
                back.err().filter(|e| !e.is_missing())
            })
            .collect();
        match left.is_empty() {
            true => Rest::Undone,
            false => Rest::Left(left),
        }
    }
}

fn all<'p, T: Tables>(
    tables: &mut T,
    steps: impl IntoIterator<Item = (&'p Plan, Step<'p>)>,
) -> Result<Done, SetError> {
    let mut work = Work {
        tables,
        done: Vec::new(),
        count: Done::default(),
    };
    for (plan, step) in steps {
        let result = match step {
            Step::State => work.state(&plan.state),
            Step::Policy(policy) => work.policy(policy),
        };
        if let Err(why) = result {
            return Err(SetError {
                id: plan.state.id,
                why: Box::new(why),
                rest: work.undo(),
            });
        }
    }
    Ok(work.count)
}

enum Step<'p> {
    State,
    Policy(&'p Policy),
}

/// Makes the states, the inbound ones first, then their policies. What is there
/// already stays as it is, with its numbers. Policies of ours with the same
/// selector are replaced.
///
/// # Errors
/// [`SetError`] names the SA and the reason; what was made before is removed
/// again, and what was replaced is put back.
pub fn install<T: Tables>(tables: &mut T, plans: &[Plan], with: With) -> Result<Done, SetError> {
    let of = |dir: Dir| plans.iter().filter(move |plan| plan.dir == dir);
    let states = of(Dir::In).chain(of(Dir::Out));
    let inbound = of(Dir::In);
    let outbound = of(Dir::Out).filter(|_| with == With::AllPolicies);
    let steps = states
        .map(|plan| (plan, Step::State))
        .chain(inbound.chain(outbound).flat_map(policy_steps));
    all(tables, steps)
}

fn policy_steps(plan: &Plan) -> impl Iterator<Item = (&Plan, Step<'_>)> {
    plan.policies
        .iter()
        .map(move |policy| (plan, Step::Policy(policy)))
}

/// Moves outbound traffic to these SAs, whatever it used before: each policy in
/// one step.
///
/// # Errors
/// As [`install`]; the policies are as before then.
pub fn activate<T: Tables>(tables: &mut T, plans: &[Plan]) -> Result<Done, SetError> {
    let outbound = plans.iter().filter(|plan| plan.dir == Dir::Out);
    all(tables, outbound.flat_map(policy_steps))
}

#[cfg(test)]
#[path = "sets/tests.rs"]
mod tests;
