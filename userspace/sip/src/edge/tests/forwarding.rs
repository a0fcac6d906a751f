//! What passes between phones and the core, and what of it is changed.

use super::rig::*;
use super::tcp::{config, from_core};
use super::*;
use rstest::rstest;

/// A registered phone with two identities and a Service-Route.
pub fn registered(config: EdgeConfig) -> (Rig, Phone, Message) {
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

pub const ROUTES: &str = "Route: <sip:203.0.113.1:5063;lr>, <sip:orig@scscf.example:6060;lr>\r\n\
                      Route: <sip:as.example;lr>\r\n";

pub fn request(method: &str, from: &str, to: &str, more: &str) -> String {
    let (from, to) = (format!("From: {from}\r\n"), format!("To: {to}\r\n"));
    format!(
        "{method} sip:b@home.example SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.1:32000;branch=z9hG4bK{method}{}\r\nMax-Forwards: 70\r\n\
         {from}{to}Call-ID: call\r\nCSeq: 7 {method}\r\n{more}l: 0\r\n\r\n",
        more.len() + from.len() * 1000
    )
}

pub fn send(rig: &mut Rig, phone: &Phone, text: &str) -> Vec<Output> {
    let (source, local) = phone.protected();
    rig.ue(source, local, text)
}

pub fn answer(rig: &mut Rig, phone: &Phone, message: &Message) -> Vec<Output> {
    let text = String::from_utf8(message.to_bytes()).expect("text");
    send(rig, phone, &text)
}

pub const OWN: &str = "<sip:a@home.example>;tag=own";
pub const OTHER: &str = "<sip:b@home.example>";

#[test]
fn a_phone_behind_the_same_nat_gets_into_no_transaction_of_another() {
    let (mut rig, phone, _) = registered(config());
    let mut other = super::rig::phone("b", 2);
    other.ends.port_s = 32001;
    rig.register(&other);
    assert_eq!(phone.source.ip(), other.source.ip());
    let invite = request("INVITE", OWN, OTHER, ROUTES);
    let up = to_core(&send(&mut rig, &phone, &invite));
    let same = invite.replace("<sip:a@home.example>", "<sip:b@home.example>");
    let theirs = to_core(&send(&mut rig, &other, &same));
    assert_ne!(up.first_element("Via"), theirs.first_element("Via"));
    let packet = packets(&rig.core(&Message::response(&up, 200, "OK", "x"))).remove(0);
    assert_eq!(packet.remote.port(), phone.ends.port_s);
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
#[case::with_more_than_that(
    "P-Preferred-Identity: <sip:a@home.example;cpc=operator?X=y>\r\n",
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

#[test]
fn what_only_the_network_says_a_phone_does_not() {
    let (mut rig, phone, _) = registered(config());
    let claims = [
        "P-Visited-Network-ID: \"home\"",
        "Remote-Party-ID: <sip:victim@home.example>;privacy=full",
        "P-Private-Network-Indication: corp.example",
        "P-Access-Network-Info: IEEE-802.11, 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1;Network-Provided",
        "P-Charging-Vector: icid-value=1",
        "Path: <sip:evil.example;lr>",
    ];
    let more = format!("{}\r\n", claims.join("\r\n"));
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("MESSAGE", OWN, OTHER, &more),
    ));
    for claim in claims {
        let name = claim.split(':').next().expect("a name");
        assert_eq!(up.value(name), None, "{name}");
    }
    let said = "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=1\r\n";
    let text = request("MESSAGE", OWN, OTHER, said).replace("CSeq: 1", "CSeq: 2");
    let up = to_core(&send(&mut rig, &phone, &text));
    assert!(up.value("P-Access-Network-Info").is_some());
}

#[test]
fn a_reader_that_knows_crlf_only_sees_the_same_headers() {
    let (mut rig, phone, _) = registered(config());
    let text = request("MESSAGE", OWN, OTHER, "X: a\n");
    let head = text.split("X: a").next().expect("a head");
    // The head ends here with the first bare LF, for others with the second empty line.
    let text = format!(
        "{head}X: a\n\nY: b\r\nP-Asserted-Identity: <sip:victim@home.example>\r\nl: 0\r\n\r\n"
    );
    let up = to_core(&send(&mut rig, &phone, &text)).to_bytes();
    let text = String::from_utf8(up).expect("text");
    let (head, _) = text.split_once("\r\n\r\n").expect("an end");
    assert!(
        head.contains("<sip:a@home.example>") && !head.contains("victim"),
        "{head}"
    );
    assert!(!head.replace("\r\n", "").contains('\n'), "{head:?}");
}
