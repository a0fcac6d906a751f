//! Route, Record-Route and Service-Route: each side sees addresses that it can reach, and a
//! phone goes where its registration has said.

use super::forwarding::{OTHER, OWN, ROUTES, answer, registered, request, send};
use super::rig::*;
use super::tcp::{config, from_core};
use super::*;
use rstest::rstest;

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
fn a_register_goes_by_no_route_of_a_phone() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let routes = "Route: <sip:203.0.113.1;lr>, <sip:evil.example;lr>\r\nMax-Forwards:";
    let up = to_core(&rig.ue(
        phone.source,
        addr(CLEAR),
        &phone.sm1().replace("Max-Forwards:", routes),
    ));
    assert_eq!(up.value("Route"), None);
    let mut rig = Rig::new();
    rig.register(&phone);
    let at = SocketAddr::new(phone.source.ip(), phone.ends.port_s);
    let text = phone.register(at, "nonce=\"\",response=\"\"", "");
    let offer = format!("Security-Client: {}\r\n", phone.offer());
    let text = text.replace(&offer, "").replace("Max-Forwards:", routes);
    let up = to_core(&send(&mut rig, &phone, &text));
    assert_eq!(up.value("Route"), None);
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

/// Behind a static NAT: what phones are told names the address that they know, what they
/// write back is found, and the core sees none of it.
#[test]
fn phones_are_told_the_address_that_they_know() {
    let mut behind = config();
    behind.advertised = vec![(
        addr("203.0.113.1:0").ip(),
        "198.51.100.7".parse().expect("an address"),
    )];
    let (mut rig, phone, register) = registered(behind);
    let path = register.first_element("Path").expect("Path");
    assert!(path.ends_with("@203.0.113.1:5080;lr>"), "{path}");
    // It is called.
    let packet = packets(&rig.core(&from_core("INVITE", &register, "1", 0))).remove(0);
    assert_eq!(packet.local, addr("203.0.113.1:5064"));
    let down = Message::parse(&packet.bytes).expect("SIP");
    let via = down.first_element("Via").expect("Via");
    assert!(via.contains(" 198.51.100.7:5063;"), "{via}");
    let theirs = down.first_element("Record-Route").expect("Record-Route");
    assert!(theirs.ends_with("@198.51.100.7:5063;lr>"), "{theirs}");
    let ok = Message::response(&down, 200, "OK", "u").with("Record-Route", &theirs);
    let up = to_core(&answer(&mut rig, &phone, &ok));
    let ours = up.first_element("Record-Route").expect("Record-Route");
    assert!(ours.ends_with("@203.0.113.1:5080;lr>"), "{ours}");
    // It calls, by the address that it knows.
    let routes = format!("Route: <sip:198.51.100.7:5063;lr>\r\n{ROUTES}");
    let up = to_core(&send(
        &mut rig,
        &phone,
        &request("INVITE", OWN, OTHER, &routes),
    ));
    assert_eq!(
        up.elements("Route"),
        ["<sip:orig@scscf.example:6060;lr>", "<sip:as.example;lr>"]
    );
    let ours = up.first_element("Record-Route").expect("Record-Route");
    let ok = Message::response(&up, 200, "OK", "x").with("Record-Route", &ours);
    let down = to_ue(&rig.core(&ok)).pop().expect("an answer");
    let route = down.first_element("Record-Route").expect("Record-Route");
    assert!(route.ends_with("@198.51.100.7:5063;lr>"), "{route}");
    let more = format!("Route: {route}, <sip:far.example;lr>\r\n");
    let bye = request("BYE", OWN, "<sip:b@home.example>;tag=x", &more);
    let up = to_core(&send(&mut rig, &phone, &bye));
    assert_eq!(up.elements("Route"), ["<sip:far.example;lr>"]);
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
