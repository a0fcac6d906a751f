//! TS 33.203 clause 7.4.1a: which set protects what, which one is in use, and how
//! long each lives.

use super::*;

#[test]
fn a_new_registration_is_protected_by_the_set_in_use_and_offers_new_spis_and_client_port() {
    let mut rig = Rig::new();
    let old = rig.registered();
    rig.ue.register(rig.now).expect("starts");
    let (packet, sm1) = rig.last();
    assert_eq!(ports(&packet), way_out(&old));
    let offer = |m: &Message| {
        let list = SecList::from_message(m, "Security-Client").expect("an offer");
        list.proposals().expect("of ours")[0].ends
    };
    let (was, is) = (old.params.ue_ends, offer(&sm1));
    assert_ne!(
        (was.spi_c, was.spi_s, was.port_c),
        (is.spi_c, is.spi_s, is.port_c)
    );
    assert_eq!(was.port_s, is.port_s, "port_us stays");
    let spis = [was.spi_c, was.spi_s, is.spi_c, is.spi_s];
    assert_eq!(std::collections::HashSet::from(spis).len(), 4, "clause 7.1");
    // The old agreement is repeated, as in every protected request.
    assert_eq!(sm1.value(SECURITY_VERIFY).as_deref(), Some(KAMAILIO));
}

#[test]
fn sm12_counts_only_through_the_new_set_and_switches_over_at_once() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    let (_, sm7) = rig.last();
    let ok =
        Message::response(&sm7, 200, "OK", "s").with("Contact", &sm7.value("Contact").expect("it"));
    rig.news();
    rig.answer_through(&old, &ok);
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &ok);
    let ignored = UeOutput::Event(UeEvent::Ignored {
        why: Ignored::WrongSa,
    });
    assert_eq!(rig.news(), [ignored.clone(), ignored]);
    rig.answer_through(&new, &ok);
    rig.ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (packet, request) = rig.last();
    assert_eq!(ports(&packet), way_out(&new));
    assert_eq!(request.value(SECURITY_VERIFY).as_deref(), Some(SECOND));
}

#[test]
fn the_old_set_goes_when_the_new_one_is_heard_of_and_nothing_waits_on_it() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    // Begun on the old set: pending.
    rig.ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (_, pending) = rig.last();
    let (_, sm7) = rig.sent().into_iter().rev().nth(1).expect("SM7");
    let ok =
        Message::response(&sm7, 200, "OK", "s").with("Contact", &sm7.value("Contact").expect("it"));
    rig.answer_through(&new, &ok);
    rig.news();
    // SM12 alone is no reason; a further message through the new set is one.
    rig.pass(6_000);
    assert!(!removed(&rig.news(), &old));
    rig.answer_through(&new, &message());
    rig.pass(6_000);
    assert!(!removed(&rig.news(), &old), "a transaction waits on it");
    let answer = Message::response(&pending, 200, "OK", "s");
    rig.answer_through(&old, &answer);
    rig.pass(6_000);
    assert!(removed(&rig.news(), &old));
}

#[test]
fn a_transaction_that_times_out_lets_the_old_set_go() {
    let mut rig = Rig::new();
    let old = rig.registered();
    rig.ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let new = rig.registered_again(&old, 3600);
    rig.answer_through(&new, &message());
    rig.pass(31_000);
    assert!(!removed(&rig.news(), &old));
    rig.pass(7_000);
    assert!(removed(&rig.news(), &old));
    assert!(rig.ue.is_registered());
}

#[test]
fn lifetimes_are_the_longer_of_the_old_ones_and_half_a_minute_beyond_the_registration() {
    for (granted, end) in [(600, 3_630_000), (7200, 7_230_000)] {
        let mut rig = Rig::new();
        let old = rig.registered();
        let new = rig.registered_again(&old, granted);
        assert_eq!(rig.ue.registered_until(), Some(u64::from(granted) * 1000));
        rig.answer_through(&new, &message());
        rig.pass(end - 1);
        assert!(!removed(&rig.news(), &new), "granted {granted}");
        rig.pass(1);
        assert!(removed(&rig.news(), &new), "granted {granted}");
        assert!(!rig.ue.is_registered());
    }
}

#[test]
fn a_set_whose_challenge_is_never_confirmed_goes() {
    let mut rig = Rig::new();
    rig.challenged(&[KAMAILIO]);
    let set = rig.install().expect("an Install");
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    rig.pass(240_000);
    let out = rig.news();
    assert!(removed(&out, &set));
    assert!(out.contains(&UeOutput::Event(UeEvent::Failed(UeFailure::Timeout))));
}

#[test]
fn failures_of_a_protected_sm1_come_through_the_old_set() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    let (_, sm7) = rig.last();
    let failure = Message::response(&sm7, 500, "Server Internal Error", "s");
    rig.news();
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &failure);
    let ignored = UeOutput::Event(UeEvent::Ignored {
        why: Ignored::WrongSa,
    });
    assert_eq!(rig.news(), [ignored], "not in clear");
    rig.answer_through(&old, &failure);
    assert!(removed(&rig.news(), &new));
    assert!(rig.ue.is_registered());
}

#[test]
fn failures_of_an_sm1_in_clear_come_in_clear() {
    let mut rig = Rig::new();
    rig.challenged(&[KAMAILIO]);
    let set = rig.install().expect("an Install");
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    let (_, sm7) = rig.last();
    let failure = Message::response(&sm7, 504, "Server Time-out", "s");
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &failure);
    let out = rig.news();
    assert!(removed(&out, &set));
    assert!(out.contains(&UeOutput::Event(UeEvent::Failed(UeFailure::Status(504)))));
}

#[test]
fn reports_of_failure_go_through_the_old_set_when_there_is_one() {
    for sim in [AkaFailure::Mac, AkaFailure::Synchronisation([9; 14])] {
        let mut rig = Rig::new();
        let old = rig.registered();
        rig.ue.aka = Box::new(Sim(Err(sim)));
        rig.ue.register(rig.now).expect("starts");
        let (_, sm1) = rig.last();
        rig.answer_through(&old, &challenge(&sm1).with(SECURITY_SERVER, SECOND));
        let (packet, report) = rig.last();
        assert_eq!(ports(&packet), way_out(&old), "{sim:?}");
        assert_ne!(
            report.value("Security-Client"),
            sm1.value("Security-Client")
        );
        assert_eq!(
            rig.install().map(|s| s.token),
            Some(old.token),
            "no new set"
        );
        assert!(rig.ue.is_registered());
    }
}

#[test]
fn client_ports_come_again_as_late_as_possible() {
    let mut rig = Rig::set_up(|c| c.client_ports = 31100..=31104);
    let mut drawn = Vec::new();
    for _ in 0..12 {
        let set = rig.registered();
        drawn.push(set.params.ue_ends.port_c);
        rig.ue.deregister(rig.now).expect("starts");
        drawn.push(rig.offered().port_c);
        rig.granted(&set, 0);
        rig.pass(10_000);
        rig.ue
            .add_spis([8000 + 2 * drawn.len() as u32, 8001 + 2 * drawn.len() as u32]);
        rig.news();
    }
    for five in drawn.windows(5) {
        let different: std::collections::HashSet<_> = five.iter().collect();
        assert_eq!(different.len(), 5, "{drawn:?}");
    }
}

#[test]
fn own_spis_differ_from_those_of_the_p_cscf() {
    // The P-CSCF has 7004 and 7005, which are set aside for our third offer.
    let server = KAMAILIO.replace("4096", "7004").replace("4097", "7005");
    let mut rig = Rig::new();
    rig.challenged(&[&server]);
    let set = rig.install().expect("an Install");
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    rig.granted_first(&set);
    for want in [[7002, 7003], [7006, 7007]] {
        rig.ue.register(rig.now).expect("starts");
        let ends = rig.offered();
        assert_eq!([ends.spi_c, ends.spi_s], want);
        let (_, request) = rig.last();
        // Refused without an Install, and not given back in between.
        let spare = std::mem::take(&mut rig.ue.spis);
        rig.answer_through(&set, &Message::response(&request, 403, "Forbidden", "s"));
        rig.ue.spis = spare;
    }
    assert_eq!(rig.ue.spis, [[7004, 7005]]);
    assert_eq!(rig.ue.register(rig.now), Err(UeFailure::NoSpi));
}

#[rstest]
#[case::an_offered_one("4096", "7001")]
#[case::an_offered_one_at_the_other_end("4097", "7000")]
#[case::twice_the_same("4097", "4096")]
fn spis_of_the_p_cscf_that_are_ours_are_refused(#[case] from: &str, #[case] to: &str) {
    let mut rig = Rig::new();
    rig.challenged(&[&KAMAILIO.replace(from, to)]);
    let failed = UeEvent::Failed(UeFailure::SecurityServer(OfferError::Spi));
    assert_eq!(rig.events().last(), Some(&failed));
    assert!(rig.install().is_none());
}

/// A P-CSCF may use the ports of a set again that we still keep for its last answer.
#[test]
fn a_new_set_with_the_ports_of_one_that_ends_is_told_from_it() {
    let mut rig = Rig::set_up(|c| c.client_ports = 31100..=31101);
    let old = rig.registered();
    rig.ue.deregister(rig.now).expect("starts");
    let (_, leave) = rig.last();
    rig.answer_through(&old, &Message::response(&leave, 200, "OK", "s"));
    let new = rig.registered();
    assert_eq!(new.params.pcscf_ends, old.params.pcscf_ends);
    assert_ne!(new.token, old.token);
    rig.answer_through(&new, &message());
    assert_eq!(rig.last().1.status(), Some(200));
}

/// Clause 6.1.4 by the reg event package of RFC 3680.
#[test]
fn the_network_asks_for_an_authentication_and_gets_it() {
    let mut rig = Rig::new();
    let set = rig.registered();
    let notify = |attributes: &str, branch: &str| {
        Message::request("NOTIFY", "sip:u@192.0.2.1:31800")
            .with(
                "Via",
                &format!("SIP/2.0/UDP 203.0.113.1:6100;branch={branch}"),
            )
            .with("From", "<sip:u@h.example>;tag=1")
            .with("To", "<sip:u@h.example>")
            .with("Call-ID", "9")
            .with("CSeq", "1 NOTIFY")
            .with("Event", "reg")
            .with_body(format!("<contact {attributes}><uri>sip:u@192.0.2.1:31800</uri>").as_bytes())
    };
    rig.answer_through(
        &set,
        &notify("state=\"active\" event=\"shortened\"", "z9hG4bKa"),
    );
    let (packet, sm1) = rig.last();
    assert_eq!(
        (sm1.method(), ports(&packet)),
        (Some("REGISTER"), way_out(&set))
    );
    rig.granted(&set, 3600);
    rig.answer_through(
        &set,
        &notify("state=\"terminated\" event=\"rejected\"", "z9hG4bKb"),
    );
    assert_eq!(
        rig.last().1.status(),
        Some(200),
        "the NOTIFY is answered through the SA"
    );
    assert!(!rig.ue.is_registered());
    rig.pass(10_000);
    assert!(removed(&rig.news(), &set));
}

#[test]
fn a_p_cscf_that_keeps_its_client_port_is_heard_while_a_registration_runs() {
    let mut rig = Rig::new();
    let old = rig.registered();
    rig.ue.register(rig.now).expect("starts");
    let (_, sm1) = rig.last();
    let port = |ends: crate::sec_agree::Ends| format!("port-c={}", ends.port_c);
    let of = |line| SecList::parse(line).proposals().expect("one")[0].ends;
    let kept = SECOND.replace(&port(of(SECOND)), &port(old.params.pcscf_ends));
    rig.answer_through(&old, &challenge(&sm1).with(SECURITY_SERVER, &kept));
    let new = rig.install().expect("an Install");
    assert_eq!(new.params.pcscf_ends.port_c, old.params.pcscf_ends.port_c);
    rig.news();
    rig.answer_through(&old, &message());
    let (_, answer) = rig.last();
    assert_eq!(answer.status(), Some(200));
}
