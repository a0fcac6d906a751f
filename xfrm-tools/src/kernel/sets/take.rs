//! Taking SAs out again: it goes on after an error.

use std::collections::HashSet;

use gm_api::sad::Dir;

use super::{Done, Reason, Rest, SetError, Tables};
use crate::kernel::plan::{Plan, is_our_policy, is_our_state};
use crate::kernel::policy::{Policy, PolicyDir};
use crate::kernel::select::Selector;
use crate::kernel::state::{State, StateId};

/// Removes the outbound policies that still lead to these SAs.
///
/// # Errors
/// The first one of the kernel; the others were removed all the same.
pub fn retire<T: Tables>(tables: &mut T, plans: &[Plan]) -> Result<Done, SetError> {
    let mut taking = Taking::new(tables);
    for plan in plans.iter().filter(|plan| plan.dir == Dir::Out) {
        taking.policies(plan, |_| false);
    }
    taking.end()
}

/// Removes the SAs: their states first, so that nothing leaves in the clear
/// while a policy is still there, then the outbound policies that lead to them
/// and the inbound ones that `needed` does not keep: another set may share
/// them. What is gone already is no error. States that are not ours stay, see
/// [`Reason::NotOurs`].
///
/// # Errors
/// The first one; all else was removed all the same.
pub fn remove<T: Tables>(
    tables: &mut T,
    plans: &[Plan],
    needed: impl Fn(&Policy) -> bool,
) -> Result<Done, SetError> {
    let mut taking = Taking::new(tables);
    for plan in plans {
        taking.state(plan);
    }
    for plan in plans {
        taking.policies(plan, &needed);
    }
    taking.end()
}

/// Which inbound policies a removal of `plans` must leave: those whose packets
/// another state of ours among `states` is for.
pub fn shared<'a>(states: &'a [State], plans: &'a [Plan]) -> impl Fn(&Policy) -> bool + 'a {
    let staying: HashSet<Selector> = states
        .iter()
        .filter(|state| is_our_state(state))
        .filter(|state| plans.iter().all(|plan| plan.state.id != state.id))
        .map(|state| Selector {
            proto: 0,
            ..state.selector
        })
        .collect();
    move |policy| {
        policy.id.dir == PolicyDir::In
            && staying.contains(&Selector {
                proto: 0,
                ..policy.id.selector
            })
    }
}

/// Removing goes on after an error.
struct Taking<'a, T: Tables> {
    tables: &'a mut T,
    count: Done,
    first: Option<(StateId, Reason)>,
}

impl<'a, T: Tables> Taking<'a, T> {
    fn new(tables: &'a mut T) -> Taking<'a, T> {
        Taking {
            tables,
            count: Done::default(),
            first: None,
        }
    }

    fn state(&mut self, plan: &Plan) {
        let id = plan.state.id;
        let result = match self.tables.state(id) {
            Ok(state) if state.reqid == plan.state.reqid => self.tables.delete_state(id),
            Ok(_) => return self.failed(id, Reason::NotOurs),
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => self.count.states += 1,
            Err(e) if e.is_missing() => self.count.kept += 1,
            Err(e) => self.failed(id, e.into()),
        }
    }

    fn policies(&mut self, plan: &Plan, needed: impl Fn(&Policy) -> bool) {
        for policy in &plan.policies {
            let result = match self.tables.policy(&policy.id) {
                // One that leads to another SA by now is that one's.
                Ok(now) if is_this(&now, policy) && !needed(&now) => {
                    self.tables.delete_policy(&policy.id)
                }
                Ok(_) => {
                    self.count.kept += 1;
                    continue;
                }
                Err(e) => Err(e),
            };
            match result {
                Ok(()) => self.count.policies += 1,
                Err(e) if e.is_missing() => self.count.kept += 1,
                Err(e) => self.failed(plan.state.id, e.into()),
            }
        }
    }

    fn failed(&mut self, id: StateId, why: Reason) {
        self.first.get_or_insert((id, why));
    }

    fn end(self) -> Result<Done, SetError> {
        match self.first {
            None => Ok(self.count),
            Some((id, why)) => Err(SetError {
                id,
                why: Box::new(why),
                rest: Rest::Done(self.count),
            }),
        }
    }
}

fn is_this(now: &Policy, planned: &Policy) -> bool {
    let leads_to = |policy: &Policy| {
        let template = policy.templates.first();
        template.map(|template| (template.spi, template.reqid))
    };
    is_our_policy(now) && (planned.id.dir != PolicyDir::Out || leads_to(now) == leads_to(planned))
}
