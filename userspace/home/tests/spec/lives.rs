//! How long SAs live, and which outlive which (clauses 7.4.1a, 7.4.2a, 7.5).

use gm_sip::edge::{FlowEvent, RemoveReason};
use gm_sip::ue::UeConfig;
use rstest::rstest;

use crate::parts::SoftSim;
use crate::world::*;

const HOUR: u64 = 3_600_000;
const MARGIN: u64 = 30_000;

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn sas_end_shortly_after_the_registration_at_both_ends(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.pass(HOUR + MARGIN - 1);
    assert_eq!(world.sets(), (1, 1));
    world.pass(1);
    assert_eq!(world.sets(), (0, 0));
    assert!(!world.phones[0].ue.is_registered());
}

/// The second registration is granted ten minutes: its set lives as long as the first.
#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_new_set_lives_as_long_as_the_old_one_would_have(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.core_down = replaced("expires=3600", "expires=600");
    world.authenticate_again();
    world.message();
    world.pass(600_000 + MARGIN + 40_000);
    assert_eq!(
        world.sets(),
        (1, 1),
        "the new set, and nothing of the old one"
    );
    assert_eq!(world.edge_sas.0[0].0.token, world.installs[1].token);
    world.pass(HOUR - 600_000 - 40_000 - 1);
    assert_eq!(world.sets(), (1, 1));
    world.pass(1);
    assert_eq!(world.sets(), (0, 0));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_new_set_lives_until_after_its_registration_when_that_is_later(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.pass(1_800_000);
    world.authenticate_again();
    world.message();
    world.pass(HOUR + MARGIN - 1);
    assert_eq!(world.sets(), (1, 1));
    world.pass(1);
    assert_eq!(world.sets(), (0, 0));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_refresh_shrinks_no_life_and_prolongs_it_where_needed(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    // Ten minutes more, then an hour more: the end stays, then it moves.
    world.pass(1_800_000);
    world.core_down = replaced("expires=3600", "expires=600");
    world.register();
    world.pass(1_200_000);
    assert_eq!(world.sets(), (1, 1));
    world.core_down = pass_all();
    world.register();
    assert_eq!(world.installs.len(), 1, "nobody was challenged");
    world.pass(HOUR + MARGIN - 1);
    assert_eq!(world.sets(), (1, 1));
    world.pass(1);
    assert_eq!(world.sets(), (0, 0));
}

/// Nothing comes over the new set: the old one goes when its life ends, the new one takes over.
#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn an_old_set_ends_with_its_life_when_the_new_one_is_not_used(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.pass(1_800_000);
    world.authenticate_again();
    assert_eq!(world.sets(), (2, 2));
    world.message_to(0);
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(0));
    world.pass(1_800_000 + MARGIN);
    assert_eq!(world.sets(), (1, 1));
    let switched = |e: &FlowEvent| matches!(e, FlowEvent::SwitchedOver { .. });
    assert!(world.events.iter().any(switched));
    world.message_to(0);
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(1));
    assert_eq!(world.requests(), 2);
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_third_set_drives_the_first_one_out(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.authenticate_again();
    world.authenticate_again();
    let tokens = |w: &World| {
        w.edge_sas
            .0
            .iter()
            .map(|(s, _)| s.token)
            .collect::<Vec<_>>()
    };
    assert_eq!(world.installs.len(), 3);
    let (second, third) = (world.installs[1].token, world.installs[2].token);
    assert!(tokens(&world).contains(&second) && tokens(&world).contains(&third));
    world.pass(40_000);
    assert!(!tokens(&world).contains(&world.installs[0].token));
    assert!(tokens(&world).contains(&third));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn an_answer_to_what_was_begun_on_the_old_set_leaves_over_it(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    // The core takes its time with the answer to the first MESSAGE.
    world.core_down = Box::new(|text| {
        let late = text.starts_with("SIP/2.0 200") && text.contains("MESSAGE");
        (!late).then_some(text)
    });
    world.message();
    let asked = world.to_core.iter().find(|t| t.starts_with("MESSAGE"));
    let answer = response(asked.expect("a MESSAGE"), 200, "OK");
    assert!(world.answers().is_empty());
    world.core_down = pass_all();
    world.authenticate_again();
    world.message();
    let switched = |e: &FlowEvent| matches!(e, FlowEvent::SwitchedOver { .. });
    assert!(world.events.iter().any(switched), "{:?}", world.events);
    let answer = String::from_utf8(answer.to_bytes()).expect("text");
    world.core_sends(&answer);
    world.run();
    assert_eq!(world.last(false, "SIP/2.0 200").ports().0, world.port_pc(0));
    assert_eq!(world.answers().len(), 2);
}

/// The phone comes with another address: its old SAs stay until it is registered from there.
#[test]
fn sas_of_an_old_address_go_when_the_new_one_is_registered() {
    let mut world = World::new();
    world.register();
    let old = world.edge_sas.0[0].0.token;
    let moved = UeConfig {
        local: [10, 0, 0, 99].into(),
        ..ue_config(0)
    };
    world.restart(moved, SoftSim { k: K, sqn: 0x100 });
    let mut registers = 0;
    world.up = Box::new(move |text| {
        registers += 1;
        (registers != 2).then_some(text)
    });
    world.register();
    let has = |w: &World| w.edge_sas.0.iter().any(|(s, _)| s.token == old);
    assert!(has(&world), "SM7 has not come yet");
    world.pass(1_000);
    assert!(world.phones[0].ue.is_registered() && !has(&world));
    let removed = FlowEvent::Removed {
        set: old,
        why: RemoveReason::Replaced,
    };
    assert!(world.events.contains(&removed));
    assert_eq!(world.sets(), (1, 1));
}

/// The phone notices that its address is another one (clause 7.5).
#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_phone_that_moves_drops_its_sas_and_registers_in_clear_from_there(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    let old = world.edge_sas.0[0].0.token;
    world.top_up();
    let (now, address) = (world.now, [10, 0, 0, 99].into());
    world.phones[0].local = address;
    if nat {
        world.phones[0].nat = "198.51.100.99".parse().ok();
    }
    world.phones[0]
        .ue
        .change_address(now, address)
        .expect("starts");
    world.run();
    let registers = world.sent(true, "REGISTER");
    assert_eq!(
        (registers[2].over, registers[2].packet.local.ip()),
        (None, address)
    );
    assert!(world.phones[0].ue.is_registered());
    assert!(world.edge_sas.0.iter().all(|(s, _)| s.token != old));
    assert_eq!(world.sets(), (1, 1));
    world.message();
    assert_eq!(world.answers(), [200]);
    // The home network still has the old contact as well; both lead to the phone.
    assert!(world.requests() >= 1);
    let last = world.last(false, "MESSAGE");
    assert_eq!(
        last.packet.remote.ip(),
        world.phones[0].nat.unwrap_or(address)
    );
}
