//! What goes wrong: refusals, failures, losses, time-outs.

use gm_esp::Mode;
use gm_sip::edge::{FlowEvent, Refusal, RemoveReason};
use gm_sip::ue::{UeEvent, UeFailure};
use rstest::rstest;

use crate::replaced;
use crate::world::*;

#[test]
fn behind_a_nat_without_the_mode_there_is_silence() {
    let mut world = World::with(
        gm_sip::ue::UeConfig {
            modes: vec![Mode::Trans],
            ..ue_config()
        },
        edge_config(),
    );
    world.nat = true;
    world.register();
    assert_eq!(world.refusals(), [Refusal::NatWithoutTunnel]);
    assert!(world.to_ue.is_empty() && world.to_core.is_empty());
    world.pass(32_000);
    assert_eq!(world.failure(), Some(UeFailure::Timeout));
}

#[rstest]
#[case::verify_another_algorithm(
    "Security-Verify: ipsec-3gpp;q=0.4;alg=null;ealg=aes-gcm",
    "Security-Verify: ipsec-3gpp;q=0.4;alg=aes-gmac",
    Refusal::SecurityVerify
)]
#[case::verify_missing("Security-Verify:", "X-Verify:", Refusal::SecurityVerify)]
#[case::verify_shorter(
    "Security-Verify: ipsec-3gpp;q=0.4",
    "Security-Verify: tls;q=0.4",
    Refusal::SecurityVerify
)]
#[case::client_changed(
    "Security-Client: ipsec-3gpp;alg=null;ealg=aes-gcm",
    "Security-Client: ipsec-3gpp;alg=aes-gmac",
    Refusal::SecurityClient
)]
fn a_wrong_sm7_aborts_the_procedure(
    #[case] from: &'static str,
    #[case] to: &'static str,
    #[case] why: Refusal,
) {
    let mut world = World::new();
    let mut count = 0;
    world.uplink = Box::new(move |bytes| {
        count += 1;
        if count == 1 {
            return Some(bytes);
        }
        let text = String::from_utf8(bytes).expect("text");
        assert!(text.contains(from), "{text}");
        Some(text.replace(from, to).into_bytes())
    });
    world.register();
    assert_eq!(world.refusals(), [why]);
    assert!(world.edge.is_empty() && world.edge_sas.0.is_empty());
    assert_eq!(world.to_core.len(), 1, "SM7 is not forwarded");
    assert_eq!(world.failure(), Some(UeFailure::Status(494)));
    assert!(world.ue_sas.0.is_empty());
}

#[test]
fn a_wrong_response_is_refused_through_the_new_set() {
    let mut world = World::new();
    let mut count = 0;
    world.uplink = Box::new(move |bytes| {
        count += 1;
        let text = String::from_utf8(bytes).expect("text");
        let at = text.find("response=\"").expect("credentials") + 10;
        let mut wrong = text.clone();
        if count == 2 {
            let other = if &text[at..=at] == "0" { "1" } else { "0" };
            wrong.replace_range(at..=at, other);
        }
        Some(wrong.into_bytes())
    });
    world.register();
    assert_eq!(world.failure(), Some(UeFailure::Status(403)));
    assert!(world.to_ue.last().is_some_and(|(_, protected)| *protected));
    world.pass(10_000);
    assert!(world.edge.is_empty() && world.edge_sas.0.is_empty() && world.ue_sas.0.is_empty());
}

#[test]
fn another_user_over_this_sa_is_refused() {
    let mut world = World::new();
    world.register();
    world.uplink = replaced("From: <sip:user1@", "From: <sip:other@");
    let id = world
        .ue
        .send(
            world.now,
            "MESSAGE",
            "sip:echo@home.example",
            "text/plain",
            b"x",
        )
        .expect("registered");
    world.run();
    assert_eq!(world.refusals(), [Refusal::ForeignUser]);
    assert!(world.ue_events.contains(&UeEvent::Answered {
        id,
        status: 403,
        body: Vec::new()
    }));
    world.uplink = replaced("username=\"user1@", "username=\"other@");
    world.register();
    assert_eq!(world.refusals(), [Refusal::ForeignUser; 2]);
    assert_eq!(world.to_core.len(), 2, "nothing of it was forwarded");
}

#[test]
fn via_of_a_protected_register_must_be_the_source() {
    let mut world = World::new();
    world.register();
    world.uplink = replaced("UDP 10.0.0.2:", "UDP 10.0.0.3:");
    world.register();
    assert_eq!(world.refusals(), [Refusal::ViaMismatch]);
}

#[test]
fn a_sim_out_of_step_is_brought_back() {
    let mut world = World::new();
    world.swap_sim(ue_config(), SoftSim { k: K, sqn: 0x5000 });
    world.register();
    assert!(world.ue_events.contains(&UeEvent::Resynchronising));
    assert!(
        world.ue.is_registered(),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    assert_eq!(
        (world.edge_sas.0.len(), world.ue_sas.0.len()),
        (1, 1),
        "the first set is gone"
    );
}

#[test]
fn a_network_that_cannot_prove_itself_is_left() {
    let mut world = World::new();
    world.swap_sim(ue_config(), SoftSim { k: [1; 16], sqn: 0 });
    world.register();
    assert_eq!(world.failure(), Some(UeFailure::NetworkAuthentication));
    assert!(world.ue_sas.0.is_empty());
    // The report ends the registration SAs of that challenge (clause 7.3.1.2).
    let aborted = |e: &FlowEvent| {
        matches!(
            e,
            FlowEvent::Removed {
                why: RemoveReason::Aborted,
                ..
            }
        )
    };
    assert!(world.events.iter().any(aborted), "{:?}", world.events);
}

#[test]
fn an_unfinished_registration_ends_at_both_sides() {
    let mut world = World::new();
    let mut count = 0;
    world.uplink = Box::new(move |bytes| {
        count += 1;
        (count == 1).then_some(bytes)
    });
    world.register();
    assert_eq!(world.edge_sas.0.len(), 1);
    world.pass(240_000);
    assert!(world.edge.is_empty() && world.edge_sas.0.is_empty() && world.ue_sas.0.is_empty());
    assert_eq!(world.failure(), Some(UeFailure::Timeout));
    let unfinished = |e: &FlowEvent| {
        matches!(
            e,
            FlowEvent::Removed {
                why: RemoveReason::Unfinished,
                ..
            }
        )
    };
    assert!(world.events.iter().any(unfinished));
}

/// Each datagram of a registration is lost once: retransmissions mend it, without a second set.
#[rstest]
#[case(true, 1)]
#[case(true, 2)]
#[case(false, 1)]
#[case(false, 2)]
fn one_lost_datagram(#[case] up: bool, #[case] which: usize) {
    let mut world = World::new();
    let mut count = 0;
    let lossy = Box::new(move |bytes| {
        count += 1;
        (count != which).then_some(bytes)
    });
    if up {
        world.uplink = lossy;
    } else {
        world.downlink = lossy;
    }
    world.register();
    assert!(!world.ue.is_registered());
    world.pass(5_000);
    assert!(
        world.ue.is_registered(),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    assert_eq!(world.installs.len(), 1);
    assert!(world.refusals().is_empty(), "{:?}", world.refusals());
}

#[test]
fn a_phone_that_lost_its_sas_registers_in_clear_again() {
    let mut world = World::new();
    world.register();
    let old = world.edge_sas.0[0].0.token;
    // The phone restarts: new UE, empty SA database, other client port.
    world.swap_sim(ue_config(), SoftSim { k: K, sqn: 0x100 });
    world.ue_sas.0.clear();
    world.register();
    assert!(
        world.ue.is_registered(),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    assert_eq!(world.edge_sas.0.len(), 1);
    assert!(world.edge_sas.0[0].0.token != old);
}

#[test]
fn a_data_plane_that_says_no() {
    let mut world = World::new();
    world.edge_installs = false;
    world.register();
    assert_eq!(world.refusals(), [Refusal::NotInstalled]);
    assert_eq!(world.failure(), Some(UeFailure::Status(500)));
    assert!(world.edge.is_empty());
    let mut world = World::new();
    world.ue_installs = false;
    world.register();
    assert_eq!(world.failure(), Some(UeFailure::NotInstalled));
}

#[test]
fn unprotected_ports_take_register_only() {
    let mut world = World::new();
    let message = "MESSAGE sip:x@home.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:x@home.example>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\n\r\n";
    let source = "192.0.2.9:5060".parse().expect("address");
    world.inject(
        source,
        "203.0.113.1:5060".parse().expect("address"),
        message.as_bytes(),
    );
    world.run();
    assert_eq!(world.refusals(), [Refusal::Unprotected]);
    world.inject(
        source,
        "203.0.113.1:5063".parse().expect("address"),
        message.as_bytes(),
    );
    world.run();
    assert_eq!(world.refusals(), [Refusal::Unprotected, Refusal::NoSa]);
    assert!(world.to_core.is_empty());
    assert_eq!(
        world.to_ue.len(),
        1,
        "a 403 for the first, silence for the second"
    );
}
