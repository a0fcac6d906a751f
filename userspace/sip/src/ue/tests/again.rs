//! What begins again by itself, and in which protection (clauses 7.3.1.4, 7.4.0, 7.5).

use super::*;

fn retrying() -> Rig {
    Rig::set_up(|c| {
        c.retry = Some(Retry {
            wait: 2_000,
            times: 3,
        });
    })
}

fn registers(rig: &mut Rig) -> Vec<(Packet, Message)> {
    let all = rig.sent().into_iter();
    all.filter(|(_, m)| m.method() == Some("REGISTER"))
        .collect()
}

#[test]
fn an_answer_to_sm7_that_does_not_come_leads_to_a_new_registration_through_the_old_set() {
    let mut rig = retrying();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    rig.news();
    rig.pass(32_000);
    let out = rig.news();
    assert!(out.contains(&UeOutput::Remove { set: new.token }));
    assert!(out.contains(&UeOutput::Event(UeEvent::Again { wait: 2_000 })));
    rig.pass(2_000);
    let (packet, sm1) = registers(&mut rig).pop().expect("SM1");
    assert_eq!(packet.local.port(), old.params.ue_ends.port_c);
    assert!(
        sm1.value("Authorization")
            .is_some_and(|a| a.contains("nonce=\"\""))
    );
}

#[test]
fn no_answer_through_the_sas_means_that_they_are_dead_and_the_next_register_is_in_clear() {
    let mut rig = retrying();
    let old = rig.registered();
    rig.ue.register(rig.now).expect("starts");
    rig.news();
    rig.pass(32_000);
    let out = rig.news();
    assert!(out.contains(&UeOutput::Event(UeEvent::Lost)));
    assert!(out.contains(&UeOutput::Remove { set: old.token }));
    rig.pass(2_000);
    let (packet, sm1) = registers(&mut rig).pop().expect("SM1");
    assert_eq!(packet.local, addr("192.0.2.1:5060"));
    assert_eq!(sm1.value(SECURITY_VERIFY), None);
}

#[test]
fn several_requests_without_an_answer_mean_it_too() {
    let mut rig = retrying();
    let old = rig.registered();
    rig.news();
    for n in 0..2 {
        assert!(rig.ue.is_registered(), "after {n}");
        rig.ue
            .send(rig.now, "OPTIONS", "sip:x@h.example", "", b"")
            .expect("registered");
        rig.pass(32_000);
    }
    let out = rig.news();
    assert!(out.contains(&UeOutput::Event(UeEvent::Lost)));
    assert!(out.contains(&UeOutput::Remove { set: old.token }));
    rig.out = out;
    let (packet, _) = registers(&mut rig).pop().expect("SM1");
    assert_eq!(packet.local, addr("192.0.2.1:5060"));
}

#[test]
fn an_answer_in_between_shows_that_the_sas_live() {
    let mut rig = retrying();
    let set = rig.registered();
    for _ in 0..3 {
        rig.ue
            .send(rig.now, "OPTIONS", "sip:x@h.example", "", b"")
            .expect("registered");
        rig.pass(32_000);
        rig.ue
            .send(rig.now, "OPTIONS", "sip:x@h.example", "", b"")
            .expect("registered");
        let (_, request) = rig.last();
        rig.answer_through(&set, &Message::response(&request, 404, "Not Found", "s"));
    }
    assert!(rig.ue.is_registered());
}

#[test]
fn retries_wait_longer_each_time_and_end() {
    let mut rig = retrying();
    rig.ue.register(0).expect("starts");
    rig.pass(600_000);
    let waits: Vec<_> = rig
        .events()
        .into_iter()
        .filter_map(|e| match e {
            UeEvent::Again { wait } => Some(wait),
            _ => None,
        })
        .collect();
    assert_eq!(waits, [2_000, 4_000, 8_000]);
    assert_eq!(rig.ue.next_timeout(), None);
    // A wish of the user's counts anew.
    assert_eq!(rig.ue.register(rig.now), Ok(()));
    rig.news();
    rig.pass(32_000);
    let again = UeOutput::Event(UeEvent::Again { wait: 2_000 });
    assert!(rig.news().contains(&again));
}

#[test]
fn who_leaves_is_not_registered_again() {
    let mut rig = Rig::set_up(|c| {
        c.renew = true;
        c.retry = Some(Retry {
            wait: 2_000,
            times: 3,
        });
    });
    let set = rig.registered();
    // A renewal that fails, and will be tried again.
    rig.ue.register(rig.now).expect("starts");
    let (_, request) = rig.last();
    let busy = Message::response(&request, 503, "Service Unavailable", "s");
    rig.answer_through(&set, &busy);
    rig.ue.deregister(rig.now).expect("starts");
    rig.granted(&set, 0);
    let before = rig.sent().len();
    rig.pass(10_000_000);
    assert_eq!(rig.sent().len(), before);
    assert_eq!(rig.ue.next_timeout(), None);
}

#[test]
fn without_a_retry_the_application_decides() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    rig.pass(600_000);
    let sent = registers(&mut rig);
    assert!(sent.iter().all(|(p, _)| *p == sent[0].0));
    assert_eq!(rig.ue.next_timeout(), None);
}

#[rstest]
#[case::server_error(503, true)]
#[case::security_agreement_required(494, true)]
#[case::extension_required(421, true)]
#[case::forbidden(403, false)]
#[case::not_found(404, false)]
fn what_is_tried_again(#[case] status: u16, #[case] again: bool) {
    let mut rig = retrying();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.last();
    let refused = Message::response(&sm1, status, "No", "s").with("Retry-After", "30 (busy)");
    rig.give(packet.local, packet.remote, &refused);
    let failed = UeEvent::Failed(UeFailure::Status(status));
    assert!(rig.events().contains(&failed));
    // Retry-After is longer than our own wait.
    assert_eq!(rig.ue.next_timeout(), again.then_some(30_000));
}

#[test]
fn a_longer_time_is_asked_for_when_the_network_wants_it() {
    let mut rig = Rig::set_up(|c| c.expires = 60);
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.last();
    let brief = Message::response(&sm1, 423, "Interval Too Brief", "s").with("Min-Expires", "600");
    rig.give(packet.local, packet.remote, &brief);
    let (packet, sm1) = rig.last();
    assert_eq!(sm1.value("Expires").as_deref(), Some("600"));
    // What is no more is no reason to go on.
    let brief = Message::response(&sm1, 423, "Interval Too Brief", "s").with("Min-Expires", "600");
    let before = rig.sent().len();
    rig.give(packet.local, packet.remote, &brief);
    assert_eq!(rig.sent().len(), before);
}

#[test]
fn a_renewal_begins_before_the_registration_ends() {
    for (granted, at) in [(3600, 3_000_000), (1200, 600_000), (60, 30_000)] {
        let mut rig = Rig::set_up(|c| c.renew = true);
        rig.challenged(&[KAMAILIO]);
        let set = rig.install().expect("an Install");
        rig.ue.handle(
            0,
            UeInput::Installed {
                set: set.token,
                ok: true,
            },
        );
        rig.granted(&set, granted);
        let before = rig.sent().len();
        rig.pass(at - 1);
        assert_eq!(rig.sent().len(), before, "granted {granted}");
        rig.pass(1);
        let (packet, _) = rig.last();
        assert_eq!(rig.sent().len(), before + 1, "granted {granted}");
        assert_eq!(packet.local.port(), set.params.ue_ends.port_c);
    }
}

/// Clause 7.5.
#[test]
fn another_address_ends_all_sas_and_registers_in_clear_from_there() {
    let mut rig = Rig::new();
    let old = rig.registered();
    let new = rig.challenged_again(&old);
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    rig.news();
    rig.ue
        .change_address(rig.now, [192, 0, 2, 99].into())
        .expect("starts");
    let out = rig.news();
    for set in [&old, &new] {
        assert!(out.contains(&UeOutput::Remove { set: set.token }));
    }
    let failed = UeEvent::Failed(UeFailure::Moved);
    assert!(out.contains(&UeOutput::Event(failed)));
    let answered = UeEvent::Answered {
        id,
        status: 503,
        body: Vec::new(),
    };
    assert!(out.contains(&UeOutput::Event(answered)));
    rig.out = out;
    let (packet, sm1) = registers(&mut rig).pop().expect("SM1");
    assert_eq!(packet.local, addr("192.0.2.99:5060"));
    assert!(
        sm1.value("Contact")
            .is_some_and(|c| c.contains("192.0.2.99:31800"))
    );
    assert_eq!(sm1.value(SECURITY_VERIFY), None);
}

#[test]
fn another_address_of_a_phone_that_wants_nothing_is_just_noted() {
    let mut rig = Rig::new();
    rig.ue
        .change_address(0, [192, 0, 2, 99].into())
        .expect("noted");
    assert!(rig.news().is_empty());
    rig.ue.register(0).expect("starts");
    assert_eq!(rig.last().0.local, addr("192.0.2.99:5060"));
}

#[test]
fn a_binding_of_the_old_address_does_not_count_for_the_new_one() {
    let mut rig = Rig::new();
    rig.registered();
    rig.ue
        .change_address(rig.now, [192, 0, 2, 99].into())
        .expect("starts");
    let (packet, sm1) = rig.last();
    let sm6 = challenge(&sm1).with(SECURITY_SERVER, SECOND);
    rig.give(packet.local, packet.remote, &sm6);
    let set = rig.install().expect("an Install");
    let token = set.token;
    let input = UeInput::Installed {
        set: token,
        ok: true,
    };
    rig.ue.handle(rig.now, input);
    let (_, sm7) = rig.last();
    let both = "<sip:u@192.0.2.1:31800>;expires=15, <sip:u@192.0.2.99:31800>;expires=3600";
    let ok = Message::response(&sm7, 200, "OK", "s").with("Contact", both);
    rig.answer_through(&set, &ok);
    assert_eq!(rig.ue.registered_until(), Some(rig.now + 3_600_000));
}
