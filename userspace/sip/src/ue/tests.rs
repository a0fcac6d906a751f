use rstest::rstest;

use super::*;
use crate::aka::{ChallengeError, Res, nonce};
use crate::rand::testing::Steps;
use crate::sa_set::SaSetRequest;
use crate::sec_agree::{LegacyNames, OfferError, SECURITY_SERVER, SECURITY_VERIFY, SecList};
use crate::{Packet, Transport};
use gm_esp::{Ck, Ik, Mode, Suite};

#[path = "tests/again.rs"]
mod again;
#[path = "tests/faults.rs"]
mod faults;
#[path = "tests/nat.rs"]
mod nat;
#[path = "tests/procedure.rs"]
mod procedure;
#[path = "tests/rig.rs"]
mod rig;
#[path = "tests/sets.rs"]
mod sets;
#[path = "tests/tcp.rs"]
mod tcp;

use rig::*;

/// Security-Server as cores write it: what is chosen, and that it comes back by value.
#[rstest]
#[case::kamailio(&[KAMAILIO], Suite::HmacSha1Null, 5100, 6100)]
#[case::blanks_no_q(&["ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; prot=esp; mod=trans; spi-c=5000; spi-s=5001; port-c=5999; port-s=6000"], Suite::HmacSha1AesCbc, 5999, 6000)]
#[case::several_lines(&["ipsec-3gpp;q=0.2;alg=hmac-sha-1-96;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900", "ipsec-3gpp;q=0.6;alg=aes-gmac;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900"], Suite::AesGmacNull, 9950, 9900)]
#[case::only_the_last_has_ports(&["ipsec-3gpp;q=0.5;alg=hmac-md5-96,ipsec-3gpp;q=0.4;alg=hmac-sha-1-96,ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=5000;spi-s=5001;port-c=65528;port-s=65529"], Suite::HmacSha1Null, 65528, 65529)]
#[case::another_mechanism_first(&["tls;q=0.9,ipsec-3gpp;ealg=aes-gcm;alg=null;port-c=5000;port-s=5001;spi-c=5000;spi-s=5001;q=0.1"], Suite::NullAesGcm, 5000, 5001)]
fn security_server_shapes(
    #[case] lines: &[&str],
    #[case] suite: Suite,
    #[case] port_c: u16,
    #[case] port_s: u16,
) {
    let mut rig = Rig::new();
    rig.challenged(lines);
    let set = rig.install().expect("an Install");
    assert_eq!((set.params.suite, set.params.mode()), (suite, Mode::Trans));
    assert_eq!(
        (set.params.pcscf_ends.port_c, set.params.pcscf_ends.port_s),
        (port_c, port_s)
    );
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    let (packet, sm7) = rig.sent().pop().expect("SM7");
    // From port_uc to port_ps; Via and Contact name port_us.
    assert_eq!(
        (packet.local.port(), packet.remote.port()),
        (set.params.ue_ends.port_c, port_s)
    );
    assert!(
        sm7.first_element("Via")
            .is_some_and(|v| v.contains("192.0.2.1:31800"))
    );
    let sent = SecList::parse(&lines.join(","));
    let verify = SecList::from_message(&sm7, SECURITY_VERIFY).expect("Security-Verify");
    assert!(sent.same(&verify), "{verify}");
    let first = rig.sent()[0].1.clone();
    assert_eq!(first.value("Security-Client"), sm7.value("Security-Client"));
}

#[rstest]
#[case::nothing_in_common(
    "ipsec-3gpp;alg=hmac-md5-96;spi-c=5000;spi-s=5001;port-c=1;port-s=2",
    UeFailure::SecurityServer(OfferError::LegacyOnly(LegacyNames::of(&[Suite::HmacMd5Null])))
)]
#[case::no_list("tls;q=0.1", UeFailure::SecurityServer(OfferError::NotIpsec))]
fn unacceptable_proposals_end_the_procedure(#[case] line: &str, #[case] failure: UeFailure) {
    let mut rig = Rig::new();
    rig.challenged(&[line]);
    assert_eq!(rig.events().last(), Some(&UeEvent::Failed(failure)));
    assert!(rig.install().is_none());
    // The next attempt may begin at once, and has the SPIs of this one.
    assert_eq!(rig.ue.register(0), Ok(()));
    assert_eq!(rig.ue.spis.len(), 3);
}

#[test]
fn behind_a_nat_a_list_that_does_not_say_so_is_left() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    let mut sm6 = challenge(&sm1).with(SECURITY_SERVER, KAMAILIO);
    let via = crate::header::via::mark_source(
        &sm6.first_element("Via").expect("Via"),
        addr("198.51.100.7:9"),
        true,
    );
    sm6.replace_first_element("Via", &via.expect("marked"));
    rig.give(packet.local, packet.remote, &sm6);
    assert_eq!(rig.events().last(), Some(&UeEvent::Failed(UeFailure::Nat)));
}

#[test]
fn one_procedure_at_a_time_and_only_what_can_be() {
    let mut rig = Rig::new();
    assert_eq!(rig.ue.deregister(0), Err(UeFailure::NotRegistered));
    assert_eq!(
        rig.ue.send(0, "MESSAGE", "sip:x@h", "", b""),
        Err(UeFailure::NotRegistered)
    );
    rig.ue.register(0).expect("starts");
    assert_eq!(rig.ue.register(0), Err(UeFailure::Busy));
    let mut rig = Rig::new();
    rig.ue.spis.clear();
    assert!(rig.ue.wants_spis());
    assert_eq!(rig.ue.register(0), Err(UeFailure::NoSpi));
}

#[test]
fn requests_are_sent_again_and_given_up() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let mut times = Vec::new();
    while let Some(at) = rig.ue.next_timeout().filter(|_| rig.events().len() < 2) {
        rig.ue.handle_timeout(at);
        times.push(at);
    }
    assert_eq!(times[..5], [500, 1_500, 3_500, 7_500, 11_500]);
    assert_eq!(times.last(), Some(&32_000));
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::Timeout))
    );
    let sent = rig.sent();
    assert!(sent.iter().all(|(p, _)| p == &sent[0].0));
}

#[test]
fn a_network_without_a_mac_is_told_and_left() {
    let mut rig = Rig::with(Err(AkaFailure::Mac));
    rig.challenged(&[KAMAILIO]);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::NetworkAuthentication))
    );
    let (_, report) = rig.sent().pop().expect("the report");
    let authorization = report
        .value("Authorization")
        .expect("Authorization")
        .into_owned();
    assert!(
        authorization.contains("response=\"\"") && !authorization.contains("auts"),
        "{authorization}"
    );
}

#[test]
fn auts_is_sent_and_endless_challenges_are_not_followed() {
    let mut rig = Rig::with(Err(AkaFailure::Synchronisation([9; 14])));
    rig.challenged(&[KAMAILIO]);
    for _ in 0..3 {
        let (packet, request) = rig.sent().pop().expect("a REGISTER");
        assert!(
            request
                .value("Authorization")
                .is_some_and(|a| a.contains("auts=\"CQkJCQkJCQkJCQkJCQk=\""))
        );
        rig.give(
            packet.local,
            packet.remote,
            &challenge(&request).with(SECURITY_SERVER, KAMAILIO),
        );
    }
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::TooManyChallenges))
    );
}

#[test]
fn a_challenge_that_is_none() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    rig.give(
        packet.local,
        packet.remote,
        &Message::response(&sm1, 401, "Unauthorized", "s"),
    );
    let failed = UeEvent::Failed(UeFailure::Challenge(ChallengeError::NotAka));
    assert_eq!(rig.events().last(), Some(&failed));
}

/// Clause 7.1: requests in clear, of strangers, or over another flow are not answered.
#[rstest]
#[case::in_clear("192.0.2.1:5060", "203.0.113.1:5060", Ignored::WrongSa)]
#[case::other_port_of_ours("192.0.2.1:31801", "203.0.113.1:5100", Ignored::WrongSa)]
#[case::other_port_of_theirs("192.0.2.1:31800", "203.0.113.1:5101", Ignored::WrongSa)]
#[case::stranger("192.0.2.1:31800", "203.0.113.2:5100", Ignored::Stranger)]
fn requests_that_are_not_taken(#[case] local: &str, #[case] remote: &str, #[case] why: Ignored) {
    let mut rig = Rig::new();
    rig.registered();
    let before = rig.sent().len();
    rig.give(addr(local), addr(remote), &message());
    assert_eq!(rig.events().last(), Some(&UeEvent::Ignored { why }));
    assert_eq!(rig.sent().len(), before);
}

#[test]
fn a_repeated_request_is_answered_the_same_and_told_once() {
    let mut rig = Rig::new();
    let set = rig.registered();
    for _ in 0..2 {
        rig.give(
            addr("192.0.2.1:31800"),
            addr("203.0.113.1:5100"),
            &message(),
        );
    }
    let answers = rig.sent().split_off(2);
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        (answers[0].0.local.port(), answers[0].0.remote.port()),
        (set.params.ue_ends.port_c, 6100)
    );
    let told = rig
        .events()
        .iter()
        .filter(|e| matches!(e, UeEvent::Request { .. }))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn a_yes_in_clear_is_no_registration() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    let yes = Message::response(&sm1, 200, "OK", "s");
    rig.give(packet.local, packet.remote, &yes);
    let failed = UeEvent::Failed(UeFailure::NetworkAuthentication);
    assert_eq!(rig.events().last(), Some(&failed));
    assert!(!rig.ue.is_registered() && rig.ue.register(0).is_ok());
}

#[test]
fn an_answer_in_clear_to_a_protected_request_is_ignored() {
    let mut rig = Rig::new();
    rig.registered();
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (_, request) = rig.sent().pop().expect("OPTIONS");
    let ok = Message::response(&request, 200, "OK", "x");
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &ok);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Ignored {
            why: Ignored::WrongSa
        })
    );
    rig.give(addr("192.0.2.1:31800"), addr("203.0.113.1:5100"), &ok);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Answered {
            id,
            status: 200,
            body: Vec::new()
        })
    );
}
