//! Registrations that fail, and over which set that is said (clauses 6.1.2, 6.1.3, 7.3, 7.4.2a).

use super::*;

const AUTS: &str = "response=\"\",auts=\"AAAAAAAAAAAAAAAAAAA=\"";

#[test]
fn a_wrong_answer_after_sm1_in_clear_is_told_over_the_new_set() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let challenged = rig.challenge(id);
    let (id, _) = rig.attempt(&rig.sm7(&phone("a"), &challenged));
    let answered = rig.answered(id, 403, 0);
    assert_eq!(answered.over, Some(challenged.0));
    assert_eq!(answered.confirmed, None);
    rig.pass(4_000);
    assert!(rig.agent.table().is_empty() && rig.sets.is_empty());
}

#[test]
fn a_wrong_answer_after_a_protected_sm1_is_told_over_the_old_set() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let sm7 = rig.sm7(&new, &challenged);
    let (id, _) = rig.attempt(&sm7);
    assert_eq!(rig.answered(id, 403, 0).over, Some(first));
    assert_eq!(rig.current(first), Some(first));
    // A repeated answer takes the same way.
    assert_eq!(rig.answered(id, 403, 0).over, Some(first));
    rig.pass(4_000);
    assert_eq!(rig.state(challenged.0), None);
    // Nobody is de-registered by that (clause 6.1.1).
    assert_eq!(rig.current(first), Some(first));
    assert_eq!(rig.state(first), Some(SetState::Established));
    rig.agrees();
}

#[test]
fn when_the_old_set_has_expired_a_failure_leaves_over_the_new_one() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    rig.pass(u64::from(HOUR) * 1000);
    let challenged = rig.again(&old, &new);
    rig.pass(31_000);
    let (id, _) = rig.attempt(&rig.sm7(&new, &challenged));
    assert_eq!(rig.answered(id, 403, 0).over, Some(challenged.0));
}

#[test]
fn a_synchronisation_failure_in_clear_ends_the_attempt_that_it_reports() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let (set, nonce, _) = rig.challenge(id);
    // With another nonce it reports nothing.
    let other = phone("a").register(&format!("nonce=\"b3RoZXI=\",{AUTS}"));
    rig.attempt(&other);
    assert!(rig.state(set).is_some());
    let report = phone("a").register(&format!("nonce=\"{nonce}\",{AUTS}"));
    let (id, attempt) = rig.attempt(&report);
    assert_eq!(rig.state(set), None);
    assert!(!attempt.integrity);
    // The same ports and SPIs go on.
    let challenged = rig.challenge(id);
    rig.finish(&phone("a"), &challenged);
}

#[test]
fn a_synchronisation_failure_over_the_old_set_is_marked_and_challenged_anew() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let (set, nonce, _) = rig.again(&old, &new);
    let report = new.register(&format!("nonce=\"{nonce}\",{AUTS}"));
    let (id, attempt) = rig.attempt(&rig.over(&old, report));
    assert_eq!(rig.state(set), None);
    assert!(attempt.integrity, "no answer, over the latest set");
    let challenged = rig.challenge(id);
    rig.finish(&new, &challenged);
}

#[test]
fn auts_over_the_unconfirmed_set_is_dropped() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let challenged = rig.challenge(id);
    let report = phone("a").register(&format!("nonce=\"{}\",{AUTS}", challenged.1));
    let wrong = rig.over(&phone("a"), report);
    assert_eq!(rig.send(&wrong), Err(Refusal::WrongSa));
    assert!(rig.state(challenged.0).is_some());
}

#[test]
fn a_network_failure_ends_the_attempt_that_it_reports() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let (set, nonce, _) = rig.again(&old, &new);
    let report = new.register(&format!("nonce=\"{nonce}\",response=\"\""));
    let (id, _) = rig.attempt(&rig.over(&old, report));
    assert_eq!(rig.state(set), None);
    assert_eq!(rig.answered(id, 403, 0).over, Some(first));
    assert_eq!(rig.state(first), Some(SetState::Established));
}

#[test]
fn lists_that_differ_abort_the_procedure_and_leave_the_old_set() {
    for (part, why) in [
        ("verify", Refusal::SecurityVerify),
        ("client", Refusal::SecurityClient),
        ("no verify", Refusal::SecurityVerify),
    ] {
        let mut rig = Rig::new();
        let (old, new) = (phone("a"), phone("a").anew(1));
        let first = rig.establish(&old);
        let challenged = rig.again(&old, &new);
        let mut sm7 = rig.sm7(&new, &challenged);
        match part {
            "verify" => sm7.verify = Some(SecList::parse("ipsec-3gpp;alg=hmac-sha-1-96")),
            "client" => sm7.client = Some(SecList::parse(&phone("a").anew(3).offer())),
            _ => sm7.verify = None,
        }
        assert_eq!(rig.send(&sm7), Err(why), "{part}");
        assert_eq!(rig.state(challenged.0), None);
        assert_eq!(rig.current(first), Some(first));
        rig.agrees();
    }
}

#[test]
fn only_the_answer_may_come_over_an_unconfirmed_set() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let challenged = rig.challenge(id);
    let other = rig.over(&phone("a"), phone("a").anew(2).sm1());
    assert_eq!(rig.send(&other), Err(Refusal::NotAnAnswer));
    let owner = rig.agent.owner(other.ue, other.local).expect("its SA");
    assert_eq!(
        (owner.set, owner.state),
        (challenged.0, SetState::Registration)
    );
}

#[test]
fn the_user_of_the_sa_is_the_user_of_the_message() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    let foreign = rig.over(&phone("a"), phone("b").anew(2).sm1());
    assert_eq!(rig.send(&foreign), Err(Refusal::ForeignUser));
    // Without credentials To counts.
    let mut own = rig.over(&phone("a"), phone("a").anew(2).sm1());
    own.credentials = None;
    rig.attempt(&own);
    own.to = NameAddr::parse("<sip:b@h>").expect("an address");
    assert_eq!(rig.send(&own), Err(Refusal::ForeignUser));
    assert_eq!(rig.state(set), Some(SetState::Established));
}

#[test]
fn via_is_the_source_of_a_protected_register() {
    let mut rig = Rig::new();
    rig.establish(&phone("a"));
    let mut other = rig.over(&phone("a"), phone("a").anew(1).sm1());
    other.via = vec![[192, 0, 2, 77].into()];
    assert_eq!(rig.send(&other), Err(Refusal::ViaMismatch));
    other.via = Vec::new();
    assert_eq!(rig.send(&other), Err(Refusal::ViaName));
    // A name with several addresses: one of them.
    other.via = vec![[192, 0, 2, 77].into(), phone("a").ip];
    rig.attempt(&other);
}
