//! What goes well: suites, modes, renewal, de-registration, messages.

use gm_esp::{Mode, Suite};
use gm_sip::edge::{FlowEvent, RemoveReason};
use gm_sip::ue::UeEvent;
use rstest::rstest;

use crate::world::*;
use crate::{name, replaced};

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
