//! One registration: offer, challenge, answer.

use super::*;

#[test]
fn a_first_register_leaves_in_clear_with_an_offer_and_our_ports() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let out = rig.ue_sends(&first);
    let (packet, sm1) = out.to_network();
    assert_eq!((packet.local, packet.remote), (at(CLEAR), at(PCSCF)));
    let via = sm1.value("Via").expect("a Via").into_owned();
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK"));
    assert!(via.ends_with(";rport"), "{via}");
    assert_eq!(
        sm1.value("Contact").as_deref(),
        Some("<sip:a@192.0.2.10:31800;transport=udp>")
    );
    for name in ["Require", "Proxy-Require", "Supported"] {
        assert_eq!(sm1.value(name).as_deref(), Some("sec-agree"), "{name}");
    }
    assert_eq!(out.events, [ProxyEvent::Offered { protected: false }]);
}

#[test]
fn a_ue_without_authorization_gets_the_identity_of_the_configuration() {
    let mut rig = Rig::new();
    let mut first = rig.first(3600);
    first.remove("Authorization");
    let out = rig.ue_sends(&first);
    let value = out
        .to_network()
        .1
        .value("Authorization")
        .expect("added")
        .into_owned();
    assert!(value.contains("username=\"a@home.test\"") && value.contains("nonce=\"\""));
}

#[test]
fn the_ue_gets_the_challenge_when_its_sas_are_there_and_not_before() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let out = rig.in_clear(&challenged(&sm1, 1));
    assert!(out.ue.is_empty());
    let set = &out.installs[0];
    assert_eq!(set.params.pcscf_ends, network(1));
    assert_eq!(set.ik, Ik::from_bytes([0x11; 16]));
    let out = rig.installed(set.token, true);
    let sm6 = out.to_ue();
    assert_eq!(out.ue[0].0, at(UE));
    assert_eq!(
        sm6.value("Via"),
        first.value("Via"),
        "the UE's own Via comes back"
    );
    for name in ["Security-Server", "Require"] {
        assert_eq!(sm6.value(name), None, "{name}");
    }
    assert_eq!(sm6.value("X-Core").as_deref(), Some("stays"));
    // Repeated by the network because the UE repeated SM1: the same again.
    let again = rig.in_clear(&challenged(&sm1, 1));
    assert_eq!(again.to_ue().to_bytes(), sm6.to_bytes());
    assert!(again.installs.is_empty());
}

#[test]
fn the_answer_goes_through_the_new_sas_with_the_list_of_the_network() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let challenge = challenged(&sm1, 1);
    let set = rig.in_clear(&challenge).installs[0].clone();
    rig.installed(set.token, true);
    let answer = rig.answer(&nonce(1), 3600);
    let out = rig.ue_sends(&answer);
    let (packet, sm7) = out.to_network();
    let u = set.params.ue_ends;
    assert_eq!(packet.local, SocketAddr::new(at(CLEAR).ip(), u.port_c));
    assert_eq!(packet.remote, at("192.0.2.1:5066"));
    assert_eq!(out.activated, [set.token]);
    assert_eq!(
        sm7.value("Security-Verify"),
        challenge.value("Security-Server")
    );
    assert_eq!(sm7.value("Security-Client"), sm1.value("Security-Client"));
    assert_eq!(sm7.value("Authorization"), answer.value("Authorization"));
    let via = sm7.value("Via").expect("a Via").into_owned();
    assert!(via.starts_with("SIP/2.0/UDP 192.0.2.10:31800;"), "{via}");

    let out = rig.sealed(&set, &granted(sm7, 600));
    assert_eq!(
        out.to_ue().value("Contact").as_deref(),
        Some("<sip:a@127.0.0.1:5072;transport=udp>;expires=600")
    );
    let registered = ProxyEvent::Registered {
        expires: 600,
        authenticated: true,
    };
    assert_eq!(out.events, [registered]);
    assert!(rig.proxy.is_registered());
    // Its life is the registration's and half a minute.
    assert_eq!(rig.proxy.next_timeout(), Some(rig.now + 630_000));
}

#[test]
fn a_repeated_register_is_sent_as_it_was() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let one = rig.ue_sends(&first).to_network().0.clone();
    let two = rig.ue_sends(&first).to_network().0.clone();
    assert_eq!(one, two);
}

#[test]
fn a_challenge_that_the_key_does_not_fit_is_refused_with_the_reason() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let mut bad = challenged(&sm1, 1);
    let mut autn = [0; 16];
    autn[..2].copy_from_slice(&[0xba, 0xd0]);
    let nonce = aka::nonce(&[9; 16], &autn);
    bad.set(
        "WWW-Authenticate",
        &format!("Digest realm=\"home.test\",nonce=\"{nonce}\",algorithm=AKAv1-MD5"),
    );
    let out = rig.in_clear(&bad);
    assert!(out.installs.is_empty());
    assert_eq!(out.unreserved.len(), 1);
    let answer = out.to_ue();
    assert_eq!(answer.status(), Some(500));
    assert_eq!(answer.value("Via"), first.value("Via"));
    let warning = answer.value("Warning").expect("a Warning").into_owned();
    assert!(warning.contains("K and OP"), "{warning}");
}

#[test]
fn the_failure_of_the_answer_is_taken_the_way_that_the_challenge_came() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let set = rig.in_clear(&challenged(&sm1, 1)).installs[0].clone();
    rig.installed(set.token, true);
    let answer = rig.answer(&nonce(1), 3600);
    let sm7 = rig.ue_sends(&answer).to_network().1.clone();
    let out = rig.in_clear(&Message::response(&sm7, 403, "Forbidden", "net"));
    assert_eq!(out.to_ue().status(), Some(403));
    assert_eq!(out.removed, [set.token]);
    assert_eq!(rig.proxy.next_timeout(), None);
}

#[test]
fn sas_that_cannot_be_installed_end_the_attempt() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let set = rig.in_clear(&challenged(&sm1, 1)).installs[0].clone();
    let out = rig.installed(set.token, false);
    assert_eq!(out.to_ue().status(), Some(500));
    assert!(out.removed.is_empty());
    assert!(matches!(out.events.as_slice(), [ProxyEvent::Failed { .. }]));
    // Else they would be gone for good: 16 such challenges, and no SPI is left.
    let ends = set.params.ue_ends;
    assert_eq!(out.unreserved, [[ends.spi_c, ends.spi_s]]);
}

#[test]
fn a_network_that_names_our_own_spi_gets_no_sas() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    let offer = sm1.value("Security-Client").expect("an offer").into_owned();
    let own = offer.split("spi-s=").nth(1).expect("an SPI");
    let own = &own[..own.find(';').unwrap_or(own.len())];
    let mut bad = challenged(&sm1, 1);
    bad.rewrite("Security-Server", |list| {
        Some(list.replace(&format!("{:010}", 7001), own))
    });
    let out = rig.in_clear(&bad);
    assert!(out.installs.is_empty());
    assert_eq!(out.to_ue().status(), Some(500));
    assert_eq!(out.unreserved.len(), 1);
}

#[test]
fn a_challenge_serves_for_one_set() {
    let mut rig = Rig::new();
    rig.registered(1, 3600);
    let first = rig.first(3600);
    let (packet, sm1) = rig.ue_sends(&first).to_network().clone();
    let again = challenged(&sm1, 1);
    let out = rig.network_sends(packet.local, packet.remote, &again);
    assert!(out.installs.is_empty());
    let warning = out
        .to_ue()
        .value("Warning")
        .expect("a Warning")
        .into_owned();
    assert!(warning.contains("a challenge of before"), "{warning}");
}
