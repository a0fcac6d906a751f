//! TCP as the edge decides on it: which way, and what becomes of what cannot be sent.

use super::rig::*;
use super::*;
use crate::edge::Input;

pub fn config() -> EdgeConfig {
    EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"))
}

/// A request of the core for the contact of `up`, a REGISTER that went up.
pub fn from_core(method: &str, up: &Message, branch: &str, more: usize) -> Message {
    let path = up.first_element("Path").expect("Path");
    let contact = up.value("Contact").expect("Contact").into_owned();
    let uri = contact.split(['<', '>']).nth(1).expect("a URI").to_owned();
    Message::request(method, &uri)
        .with(
            "Via",
            &format!("SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK{branch}"),
        )
        .with("Max-Forwards", "70")
        .with("Route", &path)
        .with("From", "<sip:x@h>;tag=1")
        .with("To", "<sip:a@home.example>")
        .with("Call-ID", branch)
        .with("CSeq", &format!("1 {method}"))
        .with_body(&vec![b'x'; more])
}

pub fn unsent(rig: &mut Rig, packet: &Packet) -> Vec<Output> {
    let input = Input::UnsentToUe {
        local: packet.local,
        remote: packet.remote,
        bytes: &packet.bytes,
    };
    rig.edge.handle(rig.now, input);
    rig.take()
}

fn via_of(packet: &Packet) -> String {
    let message = Message::parse(&packet.bytes).expect("SIP");
    message.first_element("Via").expect("Via")
}

pub fn one(out: &[Output]) -> Packet {
    let all = packets(out);
    assert_eq!(all.len(), 1, "{out:?}");
    all[0].clone()
}

/// The phone over TCP: SM7 and what follows.
fn tcp(rig: &mut Rig, source: SocketAddr, local: SocketAddr, text: &str) -> Vec<Output> {
    let input = Input::FromUe {
        local,
        remote: source,
        transport: Transport::Tcp,
        bytes: text.as_bytes(),
    };
    rig.edge.handle(rig.now, input);
    rig.take()
}

/// Registers with SM7 over TCP and gives SM8.
fn register_over_tcp(rig: &mut Rig, phone: &Phone) -> Message {
    let (_, nonce, sm6) = rig.challenge(phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let text = phone
        .sm7(&nonce, &verify)
        .replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let up = to_core(&tcp(rig, source, local, &text));
    let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
    let packet = one(&rig.core(&ok));
    assert_eq!((packet.local, packet.remote), (local, source));
    assert_eq!(packet.transport, Transport::Tcp);
    up
}

#[test]
fn requests_go_over_what_the_phone_has_registered_with() {
    let mut rig = Rig::new();
    let up = register_over_tcp(&mut rig, &phone("a", 1));
    let packet = one(&rig.core(&from_core("MESSAGE", &up, "1", 0)));
    // Clause 7.1: from port_pc to port_us; the answer comes on the connection.
    assert_eq!(packet.transport, Transport::Tcp);
    assert_eq!(packet.local, addr("203.0.113.1:5064"));
    assert_eq!(packet.remote, addr("192.0.2.1:32000"));
    assert!(via_of(&packet).starts_with("SIP/2.0/TCP 203.0.113.1:5063;branch="));
    let answer = Message::parse(&packet.bytes).expect("SIP");
    let answer = Message::response(&answer, 200, "OK", "u").to_bytes();
    let answer = String::from_utf8(answer).expect("text");
    let up = to_core(&tcp(&mut rig, packet.remote, packet.local, &answer));
    assert_eq!((up.status(), up.elements("Via").len()), (Some(200), 1));
}

#[test]
fn the_contact_names_the_transport_and_the_request_uri_before_it() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, up) = rig.register(&phone);
    let plain = from_core("MESSAGE", &up, "1", 0);
    assert_eq!(one(&rig.core(&plain)).transport, Transport::Udp);
    let mut named = from_core("MESSAGE", &up, "2", 0);
    named.set_uri("sip:192.0.2.1:32000;transport=TCP");
    assert_eq!(one(&rig.core(&named)).transport, Transport::Tcp);
}

#[test]
fn register_and_subscribe_over_tcp_and_message_over_udp_in_the_same_sas() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    register_over_tcp(&mut rig, &phone);
    let (source, local) = phone.protected();
    let request = |method: &str, transport: &str| {
        format!(
            "{method} sip:b@home.example SIP/2.0\r\n\
             Via: SIP/2.0/{transport} 192.0.2.1:32000;branch=z9hG4bK{method}\r\n\
             From: <sip:a@home.example>;tag=1\r\nTo: <sip:b@home.example>\r\n\
             Call-ID: {method}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let subscribe = to_core(&tcp(&mut rig, source, local, &request("SUBSCRIBE", "TCP")));
    let message = to_core(&rig.ue(source, local, &request("MESSAGE", "UDP")));
    let packet = one(&rig.core(&Message::response(&subscribe, 200, "OK", "x")));
    assert_eq!(
        (packet.transport, packet.local, packet.remote),
        (Transport::Tcp, local, source)
    );
    // Over UDP from port_pc to port_us (clause 7.1).
    let packet = one(&rig.core(&Message::response(&message, 200, "OK", "x")));
    assert_eq!(
        (packet.transport, packet.local.port()),
        (Transport::Udp, 5064)
    );
    assert_eq!(packet.remote, addr("192.0.2.1:32000"));
}

#[test]
fn above_the_bound_a_request_goes_over_tcp_with_all_that_belongs_to_it() {
    let mut rig = Rig::new();
    let (_, up) = rig.register(&phone("a", 1));
    let invite = from_core("INVITE", &up, "1", 1300);
    let packet = one(&rig.core(&invite));
    assert_eq!(packet.transport, Transport::Tcp);
    let text = String::from_utf8_lossy(&packet.bytes).into_owned();
    assert!(
        text.contains("@203.0.113.1:5063;transport=tcp;lr>"),
        "{text}"
    );
    // CANCEL and the ACK of a failure are small, and go the same way (RFC 3261 9.1).
    for method in ["CANCEL", "ACK"] {
        let mut small = from_core(method, &up, "1", 0);
        small.set("CSeq", &format!("1 {method}"));
        assert_eq!(one(&rig.core(&small)).transport, Transport::Tcp, "{method}");
    }
    let mut config = config();
    config.tcp_above = usize::MAX;
    let mut never = Rig::with(config);
    let (_, up) = never.register(&phone("a", 1));
    let packet = one(&never.core(&from_core("INVITE", &up, "1", 3000)));
    assert_eq!(packet.transport, Transport::Udp);
}

#[test]
fn the_bound_counts_what_leaves() {
    for more in 0..1300 {
        let mut rig = Rig::new();
        let (_, up) = rig.register(&phone("a", 1));
        let packet = one(&rig.core(&from_core("MESSAGE", &up, "1", 800 + more)));
        let large = packet.transport == Transport::Tcp;
        assert_eq!(
            large,
            packet.bytes.len() > 1300,
            "{} bytes",
            packet.bytes.len()
        );
        if large {
            return;
        }
    }
    panic!("never over TCP");
}

#[test]
fn where_no_connection_can_be_made_a_request_goes_over_udp_for_a_while() {
    let mut rig = Rig::new();
    let (_, up) = rig.register(&phone("a", 1));
    let packet = one(&rig.core(&from_core("INVITE", &up, "1", 1300)));
    let again = one(&unsent(&mut rig, &packet));
    assert_eq!(again.transport, Transport::Udp);
    assert_eq!((again.local, again.remote), (packet.local, packet.remote));
    let udp = via_of(&packet).replace("/TCP", "/UDP");
    assert_eq!(via_of(&again), udp);
    // The CANCEL follows it, others do not try for an hour.
    assert_eq!(
        one(&rig.core(&from_core("CANCEL", &up, "1", 0))).transport,
        Transport::Udp
    );
    let large = |n: &str| from_core("MESSAGE", &up, n, 1300);
    assert_eq!(one(&rig.core(&large("2"))).transport, Transport::Udp);
    rig.now += 3_590_000;
    assert_eq!(one(&rig.core(&large("3"))).transport, Transport::Udp);
    rig.now += 10_000;
    assert_eq!(one(&rig.core(&large("4"))).transport, Transport::Tcp);
    // One that speaks TCP itself is tried again soon.
    let mut rig = Rig::new();
    let up = register_over_tcp(&mut rig, &phone("a", 1));
    let packet = one(&rig.core(&from_core("MESSAGE", &up, "1", 0)));
    assert_eq!(one(&unsent(&mut rig, &packet)).transport, Transport::Udp);
    let small = |n: &str| from_core("MESSAGE", &up, n, 0);
    assert_eq!(one(&rig.core(&small("2"))).transport, Transport::Udp);
    rig.now += 60_000;
    assert_eq!(one(&rig.core(&small("3"))).transport, Transport::Tcp);
}

#[test]
fn an_answer_whose_connection_is_gone_takes_the_way_of_a_request() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    register_over_tcp(&mut rig, &phone);
    let (source, local) = phone.protected();
    let options = "OPTIONS sip:home.example SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1:32000;branch=z9hG4bKo\r\n\
                   From: <sip:a@home.example>;tag=1\r\nTo: <sip:home.example>\r\nCall-ID: o\r\n\
                   CSeq: 1 OPTIONS\r\nl: 0\r\n\r\n";
    let up = to_core(&tcp(&mut rig, source, local, options));
    let answer = one(&rig.core(&Message::response(&up, 200, "OK", "x")));
    assert_eq!((answer.local, answer.remote), (local, source));
    // RFC 3261 18.2.2, within the SA: from port_pc to port_us.
    let again = one(&unsent(&mut rig, &answer));
    assert_eq!((again.local.port(), again.remote.port()), (5064, 32000));
    assert_eq!(
        (again.transport, &again.bytes),
        (Transport::Tcp, &answer.bytes)
    );
    // And then no more.
    assert!(packets(&unsent(&mut rig, &again)).is_empty());
    assert_eq!(rig.refusals(), [Refusal::Unreachable]);
}

#[test]
fn nothing_of_a_stranger_is_sent_anywhere_else() {
    let mut rig = Rig::new();
    let text = phone("a", 1)
        .sm1()
        .replace("SIP/2.0/UDP 192.0.2.1:5060", "SIP/2.0/TCP 192.0.2.1");
    let up = to_core(&tcp(&mut rig, addr("192.0.2.1:49152"), addr(CLEAR), &text));
    let answer = one(&rig.core(&Message::response(&up, 403, "Forbidden", "c")));
    // On the connection, although Via says 5060 and there is no rport.
    assert_eq!(answer.remote, addr("192.0.2.1:49152"));
    assert!(
        unsent(&mut rig, &answer)
            .iter()
            .all(|o| matches!(o, Output::Event(_)))
    );
}

#[test]
fn after_a_new_registration_what_comes_back_goes_through_the_new_set() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a", 1), phone("a", 2));
    register_over_tcp(&mut rig, &old);
    let (source, local) = old.protected();
    let at = SocketAddr::new(source.ip(), old.ends.port_s);
    let text = new.register(at, "nonce=\"\",response=\"\"", "");
    let up = to_core(&tcp(&mut rig, source, local, &text));
    let (nonce, message) = challenge(&up, 2, &format!("ik=\"{IK}\",ck=\"{CK}\""));
    let set = installs(&rig.core(&message)).pop().expect("an Install");
    rig.edge.handle(rig.now, Input::Installed { set, ok: true });
    let sm6 = one(&rig.take());
    let message = Message::parse(&sm6.bytes).expect("SIP");
    let verify = message
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    // SM6 is for the old connection, and comes back in time.
    let again = one(&unsent(&mut rig, &sm6));
    assert_eq!((again.local.port(), again.remote.port()), (5064, 32000));
    let (source, local) = new.protected();
    let up = to_core(&rig.ue(source, local, &new.sm7(&nonce, &verify)));
    let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
    rig.core(&ok);
    let options = "OPTIONS sip:home.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:32000;branch=z9hG4bKo\r\n\
                   From: <sip:a@home.example>;tag=1\r\nTo: <sip:home.example>\r\nCall-ID: o\r\n\
                   CSeq: 1 OPTIONS\r\nl: 0\r\n\r\n";
    to_core(&rig.ue(source, local, options));
    // And now not in time.
    let again = one(&unsent(&mut rig, &sm6));
    assert_eq!((again.local.port(), again.remote.port()), (5065, 32000));
}
