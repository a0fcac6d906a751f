//! What unprotected ports take (TS 33.203 clause 7.1 port rule 3).

use super::rig::*;
use super::tcp::config;
use super::*;
use rstest::rstest;

fn with_emergency() -> Rig {
    let mut config = config();
    config.emergency_in_clear = true;
    Rig::with(config)
}

fn call(uri: &str, n: u16, more: &str) -> String {
    format!(
        "INVITE {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKsos{n}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:anonymous@anonymous.invalid>;tag=u\r\nTo: <urn:service:sos>\r\n\
         Call-ID: sos{n}\r\nCSeq: 1 INVITE\r\nContact: <sip:192.0.2.1:5060>\r\n{more}l: 0\r\n\r\n"
    )
}

fn clear(rig: &mut Rig, text: &str) -> Vec<Output> {
    rig.ue(addr(UE), addr(CLEAR), text)
}

fn text(message: &Message) -> String {
    String::from_utf8(message.to_bytes()).expect("text")
}

#[rstest]
#[case::emergency_but_off(&call("urn:service:sos", 1, ""), false, true)]
#[case::no_emergency(&call("sip:b@home.example", 1, ""), true, true)]
#[case::a_lookalike(&call("urn:service:sosumi", 1, ""), true, true)]
#[case::options(&call("urn:service:sos", 1, "").replace("INVITE", "OPTIONS"), true, true)]
#[case::made_up_dialog(&call("urn:service:sos", 1, "").replace("sos>\r\nCall", "sos>;tag=x\r\nCall"), true, true)]
#[case::a_response(
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK1\r\nl: 0\r\n\r\n",
    true,
    false
)]
fn all_else_in_clear_is_refused(#[case] text: &str, #[case] on: bool, #[case] answered: bool) {
    let mut rig = if on { with_emergency() } else { Rig::new() };
    let out = clear(&mut rig, text);
    assert!(
        !out.iter().any(|o| matches!(o, Output::ToCore { .. })),
        "{out:?}"
    );
    let status = to_ue(&out).first().and_then(Message::status);
    assert_eq!(status, answered.then_some(403));
    assert_eq!(rig.refusals(), [Refusal::Unprotected]);
}

#[test]
fn an_emergency_call_from_its_invite_to_its_end() {
    let mut rig = with_emergency();
    let more = "P-Asserted-Identity: <sip:victim@home.example>\r\n\
                P-Preferred-Identity: <sip:victim@home.example>\r\n\
                Route: <sip:203.0.113.1:5060;lr>, <sip:evil.example;lr>\r\nRequire: sec-agree\r\n";
    let up = to_core(&clear(&mut rig, &call("urn:service:sos.police", 1, more)));
    for name in [
        "P-Asserted-Identity",
        "P-Preferred-Identity",
        "Route",
        "Require",
    ] {
        assert_eq!(up.value(name), None, "{name}");
    }
    let ours = up.first_element("Record-Route").expect("Record-Route");
    assert!(ours.ends_with("@203.0.113.1:5080;lr>"), "{ours}");
    let ok = Message::response(&up, 200, "OK", "e").with("Record-Route", &ours);
    let packet = packets(&rig.core(&ok)).remove(0);
    assert_eq!((packet.local, packet.remote), (addr(CLEAR), addr(UE)));
    let down = Message::parse(&packet.bytes).expect("SIP");
    let route = down.first_element("Record-Route").expect("Record-Route");
    assert!(route.ends_with("@203.0.113.1:5060;lr>"), "{route}");
    // The phone goes on in the call, and nobody else does.
    let ack = call("sip:psap@203.0.113.9", 1, &format!("Route: {route}\r\n"))
        .replace("INVITE", "ACK")
        .replace("sos>\r\nCall", "sos>;tag=e\r\nCall");
    assert_eq!(to_core(&clear(&mut rig, &ack)).method(), Some("ACK"));
    let stranger = rig.ue(addr("192.0.2.66:5060"), addr(CLEAR), &ack);
    assert!(!stranger.iter().any(|o| matches!(o, Output::ToCore { .. })));
    // The core hangs up.
    let bye = Message::request("BYE", "sip:192.0.2.1:5060")
        .with("Via", "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bKbye")
        .with("Route", &ours)
        .with("From", "<urn:service:sos>;tag=e")
        .with("To", "<sip:anonymous@anonymous.invalid>;tag=u")
        .with("Call-ID", "sos1")
        .with("CSeq", "1 BYE");
    let packet = packets(&rig.core(&bye)).remove(0);
    assert_eq!((packet.local, packet.remote), (addr(CLEAR), addr(UE)));
    let down = Message::parse(&packet.bytes).expect("SIP");
    let ok =
        text(&Message::response(&down, 200, "OK", "u").with("P-Asserted-Identity", "<sip:v@h>"));
    let stranger = rig.ue(addr("192.0.2.66:5060"), addr(CLEAR), &ok);
    assert!(!stranger.iter().any(|o| matches!(o, Output::ToCore { .. })));
    let up = to_core(&clear(&mut rig, &ok));
    assert_eq!(
        (up.status(), up.value("P-Asserted-Identity")),
        (Some(200), None)
    );
    // It is over, and soon forgotten.
    rig.now += 32_000;
    rig.edge.handle_timeout(rig.now);
    assert_eq!(to_core(&rig.core(&bye)).status(), Some(480));
    rig.now += 300_000;
    rig.edge.handle_timeout(rig.now);
    assert_eq!(rig.edge.next_timeout(), None);
}

/// A call that the core has answered with tag `e`; gives our Route for the phone.
fn answered(rig: &mut Rig) -> String {
    let up = to_core(&clear(rig, &call("urn:service:sos", 1, "")));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    let ok = Message::response(&up, 200, "OK", "e").with("Record-Route", &ours);
    let down = to_ue(&rig.core(&ok)).pop().expect("an answer");
    down.first_element("Record-Route").expect("Record-Route")
}

#[rstest]
#[case::inside("BYE", "sip:psap@h", "e", true, true)]
#[case::no_route("BYE", "sip:psap@h", "e", false, false)]
#[case::made_up_tag("INVITE", "sip:psap@h", "x", true, false)]
#[case::no_tag("INVITE", "sip:victim@h", "", true, false)]
#[case::another_call("INVITE", "urn:service:sos", "", false, true)]
#[case::message("MESSAGE", "sip:psap@h", "e", true, false)]
#[case::message_outside("MESSAGE", "sip:victim@h", "", true, false)]
#[case::cancel_of_nothing("CANCEL", "sip:victim@h", "", false, false)]
fn an_open_emergency_call_opens_nothing_else(
    #[case] method: &str,
    #[case] uri: &str,
    #[case] tag: &str,
    #[case] routed: bool,
    #[case] taken: bool,
) {
    let mut rig = with_emergency();
    let route = answered(&mut rig);
    let more = format!("Route: {route}, <sip:far.example;lr>\r\n");
    let more = if routed { more.as_str() } else { "" };
    let to = match tag {
        "" => String::new(),
        tag => format!(";tag={tag}"),
    };
    let text = call(uri, 1, more)
        .replace("INVITE", method)
        .replace("z9hG4bKsos1", "z9hG4bKother")
        .replace("sos>\r\nCall", &format!("sos>{to}\r\nCall"));
    let out = clear(&mut rig, &text);
    if taken {
        let routes = to_core(&out).elements("Route");
        assert_eq!(routes.len(), usize::from(routed), "{routes:?}");
    } else {
        assert_eq!(to_ue(&out)[0].status(), Some(403), "{out:?}");
    }
}

#[test]
fn strangers_have_few_emergency_calls_at_a_time() {
    let mut rig = with_emergency();
    let invite = |n: u16| call("urn:service:sos", n, "");
    let up: Vec<_> = (1..=10)
        .map(|n| clear(&mut rig, &invite(n)))
        .filter(|out| out.iter().any(|o| matches!(o, Output::ToCore { .. })))
        .collect();
    assert_eq!(up.len(), 4);
    assert_eq!(rig.refusals(), [Refusal::Overload; 6]);
    for a in 0..=255_u16 {
        let from = format!("198.51.{}.{}:5060", a % 100, a);
        rig.ue(addr(&from), addr(CLEAR), &invite(100 + a));
    }
    assert_eq!(rig.refusals().len(), 6 + 4);
    // Nobody has answered: they make room.
    rig.now += 190_000;
    rig.edge.handle_timeout(rig.now);
    to_core(&clear(&mut rig, &invite(500)));
}

#[test]
fn a_refused_emergency_call_is_no_dialog() {
    let mut rig = with_emergency();
    let up = to_core(&clear(&mut rig, &call("urn:service:sos", 1, "")));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    let no = Message::response(&up, 404, "Not Found", "e").with("Record-Route", &ours);
    let down = to_ue(&rig.core(&no)).remove(0);
    let route = down.first_element("Record-Route").expect("Record-Route");
    let info = call("sip:victim@home.example", 1, &format!("Route: {route}\r\n"))
        .replace("INVITE", "INFO")
        .replace("sos>\r\nCall", "sos>;tag=e\r\nCall");
    assert_eq!(to_ue(&clear(&mut rig, &info))[0].status(), Some(403));
}

#[test]
fn one_emergency_call_does_not_take_all_transactions() {
    let mut rig = with_emergency();
    let text = call("urn:service:sos", 1, "");
    let taken = (1..=100).filter(|n| {
        let text = text.replace("z9hG4bKsos1", &format!("z9hG4bKsos1x{n}"));
        to_ue(&clear(&mut rig, &text)).is_empty()
    });
    assert_eq!(taken.count(), 16);
}

#[test]
fn an_emergency_call_of_a_registered_phone_needs_no_service_route() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    rig.register(&phone);
    let (source, local) = phone.protected();
    let text = call("urn:service:sos", 1, "Route: <sip:ecscf.example;lr>\r\n");
    let up = to_core(&rig.ue(source, local, &text));
    // The core knows where emergency services are.
    assert_eq!(up.elements("Route"), Vec::<String>::new());
    assert_eq!(
        up.value("P-Asserted-Identity").as_deref(),
        Some("<sip:a@home.example>")
    );
}
