//! The bounds as they are by default: 503 with Retry-After before memory grows.

use super::rig::*;
use super::tcp::config;
use super::*;

/// Who answers 503 gets counted; the rest went on.
fn busy(out: &[Output]) -> bool {
    let answer = to_ue(out).pop();
    answer.is_some_and(|answer| {
        assert_eq!(answer.status(), Some(503));
        assert!(answer.value("Retry-After").is_some());
        true
    })
}

fn stranger(n: u32) -> Phone {
    let [_, a, b, c] = n.to_be_bytes();
    let mut phone = phone("a", 1);
    phone.source = SocketAddr::from(([10, a, b, c], 5060));
    phone.call = n;
    phone
}

#[test]
fn first_registers_of_many_strangers_end_at_the_bound() {
    let mut rig = Rig::new();
    let bound = rig.edge.config.limits.pending;
    let refused = (0..9_000).filter(|n| busy(&rig.sm1(&stranger(*n)))).count();
    assert_eq!(refused, 9_000 - bound);
    rig.out.clear();
    // When they have been forgotten there is room again.
    rig.now += 32_000;
    rig.edge.handle_timeout(rig.now);
    assert!(!busy(&rig.sm1(&stranger(30_000))));
    assert_eq!(rig.edge.next_timeout(), Some(rig.now + 32_000));
}

#[test]
fn one_phone_has_so_many_transactions_and_another_one_still_has_its_own() {
    let mut rig = Rig::new();
    let mut other = phone("b", 2);
    other.source = addr("192.0.2.2:5060");
    rig.register(&phone("a", 1));
    rig.register(&other);
    let message = |user: &str, n: u32| {
        format!(
            "MESSAGE sip:x@home.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKm{n}\r\n\
             From: <sip:{user}@home.example>;tag=1\r\nTo: <sip:x@home.example>\r\n\
             Call-ID: {n}\r\nCSeq: 1 MESSAGE\r\nl: 0\r\n\r\n"
        )
    };
    let bound = rig.edge.config.limits.transactions_per_contact as u32;
    let (source, local) = phone("a", 1).protected();
    let refused = (0..1000)
        .filter(|n| busy(&rig.ue(source, local, &message("a", *n))))
        .count();
    // The transaction of the registration is there as well.
    assert_eq!(refused as u32, 1000 - bound + 1);
    let (source, local) = other.protected();
    assert!(!busy(&rig.ue(source, local, &message("b", 1))));
}

#[test]
fn outputs_that_nobody_takes_end_at_the_bound() {
    let mut config = config();
    config.limits.outputs = 100;
    let mut rig = Rig::with(config);
    for n in 0..1000 {
        let text = stranger(n).sm1();
        let input = Input::FromUe {
            local: addr(CLEAR),
            remote: stranger(n).source,
            transport: Transport::Udp,
            bytes: text.as_bytes(),
        };
        rig.edge.handle(rig.now, input);
    }
    let left = rig.take().len();
    assert!((100..110).contains(&left), "{left}");
}

#[test]
fn one_phone_does_not_take_all_places_for_names() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    rig.register(&phone);
    let (source, local) = phone.protected();
    let at = SocketAddr::new(source.ip(), phone.ends.port_s);
    let text = phone.register(at, "nonce=\"\",response=\"\"", "");
    let refused = (0..20)
        .filter(|n| {
            let named = text.replace(
                &format!("UDP {at};branch="),
                &format!("UDP n{n}.example;branch={n}"),
            );
            busy(&rig.ue(source, local, &named))
        })
        .count();
    assert_eq!(refused, 16);
    let stranger = stranger(7);
    let named = stranger
        .sm1()
        .replace("UDP 10.0.0.7:5060", "UDP phone.example");
    let out = rig.ue(stranger.source, addr(CLEAR), &named);
    assert!(
        out.iter().any(|o| matches!(o, Output::Resolve { .. })),
        "{out:?}"
    );
}
