//! Several contacts of one user, their end, and what there may be of each (clauses 6.1.0,
//! 7.1 rule 3, 7.4.2a).

use super::*;

fn limited(change: impl FnOnce(&mut Limits)) -> Rig {
    let mut config = AgentConfig::default();
    change(&mut config.limits);
    Rig::with(config)
}

/// Registers what the phone asks for, over its set.
fn leave(rig: &mut Rig, phone: &Phone, change: impl FnOnce(&mut Register)) -> Answered {
    let mut register = rig.over(phone, phone.sm1());
    register.expires = Some(0);
    change(&mut register);
    let (id, attempt) = rig.attempt(&register);
    assert!(attempt.leaves);
    rig.answered(id, 200, 0)
}

#[test]
fn contacts_of_one_user_have_sets_of_their_own() {
    let mut rig = Rig::new();
    let plain = phone("a");
    let flow = plain.anew(1).contact(";+sip.instance=\"<urn:x>\";reg-id=1");
    let other_flow = plain.anew(2).contact(";+sip.instance=\"<urn:x>\";reg-id=2");
    let second_phone = plain.anew(3).at(8).contact(";+sip.instance=\"<urn:y>\"");
    let all = [&plain, &flow, &other_flow, &second_phone];
    let sets = all.map(|phone| rig.establish(phone));
    assert_eq!(rig.agent.table().len(), (4, 4));
    assert_eq!(rig.agent.table().contacts_of("a@h").len(), 4);
    for set in sets {
        assert_eq!(rig.current(set), Some(set));
    }
    // Each one renews its own.
    let challenged = rig.again(&flow, &flow.anew(9));
    let new = rig.finish(&flow.anew(9), &challenged);
    assert_eq!(rig.current(new), Some(sets[1]));
    assert_eq!(rig.current(sets[2]), Some(sets[2]));
}

#[test]
fn an_emergency_registration_stands_apart() {
    let mut rig = Rig::new();
    let normal = rig.establish(&phone("a"));
    let mut sos = phone("a").anew(1).sm1();
    let contact = format!("<sip:a@{}:32000;sos>", phone("a").ip);
    sos.contact = NameAddr::parse(&contact);
    let (id, _) = rig.attempt(&sos);
    let (set, ..) = rig.challenge(id);
    let contact = |set: SetToken| rig.agent.set(set).map(|s| s.contact);
    assert_ne!(contact(normal), contact(set));
    assert_eq!(rig.state(normal), Some(SetState::Established));
}

#[test]
fn the_newest_set_at_an_address_answers_for_it() {
    let mut rig = Rig::new();
    // After a reset the phone has another instance, and the same server port.
    rig.establish(&phone("a").contact(";+sip.instance=\"<urn:old>\""));
    let anew = phone("a").anew(1).contact(";+sip.instance=\"<urn:new>\"");
    let set = rig.establish(&anew);
    let at = SocketAddr::new(anew.ip, anew.ends.port_s);
    let id = rig.agent.table().by_server_port(at).expect("registered");
    assert_eq!(rig.agent.way_to(id).map(|way| way.set), Some(set));
}

#[test]
fn the_200_to_a_deregistration_leaves_through_the_set() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    let answered = leave(&mut rig, &phone("a"), |_| {});
    assert_eq!((answered.over, answered.confirmed), (Some(set), None));
    assert_eq!(rig.state(set), Some(SetState::Lingering));
    assert_eq!(rig.sets.get(&set), Some(&true), "outbound is still live");
    assert_eq!(rig.current(set), None, "nothing else goes there");
    // No new procedure over it.
    let late = rig.over(&phone("a"), phone("a").anew(1).sm1());
    assert_eq!(rig.send(&late), Err(Refusal::WrongSa));
    rig.pass(3_999);
    assert!(rig.state(set).is_some());
    rig.pass(1);
    assert!(rig.agent.table().is_empty() && rig.sets.is_empty());
}

#[test]
fn after_a_deregistration_the_phone_registers_with_the_same_ports() {
    let mut rig = Rig::new();
    let first = rig.establish(&phone("a"));
    leave(&mut rig, &phone("a"), |_| {});
    let second = rig.establish(&phone("a"));
    assert_eq!(
        (rig.state(first), rig.current(second)),
        (None, Some(second))
    );
    rig.pass(10_000);
    assert_eq!(rig.state(second), Some(SetState::Established));
}

#[test]
fn a_challenged_deregistration_ends_old_and_new_sets() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let mut register = rig.over(&old, new.sm1());
    register.expires = Some(0);
    let (id, _) = rig.attempt(&register);
    let challenged = rig.challenge(id);
    let mut sm7 = rig.sm7(&new, &challenged);
    sm7.expires = Some(0);
    let (id, _) = rig.attempt(&sm7);
    assert_eq!(rig.answered(id, 200, 0).over, Some(challenged.0));
    rig.pass(4_000);
    assert!(rig.sets.is_empty());
}

#[test]
fn the_sets_stay_while_one_identity_is_registered() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    let second = |r: &mut Register| r.to = NameAddr::parse("<tel:+1555>").expect("an address");
    let mut more = rig.over(&phone("a"), phone("a").sm1());
    second(&mut more);
    let (id, _) = rig.attempt(&more);
    rig.answered(id, 200, HOUR);
    leave(&mut rig, &phone("a"), |_| {});
    assert_eq!(rig.state(set), Some(SetState::Established));
    leave(&mut rig, &phone("a"), second);
    assert_eq!(rig.state(set), Some(SetState::Lingering));
}

#[test]
fn one_of_an_implicit_registration_ends_all_of_it() {
    let mut rig = Rig::new();
    let (id, _) = rig.attempt(&phone("a").sm1());
    let challenged = rig.challenge(id);
    let (id, _) = rig.attempt(&rig.sm7(&phone("a"), &challenged));
    let granted = Granted {
        expires: HOUR,
        identities: vec!["sip:a@h".into(), "tel:+1555".into()],
    };
    let done = rig.agent.answered(rig.now, id, 200, granted);
    assert!(done.is_ok());
    rig.drain();
    let id = rig.agent.set(challenged.0).expect("a set").contact;
    let contact = rig.agent.table().contact(id).expect("a contact");
    assert!(contact.owns("tel:+1555") && contact.owns("sip:a@h") && !contact.owns("tel:+1556"));
    assert_eq!(contact.impus, ["sip:a@h".into(), "tel:+1555".into()]);
    leave(&mut rig, &phone("a"), |r| {
        r.to = NameAddr::parse("<tel:+1555>").expect("an address");
    });
    assert_eq!(rig.state(challenged.0), Some(SetState::Lingering));
}

#[test]
fn a_star_ends_all_contacts_of_the_user_and_nobody_elses() {
    let mut rig = Rig::new();
    let plain = phone("a");
    let flow = plain.anew(1).contact(";+sip.instance=\"<urn:x>\";reg-id=1");
    let other = phone("b").at(7);
    let sets = [&plain, &flow, &other].map(|phone| rig.establish(phone));
    leave(&mut rig, &plain, |r| {
        r.everywhere = true;
        r.contact = None;
    });
    let states = sets.map(|set| rig.state(set));
    let gone = Some(SetState::Lingering);
    assert_eq!(states, [gone, gone, Some(SetState::Established)]);
    let events = rig.events.iter();
    let left = events.filter(|e| matches!(e, FlowEvent::Deregistered { .. }));
    assert_eq!(left.count(), 2);
}

#[test]
fn the_network_ends_a_registration() {
    let mut rig = Rig::new();
    let set = rig.establish(&phone("a"));
    assert_eq!(rig.agent.deregister("nobody@h", rig.now), 0);
    assert_eq!(rig.agent.deregister("a@h", rig.now), 1);
    rig.drain();
    assert_eq!(rig.state(set), Some(SetState::Lingering));
    rig.pass(4_000);
    assert!(rig.agent.table().is_empty());
}

#[test]
fn six_sas_a_direction_and_no_more() {
    let mut rig = limited(|limits| limits.sets_per_contact = 2);
    let (old, new) = (phone("a"), phone("a").anew(1));
    let first = rig.establish(&old);
    let challenged = rig.again(&old, &new);
    let second = rig.finish(&new, &challenged);
    // Two are there: one more has no room, and those that are there stay.
    let third = rig.over(&new, phone("a").anew(2).sm1());
    let why = Refusal::TooManySets;
    assert_eq!(rig.send(&third), Err(why));
    assert_eq!(rig.send(&phone("a").anew(3).sm1()), Err(why));
    assert_eq!(why.status(), Some((503, "Service Unavailable")));
    let state = [first, second].map(|set| rig.state(set));
    assert_eq!(state, [Some(SetState::Established); 2]);
    rig.agent.heard(second, rig.now);
    rig.pass(32_000);
    rig.attempt(&rig.over(&new, phone("a").anew(2).sm1()));
}

#[test]
fn by_default_three_sets_are_the_most_whatever_comes() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let challenged = rig.again(&old, &new);
    rig.finish(&new, &challenged);
    for n in 2..9 {
        let sm1 = phone("a").anew(n).sm1();
        let (id, _) = match n % 2 {
            0 => rig.attempt(&sm1),
            _ => rig.attempt(&rig.over(&new, sm1)),
        };
        rig.challenge(id);
        assert!(rig.sets.len() <= 3, "{n}: {:?}", rig.sets);
        rig.agrees();
    }
}

#[test]
fn one_user_has_not_any_number_of_contacts() {
    let mut rig = limited(|limits| limits.contacts_per_user = 2);
    let one = |n: u16| {
        let params = format!(";+sip.instance=\"<urn:{n}>\"");
        phone("a").anew(n).contact(&params)
    };
    // Those that only ask do not count: anybody can.
    for n in 10..14 {
        let (id, _) = rig.attempt(&one(n).sm1());
        rig.challenge(id);
    }
    rig.establish(&one(1));
    rig.establish(&one(2));
    assert_eq!(rig.send(&one(3).sm1()), Err(Refusal::TooManyContacts));
    // Who is registered goes on, others too.
    rig.again(&one(1), &one(1).anew(20));
    rig.attempt(&phone("b").at(5).sm1());
}

#[test]
fn without_a_free_client_port_there_is_503_and_no_collision() {
    let config = AgentConfig {
        client_ports: 5064..=5066,
        ..AgentConfig::default()
    };
    let mut rig = Rig::with(config);
    let one = |n: u16| {
        let params = format!(";+sip.instance=\"<urn:{n}>\"");
        phone("a").anew(n).contact(&params)
    };
    let sets = [1, 2, 3].map(|n| rig.establish(&one(n)));
    let (id, _) = rig.attempt(&one(4).sm1());
    let why = Refusal::NoClientPort;
    assert_eq!(rig.try_challenge(id), Err(why));
    assert_eq!(why.status(), Some((503, "Service Unavailable")));
    assert!(why.explain().contains("edge.port_pc"));
    for set in sets {
        assert_eq!(rig.state(set), Some(SetState::Established));
    }
}

#[test]
fn three_client_ports_are_enough_for_one_phone() {
    let config = AgentConfig {
        client_ports: 5064..=5066,
        ..AgentConfig::default()
    };
    let mut rig = Rig::with(config);
    let (old, new) = (phone("a"), phone("a").anew(1));
    rig.establish(&old);
    let challenged = rig.again(&old, &new);
    rig.finish(&new, &challenged);
    // Two sets stay; attempts come and go.
    for n in 2..6 {
        let again = rig.again(&new, &phone("a").anew(n));
        assert_eq!(rig.sets.len(), 3);
        let ports = rig
            .sets
            .keys()
            .map(|set| rig.requests[set].params.pcscf_ends.port_c);
        let ports: std::collections::BTreeSet<_> = ports.collect();
        assert_eq!(ports.len(), 3, "each set has its own");
        assert_eq!(rig.state(again.0), Some(SetState::Registration));
    }
    rig.agrees();
}
