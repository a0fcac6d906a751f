//! Who may be named over whose SA (clauses 6.1.1, 7.1 rule 4).

use gm_sip::edge::Refusal;
use gm_sip::ue::UeConfig;
use rstest::rstest;

use crate::world::*;

#[rstest]
#[case::implicitly_registered("<tel:+15550100>", "<tel:+15550100>")]
#[case::default("<sip:user0@home.example>", "<sip:user0@home.example>")]
#[case::somebody_elses("<sip:user1@home.example>", "<sip:user0@home.example>")]
fn all_registered_identities_may_be_asserted_and_no_others(
    #[case] preferred: &'static str,
    #[case] asserted: &str,
) {
    let mut world = World::new();
    world.register();
    world.up = Box::new(move |text| {
        let own = "P-Preferred-Identity: <sip:user0@home.example>";
        assert!(text.starts_with("SIP") || text.contains(own), "{text}");
        Some(text.replace(own, &format!("P-Preferred-Identity: {preferred}")))
    });
    world.message();
    let request = world.to_core.iter().find(|t| t.starts_with("MESSAGE"));
    let request = request.expect("a MESSAGE").clone();
    let line = format!("\r\nP-Asserted-Identity: {asserted}\r\n");
    assert!(request.contains(&line), "{request}");
    assert_eq!(request.matches("P-Asserted-Identity").count(), 1);
}

#[test]
fn an_answer_over_somebody_elses_sa_is_nobodys() {
    let mut world = World::new();
    let second = world.add(ue_config(1), None);
    world.register();
    world.register_phone(second);
    world.down = lose_all();
    world.message_to(0);
    let request = world.last(false, "MESSAGE").text();
    let answer = response(&request, 200, "OK").to_bytes();
    let before = world.to_core.len();
    // Over the second phone's SA, then over the first one's.
    let (from, to) = world.flow_up(1);
    world.edge_hears(from, to, &answer);
    world.run();
    assert_eq!(world.to_core.len(), before);
    assert_eq!(world.refusals(), [Refusal::ForeignUser]);
    let (from, to) = world.flow_up(0);
    world.edge_hears(from, to, &answer);
    world.run();
    assert_eq!(world.to_core.len(), before + 1);
}

/// Two phones behind one NAT: the second one's new offer has the first one's server port.
#[test]
fn a_protected_offer_with_a_neighbours_server_port_is_refused() {
    let mut world = World::behind_nat();
    let nat = world.phones[0].nat;
    let config = UeConfig {
        server_port: 31_801,
        client_ports: 31_200..=31_299,
        ..ue_config(1)
    };
    let second = world.add(config, nat);
    world.register();
    world.register_phone(second);
    assert!(world.phones[1].ue.is_registered(), "{:?}", world.refusals());
    let before = world.to_core.len();
    world.up = replaced("port-s=31801", "port-s=31800");
    world.register_phone(second);
    assert_eq!(world.refusals(), [Refusal::Collision]);
    assert_eq!(world.to_core.len(), before);
    assert!(world.last(false, "SIP/2.0 400").over.is_some());
    // Both are still served by their own SAs.
    world.up = pass_all();
    world.message_to(0);
    world.message_to(second);
    let messages = world.sent(false, "MESSAGE");
    let phones: Vec<_> = messages.iter().map(|s| s.phone).collect();
    assert_eq!(phones, [0, second]);
}
