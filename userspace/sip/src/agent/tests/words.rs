//! What the operator reads.

use super::*;
use crate::sec_agree::OfferError;

#[test]
fn each_refusal_says_what_to_do_and_which_setting_matters() {
    for (why, word) in [
        (Refusal::NatWithoutTunnel, "edge.nat_traversal"),
        (Refusal::ViaName, "edge.resolve_via"),
        (Refusal::Unprotected, "edge.emergency_in_clear"),
        (Refusal::NoClientPort, "edge.port_pc"),
        (Refusal::TooManySets, "edge.timers.await_auth_s"),
        (Refusal::Overload, "gm.max_sas"),
        (Refusal::NoSpi, "gm.max_sas"),
        (Refusal::CoreUntrusted, "edge.core_trusted"),
        (Refusal::ServiceRoute, "edge.service_route"),
        (Refusal::Unreachable, "edge.tcp_above"),
        (Refusal::Hops, "edge.next_hop"),
        (Refusal::Offer(OfferError::Algorithms), "edge.suites"),
        (
            Refusal::Offer(OfferError::Confidentiality),
            "edge.confidentiality",
        ),
        (Refusal::Collision, "second phone behind the same NAT"),
        (Refusal::Unchallenged, "challenge"),
    ] {
        let words = why.explain();
        assert!(words.contains(word), "{why:?}: {words}");
        assert!(words.starts_with(&why.to_string()), "{words}");
    }
}

#[test]
fn what_a_phone_offers_is_shown_short_and_clean() {
    let list = SecList::parse(
        "ipsec-3gpp;alg=hmac-md5-96;ealg=des-ede3-cbc;spi-c=1, ipsec-3gpp;alg=hmac-md5-96;\
         ealg=des-ede3-cbc, ipsec-3gpp;alg=hmac-sha-1-96;mod=UDP-enc-tun, tls;q=0.2",
    );
    assert_eq!(
        offered(&list),
        "hmac-md5-96/des-ede3-cbc trans, hmac-sha-1-96/null UDP-enc-tun, tls"
    );
    let nasty = SecList::parse("ipsec-3gpp;alg=\"\u{1b}[31m\";ealg=a b, \u{202e}x");
    assert_eq!(offered(&nasty), "?/? trans, ?");
    assert_eq!(offered(&SecList::default()), "nothing");
    let many: Vec<_> = (0..60)
        .map(|n| format!("ipsec-3gpp;alg=a{n};ealg={}", "b".repeat(24)))
        .collect();
    assert!(offered(&SecList::parse(&many.join(","))).len() <= 400);
}

#[test]
fn overload_says_when_to_come_again() {
    for why in [
        Refusal::Overload,
        Refusal::NoSpi,
        Refusal::NoClientPort,
        Refusal::TooManySets,
        Refusal::TooManyContacts,
    ] {
        assert_eq!(why.status(), Some((503, "Service Unavailable")));
        let lines = why.headers(&AgentConfig::default().policy);
        assert_eq!(lines, [("Retry-After", "30".to_owned())]);
    }
}
