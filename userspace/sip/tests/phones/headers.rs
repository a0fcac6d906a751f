//! Odd headers, addresses and bodies: what phones and session border controllers write.

use gm_sip::Message;
use gm_sip::sec_agree::SECURITY_SERVER;

use crate::messages::{Phone, Shape, nonce, success};
use crate::models::HUAWEI;
use crate::requests::{from_core, text_with_uri, ways};
use crate::rig::*;

/// A first REGISTER changed so, all the way: gives what the core and the phone got.
fn registers_with(change: impl Fn(&mut Shape)) -> (Registered, Rig) {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let mut sm1 = phone.sm1();
    change(&mut sm1);
    let done = rig.register_as(&phone, 1, &sm1);
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
    (done, rig)
}

#[test]
fn ipv6_via_with_an_ipv4_contact() {
    let mut phone = Phone::new(HUAWEI);
    phone.source = addr("[2001:db8::1]:5060");
    let mut rig = Rig::new();
    let mut sm1 = phone.sm1();
    sm1.contact = "<sip:alice@192.0.2.99:31800>".into();
    let out = rig.ue(phone.source, addr("[2001:db8::f]:5060"), &phone.text(&sm1));
    let (_, sm6) = rig.challenged(&to_core(&out), 1, &keys());
    let server = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
    let mut sm7 = phone.sm7(&nonce(1), &server);
    sm7.contact = sm1.contact;
    let text = phone.text(&sm7);
    let up = to_core(&rig.ue(phone.protected(), addr("[2001:db8::f]:5063"), &text));
    let out = rig.core(&success(&up, 3600));
    let sm12 = packets(&out).pop().expect("SM12");
    assert_eq!(sm12.remote, phone.server());
    // Requests find it by Path, whatever its Contact says.
    let path = up.elements("Path")[0].clone();
    let request = from_core("MESSAGE", &phone).with("Route", &path);
    let request = Message::parse(text_with_uri(&request, "sip:alice@192.0.2.99:31800").as_bytes())
        .expect("SIP");
    let out = rig.core(&request);
    assert_eq!(packets(&out).pop().map(|p| p.remote), Some(phone.server()));
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

#[test]
fn contact_without_a_user() {
    let (done, mut rig) = registers_with(|shape| shape.contact = "<sip:192.0.2.1:31800>".into());
    assert_eq!(
        done.sm2.value("Contact").as_deref(),
        Some("<sip:192.0.2.1:31800>")
    );
    let request = from_core("OPTIONS", &Phone::new(HUAWEI));
    let request = text_with_uri(&request, "sip:192.0.2.1:31800");
    let out = rig.core(&Message::parse(request.as_bytes()).expect("SIP"));
    assert_eq!(ways(&packets(&out)), [(rig.port_pc(), 31_800)]);
}

#[test]
fn via_with_rport_and_transport() {
    let via = "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport;transport=UDP";
    let (done, rig) = registers_with(|shape| shape.via = via.into());
    assert_eq!(
        done.sm2.elements("Via")[1],
        "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rport=5060;transport=UDP;received=192.0.2.1"
    );
    assert_eq!(packets(&rig.out)[0].remote, addr("192.0.2.1:5060"));
}

/// Whatever it is, it is not rport.
#[test]
fn via_with_rporr() {
    let via = "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;rporr";
    let (done, rig) = registers_with(|shape| shape.via = via.into());
    assert_eq!(done.sm2.elements("Via")[1], via);
    assert_eq!(packets(&rig.out)[0].remote, addr("192.0.2.1:5060"));
}

#[test]
fn call_id_is_a_bare_number() {
    let (done, _) = registers_with(|shape| shape.call_id = "3735928559".into());
    for message in [&done.sm2, &done.sm6] {
        assert_eq!(message.value("Call-ID").as_deref(), Some("3735928559"));
    }
}

#[test]
fn call_id_with_an_unbracketed_ipv6_address() {
    let id = "a84b4c76e66710@2001:db8::1:0:42";
    let (done, _) = registers_with(|shape| shape.call_id = id.into());
    for message in [&done.sm2, &done.sm6] {
        assert_eq!(message.value("Call-ID").as_deref(), Some(id));
    }
}

#[test]
fn a_body_in_register() {
    let body = "<?xml version=\"1.0\"?>\r\n<x/>\r\n";
    let (done, _) = registers_with(|shape| {
        shape.more = "Content-Type: application/vnd.3gpp.ims+xml\r\n".into();
        shape.body = body.into();
    });
    assert_eq!(done.sm2.body(), body.as_bytes());
}

/// Tags and URIs of session border controllers come back as they came.
#[test]
fn tags_and_uris_over_100_characters_come_back_unchanged() {
    let long: String = (0..30).map(|n| format!("{n:05x}.")).collect();
    assert!(long.len() > 150);
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    let via = format!("SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bK{long};x={long}");
    let request = from_core("MESSAGE", &phone)
        .with(
            "Record-Route",
            &format!("<sip:{long}@sbc.home.example;lr;x={long}>"),
        )
        .with("P-Sbc", &long);
    let changed = text(&request)
        .replace("SIP/2.0/UDP 203.0.113.9:5060;branch=z9hG4bKcore", &via)
        .replace(";tag=1", &format!(";tag={long}"));
    let out = rig.core(&Message::parse(changed.as_bytes()).expect("SIP"));
    let down = to_ue(&out).pop().expect("for the phone");
    assert_eq!(down.value("P-Sbc").as_deref(), Some(&long[..]));
    assert_eq!(
        down.value("From").as_deref(),
        Some(&format!("<sip:bob@home.example>;tag={long}")[..])
    );
    // The phone copies what it got; the core gets back what it sent.
    let answer = Message::response(&down, 200, "OK", "u");
    let up = to_core(&rig.protected(&phone, &text(&answer)));
    assert_eq!(up.elements("Via"), [via]);
    assert_eq!(up.value("From"), down.value("From"));
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

#[test]
fn proprietary_headers_go_through_byte_for_byte() {
    let lines = "X-Odd :  a,,b ;\t c\r\nP-Com.Vendor-1: \"\\\"\",\r\n <x>\r\nx-odd: 2\r\n";
    let (done, _) = registers_with(|shape| shape.more = lines.into());
    assert!(text(&done.sm2).contains(lines), "{}", text(&done.sm2));
}

#[test]
fn supported_without_sec_agree() {
    let (done, _) = registers_with(|_| {});
    assert_eq!(done.sm2.elements("Supported"), ["path"]);
}
