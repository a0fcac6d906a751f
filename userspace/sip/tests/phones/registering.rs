//! Registering again and again, and leaving.

use gm_sip::edge::{FlowEvent, Output, Refusal};
use gm_sip::sec_agree::SECURITY_SERVER;

use crate::messages::{Phone, challenge, nonce, success};
use crate::models::{HUAWEI, SAMSUNG};
use crate::requests::{request, ways};
use crate::rig::*;

/// Each re-REGISTER offers new SPIs and another port-c; challenged, they come into use.
#[test]
fn re_register_with_new_spis_and_port_c_plus_one() {
    let phone = Phone::new(SAMSUNG);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let next = phone.next();
    assert_eq!(next.ends.port_c, phone.ends.port_c + 1);
    // The new REGISTER leaves through the old SAs, with the old Security-Verify.
    let text = next.text(&next.again(&nonce(1), &first.server));
    let sm2 = to_core(&rig.protected(&phone, &text));
    let second = rig.finish(&next, 2, sm2);
    let params = |n: usize| installs(&rig.out)[n].params;
    let (old, new) = (params(0), params(1));
    assert_eq!(new.ue_ends, next.ends);
    assert_eq!(new.ue_ends.port_s, old.ue_ends.port_s);
    assert_eq!(new.pcscf_ends.port_s, old.pcscf_ends.port_s);
    assert_ne!(new.pcscf_ends.port_c, old.pcscf_ends.port_c);
    assert_ne!(first.set, second.set);
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

/// A 200 without a challenge throws the offer away: the SAs stay, and live longer.
#[test]
fn a_200_without_a_challenge_throws_the_offer_away() {
    let phone = Phone::new(SAMSUNG);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let next = phone.next();
    let text = next.text(&next.again(&nonce(1), &first.server));
    let up = to_core(&rig.protected(&phone, &text));
    let out = rig.core(&success(&up, 3600));
    assert_eq!(ways(&packets(&out)), [(rig.port_pc(), 31_800)]);
    assert_eq!(installs(&rig.out).len(), 1);
    let refreshed = FlowEvent::Refreshed {
        set: first.set,
        expires: 3600,
    };
    assert!(out.contains(&Output::Event(refreshed)), "{out:?}");
    // The old ports go on working, the offered ones never did.
    to_core(&rig.protected(&phone, &request(&phone, "MESSAGE", "")));
    rig.protected(&next, &request(&phone, "OPTIONS", ""));
    assert_eq!(rig.refusals(), [Refusal::NoSa]);
}

/// At re-registration without a challenge: the same nonce, nc + 1.
#[test]
fn the_same_nonce_with_nc_plus_one() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let again = phone.next();
    let text = again.text(&again.again(&nonce(1), &first.server));
    assert!(text.contains("nc=00000002"), "{text}");
    let up = to_core(&rig.protected(&phone, &text));
    let value = up.value("Authorization").expect("credentials");
    assert!(value.ends_with(",integrity-protected=\"yes\""), "{value}");
    assert!(rig.refusals().is_empty());
}

/// A second 401 makes the phone use the latest set, with the same offer or a new one.
#[test]
fn a_second_401_makes_the_phone_use_the_latest_set() {
    for new_offer in [false, true] {
        let phone = Phone::new(HUAWEI);
        let mut rig = Rig::new();
        let up = to_core(&rig.clear(&phone, &phone.sm1()));
        let (first, _) = rig.challenged(&up, 1, &keys());
        let mut again = phone.clone();
        if new_offer {
            again = phone.next();
        }
        again.cseq = 2;
        let up = to_core(&rig.clear(&again, &again.sm1()));
        let second = rig.finish(&again, 2, up);
        assert_ne!(first, second.set);
        let at = |wanted: &dyn Fn(&Output) -> bool| rig.out.iter().position(wanted);
        let removed = at(&|o| *o == Output::Remove { set: first }).expect("the first goes");
        let installed = at(&|o| matches!(o, Output::Install(r) if r.token == second.set));
        assert!(Some(removed) < installed, "before the second comes");
        assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
    }
}

/// A repeated REGISTER, or a repeated 401, is no second attempt.
#[test]
fn a_repeated_401_keeps_the_one_attempt() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let up = to_core(&rig.clear(&phone, &phone.sm1()));
    let (_, sm6) = rig.challenged(&up, 1, &keys());
    let out = rig.core(&challenge(&up, 1, &keys()));
    assert_eq!(to_ue(&out), std::slice::from_ref(&sm6));
    assert_eq!(to_ue(&rig.clear(&phone, &phone.sm1())), [sm6]);
    assert_eq!(installs(&rig.out).len(), 1);
}

/// Challenges of two phones at a time have nothing to do with each other.
#[test]
fn pending_sets_of_two_phones_are_kept_apart() {
    let alice = Phone::new(HUAWEI);
    let mut bob = Phone::new(SAMSUNG).next();
    (bob.user, bob.source) = ("bob", addr("192.0.2.2:5060"));
    let mut rig = Rig::new();
    let sm2 = to_core(&rig.clear(&alice, &alice.sm1()));
    let other = to_core(&rig.clear(&bob, &bob.sm1()));
    rig.challenged(&other, 2, &keys());
    rig.finish(&alice, 1, sm2);
    assert_eq!(rig.edge.len(), (2, 2));
    assert!(rig.refusals().is_empty());
}

/// The phone drops a 200 to its de-REGISTER that does not come through the SA.
#[test]
fn deregister_200_leaves_through_the_sa() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let next = phone.next();
    let mut shape = next.again(&nonce(1), &first.server);
    shape.expires = 0;
    let up = to_core(&rig.protected(&phone, &next.text(&shape)));
    let out = rig.core(&success(&up, 0));
    let packet = packets(&out).pop().expect("the 200");
    assert!(packet.bytes.starts_with(b"SIP/2.0 200"));
    assert_eq!(ways(&[packet]), [(rig.port_pc(), 31_800)]);
    // The SAs are there when it leaves, and go a little later.
    let gone = Output::Remove { set: first.set };
    assert!(!rig.out.contains(&gone));
    rig.pass(10_000);
    assert!(rig.out.contains(&gone));
    assert!(rig.edge.is_empty());
}

/// Challenged, the de-REGISTER goes through a set of its own, and so does its 200.
#[test]
fn a_challenged_deregister_ends_all_sets() {
    let phone = Phone::new(SAMSUNG);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let next = phone.next();
    let mut shape = next.again(&nonce(1), &first.server);
    shape.expires = 0;
    let sm2 = to_core(&rig.protected(&phone, &next.text(&shape)));
    let (_, sm6) = rig.challenged(&sm2, 2, &keys());
    let server = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
    let mut answer = next.sm7(&nonce(2), &server);
    answer.expires = 0;
    let sm8 = to_core(&rig.protected(&next, &next.text(&answer)));
    let out = rig.core(&success(&sm8, 0));
    let packet = packets(&out).pop().expect("the 200");
    assert!(packet.local.port() != 5060 && packet.remote == phone.server());
    rig.pass(40_000);
    assert!(rig.edge.is_empty(), "{:?}", rig.edge.len());
}

/// Asked for a week, granted an hour: the SAs live 30 s longer than what was granted.
#[test]
fn expires_600000_asked_and_an_hour_granted() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    assert!(text(&first.sm2).contains("Expires: 600000\r\n"));
    rig.pass(3_600_000 + 29_000);
    assert_eq!(rig.edge.len(), (1, 1));
    rig.pass(2_000);
    assert!(rig.edge.is_empty());
}

#[test]
fn a_shorter_grant_does_not_shorten_the_sas() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let first = rig.register(&phone, 1);
    let again = phone.next();
    let text = again.text(&again.again(&nonce(1), &first.server));
    let up = to_core(&rig.protected(&phone, &text));
    rig.core(&success(&up, 900));
    // Lifetimes never shrink (clause 7.4.2a).
    rig.pass(3_600_000 + 29_000);
    assert_eq!(rig.edge.len(), (1, 1));
}
