//! What registered phones do: which way messages travel, what they write and take.

use gm_sip::Message;
use gm_sip::edge::{Output, Refusal};

use crate::messages::Phone;
use crate::models::{self, HUAWEI};
use crate::requests::{from_core, request, ways};
use crate::rig::*;

#[test]
fn protected_requests_leave_from_port_c_and_name_port_s() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    let up = to_core(&rig.protected(&phone, &request(&phone, "MESSAGE", "")));
    let vias = up.elements("Via");
    assert_eq!(vias.len(), 2);
    assert!(
        vias[1].starts_with("SIP/2.0/UDP 192.0.2.1:31800;"),
        "{vias:?}"
    );
    assert!(rig.refusals().is_empty());
}

/// AOSP's policies know UDP from uc to ps and from pc to us only; others take it too.
#[test]
fn answers_over_udp_go_from_port_pc_to_port_us() {
    let phone = Phone::new(models::PIXEL);
    let mut rig = Rig::new();
    let done = rig.register(&phone, 1);
    assert_eq!(ways(&[done.sm12]), [(rig.port_pc(), 31_800)]);
    // The Via asks for rport, and the answer goes to port_us all the same (clause 7.1).
    let up = to_core(&rig.protected(&phone, &request(&phone, "MESSAGE", "")));
    let out = rig.core(&Message::response(&up, 202, "Accepted", "b"));
    assert_eq!(ways(&packets(&out)), [(rig.port_pc(), 31_800)]);
}

#[test]
fn requests_of_the_network_go_from_port_pc_to_port_us() {
    let phone = Phone::new(models::PIXEL);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    let out = rig.core(&from_core("OPTIONS", &phone));
    assert_eq!(ways(&packets(&out)), [(rig.port_pc(), 31_800)]);
}

/// Phones write sec-agree into responses too.
#[test]
fn require_sec_agree_in_responses() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    let out = rig.core(&from_core("OPTIONS", &phone));
    let down = to_ue(&out).pop().expect("for the phone");
    let answer = Message::response(&down, 200, "OK", "u")
        .with("Require", "sec-agree")
        .with("Proxy-Require", "sec-agree")
        .with("Supported", "path");
    let up = to_core(&rig.protected(&phone, &text(&answer)));
    assert_eq!(up.status(), Some(200));
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

#[test]
fn prack_without_security_verify() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    let invite = request(&phone, "INVITE", "Require: sec-agree\r\n");
    let invite_up = to_core(&rig.protected(&phone, &invite));
    let answer = Message::response(&invite_up, 183, "Session Progress", "b")
        .with(
            "Record-Route",
            &invite_up.elements("Record-Route").join(", "),
        )
        .with("Contact", "<sip:bob@203.0.113.9>")
        .with("RSeq", "1");
    let down = to_ue(&rig.core(&answer)).pop().expect("183");
    let routes: Vec<_> = down.elements("Record-Route").into_iter().rev().collect();
    let prack = request(
        &phone,
        "PRACK",
        &format!("Route: {}\r\nRAck: 1 1 INVITE\r\n", routes.join(", ")),
    )
    .replace(
        "To: <sip:bob@home.example>",
        "To: <sip:bob@home.example>;tag=b",
    )
    .replace("Call-ID: PRACK1", "Call-ID: INVITE1");
    let up = to_core(&rig.protected(&phone, &prack));
    assert_eq!(up.method(), Some("PRACK"));
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

/// Any unknown parameter in Security-Server makes some phones give up.
#[test]
fn security_server_has_no_parameter_that_phones_do_not_know() {
    use gm_esp::Mode;
    use gm_sip::sec_agree::{Confidentiality, Ends, Policy, SecList, error_list, server_list};
    let ends = Ends {
        spi_c: 1_000_000_000,
        spi_s: 1_000_000_001,
        port_c: 5064,
        port_s: 5063,
    };
    let known = [
        "q", "alg", "ealg", "prot", "mod", "spi-c", "spi-s", "port-c", "port-s",
    ];
    for confidentiality in [
        Confidentiality::Never,
        Confidentiality::WhenOffered,
        Confidentiality::Required,
    ] {
        for legacy in [false, true] {
            let policy = Policy {
                confidentiality,
                legacy,
                ..Policy::default()
            };
            for text in [
                server_list(&policy, Mode::Trans, &ends),
                server_list(&policy, Mode::UdpEncTun, &ends),
                error_list(&policy),
            ] {
                let list = SecList::parse(&text);
                assert!(!list.is_empty());
                for mechanism in list.mechanisms() {
                    assert!(mechanism.is_ipsec());
                    let mut names: Vec<_> = mechanism.params().map(|(name, _)| name).collect();
                    assert!(names.iter().all(|name| known.contains(name)), "{text}");
                    let count = names.len();
                    names.sort_unstable();
                    names.dedup();
                    assert_eq!(names.len(), count, "each once: {text}");
                }
            }
        }
    }
}

/// Some phones accept cleartext: the guard is on our side. Nothing but answers to
/// cleartext leaves an unprotected port, and of a phone that is registered nothing but
/// REGISTER is taken there.
#[test]
fn the_guard_against_cleartext_is_on_our_side() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    rig.out.clear();
    rig.core(&from_core("MESSAGE", &phone));
    rig.protected(&phone, &request(&phone, "MESSAGE", ""));
    assert!(packets(&rig.out).iter().all(|p| p.local.port() != 5060));
    let out = rig.ue(phone.source, addr(CLEAR), &request(&phone, "OPTIONS", ""));
    assert!(!out.iter().any(|o| matches!(o, Output::ToCore { .. })));
    assert_eq!(to_ue(&out).pop().and_then(|m| m.status()), Some(403));
    assert_eq!(rig.refusals(), [Refusal::Unprotected]);
}

/// A keepalive is no message and gets no answer.
#[test]
fn crlf_keepalives_over_udp() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    rig.register(&phone, 1);
    assert!(rig.protected(&phone, "\r\n\r\n").is_empty());
    assert!(rig.ue(phone.source, addr(CLEAR), "\r\n\r\n").is_empty());
}

/// The largest of each kind seen, over UDP: fragments are put together below, and
/// nothing here minds the length.
#[test]
fn messages_of_the_sizes_seen_go_through() {
    let padded = |text: &str, size: usize| {
        let room = size - text.len() - "X-Pad: \r\n".len();
        text.replacen(
            "Max-Forwards",
            &format!("X-Pad: {}\r\nMax-Forwards", "a".repeat(room)),
            1,
        )
    };
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let sm1 = padded(&phone.text(&phone.sm1()), 1764);
    assert_eq!(sm1.len(), 1764);
    let sm2 = to_core(&rig.ue(phone.source, addr(CLEAR), &sm1));
    let (_, sm6) = rig.challenged(&sm2, 1, &keys());
    let server = sm6.value("Security-Server").expect("a list").into_owned();
    let sm7 = phone.text(&phone.sm7(&crate::messages::nonce(1), &server));
    let sm8 = to_core(&rig.protected(&phone, &padded(&sm7, 2107)));
    rig.core(&crate::messages::success(&sm8, 3600));
    for (method, size) in [
        ("SUBSCRIBE", 1203),
        ("INVITE", 2466),
        ("BYE", 1370),
        ("MESSAGE", 1427),
        ("OPTIONS", 470),
    ] {
        let text = padded(&request(&phone, method, ""), size);
        assert_eq!(text.len(), size, "{method}");
        let up = to_core(&rig.protected(&phone, &text));
        assert_eq!(up.method(), Some(method));
    }
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}
