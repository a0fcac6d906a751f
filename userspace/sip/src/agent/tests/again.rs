//! Re-registration: which set protects what, and what becomes of the old ones
//! (clauses 6.1.5, 7.4.0, 7.4.2a, 7.5).

use super::*;

const LIFE: u64 = HOUR as u64 * 1000 + 30_000;

/// A phone registered in clear and then again over its set.
fn two_sets(rig: &mut Rig) -> (Phone, Phone, SetToken, SetToken) {
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let second = rig.finish(&new, &challenged);
    (old, new, first, second)
}

#[test]
fn client_ports_change_and_server_ports_stay() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    let ends = |set: SetToken| rig.requests[&set].params;
    let (a, b) = (ends(first), ends(second));
    assert_ne!(a.pcscf_ends.port_c, b.pcscf_ends.port_c);
    assert_eq!(a.pcscf_ends.port_s, b.pcscf_ends.port_s);
    assert_ne!(a.ue_ends.port_c, b.ue_ends.port_c);
    assert_eq!(a.ue_ends.port_s, b.ue_ends.port_s);
}

#[test]
fn a_phone_that_moves_its_server_port_is_followed() {
    let mut rig = Rig::new();
    rig.establish(&phone("a"));
    let mut moved = phone("a").anew(1);
    moved.ends.port_s = 32009;
    let challenged = rig.again(&phone("a"), &moved);
    let second = rig.finish(&moved, &challenged);
    rig.agent.heard(second, rig.now);
    let id = rig.agent.set(second).expect("a set").contact;
    let way = rig.agent.way_to(id).expect("registered");
    assert_eq!(way.remote, SocketAddr::new(moved.ip, 32009));
}

#[test]
fn the_old_set_serves_until_the_new_one_is_heard_of() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    assert_eq!(rig.current(second), Some(first));
    assert_eq!(rig.sets.get(&first), Some(&true));
    rig.agent.heard(first, rig.now);
    assert_eq!(rig.current(second), Some(first));
    rig.agent.heard(second, rig.now);
    assert_eq!(rig.current(second), Some(second));
    assert_eq!(rig.state(first), Some(SetState::Replaced));
    rig.pass(32_000);
    assert_eq!(rig.state(first), None);
    rig.agrees();
}

#[test]
fn sm7_again_is_no_sign_that_the_phone_has_sm12() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let second = rig.finish(&new, &challenged);
    let (id, attempt) = rig.attempt(&rig.sm7(&new, &challenged));
    assert!(attempt.kind == Kind::Again && attempt.integrity);
    assert_eq!(rig.current(second), Some(first));
    rig.answered(id, 200, HOUR);
    assert_eq!(rig.current(second), Some(first));
}

#[test]
fn shortly_before_its_end_the_old_set_gives_way_unheard() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    rig.pass(LIFE - 10_001);
    assert_eq!(rig.current(second), Some(first));
    rig.pass(1);
    assert_eq!(rig.current(second), Some(second));
    rig.drain();
    let switched = FlowEvent::SwitchedOver {
        from: first,
        to: second,
    };
    assert!(rig.events.contains(&switched), "{:?}", rig.events);
}

#[test]
fn a_pending_transaction_keeps_the_old_set() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    assert!(rig.agent.hold(first));
    assert!(rig.agent.hold(first));
    rig.agent.heard(second, rig.now);
    rig.pass(180_000);
    assert_eq!(rig.state(first), Some(SetState::Replaced));
    assert_eq!(rig.sets.get(&first), Some(&true), "answers still leave");
    rig.agent.let_go(first, rig.now);
    rig.pass(1_000);
    assert!(rig.state(first).is_some(), "one is still pending");
    rig.agent.let_go(first, rig.now);
    rig.pass(0);
    assert_eq!(rig.state(first), None);
    rig.agrees();
}

#[test]
fn a_pending_transaction_does_not_prolong_a_life() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    assert!(rig.agent.hold(first));
    rig.agent.heard(second, rig.now);
    rig.pass(LIFE);
    assert_eq!(rig.state(first), None);
}

#[test]
fn what_begins_on_a_replaced_set_does_not_keep_it() {
    let mut rig = Rig::new();
    let (_, _, first, second) = two_sets(&mut rig);
    rig.agent.heard(second, rig.now);
    rig.pass(31_000);
    assert!(!rig.agent.hold(first));
    rig.pass(1_000);
    assert_eq!(rig.state(first), None);
    assert!(!rig.agent.hold(first), "gone");
}

#[test]
fn a_third_set_ends_all_but_the_one_that_protected_sm1() {
    let mut rig = Rig::new();
    let (_, new, first, second) = two_sets(&mut rig);
    assert!(rig.agent.hold(first));
    rig.agent.heard(second, rig.now);
    let third = phone("a").anew(2);
    let challenged = rig.again(&new, &third);
    assert_eq!(rig.sets.len(), 3, "six SAs a direction");
    let third = rig.finish(&third, &challenged);
    assert_eq!(rig.state(first), None);
    assert_eq!(rig.current(third), Some(second));
    rig.agrees();
}

#[test]
fn the_longest_life_of_the_old_sets_is_kept() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let (id, _) = rig.attempt(&rig.sm7(&new, &challenged));
    rig.answered(id, 200, 60);
    let life = |set: SetToken| rig.agent.set(set).map(|s| s.life);
    assert_eq!(life(challenged.0), life(first));
    // In clear too.
    let (id, _) = rig.attempt(&phone("a").anew(2).sm1());
    let challenged = rig.challenge(id);
    let (id, _) = rig.attempt(&rig.sm7(&phone("a").anew(2), &challenged));
    rig.answered(id, 200, 60);
    let set = rig.agent.set(challenged.0).expect("a set");
    assert_eq!(set.life, 1_000 + LIFE);
}

#[test]
fn a_refresh_prolongs_and_never_shortens() {
    let mut rig = Rig::new();
    let old = phone("a");
    let set = rig.establish(&old);
    let refresh = rig.over(&old, old.anew(1).sm1());
    let (id, attempt) = rig.attempt(&refresh);
    assert!(attempt.integrity);
    assert_eq!(rig.answered(id, 200, 60).confirmed, None);
    assert_eq!(rig.agent.set(set).map(|s| s.deadline), Some(1_000 + LIFE));
    rig.pass(600_000);
    let (id, _) = rig.attempt(&refresh);
    rig.answered(id, 200, HOUR);
    let deadline = rig.agent.set(set).map(|s| s.deadline);
    assert_eq!(deadline, Some(rig.now + LIFE));
    let refreshed = FlowEvent::Refreshed { set, expires: HOUR };
    assert!(rig.events.contains(&refreshed));
    // Its offer was thrown away: the ports are free.
    rig.again(&old, &old.anew(1));
}

#[test]
fn an_offer_that_is_the_sets_own_opens_no_procedure() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    let (id, attempt) = rig.attempt(&rig.over(&phone("a"), phone("a").sm1()));
    assert!(attempt.integrity);
    assert_eq!(rig.try_challenge(id), Err(Refusal::NoSecurityClient));
    assert_eq!(rig.state(set), Some(SetState::Established));
}

#[test]
fn integrity_is_for_the_latest_set_and_for_its_own_answer() {
    let mut rig = Rig::new();
    let (old, new, ..) = two_sets(&mut rig);
    let integrity = |rig: &mut Rig, phone: &Phone, answer: &str, n| {
        let register = rig.over(phone, phone.anew(n).register(answer));
        rig.attempt(&register).1.integrity
    };
    let none = "nonce=\"\",response=\"\"";
    assert!(!integrity(&mut rig, &old, none, 5), "an older set");
    assert!(integrity(&mut rig, &new, none, 6));
    let foreign = "nonce=\"b3RoZXI=\",response=\"01\"";
    assert!(!integrity(&mut rig, &new, foreign, 7), "another challenge");
}

#[test]
fn sm7_belongs_on_the_new_set() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let wrong = rig.over(&old, rig.sm7(&new, &challenged));
    assert_eq!(rig.send(&wrong), Err(Refusal::WrongSa));
    rig.finish(&new, &challenged);
}

#[test]
fn a_replaced_set_opens_no_procedure() {
    let mut rig = Rig::new();
    let (old, _, first, second) = two_sets(&mut rig);
    rig.agent.heard(second, rig.now);
    assert_eq!(rig.state(first), Some(SetState::Replaced));
    let late = rig.over(&old, phone("a").anew(5).sm1());
    assert_eq!(rig.send(&late), Err(Refusal::WrongSa));
}

#[test]
fn an_unprotected_register_of_a_registered_phone_removes_what_it_has_lost() {
    let mut rig = Rig::new();
    let first = rig.establish(&phone("a"));
    let rebooted = phone("a").anew(7);
    let (id, attempt) = rig.attempt(&rebooted.sm1());
    assert!(!attempt.integrity);
    let challenged = rig.challenge(id);
    assert_eq!(rig.current(first), Some(first), "in use until SM12");
    let second = rig.finish(&rebooted, &challenged);
    assert_eq!(
        (rig.state(first), rig.current(second)),
        (None, Some(second))
    );
    rig.agrees();
}

#[test]
fn another_address_keeps_the_old_sets_until_sm12() {
    let mut rig = Rig::new();
    let first = rig.establish(&phone("a"));
    let moved = phone("a").at(9);
    let (id, _) = rig.attempt(&moved.sm1());
    let challenged = rig.challenge(id);
    assert_eq!(rig.current(first), Some(first));
    let second = rig.finish(&moved, &challenged);
    assert_eq!(rig.state(first), None);
    let owner = rig.agent.owner(SocketAddr::new(moved.ip, 31000), server());
    assert_eq!(owner.expect("its SA").set, second);
}

#[test]
fn a_stranger_in_clear_does_not_end_what_began_over_an_sa() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let victim = rig.again(&old, &new);
    // Somebody else names the same user, again and again.
    for n in 10..13 {
        let (id, _) = rig.attempt(&phone("a").at(66).anew(n).sm1());
        rig.challenge(id);
        assert_eq!(rig.state(victim.0), Some(SetState::Registration));
        assert_eq!(rig.sets.len(), 3, "one of the stranger's at a time");
    }
    rig.finish(&new, &victim);
    assert_eq!(rig.sets.len(), 2, "what is unproven goes");
    rig.agrees();
}

#[test]
fn a_phone_that_answers_in_clear_ends_what_it_began_over_its_sa() {
    let mut rig = Rig::new();
    let (old, new, rebooted) = (phone("a"), phone("a").anew(1), phone("a").anew(2));
    rig.establish(&old);
    let forgotten = rig.again(&old, &new);
    let (id, _) = rig.attempt(&rebooted.sm1());
    let challenged = rig.challenge(id);
    let (id, _) = rig.attempt(&rig.sm7(&rebooted, &challenged));
    assert_eq!(rig.state(forgotten.0), None, "SM7 is proof");
    rig.answered(id, 200, HOUR);
    assert_eq!(rig.sets.len(), 1);
}

#[test]
fn the_same_ports_in_clear_are_the_same_phone() {
    let mut rig = Rig::new();
    rig.establish(&phone("a"));
    let new = phone("a").anew(1);
    let over_sa = rig.again(&phone("a"), &new);
    let (id, _) = rig.attempt(&new.sm1());
    let in_clear = rig.challenge(id);
    assert_eq!(rig.state(over_sa.0), None);
    rig.finish(&new, &in_clear);
}
