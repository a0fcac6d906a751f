//! What the edge does not take, and what it says then.

use gm_esp::Suite;
use proptest::prelude::*;
use rstest::rstest;

use super::rig::*;
use crate::aka::ChallengeError;
use crate::edge::*;
use crate::sec_agree::{Ends, LegacyNames, OfferError, SECURITY_SERVER};

#[test]
fn strangers_are_bounded_by_source() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.limits.pending_per_source = 3;
    let mut rig = Rig::with(config);
    for n in 1..=3 {
        to_core(&rig.sm1(&phone("a", n)));
    }
    let answer = to_ue(&rig.sm1(&phone("a", 4))).pop().expect("an answer");
    assert_eq!(
        (answer.status(), answer.value("Retry-After").as_deref()),
        (Some(503), Some("30"))
    );
    assert_eq!(rig.refusals(), [Refusal::Overload]);
    let other = Phone {
        source: addr("192.0.2.2:5060"),
        ..phone("b", 5)
    };
    to_core(&rig.sm1(&other));
    // Nobody answered: after 64 * T1 there is room again.
    rig.now += 32_000;
    rig.edge.handle_timeout(rig.now);
    to_core(&rig.sm1(&phone("a", 6)));
}

#[test]
fn an_unfinished_set_counts_until_it_is_finished_or_gone() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.limits.pending_per_source = 1;
    let mut rig = Rig::with(config);
    rig.challenge(&phone("a", 1), 1);
    rig.now += 60_000;
    rig.edge.handle_timeout(rig.now);
    let other = Phone {
        ends: Ends {
            port_s: 32100,
            ..phone("b", 2).ends
        },
        ..phone("b", 2)
    };
    rig.sm1(&other);
    assert_eq!(rig.refusals(), [Refusal::Overload]);
    rig.now += 240_000;
    rig.edge.handle_timeout(rig.now);
    rig.take();
    assert!(rig.edge.is_empty() && rig.edge.next_timeout().is_none());
    rig.register(&other);
    rig.register(&phone("a", 3));
}

#[rstest]
#[case::own_live_port("a", 31001, 32000, 99)]
#[case::other_users_server_port("b", 31009, 32000, 99)]
#[case::spi_in_use("b", 31009, 32009, 4003)]
fn collisions_get_an_error_that_says_so(
    #[case] user: &'static str,
    #[case] port_c: u16,
    #[case] port_s: u16,
    #[case] spi_s: u32,
) {
    let mut rig = Rig::new();
    rig.register(&phone("a", 1));
    let ends = Ends {
        spi_c: 777,
        spi_s: if spi_s == 99 { 778 } else { spi_s },
        port_c,
        port_s,
    };
    let out = rig.sm1(&Phone {
        ends,
        ..phone(user, 9)
    });
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(400));
    assert!(
        answer
            .value("Warning")
            .is_some_and(|w| w.contains("in use"))
    );
    assert_eq!(rig.refusals(), [Refusal::Collision]);
}

#[rstest]
#[case::no_offer("Security-Client:", "X-None:", 421, Refusal::NoSecurityClient)]
#[case::legacy(
    "alg=hmac-sha-1-96",
    "alg=hmac-md5-96",
    494,
    Refusal::Offer(OfferError::LegacyOnly(LegacyNames::of(&[Suite::HmacMd5Null])))
)]
#[case::ports("port-c=31001", "port-c=5060", 494, Refusal::Offer(OfferError::Port))]
#[case::hops("Max-Forwards: 70", "Max-Forwards: 0", 483, Refusal::Hops)]
#[case::name("UDP 192.0.2.1:5060", "UDP phone.example:5060", 400, Refusal::ViaName)]
#[case::no_cseq("CSeq: 1 REGISTER", "X: y", 400, Refusal::Headers)]
fn refused_first_registers(
    #[case] from: &str,
    #[case] to: &str,
    #[case] status: u16,
    #[case] why: Refusal,
) {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.resolve_via = false;
    let mut rig = Rig::with(config);
    let text = phone("a", 1).sm1();
    assert!(text.contains(from));
    let out = rig.ue(addr(UE), addr(CLEAR), &text.replace(from, to));
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(status));
    assert_eq!(
        answer.value(SECURITY_SERVER).is_some(),
        matches!(status, 421 | 494)
    );
    assert_eq!(rig.refusals(), [why]);
    assert!(!out.iter().any(|o| matches!(o, Output::ToCore { .. })));
}

#[rstest]
#[case::missing("qop=\"auth\"", ChallengeError::KeysMissing)]
#[case::short(
    "ik=\"0011\",ck=\"ffeeddccbbaa99887766554433221100\"",
    ChallengeError::KeysMalformed
)]
fn a_challenge_without_good_keys(#[case] keys: &str, #[case] why: ChallengeError) {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let out = rig.core(&challenge(&up, 1, keys).1);
    assert_eq!(to_ue(&out)[0].status(), Some(500));
    assert_eq!(rig.refusals(), [Refusal::Challenge(why)]);
    assert!(rig.edge.is_empty());
}

#[test]
fn nobody_is_registered_without_authentication() {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let out = rig.core(&Message::response(&up, 200, "OK", "c"));
    assert_eq!(to_ue(&out)[0].status(), Some(500));
}

#[test]
fn a_challenge_in_answer_to_sm7_is_a_failure_and_loses_its_keys() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (set, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let up = to_core(&rig.ue(source, local, &phone.sm7(&nonce, &verify)));
    let out = rig.core(&challenge(&up, 9, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1);
    let answer = &to_ue(&out)[0];
    assert_eq!(answer.status(), Some(401));
    assert!(!String::from_utf8_lossy(&answer.to_bytes()).contains(IK));
    rig.now += 4_000;
    rig.edge.handle_timeout(rig.now);
    assert!(rig.take().contains(&Output::Remove { set }));
}

#[rstest]
#[case::auts(
    "response=\"0123\"",
    "response=\"\",auts=\"AAAAAAAAAAAAAAAAAAA=\"",
    Refusal::WrongSa
)]
#[case::other_nonce("nonce=\"AQEB", "nonce=\"CQEB", Refusal::NotAnAnswer)]
fn not_for_the_unconfirmed_sa(#[case] from: &str, #[case] to: &str, #[case] why: Refusal) {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let text = phone.sm7(&nonce, &verify);
    assert!(text.contains(from), "{text}");
    let out = rig.ue(source, local, &text.replace(from, to));
    assert!(to_ue(&out).is_empty() && !out.iter().any(|o| matches!(o, Output::ToCore { .. })));
    assert_eq!(rig.refusals(), [why]);
}

#[test]
fn without_spis_there_is_an_error_and_with_the_ues_own_another_pair() {
    let mut rig = Rig::without_spis();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let message = challenge(&up, 1, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1;
    let answer = to_ue(&rig.core(&message)).remove(0);
    assert_eq!(answer.status(), Some(503));
    assert_eq!(answer.value("Retry-After").as_deref(), Some("30"));
    assert_eq!(rig.refusals(), [Refusal::NoSpi]);
    assert!(rig.edge.wants_spis());
    rig.edge.add_spis([4002, 1]);
    rig.edge.add_spis([5000, 5001]);
    let out = rig.core(&message);
    let Some(Output::Install(request)) = out.iter().find(|o| matches!(o, Output::Install(_)))
    else {
        panic!("{out:?}")
    };
    assert_eq!(
        request.params.pcscf_ends.spi_c, 5000,
        "4002 is the UE's spi-c"
    );
}

#[rstest]
#[case(5060, 5064..=5071, ConfigError::Port(5060))]
#[case(5063, 5058..=5071, ConfigError::Port(5060))]
#[case(5066, 5064..=5071, ConfigError::Port(5066))]
#[case(5063, 5064..=5065, ConfigError::ClientPorts)]
fn configurations_that_cannot_work(
    #[case] server: u16,
    #[case] client: std::ops::RangeInclusive<u16>,
    #[case] error: ConfigError,
) {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.server_port = server;
    config.client_ports = client;
    assert_eq!(config.check(), Err(error));
}

proptest! {
    #[test]
    fn no_bytes_hurt(cuts in proptest::collection::vec((0usize..900, any::<u8>()), 0..6), local in prop_oneof![Just(5060u16), Just(5063)], from_core in any::<bool>()) {
        let mut rig = Rig::new();
        rig.register(&phone("a", 1));
        let mut bytes = phone("a", 1).sm7("x", "ipsec-3gpp;alg=null").into_bytes();
        for (at, byte) in cuts {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        let remote = if from_core { addr(CORE) } else { addr("192.0.2.1:31001") };
        let input = if from_core {
            Input::FromCore { remote, transport: Transport::Udp, bytes: &bytes }
        } else {
            Input::FromUe { local: SocketAddr::new(addr(CLEAR).ip(), local), remote, transport: Transport::Udp, bytes: &bytes }
        };
        rig.edge.handle(rig.now, input);
        rig.take();
    }
}
