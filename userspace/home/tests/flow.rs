//! Whole registrations in memory: UE, edge and home network (TS 33.203 clauses 6.1, 7.2 to 7.4, M.7).

mod world;

use gm_esp::{Mode, Suite};
use gm_sip::edge::{FlowEvent, Refusal, RemoveReason};
use gm_sip::ue::{UeEvent, UeFailure};
use rstest::rstest;
use world::*;

fn replaced(from: &'static str, to: &'static str) -> Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>>> {
    Box::new(move |bytes| {
        Some(
            String::from_utf8(bytes)
                .expect("text")
                .replace(from, to)
                .into_bytes(),
        )
    })
}

#[rstest]
#[case(Suite::HmacSha1Null)]
#[case(Suite::HmacSha1AesCbc)]
#[case(Suite::AesGmacNull)]
#[case(Suite::NullAesGcm)]
fn every_suite_registers_in_transport_mode(#[case] suite: Suite) {
    let mut world = World::with(
        gm_sip::ue::UeConfig {
            suites: vec![suite],
            ..ue_config()
        },
        edge_config(),
    );
    world.register();
    assert!(
        world.ue.is_registered(),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    assert_eq!(world.suite_in_use(), Some(suite));
    let names: Vec<_> = world.events.iter().map(name).collect();
    assert_eq!(names, ["SM1", "SM4", "SM6", "SM7", "SM8", "SM12"]);
    // SM6 went in clear, SM12 through the SA, from port_pc to port_us.
    let (sm6, sm12) = (&world.to_ue[0], &world.to_ue[1]);
    assert!(!sm6.1 && sm12.1);
    assert_eq!((sm12.0.local.port(), sm12.0.remote.port()), (5064, 31800));
    assert_eq!(world.lost, 0);
    world.assert_no_keys_shown();
}

fn name(event: &FlowEvent) -> &'static str {
    match event {
        FlowEvent::Sm1 { .. } => "SM1",
        FlowEvent::Sm4 { .. } => "SM4",
        FlowEvent::Sm6 { .. } => "SM6",
        FlowEvent::Sm7 { .. } => "SM7",
        FlowEvent::Sm8 { .. } => "SM8",
        FlowEvent::Sm12 { .. } => "SM12",
        FlowEvent::Refreshed { .. } => "refreshed",
        FlowEvent::Deregistered { .. } => "deregistered",
        FlowEvent::SwitchedOver { .. } => "switched",
        FlowEvent::Removed { .. } => "removed",
        FlowEvent::Refused { .. } => "refused",
    }
}

#[test]
fn the_first_own_suite_is_taken() {
    let mut world = World::new();
    world.register();
    assert_eq!(world.suite_in_use(), Some(Suite::NullAesGcm));
}

#[test]
fn what_the_core_sees_of_a_registration() {
    let mut world = World::new();
    world.uplink = replaced(
        "Digest username",
        "Digest integrity-protected=\"yes\", username",
    );
    world.register();
    let text: Vec<_> = world
        .to_core
        .iter()
        .map(|b| String::from_utf8_lossy(b).into_owned())
        .collect();
    assert!(
        text[0].contains("integrity-protected=\"no\"")
            && !text[0].contains("integrity-protected=\"yes\"")
    );
    assert!(
        text[1].contains("integrity-protected=\"yes\"")
            && !text[1].contains("integrity-protected=\"no\"")
    );
    for one in &text {
        assert!(
            !one.contains("Security-") && !one.contains("sec-agree"),
            "{one}"
        );
        assert!(
            one.contains("\r\nPath: <sip:")
                && one.contains(";lr>")
                && one.contains("Require: path")
        );
        assert!(one.contains("Max-Forwards: 69"));
    }
}

#[test]
fn behind_a_nat_udp_encapsulated_tunnel_mode() {
    let mut world = World::new();
    world.nat = true;
    world.register();
    assert!(
        world.ue.is_registered(),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    assert_eq!(world.ue.public_address(), ip(PUBLIC));
    let (p, u) = (&world.edge_sas.0[0].0, &world.ue_sas.0[0].0);
    assert_eq!(
        (p.params.mode(), p.params.ue),
        (Mode::UdpEncTun, ip(PUBLIC))
    );
    // The network does not know port_Uenc; the UE's outer address is its private one.
    let (down, up) = (
        p.outbound[0].outer.expect("outer"),
        u.outbound[0].outer.expect("outer"),
    );
    assert_eq!(
        (down.dst, down.sport, down.dport),
        (ip(PUBLIC), Some(4500), None)
    );
    assert_eq!(
        (up.src, up.sport, up.dport),
        (ip(PRIVATE), Some(4500), Some(4500))
    );
    let sm6 = String::from_utf8_lossy(&world.to_ue[0].0.bytes).into_owned();
    assert!(
        sm6.contains("received=198.51.100.7") && sm6.contains("rport=15060"),
        "{sm6}"
    );
    // Protected from here on, the Via is the public address, so no NAT is seen: the mode is inherited.
    world.home.registrar().always_challenge = true;
    world.register();
    let modes: Vec<_> = world.installs.iter().map(|s| s.params.mode()).collect();
    assert_eq!(modes, [Mode::UdpEncTun, Mode::UdpEncTun]);
    world.assert_no_keys_shown();
}

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
fn security_verify_in_other_words_is_accepted() {
    let mut world = World::new();
    world.uplink = replaced(";prot=esp;mod=trans;spi-c=", ";  MOD=TRANS;spi-c=000");
    world.register();
    // spi-c with 13 digits is too long for a number, so SM1 itself would be refused.
    assert!(!world.ue.is_registered());
    let mut world = World::new();
    world.uplink = replaced(";prot=esp;mod=trans;", " ; MOD=TRANS ; ");
    world.register();
    assert!(world.ue.is_registered(), "{:?}", world.events);
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
fn a_new_authentication_replaces_the_set() {
    let mut world = World::new();
    world.register();
    world.home.registrar().always_challenge = true;
    world.register();
    assert_eq!(world.installs.len(), 2);
    let ends = |n: usize| {
        (
            world.installs[n].params.ue_ends,
            world.installs[n].params.pcscf_ends,
        )
    };
    // Server ports stay, client ports change (clause 7.4.0).
    assert_eq!(
        (ends(0).0.port_s, ends(0).1.port_s),
        (ends(1).0.port_s, ends(1).1.port_s)
    );
    assert!(ends(0).0.port_c != ends(1).0.port_c && ends(0).1.port_c != ends(1).1.port_c);
    // SM6 of the second went through the first set, SM12 through the second.
    let ports: Vec<_> = world
        .to_ue
        .iter()
        .map(|(p, sealed)| (p.local.port(), *sealed))
        .collect();
    assert_eq!(
        ports,
        [(5060, false), (5064, true), (5064, true), (5065, true)]
    );
    assert_eq!(
        world.edge_sas.0.len(),
        2,
        "both are there until the new one is heard of"
    );
    // Until then requests to the UE still use the old one.
    let bytes = world
        .home
        .originate(world.now, "MESSAGE", IMPU, b"hi", &mut world.random);
    world.home_sends(bytes);
    world.run();
    assert_eq!(world.to_ue.last().map(|(p, _)| p.local.port()), Some(5064));
    assert!(!world.events.iter().any(|e| name(e) == "switched"));
    // A request over the new set is the sign that the UE has it.
    let to = "sip:echo@home.example";
    world
        .ue
        .send(world.now, "MESSAGE", to, "text/plain", b"x")
        .expect("registered");
    world.run();
    assert!(world.events.iter().any(|e| name(e) == "switched"));
    let bytes = world
        .home
        .originate(world.now, "MESSAGE", IMPU, b"hi", &mut world.random);
    world.home_sends(bytes);
    world.run();
    assert_eq!(world.to_ue.last().map(|(p, _)| p.local.port()), Some(5065));
    world.pass(40_000);
    assert_eq!((world.edge_sas.0.len(), world.ue_sas.0.len()), (1, 1));
    assert_eq!(world.lost, 0);
    world.assert_no_keys_shown();
}

#[test]
fn a_refresh_without_a_challenge_keeps_the_set() {
    let mut world = World::new();
    world.register();
    world.pass(600_000);
    world.register();
    assert_eq!(world.installs.len(), 1);
    assert_eq!(world.events.last().map(name), Some("refreshed"));
    let last = world.ue_events.last();
    assert!(
        matches!(
            last,
            Some(UeEvent::Registered {
                authenticated: false,
                ..
            })
        ),
        "{last:?}"
    );
    // The lifetime follows: the set outlives the first registration.
    world.pass(3_200_000);
    assert!(world.ue.is_registered() && world.edge_sas.0.len() == 1);
    world.pass(500_000);
    assert!(!world.ue.is_registered() && world.edge.is_empty());
    let expired = |e: &FlowEvent| {
        matches!(
            e,
            FlowEvent::Removed {
                why: RemoveReason::Expired,
                ..
            }
        )
    };
    assert!(world.events.iter().any(expired));
}

#[rstest]
#[case(false)]
#[case(true)]
fn a_de_registration_leaves_through_the_sa_and_takes_all_along(#[case] challenged: bool) {
    let mut world = World::new();
    world.register();
    world.home.registrar().always_challenge = challenged;
    world.top_up();
    world.ue.deregister(world.now).expect("starts");
    world.run();
    assert_eq!(world.ue_events.last(), Some(&UeEvent::Deregistered));
    let (last, protected) = world.to_ue.last().expect("the 200");
    assert!(*protected && last.bytes.starts_with(b"SIP/2.0 200"));
    assert!(world.events.iter().any(|e| name(e) == "deregistered"));
    assert!(!world.edge_sas.0.is_empty(), "kept for a while");
    world.pass(40_000);
    assert!(world.edge.is_empty() && world.edge_sas.0.is_empty() && world.ue_sas.0.is_empty());
    assert!(
        world
            .home
            .originate(world.now, "MESSAGE", IMPU, b"hi", &mut world.random)
            .is_empty()
    );
    assert_eq!(world.lost, 0);
}

#[rstest]
#[case(false)]
#[case(true)]
fn messages_both_ways(#[case] nat: bool) {
    let mut world = World::new();
    world.nat = nat;
    world.register();
    let id = world
        .ue
        .send(
            world.now,
            "MESSAGE",
            "sip:echo@home.example",
            "text/plain",
            b"hello",
        )
        .expect("registered");
    world.run();
    let answered = UeEvent::Answered {
        id,
        status: 200,
        body: Vec::new(),
    };
    assert!(
        world.ue_events.contains(&answered),
        "{:?} {:?}",
        world.ue_events,
        world.events
    );
    let echoed = |e: &UeEvent| matches!(e, UeEvent::Request { method, body, status: 200, .. } if method == "MESSAGE" && body == b"hello");
    assert!(world.ue_events.iter().any(echoed), "{:?}", world.ue_events);
    assert!(
        world
            .home
            .take_events()
            .contains(&gm_home::HomeEvent::Answered { status: 200 })
    );
    let request = String::from_utf8_lossy(&world.to_core[2]).into_owned();
    assert!(
        request.starts_with("MESSAGE sip:echo@home.example"),
        "{request}"
    );
    assert!(
        request.contains("P-Asserted-Identity: <sip:user1@home.example>\r\n"),
        "{request}"
    );
    assert!(
        !request.contains("P-Preferred-Identity") && !request.contains("Security-Verify"),
        "{request}"
    );
    let bytes = world
        .home
        .originate(world.now, "OPTIONS", IMPU, b"", &mut world.random);
    world.home_sends(bytes);
    world.run();
    assert!(
        world
            .ue_events
            .iter()
            .any(|e| matches!(e, UeEvent::Request { method, .. } if method == "OPTIONS"))
    );
    assert_eq!(world.lost, 0);
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
