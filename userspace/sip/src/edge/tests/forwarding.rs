//! What passes between phones and the core, and what of it is changed.

use super::rig::*;
use super::tcp::{config, from_core};
use super::*;
use rstest::rstest;

/// A registered phone with two identities and a Service-Route.
fn registered(config: EdgeConfig) -> (Rig, Phone, Message) {
    let mut rig = Rig::with(config);
    let phone = phone("a", 1);
    let (_, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let up = to_core(&rig.ue(source, local, &phone.sm7(&nonce, &verify)));
    let ok = Message::response(&up, 200, "OK", "c")
        .with("Contact", &contact(&up))
        .with("P-Associated-URI", "<sip:a@home.example>, <tel:+15550101>")
        .with(
            "Service-Route",
            "<sip:orig@scscf.example:6060;lr>, <sip:as.example;lr>",
        );
    rig.core(&ok);
    (rig, phone, up)
}

const ROUTES: &str = "Route: <sip:203.0.113.1:5063;lr>, <sip:orig@scscf.example:6060;lr>\r\n\
                      Route: <sip:as.example;lr>\r\n";

fn request(method: &str, from: &str, to: &str, more: &str) -> String {
    let (from, to) = (format!("From: {from}\r\n"), format!("To: {to}\r\n"));
    format!(
        "{method} sip:b@home.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:32000;branch=z9hG4bK{method}{}\r\nMax-Forwards: 70\r\n\
         {from}{to}Call-ID: call\r\nCSeq: 7 {method}\r\n{more}l: 0\r\n\r\n",
        more.len() + from.len() * 1000
    )
}

fn send(rig: &mut Rig, phone: &Phone, text: &str) -> Vec<Output> {
    let (source, local) = phone.protected();
    rig.ue(source, local, text)
}

fn answer(rig: &mut Rig, phone: &Phone, message: &Message) -> Vec<Output> {
    let text = String::from_utf8(message.to_bytes()).expect("text");
    send(rig, phone, &text)
}

const OWN: &str = "<sip:a@home.example>;tag=own";
const OTHER: &str = "<sip:b@home.example>";

#[rstest]
#[case::as_learnt(ROUTES, ServiceRoute::Replace, true)]
#[case::as_learnt_refuse(ROUTES, ServiceRoute::Refuse, true)]
#[case::none("", ServiceRoute::Replace, true)]
#[case::none_refuse("", ServiceRoute::Refuse, false)]
#[case::elsewhere("Route: <sip:evil.example;lr>\r\n", ServiceRoute::Replace, true)]
#[case::elsewhere_refuse("Route: <sip:evil.example;lr>\r\n", ServiceRoute::Refuse, false)]
#[case::one_more(
    "Route: <sip:orig@scscf.example:6060;lr>,<sip:as.example;lr>,<sip:evil.example;lr>\r\n",
    ServiceRoute::Refuse,
    false
)]
#[case::order(
    "Route: <sip:as.example;lr>,<sip:orig@scscf.example:6060;lr>\r\n",
    ServiceRoute::Replace,
    true
)]
fn a_request_outside_dialogs_goes_by_the_service_route(
    #[case] routes: &str,
    #[case] rule: ServiceRoute,
    #[case] taken: bool,
) {
    let mut config = config();
    config.service_route = rule;
    let (mut rig, phone, _) = registered(config);
    let out = send(&mut rig, &phone, &request("INVITE", OWN, OTHER, routes));
    if !taken {
        assert_eq!(to_ue(&out)[0].status(), Some(400));
        assert_eq!(rig.refusals(), [Refusal::ServiceRoute]);
        return;
    }
    let up = to_core(&out);
    assert_eq!(
        up.elements("Route"),
        ["<sip:orig@scscf.example:6060;lr>", "<sip:as.example;lr>"]
    );
}

#[test]
fn a_network_that_gives_no_service_route_wants_no_routes_and_pass_lets_them() {
    let routes = "Route: <sip:203.0.113.1:5060;lr>, <sip:x.example;lr>\r\n";
    for (rule, left) in [(ServiceRoute::Replace, 0), (ServiceRoute::Pass, 1)] {
        let mut config = config();
        config.service_route = rule;
        let mut rig = Rig::with(config);
        let phone = phone("a", 1);
        rig.register(&phone);
        let up = to_core(&send(
            &mut rig,
            &phone,
            &request("MESSAGE", OWN, OTHER, routes),
        ));
        assert_eq!(up.elements("Route").len(), left);
    }
}

#[test]
fn the_latest_registration_says_the_service_route() {
    let (mut rig, phone, _) = registered(config());
    let at = SocketAddr::new(phone.source.ip(), phone.ends.port_s);
    let text = phone.register(at, "nonce=\"\",response=\"\"", "");
    let offer = format!("Security-Client: {}\r\n", phone.offer());
    let up = to_core(&send(&mut rig, &phone, &text.replace(&offer, "")));
    let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
    rig.core(&ok.with("Service-Route", "<sip:new.example;lr>"));
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("INVITE", OWN, OTHER, ROUTES),
    ));
    assert_eq!(up.elements("Route"), ["<sip:new.example;lr>"]);
}

#[test]
fn record_route_is_for_each_side_its_own_address() {
    let (mut rig, phone, register) = registered(config());
    // The phone calls.
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("INVITE", OWN, OTHER, ROUTES),
    ));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    assert!(ours.ends_with("@203.0.113.1:5080;lr>"), "{ours}");
    let ok = Message::response(&up, 200, "OK", "x")
        .with("Record-Route", &format!("<sip:scscf.example;lr>, {ours}"));
    let down = to_ue(&rig.core(&ok)).pop().expect("an answer");
    let all = down.elements("Record-Route");
    assert_eq!(all[0], "<sip:scscf.example;lr>");
    assert!(all[1].ends_with("@203.0.113.1:5063;lr>"), "{all:?}");
    // It is called.
    let packet = packets(&rig.core(&from_core("INVITE", &register, "1", 0))).remove(0);
    let down = Message::parse(&packet.bytes).expect("SIP");
    let theirs = down.first_element("Record-Route").expect("Record-Route");
    assert!(theirs.ends_with("@203.0.113.1:5063;lr>"), "{theirs}");
    let ok = Message::response(&down, 200, "OK", "u")
        .with("Record-Route", &format!("{theirs},<sip:scscf.example;lr>"));
    let up = to_core(&answer(&mut rig, &phone, &ok));
    let all = up.elements("Record-Route");
    assert!(all[0].ends_with("@203.0.113.1:5080;lr>"), "{all:?}");
    // By which the core finds the phone again.
    let mut bye = from_core("BYE", &register, "2", 0);
    bye.set("Route", &all[0]);
    assert_eq!(packets(&rig.core(&bye))[0].remote, addr("192.0.2.1:32000"));
}

/// A call to the phone under a name that the phone has never registered; gives our
/// Record-Route towards it.
fn called(rig: &mut Rig, register: &Message) -> String {
    let mut invite = from_core("INVITE", register, "1", 0);
    invite.set("To", "<sip:alias@other.example>");
    invite.set("Call-ID", "call");
    invite.set("From", "<sip:b@home.example>;tag=far");
    let packet = packets(&rig.core(&invite)).remove(0);
    let down = Message::parse(&packet.bytes).expect("SIP");
    down.first_element("Record-Route").expect("Record-Route")
}

#[rstest]
#[case::in_the_dialog(
    "<sip:alias@other.example>;tag=u",
    "<sip:b@home.example>;tag=far",
    true,
    true
)]
#[case::made_up_tag(
    "<sip:alias@other.example>;tag=u",
    "<sip:b@home.example>;tag=x",
    true,
    false
)]
#[case::without_route(
    "<sip:alias@other.example>;tag=u",
    "<sip:b@home.example>;tag=far",
    false,
    false
)]
#[case::somebody_else(
    "<sip:victim@home.example>;tag=u",
    "<sip:b@home.example>;tag=far",
    true,
    false
)]
#[case::no_tag("<sip:alias@other.example>;tag=u", "<sip:b@home.example>", true, false)]
#[case::itself(
    "<sip:a@home.example>;tag=u",
    "<sip:b@home.example>;tag=x",
    false,
    true
)]
fn a_made_up_to_tag_does_not_skip_the_check_of_from(
    #[case] from: &str,
    #[case] to: &str,
    #[case] routed: bool,
    #[case] taken: bool,
) {
    let (mut rig, phone, register) = registered(config());
    let route = called(&mut rig, &register);
    let more = if routed {
        format!("Route: {route}\r\n")
    } else {
        String::new()
    };
    let out = send(&mut rig, &phone, &request("BYE", from, to, &more));
    if taken {
        let up = to_core(&out);
        assert_eq!(
            up.value("P-Asserted-Identity").as_deref(),
            Some("<sip:a@home.example>")
        );
    } else {
        assert_eq!(to_ue(&out)[0].status(), Some(403));
        assert_eq!(rig.refusals(), [Refusal::ForeignUser]);
    }
}

#[test]
fn routes_inside_a_dialog_are_the_dialogs() {
    let (mut rig, phone, register) = registered(config());
    let route = called(&mut rig, &register);
    let more = format!("Route: {route}, <sip:far.example;lr>\r\n");
    let from = "<sip:alias@other.example>;tag=u";
    let to = "<sip:b@home.example>;tag=far";
    let up = to_core(&send(&mut rig, &phone, &request("BYE", from, to, &more)));
    assert_eq!(up.elements("Route"), ["<sip:far.example;lr>"]);
    // Of another call, or with a made-up tag, they are not.
    let other = request("BYE", OWN, "<sip:b@home.example>;tag=x", &more);
    let up = to_core(&send(&mut rig, &phone, &other));
    assert_eq!(up.elements("Route")[0], "<sip:orig@scscf.example:6060;lr>");
    let other = request("BYE", from, to, &more).replace("Call-ID: call", "Call-ID: other");
    let out = send(&mut rig, &phone, &other);
    assert_eq!(to_ue(&out)[0].status(), Some(403));
}

#[test]
fn the_phones_own_calls_stay_its_own() {
    let (mut rig, phone, _) = registered(config());
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("INVITE", OWN, OTHER, ROUTES),
    ));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    let ok = Message::response(&up, 200, "OK", "x").with("Record-Route", &ours);
    let down = to_ue(&rig.core(&ok)).pop().expect("an answer");
    let route = down.first_element("Record-Route").expect("Record-Route");
    let more = format!("Route: {route}, <sip:far.example;lr>\r\n");
    for method in ["ACK", "PRACK", "BYE"] {
        let text = request(method, OWN, "<sip:b@home.example>;tag=x", &more);
        let up = to_core(&send(&mut rig, &phone, &text));
        assert_eq!(up.elements("Route"), ["<sip:far.example;lr>"], "{method}");
    }
}

#[test]
fn the_routes_of_a_phone_that_is_behind_us_too_stay() {
    let (mut rig, phone, _) = registered(config());
    let mut b = super::rig::phone("b", 2);
    b.source = addr("192.0.2.2:5060");
    let (_, register) = rig.register(&b);
    let path = register.first_element("Path").expect("Path");
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("INVITE", OWN, OTHER, ROUTES),
    ));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    let ok =
        Message::response(&up, 200, "OK", "x").with("Record-Route", &format!("{path}, {ours}"));
    let down = to_ue(&rig.core(&ok)).pop().expect("an answer");
    let mut all = down.elements("Record-Route");
    all.reverse();
    let more = format!("Route: {}\r\n", all.join(", "));
    let bye = request("BYE", OWN, "<sip:b@home.example>;tag=x", &more);
    let up = to_core(&send(&mut rig, &phone, &bye));
    assert_eq!(up.elements("Route"), [path]);
}

#[rstest]
#[case::none("", &["<sip:a@home.example>"])]
#[case::own("P-Preferred-Identity: <tel:+15550101>\r\n", &["<tel:+15550101>"])]
#[case::both(
    "P-Preferred-Identity: <tel:+15550101>, \"A\" <sip:a@home.example>\r\n",
    &["<tel:+15550101>", "<sip:a@home.example>"]
)]
#[case::two_lines(
    "P-Preferred-Identity: <sip:victim@home.example>\r\nP-Preferred-Identity: <tel:+15550101>\r\n",
    &["<tel:+15550101>"]
)]
#[case::two_of_a_kind(
    "P-Preferred-Identity: <sip:a@home.example>, <sip:a@home.example;user=phone>\r\n",
    &["<sip:a@home.example>"]
)]
#[case::asserts_itself("P-Asserted-Identity: <sip:victim@home.example>\r\n", &["<sip:a@home.example>"])]
fn the_identity_asserted_is_one_that_is_registered(#[case] more: &str, #[case] asserted: &[&str]) {
    let (mut rig, phone, register) = registered(config());
    let text = request(
        "MESSAGE",
        "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1",
        OTHER,
        more,
    );
    let up = to_core(&send(&mut rig, &phone, &text));
    assert_eq!(up.elements("P-Asserted-Identity"), asserted);
    assert_eq!(up.value("P-Preferred-Identity"), None);
    // In answers as well.
    let packet = packets(&rig.core(&from_core("MESSAGE", &register, "1", 0))).remove(0);
    let mut ok = Message::response(&Message::parse(&packet.bytes).expect("SIP"), 200, "OK", "u");
    for line in more.lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        ok.push(name, value);
    }
    let up = to_core(&answer(&mut rig, &phone, &ok));
    assert_eq!(up.elements("P-Asserted-Identity"), asserted);
}

#[test]
fn sec_agree_ends_here_in_answers_too_and_prack_needs_no_verify() {
    let (mut rig, phone, register) = registered(config());
    let packet = packets(&rig.core(&from_core("MESSAGE", &register, "1", 0))).remove(0);
    let ok = Message::response(&Message::parse(&packet.bytes).expect("SIP"), 200, "OK", "u")
        .with("Require", "100rel, sec-agree")
        .with("Proxy-Require", "sec-agree")
        .with("Security-Verify", "ipsec-3gpp")
        .with("P-Access-Network-Info", "3GPP-E-UTRAN-FDD");
    let up = to_core(&answer(&mut rig, &phone, &ok));
    assert_eq!(up.elements("Require"), ["100rel"]);
    for name in ["Proxy-Require", "Security-Verify"] {
        assert_eq!(up.value(name), None);
    }
    assert!(up.value("P-Access-Network-Info").is_some());
    to_core(&send(
        &mut rig,
        &phone,
        &request("PRACK", OWN, "<sip:b@home.example>;tag=x", ""),
    ));
}

#[test]
fn an_extension_that_every_proxy_must_know_is_refused_with_its_name() {
    let (mut rig, phone, register) = registered(config());
    let more = "Proxy-Require: Privacy, foo\r\nProxy-Require: sec-agree, bar\r\n";
    let out = send(&mut rig, &phone, &request("INVITE", OWN, OTHER, more));
    let answer = &to_ue(&out)[0];
    assert_eq!(answer.status(), Some(420));
    assert_eq!(answer.elements("Unsupported"), ["foo", "bar"]);
    // RFC 3261 16.3: not for these, which can get no such answer.
    for method in ["ACK", "CANCEL"] {
        to_core(&send(&mut rig, &phone, &request(method, OWN, OTHER, more)));
    }
    let mut message = from_core("MESSAGE", &register, "1", 0);
    message.push("Proxy-Require", "foo");
    assert_eq!(to_core(&rig.core(&message)).status(), Some(420));
    message.set("Proxy-Require", "privacy");
    assert_eq!(to_ue(&rig.core(&message)).len(), 1);
}

#[test]
fn what_the_network_says_to_itself_stays_there() {
    let (mut rig, _, register) = registered(config());
    let mut message = from_core("MESSAGE", &register, "1", 0);
    for (name, value) in [
        ("P-Charging-Vector", "icid-value=1"),
        ("P-Charging-Function-Addresses", "ccf=x"),
        ("Security-Server", "ipsec-3gpp;alg=hmac-sha-1-96"),
        ("P-Asserted-Identity", "<sip:b@home.example>"),
        ("P-Called-Party-ID", "<sip:a@home.example>"),
    ] {
        message.push(name, value);
    }
    let down = to_ue(&rig.core(&message)).remove(0);
    for name in [
        "P-Charging-Vector",
        "P-Charging-Function-Addresses",
        "Security-Server",
    ] {
        assert_eq!(down.value(name), None);
    }
    assert!(
        down.value("P-Asserted-Identity").is_some() && down.value("P-Called-Party-ID").is_some()
    );
    // RFC 3325 clause 7: a phone is outside the trust domain.
    for privacy in ["id", "header;id", "none, id"] {
        message.set("Privacy", privacy);
        message.set("Call-ID", privacy);
        let down = to_ue(&rig.core(&message)).remove(0);
        assert_eq!(down.value("P-Asserted-Identity"), None, "{privacy}");
    }
}
