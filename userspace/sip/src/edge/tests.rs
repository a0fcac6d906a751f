//! Registrations through a scripted phone and core.

use gm_esp::{Mode, Suite};

use super::*;
use crate::sec_agree::{Ends, SECURITY_SERVER};
use rig::*;

#[path = "tests/agreement.rs"]
mod agreement;
#[path = "tests/emergency.rs"]
mod emergency;
#[path = "tests/forwarding.rs"]
mod forwarding;
#[path = "tests/hostile.rs"]
mod hostile;
#[path = "tests/names.rs"]
mod names;
#[path = "tests/next_hop.rs"]
mod next_hop;
#[path = "tests/overload.rs"]
mod overload;
#[path = "tests/refusals.rs"]
mod refusals;
#[path = "tests/rig.rs"]
mod rig;
#[path = "tests/routes.rs"]
mod routes;
#[path = "tests/tcp.rs"]
mod tcp;

#[test]
fn what_a_phone_wrote_reaches_the_core_byte_for_byte() {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let text = String::from_utf8(up.to_bytes()).expect("text");
    for kept in [
        "i: 1\r\nCSeq: 1 REGISTER\r\nm: <sip:192.0.2.1:32000>;expires=600000\r\n",
        "Supported: path,sec-agree\r\n",
        "P-Strange: a,\r\n\t\"b;c\"  \r\nl: 0\r\n",
    ] {
        assert!(text.contains(kept), "{kept:?} in {text}");
    }
    assert_eq!(up.elements("Via").len(), 2);
}

#[test]
fn a_whole_registration_and_its_sas() {
    let mut rig = Rig::new();
    let (set, _) = rig.register(&phone("a", 1));
    let requests: Vec<_> = rig
        .out
        .iter()
        .filter_map(|o| {
            if let Output::Install(r) = o {
                Some(r)
            } else {
                None
            }
        })
        .collect();
    let params = requests[0].params;
    assert_eq!(
        (params.suite, params.mode()),
        (Suite::HmacSha1AesCbc, Mode::Trans)
    );
    assert_eq!(
        (params.pcscf_ends.port_c, params.pcscf_ends.port_s),
        (5064, 5063)
    );
    assert_eq!(
        requests[0].inbound.map(|s| s.spi),
        [1_000_000_001, 1_000_000_000]
    );
    // SM12 from port_pc to port_us.
    let last = packets(&rig.out).pop().expect("SM12");
    assert_eq!(
        (last.local, last.remote),
        (addr("203.0.113.1:5064"), addr("192.0.2.1:32000"))
    );
    let sm12 = FlowEvent::Sm12 {
        set,
        ue: last.remote,
        expires: 1800,
    };
    assert!(rig.out.contains(&Output::Event(sm12)), "{:?}", rig.out);
    assert!(rig.refusals().is_empty());
}

#[test]
fn ipv6_registers_too() {
    let mut rig = Rig::with(EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080")));
    let mut six = phone("a", 1);
    six.source = addr("[2001:db8::1]:5060");
    let out = rig.ue(six.source, addr("[2001:db8::f]:5060"), &six.sm1());
    let (_, message) = challenge(&to_core(&out), 1, &format!("ik=\"{IK}\",ck=\"{CK}\""));
    let out = rig.core(&message);
    assert_eq!(installs(&out).len(), 1, "{out:?}");
}

#[test]
fn over_tcp_the_answer_goes_on_the_connection() {
    let mut rig = Rig::new();
    let source = addr("192.0.2.1:49152");
    let bytes = phone("a", 1).sm1().replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let input = Input::FromUe {
        local: addr(CLEAR),
        remote: source,
        transport: Transport::Tcp,
        bytes: bytes.as_bytes(),
    };
    rig.edge.handle(rig.now, input);
    let up = to_core(&rig.take());
    rig.core(&Message::response(&up, 403, "Forbidden", "c"));
    let packet = packets(&rig.out).pop().expect("an answer");
    assert_eq!((packet.remote, packet.transport), (source, Transport::Tcp));
}

#[test]
fn a_repeated_sm1_gets_the_same_sm6_and_no_second_set() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, _, sm6) = rig.challenge(&phone, 1);
    let out = rig.sm1(&phone);
    assert_eq!(to_ue(&out), [sm6]);
    assert_eq!(installs(&rig.out).len(), 1);
}

#[test]
fn a_newer_challenge_takes_the_place_of_the_older() {
    let mut rig = Rig::new();
    let (first, _, _) = rig.challenge(&phone("a", 1), 1);
    let (second, _, _) = rig.challenge(&phone("a", 2), 2);
    assert!(rig.out.contains(&Output::Remove { set: first }) && first != second);
    assert_eq!(rig.edge.len(), (1, 1));
}

#[test]
fn a_repeated_sm7_after_sm12_is_no_new_procedure() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let sm7 = phone.sm7(&nonce, &verify);
    let up = to_core(&rig.ue(source, local, &sm7));
    let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
    rig.core(&ok);
    let again = to_core(&rig.ue(source, local, &sm7));
    assert_eq!(again.to_bytes(), up.to_bytes());
    let out = rig.core(&ok);
    assert_eq!(to_ue(&out)[0].status(), Some(200));
    assert!(!out.iter().any(|o| matches!(o, Output::Activate { .. })));
    assert!(rig.refusals().is_empty());
}

#[test]
fn the_core_side_is_for_the_core() {
    let mut rig = Rig::new();
    let request = Message::request("MESSAGE", "sip:192.0.2.1:32000")
        .with("Via", "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK5")
        .with("From", "<sip:x@h>;tag=1")
        .with("To", "<sip:a@home.example>")
        .with("Call-ID", "5")
        .with("CSeq", "1 MESSAGE");
    rig.edge.handle(
        rig.now,
        Input::FromCore {
            remote: addr("198.51.100.1:5060"),
            transport: Transport::Udp,
            bytes: &request.to_bytes(),
        },
    );
    let out = rig.core(&request);
    assert_eq!(to_core(&out).status(), Some(480));
    rig.core(&Message::response(&request, 200, "OK", "x"));
    assert_eq!(
        rig.refusals(),
        [
            Refusal::CoreUntrusted,
            Refusal::NoContact,
            Refusal::NoTransaction
        ]
    );
    // Registered: by the address in the Request-URI, out of port_pc.
    rig.register(&phone("a", 1));
    let out = rig.core(&request);
    let packet = packets(&out).pop().expect("for the UE");
    assert_eq!(
        (packet.local.port(), packet.remote),
        (5064, addr("192.0.2.1:32000"))
    );
    let down = Message::parse(&packet.bytes).expect("SIP");
    assert!(
        down.first_element("Via")
            .is_some_and(|v| v.starts_with("SIP/2.0/UDP 203.0.113.1:5063;branch="))
    );
    // The answer comes back to port_ps and goes to the core without our Via.
    let answer = Message::response(&down, 200, "OK", "u");
    let (source, local) = phone("a", 1).protected();
    let up = to_core(&rig.ue(
        source,
        local,
        &String::from_utf8(answer.to_bytes()).expect("text"),
    ));
    assert_eq!(up.elements("Via").len(), 1);
}

#[test]
fn two_phones_behind_one_nat() {
    let mut rig = Rig::new();
    let nat = |user, n, port_s| {
        let one = phone(user, n);
        Phone {
            source: addr("198.51.100.7:20001"),
            ends: Ends { port_s, ..one.ends },
            ..one
        }
    };
    let text = |p: &Phone| {
        p.sm1()
            .replace("UDP 198.51.100.7:20001", "UDP 10.0.0.2:5060")
            .replace("ealg=aes-cbc;", "ealg=aes-cbc;mod=UDP-enc-tun;")
    };
    let first = nat("a", 1, 32000);
    let up = to_core(&rig.ue(first.source, addr(CLEAR), &text(&first)));
    assert!(
        up.elements("Via")[1].contains("received=198.51.100.7"),
        "{:?}",
        up.elements("Via")
    );
    let out = rig.core(&challenge(&up, 1, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1);
    assert_eq!(installs(&out).len(), 1, "{out:?}");
    // The second one with the first one's server port would get its messages.
    let out = rig.ue(first.source, addr(CLEAR), &text(&nat("b", 2, 32000)));
    assert_eq!(to_ue(&out)[0].status(), Some(400));
    assert_eq!(rig.refusals(), [Refusal::Collision]);
    to_core(&rig.ue(first.source, addr(CLEAR), &text(&nat("b", 2, 32001))));
}
