//! The phone: what leaves over which SA, and what it takes from where (clauses 7.1, 7.2, 7.4.1a).

use gm_sip::message::Message;
use gm_sip::sec_agree::{SECURITY_CLIENT, SecList};
use gm_sip::ue::{Ignored, UeConfig, UeEvent, UeFailure};
use rstest::rstest;

use crate::world::*;

#[test]
fn the_first_offer_has_encryption_algorithms() {
    let mut world = World::new();
    world.register();
    let sm1 = Message::parse(&world.sent(true, "REGISTER")[0].packet.bytes).expect("SIP");
    let offer = SecList::from_message(&sm1, SECURITY_CLIENT).expect("an offer");
    let all = offer.proposals().expect("usable");
    assert!(all.iter().any(|p| p.suite.ealg() == "aes-cbc"));
    assert!(all.iter().any(|p| p.suite.ealg() == "aes-gcm"));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_second_sm1_and_its_challenge_travel_over_the_old_set(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.authenticate_again();
    let registers = world.sent(true, "REGISTER");
    let over: Vec<_> = registers.iter().map(|s| s.over).collect();
    // Clear SM1, SM7 over the first set, SM1 over it, SM7 over the second.
    assert_eq!(over[0], None);
    assert_eq!(over[1], over[2]);
    assert!(over[3].is_some() && over[3] != over[2]);
    assert_eq!(registers[2].ports(), (world.port_uc(0), 5063));
    assert_eq!(registers[3].ports(), (world.port_uc(1), 5063));
    let challenges = world.sent(false, "SIP/2.0 401");
    assert_eq!(challenges[0].over, None);
    assert_eq!(challenges[1].ports(), (world.port_pc(0), 31800));
    let yes = world.sent(false, "SIP/2.0 200");
    assert_eq!(yes.last().map(Sent::ports), Some((world.port_pc(1), 31800)));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_challenge_in_clear_is_no_answer_to_a_protected_register(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.home.registrar().always_challenge = true;
    world.down = lose_all();
    world.register();
    let challenge = world.last(false, "SIP/2.0 401");
    assert!(challenge.over.is_some());
    let local = world.phones[0].local;
    world.ue_hears(addr(EDGE), (local, 5060).into(), &challenge.packet.bytes);
    let ignored = UeEvent::Ignored {
        why: Ignored::WrongSa,
    };
    assert_eq!(world.phones[0].events.last(), Some(&ignored));
    assert_eq!(world.sent(true, "REGISTER").len(), 3, "no SM7");
    // Through the old set it is one.
    let (from, to) = world.flow_down(0);
    world.ue_hears(from, to, &challenge.packet.bytes);
    assert_eq!(world.sent(true, "REGISTER").len(), 4);
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_success_that_came_another_way_than_over_the_new_set_is_none(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.home.registrar().always_challenge = true;
    world.down = lose_first("SIP/2.0 200");
    world.register();
    let sm12 = world.last(false, "SIP/2.0 200");
    assert_eq!(sm12.ports().0, world.port_pc(1));
    let local = world.phones[0].local;
    let (old, old_here) = world.flow_down(0);
    for (from, to) in [(addr(EDGE), (local, 5060).into()), (old, old_here)] {
        world.ue_hears(from, to, &sm12.packet.bytes);
        let ignored = UeEvent::Ignored {
            why: Ignored::WrongSa,
        };
        assert_eq!(world.phones[0].events.last(), Some(&ignored), "{from}");
    }
    let registered = |w: &World| {
        let yes = |e: &&UeEvent| matches!(e, UeEvent::Registered { .. });
        w.phones[0].events.iter().filter(yes).count()
    };
    assert_eq!(registered(&world), 1);
    let (new, here) = world.flow_down(1);
    world.ue_hears(new, here, &sm12.packet.bytes);
    assert_eq!(registered(&world), 2);
}

/// SM12 is lost once: until it comes again everything but SM7 uses the old set.
#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn while_sm12_is_awaited_other_messages_use_the_old_set(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.home.registrar().always_challenge = true;
    // SM7 itself is lost, so that both ends wait.
    let mut registers = 0;
    world.up = Box::new(move |text| {
        registers += usize::from(text.starts_with("REGISTER"));
        (registers != 2 || !text.starts_with("REGISTER")).then_some(text)
    });
    world.register();
    assert_eq!(world.sets(), (2, 2));
    let old = world.sent(true, "REGISTER")[2].over;
    world.message();
    assert_eq!(world.last(true, "MESSAGE").over, old);
    assert_eq!(world.last(true, "MESSAGE").ports().0, world.port_uc(0));
    // Its answer, and the echo of the network, came over the old set; so did our answer to that.
    assert_eq!(world.answers(), [200]);
    assert_eq!(world.last(false, "SIP/2.0 200").ports().0, world.port_pc(0));
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(0));
    assert_eq!(world.last(true, "SIP/2.0 200").over, old);
    assert_eq!(world.requests(), 1);
    // A request over the new set is not taken yet.
    let request = world.last(false, "MESSAGE").text();
    let (from, to) = world.flow_down(1);
    world.ue_hears(from, to, another(&request, "x").as_bytes());
    assert_eq!(world.requests(), 1);
    let ignored = UeEvent::Ignored {
        why: Ignored::WrongSa,
    };
    assert_eq!(world.phones[0].events.last(), Some(&ignored));
    // SM7 comes again, and the registration is completed.
    world.pass(1_000);
    world.message();
    assert_eq!(world.last(true, "MESSAGE").ports().0, world.port_uc(1));
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(1));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn before_the_first_sm12_there_is_no_service(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.down = Box::new(|text| (!text.starts_with("SIP/2.0 200")).then_some(text));
    world.register();
    assert_eq!(world.sets(), (1, 1));
    let now = world.now;
    let sent = world.phones[0].ue.send(now, "MESSAGE", "sip:x@h", "", b"");
    assert_eq!(sent, Err(UeFailure::NotRegistered));
    assert!(world.sent(true, "MESSAGE").is_empty());
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn clear_messages_that_belong_to_nothing_are_not_taken(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    let local = (world.phones[0].local, 5060).into();
    let sent = world.log.len();
    // A request, an answer to the first REGISTER, which is over, and one to nothing.
    let register = world.sent(true, "REGISTER")[0].text();
    for text in [
        "MESSAGE sip:user0@10.0.0.2:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:user0@home.example>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n\r\n".to_owned(),
        String::from_utf8(response(&register, 200, "OK").to_bytes()).expect("text"),
        String::from_utf8(response(&another(&register, "q"), 503, "No").to_bytes()).expect("text"),
    ] {
        world.ue_hears(addr(EDGE), local, text.as_bytes());
        let last = world.phones[0].events.last();
        assert!(matches!(last, Some(UeEvent::Ignored { .. })), "{text}: {last:?}");
    }
    assert_eq!(world.log.len(), sent, "nothing is answered");
    assert!(world.phones[0].ue.is_registered());
}

#[test]
fn answers_and_errors_about_clear_registers_are_taken_in_clear() {
    let mut world = World::new();
    world.core_down = Box::new(|text| Some(text.replacen("401 Unauthorized", "503 Later", 1)));
    world.register();
    assert_eq!(world.failure(), Some(UeFailure::Status(503)));
    world.core_down = pass_all();
    world.register();
    assert!(world.phones[0].ue.is_registered());
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn no_answer_over_the_sas_sends_the_next_register_in_clear(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    // The edge has restarted: nothing of it is left.
    world.up = lose_all();
    world.register();
    assert!(world.last(true, "REGISTER").over.is_some());
    world.pass(40_000);
    assert_eq!(world.failure(), Some(UeFailure::Timeout));
    world.up = pass_all();
    if !world.phones[0].ue.is_registered() {
        world.register();
    }
    assert_eq!(
        world
            .sent(true, "REGISTER")
            .iter()
            .rev()
            .nth(1)
            .and_then(|s| s.over),
        None
    );
    assert!(world.phones[0].ue.is_registered());
}

/// Few ports: each new offer has one that no set uses, drawn at random.
#[test]
fn a_port_in_use_is_never_offered_again() {
    let config = UeConfig {
        client_ports: 31_100..=31_107,
        ..ue_config(0)
    };
    let mut world = World::with(config, edge_config());
    world.register();
    world.home.registrar().always_challenge = true;
    let mut seen = Vec::new();
    for _ in 0..40 {
        let sets = &world.phones[0].sas.0;
        let used: Vec<_> = sets.iter().map(|(s, _)| s.params.ue_ends.port_c).collect();
        world.register();
        let installed = world.installs.last().expect("an Install").params.ue_ends;
        assert!(!used.contains(&installed.port_c), "{used:?}");
        assert_eq!(installed.port_s, 31800);
        seen.push(installed.port_c);
        world.message();
        world.pass(40_000);
    }
    // In no order that a stranger could foretell.
    let steps = seen.windows(2).map(|w| i32::from(w[1]) - i32::from(w[0]));
    let steps: std::collections::BTreeSet<_> = steps.collect();
    assert!(steps.len() > 3, "{seen:?}");
}
