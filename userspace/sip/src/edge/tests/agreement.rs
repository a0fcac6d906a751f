//! Which set a message takes, and what refusals of the agreement look like to phone and
//! operator (TS 33.203 clauses 7.1, 7.4.2a, M.7.2).

use super::rig::*;
use super::*;
use crate::sec_agree::OfferError;

/// SM1 over the set of `old` with the offer of `new`, up to SM6.
fn again(rig: &mut Rig, old: &Phone, new: &Phone) -> (SetToken, String, String) {
    let (source, local) = old.protected();
    let at = SocketAddr::new(source.ip(), old.ends.port_s);
    let text = new.register(at, "nonce=\"\",response=\"\"", "");
    let up = to_core(&rig.ue(source, local, &text));
    let keys = format!("ik=\"{IK}\",ck=\"{CK}\"");
    let (nonce, message) = challenge(&up, new.call as u8, &keys);
    let set = installs(&rig.core(&message)).pop().expect("an Install");
    rig.edge.handle(rig.now, Input::Installed { set, ok: true });
    let sm6 = packets(&rig.take()).pop().expect("SM6");
    assert_eq!(sm6.local.port(), 5064, "SM6 leaves over the old set");
    let sm6 = Message::parse(&sm6.bytes).expect("SIP");
    let verify = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
    (set, nonce, verify)
}

fn invite(rig: &mut Rig, phone: &Phone) -> Message {
    let (source, local) = phone.protected();
    let text = "INVITE sip:b@home.example SIP/2.0\r\n\
                Via: SIP/2.0/UDP 192.0.2.1:32000;branch=z9hG4bKinvite\r\nMax-Forwards: 70\r\n\
                From: <sip:a@home.example>;tag=1\r\nTo: <sip:b@home.example>\r\nCall-ID: call\r\n\
                CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    to_core(&rig.ue(source, local, text))
}

fn pass(rig: &mut Rig, ms: u64) {
    let end = rig.now + ms;
    while let Some(due) = rig.edge.next_timeout().filter(|due| *due <= end) {
        rig.now = rig.now.max(due);
        rig.edge.handle_timeout(rig.now);
        rig.take();
    }
    rig.now = end;
}

#[test]
fn a_failure_after_a_protected_sm1_leaves_over_the_old_set() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a", 1), phone("a", 2));
    let (first, _) = rig.register(&old);
    let (set, nonce, verify) = again(&mut rig, &old, &new);
    let (source, local) = new.protected();
    let sm8 = to_core(&rig.ue(source, local, &new.sm7(&nonce, &verify)));
    let out = rig.core(&Message::response(&sm8, 403, "Forbidden", "c"));
    let packet = packets(&out).pop().expect("an answer");
    assert_eq!((packet.local.port(), packet.remote.port()), (5064, 32000));
    pass(&mut rig, 4_000);
    assert!(rig.out.contains(&Output::Remove { set }));
    assert!(!rig.out.contains(&Output::Remove { set: first }));
    assert_eq!(rig.edge.len(), (1, 1));
}

#[test]
fn a_call_that_rings_through_a_re_registration_is_answered_over_its_set() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a", 1), phone("a", 2));
    let (first, _) = rig.register(&old);
    let call = invite(&mut rig, &old);
    let (set, nonce, verify) = again(&mut rig, &old, &new);
    let (source, local) = new.protected();
    let sm8 = to_core(&rig.ue(source, local, &new.sm7(&nonce, &verify)));
    let ok = Message::response(&sm8, 200, "OK", "c").with("Contact", &contact(&sm8));
    assert_eq!(packets(&rig.core(&ok))[0].local.port(), 5065, "SM12");
    // The phone goes on over its new set.
    let options = "OPTIONS sip:b@home.example SIP/2.0\r\n\
                   Via: SIP/2.0/UDP 192.0.2.1:32000;branch=z9hG4bKo\r\nMax-Forwards: 70\r\n\
                   From: <sip:a@home.example>;tag=1\r\nTo: <sip:b@home.example>\r\nCall-ID: o\r\n\
                   CSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n";
    to_core(&rig.ue(source, local, options));
    let switched = FlowEvent::SwitchedOver {
        from: first,
        to: set,
    };
    assert!(rig.out.contains(&Output::Event(switched)));
    // A retransmission of the call is the same transaction.
    invite(&mut rig, &old);
    pass(&mut rig, 100_000);
    let out = rig.core(&Message::response(&call, 180, "Ringing", "b"));
    assert_eq!(packets(&out)[0].local.port(), 5064, "begun on the old set");
    pass(&mut rig, 100_000);
    let out = rig.core(&Message::response(&call, 200, "OK", "b"));
    assert_eq!(packets(&out)[0].local.port(), 5064);
    assert!(!rig.out.contains(&Output::Remove { set: first }));
    pass(&mut rig, 32_000);
    assert!(rig.out.contains(&Output::Remove { set: first }));
    assert_eq!(rig.edge.len(), (1, 1));
}

#[test]
fn without_a_call_the_old_set_goes_after_the_longest_transaction() {
    let mut rig = Rig::new();
    let (old, new) = (phone("a", 1), phone("a", 2));
    let (first, _) = rig.register(&old);
    let (_, nonce, verify) = again(&mut rig, &old, &new);
    let (source, local) = new.protected();
    let sm8 = to_core(&rig.ue(source, local, &new.sm7(&nonce, &verify)));
    rig.core(&Message::response(&sm8, 200, "OK", "c").with("Contact", &contact(&sm8)));
    invite(&mut rig, &new);
    pass(&mut rig, 32_000);
    assert!(rig.out.contains(&Output::Remove { set: first }));
}

#[test]
fn a_nat_without_encapsulation_is_silence_for_the_phone_and_words_for_the_operator() {
    let mut rig = Rig::new();
    let text = phone("a", 1).sm1().replace(UE, "10.0.0.2:5060");
    let out = rig.ue(addr(UE), addr(CLEAR), &text);
    let refused = FlowEvent::Refused {
        from: addr(UE),
        why: Refusal::NatWithoutTunnel,
        offered: Some("hmac-sha-1-96/aes-cbc trans".into()),
    };
    assert_eq!(out, [Output::Event(refused)]);
    let words = Refusal::NatWithoutTunnel.explain();
    assert!(words.contains("UDP-enc-tun") && words.contains("edge.nat_traversal"));
    assert!(rig.edge.next_timeout().is_none(), "nothing is kept");
}

#[test]
fn two_that_asked_at_once_for_a_port_are_told_apart_when_they_are_challenged() {
    let mut rig = Rig::new();
    let (first, mut second) = (phone("a", 1), phone("b", 2));
    second.ends.port_s = 32001;
    second.ends.port_c = first.ends.port_c;
    let up = [&first, &second].map(|phone| to_core(&rig.sm1(phone)));
    let keys = format!("ik=\"{IK}\",ck=\"{CK}\"");
    assert_eq!(installs(&rig.core(&challenge(&up[0], 1, &keys).1)).len(), 1);
    let out = rig.core(&challenge(&up[1], 2, &keys).1);
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(400));
    assert!(
        answer
            .value("Warning")
            .is_some_and(|w| w.contains("choose others"))
    );
    assert!(answer.value("WWW-Authenticate").is_none() && installs(&out).is_empty());
    assert_eq!(rig.refusals(), [Refusal::Collision]);
    assert_eq!(rig.edge.len(), (1, 1));
}

#[test]
fn a_phone_reads_why_its_offer_is_refused_and_no_settings() {
    let mut rig = Rig::new();
    let text = phone("a", 1).sm1().replace("ealg=aes-cbc", "ealg=rot13");
    let answer = to_ue(&rig.ue(addr(UE), addr(CLEAR), &text)).remove(0);
    assert_eq!(answer.status(), Some(494));
    let warning = answer.value("Warning").expect("a Warning");
    assert_eq!(warning, format!("399 gmesp \"{}\"", OfferError::Algorithms));
    assert!(!warning.contains("edge."));
    assert!(
        answer
            .value(SECURITY_SERVER)
            .is_some_and(|list| !list.contains("spi-"))
    );
    let events = rig.out.iter().filter_map(|o| match o {
        Output::Event(FlowEvent::Refused { offered, .. }) => offered.clone(),
        _ => None,
    });
    assert_eq!(events.collect::<Vec<_>>(), ["hmac-sha-1-96/rot13 trans"]);
}
