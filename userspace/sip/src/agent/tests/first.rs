//! SM1 in clear and the set-up of SAs (clauses 7.1, 7.2, 7.3.1.4).

use super::*;
use crate::sec_agree::OfferError;

#[test]
fn a_registration_in_clear_makes_one_set_with_the_lifetime_of_the_registration() {
    let mut rig = Rig::new();
    let (id, attempt) = rig.attempt(&phone("a").sm1());
    assert!(!attempt.integrity && attempt.kind == Kind::First && attempt.over.is_none());
    let challenged = rig.challenge(id);
    // Live both ways, for SM7 may come over TCP; with a time-out of its own.
    assert_eq!(rig.sets.get(&challenged.0), Some(&true));
    assert_eq!(
        rig.current(challenged.0),
        None,
        "for nothing but SM7 and its answer"
    );
    let set = rig.agent.set(challenged.0).expect("a set");
    assert_eq!(set.deadline, rig.now + 240_000);
    let set = rig.finish(&phone("a"), &challenged);
    assert_eq!(rig.sets.get(&set), Some(&true));
    let life = rig.agent.set(set).expect("a set").deadline;
    assert_eq!(life, rig.now + u64::from(HOUR) * 1000 + 30_000);
    assert_eq!(rig.current(set), Some(set));
    rig.pass(u64::from(HOUR) * 1000 + 29_999);
    assert!(rig.state(set).is_some());
    rig.pass(1);
    assert!(rig.agent.table().is_empty() && rig.sets.is_empty());
    assert!(rig.agent.next_timeout().is_none(), "nothing is left to do");
}

#[test]
fn addresses_and_ports_of_the_four_sas_are_those_of_the_agreement() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    let p = rig.requests[&set].params;
    assert_eq!((p.ue, p.pcscf), (phone("a").ip, clear().ip()));
    assert_eq!(p.ue_ends, phone("a").ends);
    assert_eq!((p.pcscf_ends.port_s, p.pcscf_ends.port_c), (5063, 5064));
    let theirs = [p.ue_ends.spi_c, p.ue_ends.spi_s];
    assert!(!theirs.contains(&p.pcscf_ends.spi_c) && !theirs.contains(&p.pcscf_ends.spi_s));
}

#[test]
fn our_spis_are_never_those_of_the_phone() {
    let mut rig = Rig::new();
    let mut odd = phone("a");
    odd.ends.spi_c = 1_000_000_001;
    let set = rig.establish(&odd);
    let ends = rig.requests[&set].params.pcscf_ends;
    assert_eq!((ends.spi_c, ends.spi_s), (1_000_000_002, 1_000_000_003));
}

#[test]
fn an_unfinished_registration_is_forgotten_with_its_set() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let (set, ..) = rig.challenge(id);
    rig.pass(239_999);
    assert_eq!(rig.state(set), Some(SetState::Registration));
    rig.pass(1);
    assert!(rig.agent.table().is_empty() && rig.agent.attempt(id).is_none());
    let why = RemoveReason::Unfinished;
    assert!(rig.events.contains(&FlowEvent::Removed { set, why }));
    assert_eq!(rig.agent.strangers.unchallenged(), 0);
    assert!(rig.agent.held.is_empty());
}

#[test]
fn a_new_challenge_ends_the_earlier_attempt_with_all_it_left() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let first = rig.challenge(id);
    let (id, _) = rig.attempt(&phone("a").anew(1).sm1());
    let second = rig.challenge(id);
    assert!(rig.state(first.0).is_none() && !rig.sets.contains_key(&first.0));
    // SM7 of the first finds no SA.
    let late = rig.sm7(&phone("a"), &first);
    assert_eq!(rig.send(&late), Err(Refusal::NoSa));
    rig.finish(&phone("a").anew(1), &second);
    rig.agrees();
}

#[test]
fn a_second_challenge_of_one_sm1_counts_one_stranger() {
    let mut config = AgentConfig::default();
    config.limits.pending_per_source = 1;
    let mut rig = Rig::with(config);
    let (id, _) = rig.attempt(&phone("a").sm1());
    let first = rig.challenge(id);
    let second = rig.challenge(id);
    assert!(rig.state(first.0).is_none() && rig.state(second.0).is_some());
    assert_eq!(rig.send(&phone("b").anew(1).sm1()), Err(Refusal::Collision));
    let mut other = phone("b").anew(1);
    other.ends.port_s = 32001;
    assert_eq!(rig.send(&other.sm1()), Err(Refusal::Overload));
    rig.finish(&phone("a"), &second);
    rig.attempt(&other.sm1());
}

#[test]
fn the_same_challenge_again_installs_nothing() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let (set, nonce, server) = rig.challenge(id);
    let keys = (Ik::from_bytes([1; 16]), Ck::from_bytes([2; 16]));
    let again = rig.agent.challenge(rig.now, id, &nonce, keys.0, keys.1);
    let again = again.expect("the same");
    assert!(again.repeated && again.set == set);
    assert!(SecList::parse(&server).same(&SecList::parse(&again.security_server)));
    assert!(rig.drain().is_empty());
}

#[test]
fn what_the_data_plane_refuses_is_taken_back() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let keys = (Ik::from_bytes([1; 16]), Ck::from_bytes([2; 16]));
    let nonce = crate::aka::nonce(&[9; 16], &[2; 16]);
    let done = rig.agent.challenge(rig.now, id, &nonce, keys.0, keys.1);
    let set = done.expect("asked for").set;
    assert!(!rig.agent.is_installed(set));
    assert!(!rig.agent.installed(set, false));
    rig.drain();
    assert!(rig.agent.table().is_empty());
    assert!(!rig.agent.installed(set, true), "too late");
}

#[test]
fn success_without_a_challenge_registers_nobody() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let granted = Granted::default();
    let done = rig.agent.answered(rig.now, id, 200, granted);
    assert_eq!(done, Err(Refusal::Unchallenged));
    assert!(rig.agent.table().is_empty());
    // A failure goes back in clear.
    let answered = rig.answered(id, 403, 0);
    assert_eq!((answered.over, answered.confirmed), (None, None));
}

#[test]
fn without_an_offer_or_with_a_bad_one_nothing_is_begun() {
    let mut rig = Rig::new();
    let mut none = phone("a").sm1();
    none.client = None;
    assert_eq!(rig.send(&none), Err(Refusal::NoSecurityClient));
    let mut port = phone("a");
    port.ends.port_c = 5060;
    let why = Refusal::Offer(OfferError::Port);
    assert_eq!(rig.send(&port.sm1()), Err(why));
    assert!(rig.agent.next_timeout().is_none());
}

#[test]
fn an_answer_in_clear_is_not_let_through() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let challenged = rig.challenge(id);
    let mut sm7 = rig.sm7(&phone("a"), &challenged);
    (sm7.ue, sm7.local) = (phone("a").sm1().ue, clear());
    assert_eq!(rig.send(&sm7), Err(Refusal::WrongSa));
    // An old answer, to nothing that is pending, is a first REGISTER.
    let old = phone("a")
        .anew(1)
        .register("nonce=\"b2xk\",response=\"01\"");
    assert!(!rig.attempt(&old).1.integrity);
}

#[test]
fn aborted_by_the_caller() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let (set, ..) = rig.challenge(id);
    rig.agent.abort(id);
    rig.drain();
    assert!(rig.state(set).is_none() && rig.agent.attempt(id).is_none());
    // An established set does not go with a refresh that nobody answers.
    let set = rig.establish(&phone("a"));
    let refresh = rig.over(&phone("a"), phone("a").sm1());
    let (id, _) = rig.attempt(&refresh);
    rig.agent.abort(id);
    assert_eq!(rig.state(set), Some(SetState::Established));
}

#[test]
fn attempts_are_forgotten_and_bounded() {
    let mut config = AgentConfig::default();
    config.limits.transactions = 4;
    let mut rig = Rig::with(config);
    rig.establish(&phone("r").at(9));
    rig.pass(32_000);
    let (id, _) = rig.attempt(&phone("a").sm1());
    rig.attempt(&phone("b").at(2).sm1());
    assert_eq!(rig.send(&phone("c").at(3).sm1()), Err(Refusal::Overload));
    // The other half is for who is registered.
    let registered = phone("r").at(9);
    rig.attempt(&rig.over(&registered, registered.anew(1).sm1()));
    rig.pass(32_000);
    assert!(rig.agent.attempt(id).is_none());
    rig.attempt(&phone("c").at(3).sm1());
}

#[test]
fn attempts_that_end_each_other_count_for_their_stranger() {
    let mut config = AgentConfig::default();
    config.limits.pending_per_source = 3;
    let mut rig = Rig::with(config);
    for n in 0..3 {
        let (id, _) = rig.attempt(&phone("a").anew(n).sm1());
        rig.challenge(id);
    }
    assert_eq!(rig.sets.len(), 1);
    assert_eq!(rig.send(&phone("a").anew(9).sm1()), Err(Refusal::Overload));
    rig.attempt(&phone("b").at(2).sm1());
    // Their time is over; the last one has a set for a while.
    rig.pass(32_000);
    for n in 10..12 {
        rig.attempt(&phone("a").anew(n).sm1());
    }
    assert_eq!(rig.send(&phone("a").anew(19).sm1()), Err(Refusal::Overload));
    rig.pass(300_000);
    assert_eq!(rig.agent.strangers.unchallenged(), 0);
    rig.establish(&phone("a").anew(20));
}
