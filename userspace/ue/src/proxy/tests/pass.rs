//! What passes through the SAs, and what does not.

use super::*;

#[test]
fn messages_pass_both_ways_with_via_and_contact_of_each_side() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 3600);
    let sent = message_to(
        "sip:echo@home.test",
        "SIP/2.0/UDP 127.0.0.1:5071;branch=z9hG4bK-m",
    );
    let out = rig.ue_sends(&sent);
    let (packet, up) = out.to_network();
    assert_eq!(packet.local.port(), set.params.ue_ends.port_c);
    assert_eq!(
        up.elements("Route"),
        ["<sip:192.0.2.1:5066;lr>", "<sip:scscf.home.test;lr>"]
    );
    assert!(up.value("Security-Verify").is_some());
    assert_eq!(up.body(), b"hello");
    let down = rig.sealed(&set, &Message::response(up, 200, "OK", "net"));
    assert_eq!(down.to_ue().value("Via"), sent.value("Via"));

    let theirs = "SIP/2.0/UDP 192.0.2.1:5066;branch=z9hG4bKnet";
    let request = message_to("sip:a@192.0.2.10:31800;transport=udp", theirs);
    let out = rig.sealed(&set, &request);
    assert_eq!(out.ue[0].0, at("127.0.0.1:5072"), "to the Contact's port");
    let down = out.to_ue();
    assert_eq!(down.uri(), Some("sip:a@127.0.0.1:5072;transport=udp"));
    assert_eq!(down.elements("Via").len(), 2);
    assert!(
        down.to_bytes()
            .windows(17)
            .any(|w| w == b"X-Unknown:   kept")
    );
    let answer = Message::response(down, 200, "OK", "ue").with("Contact", "<sip:a@127.0.0.1:5072>");
    let out = rig.ue_sends_at("127.0.0.1:5072", &answer);
    let (packet, up) = out.to_network();
    assert_eq!(packet.remote, at("192.0.2.1:5066"));
    assert_eq!(up.elements("Via"), [theirs]);
    assert_eq!(
        up.value("Contact").as_deref(),
        Some("<sip:a@192.0.2.10:31800>")
    );
}

#[test]
fn an_answer_to_a_request_over_tcp_goes_back_on_its_connection() {
    let mut rig = Rig::new();
    let set = rig.registered(1, 3600);
    let request = message_to(
        "sip:a@192.0.2.10:31800",
        "SIP/2.0/TCP 192.0.2.1:5066;branch=z9hG4bKnet",
    );
    let (local, remote) = (at("192.0.2.10:31800"), at("192.0.2.1:5067"));
    let bytes = request.to_bytes();
    let input = ProxyInput::FromNetwork {
        local,
        remote,
        transport: Transport::Tcp,
        bytes: &bytes,
    };
    rig.proxy.handle(rig.now, input);
    let down = rig.drain().to_ue().clone();
    let out = rig.ue_sends(&Message::response(&down, 200, "OK", "ue"));
    let packet = &out.to_network().0;
    assert_eq!(
        (packet.local, packet.remote, packet.transport),
        (local, remote, Transport::Tcp)
    );
    // The UE wrote none, for a datagram; on a stream the next message would be lost.
    let sent = &out.to_network().1;
    assert_eq!(sent.value("Content-Length").as_deref(), Some("0"));
    assert_eq!(set.params.pcscf_ends.port_c, 5067);
}

#[test]
fn what_is_not_protected_as_it_must_be_is_dropped() {
    let mut rig = Rig::new();
    let first = rig.first(3600);
    let sm1 = rig.ue_sends(&first).to_network().1.clone();
    // In clear anybody can say yes.
    let out = rig.in_clear(&granted(&sm1, 3600));
    assert_eq!(out.to_ue().status(), Some(500));
    assert!(!rig.proxy.is_registered());

    let set = rig.registered(1, 3600);
    let request = message_to(
        "sip:a@192.0.2.10:31800",
        "SIP/2.0/UDP 192.0.2.1:5066;branch=z9hG4bKx",
    );
    assert!(rig.in_clear(&request).dropped().contains("protected"));
    let stranger = rig.network_sends(at("192.0.2.10:31800"), at("192.0.2.99:5067"), &request);
    assert!(stranger.dropped().contains("P-CSCF"));
    let sent = message_to(
        "sip:echo@home.test",
        "SIP/2.0/UDP 127.0.0.1:5071;branch=z9hG4bK-m",
    );
    let up = rig.ue_sends(&sent).to_network().1.clone();
    let answer = Message::response(&up, 200, "OK", "net");
    assert!(rig.in_clear(&answer).dropped().contains("not protected"));
    assert_eq!(rig.sealed(&set, &answer).ue.len(), 1);
    let other = rig.ue_sends_at("127.0.0.2:5071", &sent);
    assert!(other.dropped().contains("another host"));
}
