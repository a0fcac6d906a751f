//! Registrations that fail while others stand (clauses 6.1.1, 7.3.1, 7.4.1a, 7.4.2a).

use gm_sip::ue::{UeEvent, UeFailure};
use rstest::rstest;

use crate::parts::SoftSim;
use crate::world::*;

/// Turns the response of the `n`-th REGISTER.
fn wrong_response(n: usize) -> Way {
    let mut registers = 0;
    Box::new(move |mut text| {
        registers += usize::from(text.starts_with("REGISTER"));
        if registers == n && text.starts_with("REGISTER") {
            let at = text.find("response=\"").expect("credentials") + 10;
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            text.replace_range(at..=at, other);
        }
        Some(text)
    })
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_failed_re_authentication_leaves_the_old_sets_in_use(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    world.up = wrong_response(2);
    world.authenticate_again();
    assert_eq!(world.failure(), Some(UeFailure::Status(403)));
    // The failure came over the old set.
    let failure = world.last(false, "SIP/2.0 403");
    assert_eq!(failure.ports(), (world.port_pc(0), 31800));
    world.pass(10_000);
    assert_eq!(world.sets(), (1, 1));
    assert_eq!(world.edge_sas.0[0].0.token, world.installs[0].token);
    // Nobody is de-registered.
    assert!(world.phones[0].ue.is_registered());
    world.message();
    assert_eq!(world.answers(), [200]);
    assert_eq!(world.requests(), 1);
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(0));
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_wrong_list_in_a_protected_registration_is_answered_over_the_old_set(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    let mut registers = 0;
    world.up = Box::new(move |text| {
        registers += usize::from(text.starts_with("REGISTER"));
        if registers == 2 {
            return Some(text.replace("Security-Verify: ", "Security-Verify: tls;q=0.9, "));
        }
        Some(text)
    });
    world.authenticate_again();
    assert_eq!(world.failure(), Some(UeFailure::Status(494)));
    assert_eq!(world.last(false, "SIP/2.0 494").ports().0, world.port_pc(0));
    assert_eq!(world.sets(), (1, 1));
    world.message();
    assert_eq!(world.answers(), [200]);
}

/// What a network that fails does behind a NAT is what it does without one (M.7.3.1).
#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn each_way_to_fail_leaves_no_sas(#[case] nat: bool) {
    let world = || World::at(nat);
    // The user's answer is wrong: over the new set.
    let mut user = world();
    user.up = wrong_response(2);
    user.register();
    assert_eq!(user.failure(), Some(UeFailure::Status(403)));
    assert!(user.last(false, "SIP/2.0 403").over.is_some());
    user.pass(10_000);
    assert_eq!(user.sets(), (0, 0));
    // The network's MAC is wrong.
    let mut network = world();
    network.restart(ue_config(0), SoftSim { k: [1; 16], sqn: 0 });
    network.register();
    assert_eq!(network.failure(), Some(UeFailure::NetworkAuthentication));
    let report = network.last(true, "REGISTER").text();
    assert!(
        report.contains("response=\"\"") && !report.contains("auts"),
        "{report}"
    );
    assert_eq!(network.phones[0].sas.0.len(), 0);
    let first = network.installs[0].token;
    assert!(network.edge_sas.0.iter().all(|(s, _)| s.token != first));
    // The SIM is ahead: AUTS, another challenge, registered.
    let mut ahead = world();
    ahead.restart(ue_config(0), SoftSim { k: K, sqn: 0x5000 });
    ahead.register();
    assert!(ahead.phones[0].events.contains(&UeEvent::Resynchronising));
    assert!(ahead.phones[0].ue.is_registered());
    assert_eq!((ahead.installs.len(), ahead.sets()), (2, (1, 1)));
    // SM7 never comes.
    let mut lost = world();
    lost.up = Box::new(|text| text.contains("nonce=\"\"").then_some(text));
    lost.register();
    assert_eq!(lost.sets().1, 1);
    lost.pass(240_000);
    assert_eq!(lost.edge_sas.0.len(), 0);
}
