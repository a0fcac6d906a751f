//! A name in the Via of a REGISTER (TS 33.203 clauses 7.1 rule 2 and M.7.2).

use std::net::IpAddr;

use super::rig::*;
use super::*;

/// SM1 of a phone whose Via names a host.
fn named(phone: &Phone) -> String {
    let text = phone.sm1();
    let named = text.replace(
        &format!("UDP {};", phone.source),
        "UDP phone.example:5060;rport;",
    );
    assert_ne!(text, named);
    named
}

fn asked(out: &[Output]) -> Option<(u64, String)> {
    out.iter().find_map(|o| match o {
        Output::Resolve { id, name } => Some((*id, name.clone())),
        _ => None,
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Rig {
    fn found(&mut self, id: u64, addresses: &[IpAddr]) -> Vec<Output> {
        let input = Input::Resolved { id, addresses };
        self.edge.handle(self.now, input);
        self.take()
    }
}

#[test]
fn a_name_is_resolved_before_anything_else_happens() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let out = rig.ue(phone.source, addr(CLEAR), &named(&phone));
    let (id, name) = asked(&out).expect("a question");
    assert_eq!((name.as_str(), out.len()), ("phone.example", 1));
    // A retransmission asks nothing.
    assert!(rig.ue(phone.source, addr(CLEAR), &named(&phone)).is_empty());
    let out = rig.found(id, &[ip("192.0.2.77"), ip("192.0.2.1")]);
    let nat = |o: &Output| matches!(o, Output::Event(FlowEvent::Sm1 { nat: false, .. }));
    assert!(out.iter().any(nat), "{out:?}");
    let (_, message) = challenge(&to_core(&out), 1, &format!("ik=\"{IK}\",ck=\"{CK}\""));
    assert_eq!(installs(&rig.core(&message)).len(), 1);
    // Once is enough.
    assert!(rig.found(id, &[ip("192.0.2.1")]).is_empty());
}

#[test]
fn a_name_with_another_address_is_behind_a_nat() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let out = rig.ue(phone.source, addr(CLEAR), &named(&phone));
    let (id, _) = asked(&out).expect("a question");
    let out = rig.found(id, &[ip("10.0.0.2")]);
    assert!(to_ue(&out).is_empty());
    assert_eq!(rig.refusals(), [Refusal::NatWithoutTunnel]);
}

#[test]
fn a_protected_register_from_elsewhere_than_its_name_is_refused() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    rig.register(&phone);
    let (source, local) = phone.protected();
    let at = SocketAddr::new(source.ip(), 32000);
    for (n, (address, why)) in [
        ("192.0.2.77", Some(Refusal::ViaMismatch)),
        ("192.0.2.1", None),
    ]
    .into_iter()
    .enumerate()
    {
        let offer = format!("Security-Client: {}\r\n", phone.offer());
        let text = phone
            .register(at, "nonce=\"\",response=\"\"", "")
            .replace(&offer, "")
            .replace(
                &format!("UDP {at};branch=z9hG4bK"),
                &format!("UDP phone.example;branch=z9hG4bK{n}"),
            );
        let out = rig.ue(source, local, &text);
        let (id, _) = asked(&out).expect("a question");
        let out = rig.found(id, &[ip(address)]);
        let up = out.iter().any(|o| matches!(o, Output::ToCore { .. }));
        assert_eq!(up, why.is_none(), "{out:?}");
        assert_eq!(rig.refusals().pop(), why.or(Some(Refusal::ViaMismatch)));
    }
}

#[test]
fn a_name_that_nobody_knows_is_refused_in_time() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let out = rig.ue(phone.source, addr(CLEAR), &named(&phone));
    let (id, _) = asked(&out).expect("a question");
    let answer = to_ue(&rig.found(id, &[])).pop().expect("an answer");
    assert_eq!(answer.status(), Some(400));
    // No answer at all is none either.
    rig.ue(phone.source, addr(CLEAR), &named(&phone));
    assert_eq!(rig.edge.next_timeout(), Some(rig.now + 5_000));
    rig.now += 5_000;
    rig.edge.handle_timeout(rig.now);
    assert_eq!(to_ue(&rig.take())[0].status(), Some(400));
    assert_eq!(rig.refusals(), [Refusal::ViaName; 2]);
    assert!(rig.edge.next_timeout().is_none(), "nothing waits");
}

#[test]
fn strangers_ask_for_few_names_at_a_time() {
    let mut rig = Rig::new();
    let from = |source: String, n: u16| Phone {
        source: addr(&source),
        ..phone("a", n)
    };
    let mut questions = 0;
    for host in 1..=20 {
        for n in 0..6 {
            let phone = from(format!("198.51.100.{host}:5060"), host * 10 + n);
            let out = rig.ue(phone.source, addr(CLEAR), &named(&phone));
            questions += usize::from(asked(&out).is_some());
        }
        assert!(questions <= usize::from(host) * 4);
    }
    assert_eq!(questions, 48);
    let refusals = rig.refusals();
    assert!(refusals.len() == 72 && refusals.iter().all(|why| *why == Refusal::Overload));
    rig.now += 5_000;
    rig.edge.handle_timeout(rig.now);
    rig.take();
    let phone = phone("a", 1);
    assert!(asked(&rig.ue(phone.source, addr(CLEAR), &named(&phone))).is_some());
}

#[test]
fn switched_off_a_name_is_an_error() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.resolve_via = false;
    let mut rig = Rig::with(config);
    let phone = phone("a", 1);
    let out = rig.ue(phone.source, addr(CLEAR), &named(&phone));
    assert!(asked(&out).is_none());
    assert_eq!(to_ue(&out)[0].status(), Some(400));
}

#[test]
fn one_registered_phone_does_not_take_all_places() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    rig.register(&phone);
    let (source, local) = phone.protected();
    let at = SocketAddr::new(source.ip(), 32000);
    let offer = format!("Security-Client: {}\r\n", phone.offer());
    let text = phone
        .register(at, "nonce=\"\",response=\"\"", "")
        .replace(&offer, "");
    let mut questions = 0;
    for n in 0..10 {
        let via = format!("UDP phone.example;branch=z9hG4bK{n}");
        let text = text.replace(&format!("UDP {at};branch=z9hG4bK"), &via);
        questions += usize::from(asked(&rig.ue(source, local, &text)).is_some());
    }
    assert_eq!(questions, 4);
    assert_eq!(rig.refusals(), [Refusal::Overload; 6]);
}
