//! SIP over TCP at the UE: TS 33.203 clause 7.1, TCP case; RFC 3261 clause 18.1.1.

use super::*;

fn carried_by(carrier: Carrier) -> Rig {
    Rig::set_up(|c| c.transport = carrier)
}

fn via(message: &Message) -> String {
    message.first_element("Via").expect("Via")
}

#[test]
fn over_tcp_requests_leave_from_port_uc_to_port_ps_and_name_port_us() {
    let mut rig = carried_by(Carrier::Tcp);
    let set = rig.registered();
    let sent = rig.sent();
    let [(clear, sm1), (protected, sm7)] = &sent[..] else {
        panic!("{} messages", sent.len())
    };
    assert_eq!(
        (clear.local, clear.transport),
        (addr("192.0.2.1:5060"), Transport::Tcp)
    );
    assert!(via(sm1).starts_with("SIP/2.0/TCP 192.0.2.1:5060;branch="));
    let ports = (protected.local.port(), protected.remote.port());
    assert_eq!(ports, (set.params.ue_ends.port_c, 6100));
    assert_eq!(protected.transport, Transport::Tcp);
    assert!(via(sm7).starts_with("SIP/2.0/TCP 192.0.2.1:31800;branch="));
    for register in [sm1, sm7] {
        let contact = register.value("Contact").expect("Contact");
        assert!(
            contact.starts_with("<sip:u@192.0.2.1:31800;transport=tcp>;"),
            "{contact}"
        );
    }
}

#[test]
fn over_tcp_nothing_is_sent_twice_and_it_ends_all_the_same() {
    let mut rig = carried_by(Carrier::Tcp);
    rig.ue.register(0).expect("starts");
    rig.pass(31_999);
    assert_eq!(rig.sent().len(), 1);
    rig.pass(1);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::Timeout))
    );
}

#[test]
fn answers_come_on_our_connection() {
    let mut rig = carried_by(Carrier::Tcp);
    rig.registered();
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (packet, request) = rig.last();
    let ok = Message::response(&request, 200, "OK", "s");
    rig.give_over(Transport::Tcp, packet.local, packet.remote, &ok);
    let answered = UeEvent::Answered {
        id,
        status: 200,
        body: Vec::new(),
    };
    assert_eq!(rig.events().last(), Some(&answered));
}

#[test]
fn requests_of_the_network_over_tcp_are_answered_on_their_connection() {
    let mut rig = Rig::new();
    rig.registered();
    let (local, remote) = (addr("192.0.2.1:31800"), addr("203.0.113.1:5100"));
    let over_tcp = {
        let mut message = message();
        message.replace_first_element("Via", "SIP/2.0/TCP 203.0.113.1:6100;branch=z9hG4bK1");
        message
    };
    for _ in 0..2 {
        rig.give_over(Transport::Tcp, local, remote, &over_tcp);
        let (packet, answer) = rig.last();
        assert_eq!((packet.local, packet.remote), (local, remote));
        assert_eq!(
            (packet.transport, answer.status()),
            (Transport::Tcp, Some(200))
        );
    }
    let told = rig
        .events()
        .into_iter()
        .filter(|e| matches!(e, UeEvent::Request { .. }));
    assert_eq!(told.count(), 1);
}

#[test]
fn what_is_longer_than_the_bound_goes_over_tcp_and_the_rest_over_udp() {
    let mut rig = carried_by(Carrier::Auto);
    rig.registered();
    for (bytes, transport) in [(10, Transport::Udp), (2000, Transport::Tcp)] {
        let body = vec![b'x'; bytes];
        rig.ue
            .send(0, "MESSAGE", "sip:x@h.example", "text/plain", &body)
            .expect("registered");
        let (packet, message) = rig.last();
        assert_eq!(packet.transport, transport);
        assert!(via(&message).starts_with(&format!("SIP/2.0/{} ", transport.name())));
        assert_eq!(packet.bytes.len() > 1300, transport == Transport::Tcp);
    }
    // Contact says nothing: each end chooses by size.
    let contact = rig.sent()[0]
        .1
        .value("Contact")
        .expect("Contact")
        .into_owned();
    assert!(!contact.contains("transport"), "{contact}");
}

#[test]
fn without_a_connection_what_was_only_long_goes_over_udp() {
    let mut rig = carried_by(Carrier::Auto);
    rig.registered();
    let body = [b'x'; 2000];
    let id = rig
        .ue
        .send(0, "MESSAGE", "sip:x@h.example", "text/plain", &body)
        .expect("registered");
    let (packet, _) = rig.last();
    let (local, remote) = (packet.local, packet.remote);
    rig.ue
        .handle(rig.now, UeInput::Unreachable { local, remote });
    let (packet, message) = rig.last();
    assert_eq!((packet.transport, packet.local), (Transport::Udp, local));
    assert!(via(&message).starts_with("SIP/2.0/UDP "));
    // Now it is sent again like anything over UDP.
    let before = rig.sent().len();
    rig.pass(500);
    assert_eq!(rig.sent().len(), before + 1);
    rig.give(
        addr("192.0.2.1:31800"),
        addr("203.0.113.1:5100"),
        &Message::response(&message, 200, "OK", "s"),
    );
    let answered = UeEvent::Answered {
        id,
        status: 200,
        body: Vec::new(),
    };
    assert_eq!(rig.events().last(), Some(&answered));
}

#[test]
fn who_wants_tcp_and_gets_no_connection_has_failed() {
    let mut rig = carried_by(Carrier::Tcp);
    rig.ue.register(0).expect("starts");
    let (local, remote) = (addr("192.0.2.1:5060"), addr("203.0.113.1:5060"));
    rig.ue.handle(0, UeInput::Unreachable { local, remote });
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::Unreachable))
    );
    let mut rig = carried_by(Carrier::Tcp);
    rig.registered();
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (packet, _) = rig.last();
    let (local, remote) = (packet.local, packet.remote);
    rig.ue.handle(0, UeInput::Unreachable { local, remote });
    let answered = UeEvent::Answered {
        id,
        status: 503,
        body: Vec::new(),
    };
    assert_eq!(rig.events().last(), Some(&answered));
    assert!(rig.ue.is_registered());
}

#[test]
fn a_connection_that_ends_under_a_request_is_opened_once_more() {
    let mut rig = carried_by(Carrier::Tcp);
    rig.registered();
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (first, _) = rig.last();
    let (local, remote) = (first.local, first.remote);
    rig.ue.handle(0, UeInput::Closed { local, remote });
    assert_eq!(rig.last().0, first, "the same again, on a new connection");
    rig.ue.handle(0, UeInput::Closed { local, remote });
    let answered = UeEvent::Answered {
        id,
        status: 503,
        body: Vec::new(),
    };
    assert_eq!(rig.events().last(), Some(&answered));
}

#[test]
fn an_idle_connection_that_is_closed_ends_no_registration() {
    let mut rig = carried_by(Carrier::Tcp);
    let set = rig.registered();
    rig.news();
    let (local, remote) = (addr("192.0.2.1:31800"), addr("203.0.113.1:5100"));
    rig.ue.handle(0, UeInput::Closed { local, remote });
    let client = SocketAddr::new(local.ip(), set.params.ue_ends.port_c);
    let remote = addr("203.0.113.1:6100");
    rig.ue.handle(
        0,
        UeInput::Closed {
            local: client,
            remote,
        },
    );
    assert!(rig.news().is_empty());
    assert!(rig.ue.is_registered());
    rig.ue.register(0).expect("starts");
    assert_eq!(
        rig.last().0.local,
        client,
        "over a new connection from the same port"
    );
}

#[test]
fn pings_keep_our_connection_open() {
    let mut rig = Rig::set_up(|c| {
        c.transport = Carrier::Tcp;
        c.tcp_keepalive = 30_000;
    });
    let set = rig.registered();
    rig.news();
    let pings = |rig: &mut Rig, ms| {
        rig.pass(ms);
        let ping = |o: &UeOutput| matches!(o, UeOutput::Send(p) if p.bytes == b"\r\n\r\n");
        let out = rig.news();
        let sent: Vec<_> = out.into_iter().filter(ping).collect();
        for output in &sent {
            let UeOutput::Send(packet) = output else {
                continue;
            };
            assert_eq!(packet.local.port(), set.params.ue_ends.port_c);
            assert_eq!(packet.transport, Transport::Tcp);
        }
        sent.len()
    };
    assert_eq!(pings(&mut rig, 29_999), 0);
    assert_eq!(pings(&mut rig, 60_001), 3);
    let client = SocketAddr::new([192, 0, 2, 1].into(), set.params.ue_ends.port_c);
    let remote = addr("203.0.113.1:6100");
    rig.ue.handle(
        rig.now,
        UeInput::Closed {
            local: client,
            remote,
        },
    );
    assert_eq!(pings(&mut rig, 90_000), 0, "none opens a connection");
}
