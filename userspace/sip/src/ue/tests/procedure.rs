//! TS 33.203 clauses 7.2, 7.3 and 7.4.1a: the messages of a procedure, each by its way.

use super::*;

#[test]
fn every_line_of_security_server_comes_back_as_it_was() {
    let lines = [
        "ipsec-3gpp; q=0.2;alg=hmac-sha-1-96;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900",
        "tls;q=0.1, ipsec-3gpp;q=0.6;alg=aes-gmac;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900",
    ];
    let mut rig = Rig::new();
    rig.challenged(&lines);
    let set = rig.install().expect("an Install");
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    let verify = |m: &Message| -> Vec<_> {
        let lines = m.lines(SECURITY_VERIFY);
        lines.map(|h| h.value().into_owned()).collect()
    };
    let (_, sm7) = rig.last();
    assert_eq!(verify(&sm7), lines);
    rig.granted_first(&set);
    rig.ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (_, request) = rig.last();
    assert_eq!(verify(&request), lines);
}

#[test]
fn sm6_is_taken_only_the_way_that_sm1_went() {
    // SM1 in clear, SM6 over a port that is protected later: nothing.
    let mut rig = Rig::new();
    let old = rig.registered();
    rig.ue.register(rig.now).expect("starts");
    let (_, sm1) = rig.last();
    let sm6 = challenge(&sm1).with(SECURITY_SERVER, SECOND);
    rig.news();
    // SM1 through the old set, SM6 in clear: not it.
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &sm6);
    let ignored = UeEvent::Ignored {
        why: Ignored::WrongSa,
    };
    assert_eq!(rig.news(), [UeOutput::Event(ignored)]);
    rig.answer_through(&old, &sm6);
    assert!(rig.install().is_some());
}

#[test]
fn until_sm12_other_messages_go_through_the_old_set() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    let (sm7, _) = rig.last();
    assert_eq!(ports(&sm7), way_out(&new), "SM7 goes through the new one");
    rig.ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (packet, request) = rig.last();
    assert_eq!(ports(&packet), way_out(&old));
    assert_eq!(request.value(SECURITY_VERIFY).as_deref(), Some(KAMAILIO));
    // A request of the network through the new one is none yet.
    rig.news();
    rig.answer_through(&new, &message());
    let ignored = UeEvent::Ignored {
        why: Ignored::WrongSa,
    };
    assert_eq!(rig.news(), [UeOutput::Event(ignored)]);
}

#[test]
fn before_sm12_of_a_first_registration_nothing_can_be_sent() {
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
    let sent = rig.ue.send(0, "OPTIONS", "sip:x@h.example", "", b"");
    assert_eq!(sent, Err(UeFailure::NotRegistered));
}

#[test]
fn a_refresh_without_a_challenge_throws_the_offer_away_and_makes_the_sas_live_longer() {
    for (granted, end) in [(60, 3_630_000), (7200, 7_230_000)] {
        let mut rig = Rig::new();
        let set = rig.registered();
        let spis = rig.ue.spis.len();
        rig.ue.register(rig.now).expect("starts");
        rig.granted(&set, granted);
        assert_eq!(rig.ue.spis.len(), spis, "the offered SPIs are free again");
        let told = UeEvent::Registered {
            set: set.token,
            expires: granted,
            authenticated: false,
        };
        assert_eq!(rig.events().last(), Some(&told));
        rig.news();
        rig.ue
            .send(0, "OPTIONS", "sip:x@h.example", "", b"")
            .expect("registered");
        assert_eq!(ports(&rig.last().0), way_out(&set), "ports and SAs stay");
        rig.pass(end - 1);
        assert!(
            !removed(&rig.news(), &set),
            "granted {granted}: never shorter"
        );
        rig.pass(1);
        assert!(removed(&rig.news(), &set), "granted {granted}");
    }
}

#[test]
fn a_user_authentication_failure_comes_through_the_new_set_and_ends_it() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    let (_, sm7) = rig.last();
    rig.answer_through(&new, &Message::response(&sm7, 403, "Forbidden", "s"));
    let out = rig.news();
    assert!(removed(&out, &new) && !removed(&out, &old));
    assert!(
        rig.ue.is_registered(),
        "a failed authentication de-registers nobody"
    );
    // The next one goes through the old set.
    rig.ue.register(rig.now).expect("starts");
    assert_eq!(ports(&rig.last().0), way_out(&old));
}

#[test]
fn after_a_resynchronisation_the_latest_list_makes_the_set() {
    let mut rig = Rig::with(Err(AkaFailure::Synchronisation([9; 14])));
    rig.challenged(&[KAMAILIO]);
    rig.ue.aka = Box::new(Sim(Ok(())));
    let (packet, report) = rig.last();
    rig.give(
        packet.local,
        packet.remote,
        &challenge(&report).with(SECURITY_SERVER, SECOND),
    );
    let set = rig.install().expect("an Install");
    assert_eq!(set.params.pcscf_ends.port_c, 5101);
    let offered = SecList::from_message(&report, "Security-Client").expect("an offer");
    assert_eq!(
        offered.proposals().expect("ours")[0].ends,
        set.params.ue_ends
    );
    // The first 401 again, late: of a transaction that has ended.
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    rig.news();
    let (first, sm1) = (addr("192.0.2.1:5060"), report);
    rig.give(
        first,
        addr("203.0.113.1:5060"),
        &challenge(&sm1).with(SECURITY_SERVER, KAMAILIO),
    );
    let ignored = UeOutput::Event(UeEvent::Ignored {
        why: Ignored::NoTransaction,
    });
    assert_eq!(rig.news(), [ignored]);
}

#[test]
fn a_report_of_a_wrong_mac_is_repeated_until_it_is_answered() {
    let mut rig = Rig::with(Err(AkaFailure::Mac));
    rig.challenged(&[KAMAILIO]);
    let before = rig.sent().len();
    rig.pass(600);
    assert_eq!(
        rig.sent().len(),
        before + 1,
        "over UDP it may have been lost"
    );
    let (packet, report) = rig.last();
    rig.give(
        packet.local,
        packet.remote,
        &Message::response(&report, 403, "Forbidden", "s"),
    );
    rig.pass(40_000);
    assert_eq!(rig.sent().len(), before + 1);
    let failures = rig
        .events()
        .into_iter()
        .filter(|e| matches!(e, UeEvent::Failed(_)));
    assert_eq!(failures.count(), 1);
}

#[test]
fn the_answer_to_a_deregistration_comes_through_the_sa_and_then_all_sets_go() {
    let mut rig = Rig::new();
    let set = rig.registered();
    rig.ue.deregister(rig.now).expect("starts");
    let (packet, leave) = rig.last();
    assert_eq!(ports(&packet), way_out(&set));
    assert_eq!(leave.value("Expires").as_deref(), Some("0"));
    let ok = Message::response(&leave, 200, "OK", "s");
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &ok);
    assert!(rig.ue.is_registered(), "a 200 in clear is nobody's");
    rig.answer_through(&set, &ok);
    assert_eq!(rig.events().last(), Some(&UeEvent::Deregistered));
    assert!(!rig.ue.is_registered());
    rig.pass(10_000);
    assert!(removed(&rig.news(), &set));
    assert_eq!(rig.ue.next_timeout(), None);
}

/// Clause 7.4.0: at any time; then the challenge decides, and the old SAs are of no use.
#[test]
fn a_register_in_clear_is_challenged_and_replaces_the_sas_at_sm12() {
    let mut rig = Rig::new();
    let old = rig.registered();
    rig.ue.register_in_clear(rig.now).expect("starts");
    let (packet, sm1) = rig.last();
    assert_eq!(packet.local, addr("192.0.2.1:5060"));
    assert_eq!(sm1.value(SECURITY_VERIFY), None);
    let sm6 = challenge(&sm1).with(SECURITY_SERVER, SECOND);
    rig.news();
    rig.answer_through(&old, &sm6);
    let ignored = UeOutput::Event(UeEvent::Ignored {
        why: Ignored::WrongSa,
    });
    assert_eq!(rig.news(), [ignored], "SM6 comes the way of SM1");
    rig.give(packet.local, packet.remote, &sm6);
    let new = rig.install().expect("an Install");
    rig.ue.handle(
        rig.now,
        UeInput::Installed {
            set: new.token,
            ok: true,
        },
    );
    rig.ue
        .send(rig.now, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    assert_eq!(
        ports(&rig.last().0),
        way_out(&old),
        "the old ones serve meanwhile"
    );
    let (_, sm7) = rig.sent().into_iter().rev().nth(1).expect("SM7");
    let ok =
        Message::response(&sm7, 200, "OK", "s").with("Contact", &sm7.value("Contact").expect("it"));
    rig.answer_through(&new, &ok);
    assert!(removed(&rig.news(), &old), "the P-CSCF has removed them");
    assert!(rig.ue.is_registered());
}
