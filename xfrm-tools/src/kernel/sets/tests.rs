use std::cell::RefCell;
use std::collections::HashMap;
use std::io;

use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};

use super::*;
use crate::kernel::error::Subject;
use crate::kernel::plan;

/// Tables in memory. The change with this number fails, and all after it where
/// `stuck`.
#[derive(Clone, Default)]
struct Fake {
    states: HashMap<StateId, State>,
    policies: HashMap<PolicyId, Policy>,
    log: RefCell<Vec<String>>,
    fail_at: Option<usize>,
    stuck: bool,
}

impl Fake {
    fn change(&mut self, what: String) -> Result<(), XfrmError> {
        let number = self.log.borrow().len();
        self.log.borrow_mut().push(what);
        let fails = |at| number == at || self.stuck && number > at;
        match self.fail_at.is_some_and(fails) {
            true => Err(XfrmError::Refused {
                subject: Subject::States,
                error: io::Error::from_raw_os_error(libc::ENOMEM),
                text: String::new(),
            }),
            false => Ok(()),
        }
    }

    fn contents(&self) -> (HashMap<StateId, State>, HashMap<PolicyId, Policy>) {
        (self.states.clone(), self.policies.clone())
    }
}

impl Tables for Fake {
    fn state(&mut self, id: StateId) -> Result<State, XfrmError> {
        let state = self.states.get(&id).cloned();
        state.ok_or(XfrmError::Missing(Subject::State(id)))
    }
    fn add_state(&mut self, state: &State) -> Result<(), XfrmError> {
        if self.states.contains_key(&state.id) {
            return Err(XfrmError::Exists(Subject::State(state.id)));
        }
        self.change(format!("add {}", state.id))?;
        self.states.insert(state.id, state.clone());
        Ok(())
    }
    fn delete_state(&mut self, id: StateId) -> Result<(), XfrmError> {
        self.change(format!("delete {id}"))?;
        let old = self.states.remove(&id);
        old.map(|_| ())
            .ok_or(XfrmError::Missing(Subject::State(id)))
    }
    fn policy(&mut self, id: &PolicyId) -> Result<Policy, XfrmError> {
        let policy = self.policies.get(id).cloned();
        policy.ok_or(XfrmError::Missing(Subject::Policy(*id)))
    }
    fn add_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.change(format!("add {}", policy.id))?;
        match self.policies.insert(policy.id, policy.clone()) {
            None => Ok(()),
            Some(_) => panic!("a policy was added over another"),
        }
    }
    fn update_policy(&mut self, policy: &Policy) -> Result<(), XfrmError> {
        self.change(format!("update {}", policy.id))?;
        self.policies.insert(policy.id, policy.clone());
        Ok(())
    }
    fn delete_policy(&mut self, id: &PolicyId) -> Result<(), XfrmError> {
        self.change(format!("delete {id}"))?;
        let old = self.policies.remove(id);
        old.map(|_| ())
            .ok_or(XfrmError::Missing(Subject::Policy(*id)))
    }
}

/// The four of a set.
fn four(spi: u32, set: u64) -> Vec<Plan> {
    let keys = EspKeys::expand(
        Suite::NullAesGcm,
        &Ik::from_bytes([1; 16]),
        &Ck::from_bytes([2; 16]),
    );
    let sa = |n: u32, dir, src: (u8, u16), dst: (u8, u16)| {
        let spec = SaSpec {
            spi: spi + n,
            mode: Mode::Trans,
            selector: Selector {
                src: [192, 0, 2, src.0].into(),
                dst: [192, 0, 2, dst.0].into(),
                src_port: Some(src.1),
                dst_port: Some(dst.1),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::NullAesGcm,
            outer: None,
            esn: false,
            replay_window: 64,
        };
        plan::sa(&spec, &keys, dir, plan::reqid(set))
    };
    vec![
        sa(0, Dir::Out, (1, 5060), (2, 6100)),
        sa(1, Dir::In, (2, 6100), (1, 5060)),
        sa(2, Dir::Out, (1, 5062), (2, 6200)),
        sa(3, Dir::In, (2, 6200), (1, 5062)),
    ]
}

fn leads_to(fake: &Fake, plan: &Plan) -> u32 {
    let policy = fake.policies.get(&plan.policies[0].id).expect("a policy");
    policy.templates[0].spi
}

#[test]
fn inbound_states_come_first_and_outbound_policies_last() {
    let mut fake = Fake::default();
    install(&mut fake, &four(0x1000, 1), With::AllPolicies).expect("a set");
    let log = fake.log.into_inner();
    assert_eq!(log.len(), 4 + 8);
    assert!(
        log[..2].iter().all(|step| step.contains("to 192.0.2.1")),
        "{log:#?}"
    );
    assert!(
        log[2..4].iter().all(|step| step.contains("to 192.0.2.2")),
        "{log:#?}"
    );
    assert!(
        log[4..8].iter().all(|step| step.starts_with("add in")),
        "{log:#?}"
    );
    assert!(
        log[8..].iter().all(|step| step.starts_with("add out")),
        "{log:#?}"
    );
}

/// Wherever a renewal fails, the tables are as before, and the error says which
/// SA and that all is as it was.
#[test]
fn a_failure_at_any_step_is_taken_back_whole() {
    let (old, new) = (four(0x1000, 1), four(0x2000, 2));
    let mut fake = Fake::default();
    install(&mut fake, &old, With::AllPolicies).expect("the old set");
    let before = fake.contents();
    // Four states and the four outbound policies; the inbound ones are shared.
    for step in 0..8 {
        let mut fake = Fake {
            fail_at: Some(step),
            log: RefCell::default(),
            ..fake.clone()
        };
        let error = install(&mut fake, &new, With::AllPolicies).expect_err("it fails");
        assert_eq!(fake.contents(), before, "step {step}");
        assert!(matches!(error.rest, Rest::Undone));
        assert!(new.iter().any(|plan| plan.state.id == error.id));
        let said = error.to_string();
        assert!(
            said.contains("SPI 0x0000200") && said.contains("as it was"),
            "{said}"
        );
        // The way back is the way there, the last step first.
        let log = fake.log.into_inner();
        assert_eq!(log.len(), 2 * step + 1, "{log:#?}");
    }
    let mut fake = Fake {
        fail_at: Some(8),
        log: RefCell::default(),
        ..fake
    };
    install(&mut fake, &new, With::AllPolicies).expect("there is no ninth step");
}

#[test]
fn what_cannot_be_taken_back_is_said() {
    let mut fake = Fake {
        fail_at: Some(6),
        stuck: true,
        ..Fake::default()
    };
    let error = install(&mut fake, &four(0x1000, 1), With::AllPolicies).expect_err("it fails");
    let Rest::Left(left) = &error.rest else {
        panic!("{error}");
    };
    assert_eq!(left.len(), 6);
    assert!(error.to_string().contains("taking back"), "{error}");
}

#[test]
fn half_a_set_is_made_whole() {
    let plans = four(0x1000, 1);
    let mut fake = Fake::default();
    fake.add_state(&plans[2].state).expect("a state");
    fake.add_policy(&plans[1].policies[0]).expect("a policy");
    let done = install(&mut fake, &plans, With::AllPolicies).expect("the rest");
    assert_eq!((done.states, done.policies, done.kept), (3, 7, 2));
    let again = install(&mut fake, &plans, With::AllPolicies).expect("the same");
    assert_eq!((again.states, again.policies, again.kept), (0, 0, 12));
}

#[test]
fn numbers_that_went_on_are_the_same_sa_and_other_keys_are_not() {
    let plans = four(0x1000, 1);
    let mut fake = Fake::default();
    install(&mut fake, &plans, With::AllPolicies).expect("a set");
    let id = plans[0].state.id;
    fake.states.get_mut(&id).expect("a state").numbers.seq = 5000;
    install(&mut fake, &plans, With::AllPolicies).expect("the same");
    assert_eq!(fake.states[&id].numbers.seq, 5000);

    let mut other = plans.clone();
    other[0].state.algorithms.aead.as_mut().expect("GCM").key =
        crate::kernel::Secret::new(&[9; 20]);
    let error = install(&mut fake, &other, With::AllPolicies).expect_err("other keys");
    assert!(matches!(*error.why, Reason::OtherState));
    assert!(!format!("{error} {error:?}").contains("9, 9"), "{error:?}");
}

#[test]
fn others_policies_are_neither_replaced_nor_removed() {
    let plans = four(0x1000, 1);
    let mut foreign = plans[2].policies[1].clone();
    foreign.priority = 100;
    let mut fake = Fake::default();
    fake.add_policy(&foreign).expect("a policy");
    let before = fake.contents();
    let error = install(&mut fake, &plans, With::AllPolicies).expect_err("it is taken");
    assert!(matches!(*error.why, Reason::OtherPolicy(id) if id == foreign.id));
    assert_eq!(fake.contents(), before);
    let done = remove(&mut fake, &plans, |_| false).expect("nothing of ours is there");
    assert_eq!((done.states, done.policies, done.kept), (0, 0, 12));
    assert_eq!(fake.contents(), before);
}

#[test]
fn a_standby_set_is_activated_and_the_old_one_goes() {
    let (old, new) = (four(0x1000, 1), four(0x2000, 2));
    let mut fake = Fake::default();
    install(&mut fake, &old, With::AllPolicies).expect("the old set");
    install(&mut fake, &new, With::InboundPolicies).expect("the new set");
    assert_eq!(leads_to(&fake, &new[0]), 0x1000);
    for step in 0..4 {
        let mut fake = Fake {
            fail_at: Some(fake.log.borrow().len() + step),
            ..fake.clone()
        };
        activate(&mut fake, &new).expect_err("it fails");
        assert!(
            [&old[0], &old[2]]
                .into_iter()
                .all(|plan| leads_to(&fake, plan) < 0x2000)
        );
    }
    activate(&mut fake, &new).expect("the new set");
    assert_eq!(
        (leads_to(&fake, &new[0]), leads_to(&fake, &new[2])),
        (0x2000, 0x2002)
    );
    let states: Vec<State> = fake.states.values().cloned().collect();
    let done = remove(&mut fake, &old, shared(&states, &old)).expect("the old set");
    assert_eq!((done.states, done.policies), (4, 0));
    assert_eq!(fake.policies.len(), 8);
    let states: Vec<State> = fake.states.values().cloned().collect();
    let done = remove(&mut fake, &new, shared(&states, &new)).expect("the new set");
    assert_eq!((done.states, done.policies), (4, 8));
    assert_eq!(fake.contents(), Default::default());
}

#[test]
fn retiring_stops_what_is_sent_and_nothing_else() {
    let plans = four(0x1000, 1);
    let mut fake = Fake::default();
    install(&mut fake, &plans, With::AllPolicies).expect("a set");
    let done = retire(&mut fake, &plans).expect("a set");
    assert_eq!((done.states, done.policies), (0, 4));
    assert_eq!((fake.states.len(), fake.policies.len()), (4, 4));
    let done = retire(&mut fake, &plans).expect("retired before");
    assert_eq!((done.policies, done.kept), (0, 4));
}

#[test]
fn removing_goes_on_after_an_error() {
    let plans = four(0x1000, 1);
    let mut fake = Fake::default();
    install(&mut fake, &plans, With::AllPolicies).expect("a set");
    fake.fail_at = Some(fake.log.borrow().len());
    let error = remove(&mut fake, &plans, |_| false).expect_err("the first one stays");
    assert_eq!(error.id, plans[0].state.id);
    assert!(matches!(error.rest, Rest::Done(done) if (done.states, done.policies) == (3, 8)));
    assert_eq!((fake.states.len(), fake.policies.len()), (1, 0));
    remove(&mut fake, &plans, |_| false).expect("the rest");
    assert_eq!(fake.contents(), Default::default());
}
