//! What each policy on confidentiality takes and sends (TS 33.203 clause 7.2): the
//! announcement does not depend on the offer, against bidding down.

use gm_esp::Suite;
use gm_sip::edge::Refusal;
use gm_sip::sec_agree::{Confidentiality, OfferError, Policy, SECURITY_SERVER};
use gm_sip::{Message, edge::EdgeConfig};

use crate::messages::Phone;
use crate::models::{HUAWEI, Model};
use crate::rig::*;

const EVERYTHING: Model = Model {
    name: "everything",
    offer: |e| {
        offer(
            e,
            &[
                "null/aes-gcm",
                "hmac-sha-1-96/aes-cbc",
                "aes-gmac/null",
                "hmac-sha-1-96/null",
            ],
        )
    },
    ..HUAWEI
};

const PLAIN: Model = Model {
    name: "no encryption",
    offer: |e| offer(e, &["hmac-sha-1-96/null"]),
    ..HUAWEI
};

const ENCRYPTED: Model = Model {
    name: "encryption only",
    offer: |e| offer(e, &["hmac-sha-1-96/aes-cbc", "null/aes-gcm"]),
    ..HUAWEI
};

fn offer(ends: &gm_sip::sec_agree::Ends, suites: &[&str]) -> String {
    let suites: Vec<Suite> = suites.iter().map(|s| s.parse().expect("a suite")).collect();
    gm_sip::sec_agree::offer_list(&suites, &[gm_esp::Mode::Trans], ends)
}

fn with(confidentiality: Confidentiality) -> EdgeConfig {
    let mut config = config();
    config.policy.confidentiality = confidentiality;
    config
}

/// Each entry of Security-Server as "q alg/ealg"; a dash where ealg is not written.
fn listed(message: &Message) -> Vec<String> {
    let list = gm_sip::sec_agree::SecList::from_message(message, SECURITY_SERVER);
    let list = list.expect("Security-Server");
    let text = |m: gm_sip::sec_agree::Mechanism<'_>, name| m.get(name).map(|v| v.into_owned());
    list.mechanisms()
        .map(|m| {
            let ealg = text(m, "ealg").unwrap_or_else(|| "-".into());
            format!(
                "{} {}/{ealg}",
                text(m, "q").expect("q"),
                text(m, "alg").expect("alg")
            )
        })
        .collect()
}

/// What a phone gets: the suite, and what SM6 announces.
fn registers(config: EdgeConfig, model: Model) -> (Suite, Vec<String>) {
    let phone = Phone::new(model);
    let mut rig = Rig::with(config);
    let done = rig.register(&phone, 1);
    let request = installs(&rig.out).pop().expect("an Install");
    (request.params.suite, listed(&done.sm6))
}

/// Refused with 494: the reason, and what the answer announces.
fn refused(config: EdgeConfig, model: Model) -> (Refusal, Vec<String>) {
    let phone = Phone::new(model);
    let mut rig = Rig::with(config);
    let answer = to_ue(&rig.clear(&phone, &phone.sm1()))
        .pop()
        .expect("an answer");
    assert_eq!(answer.status(), Some(494));
    assert_eq!(answer.value("Require").as_deref(), Some("sec-agree"));
    // Nothing is reserved, so nothing is named.
    let list = answer.value(SECURITY_SERVER).expect("a list");
    assert!(!list.contains("spi-") && !list.contains("port-"), "{list}");
    (rig.refusals()[0], listed(&answer))
}

const ALL: [&str; 4] = [
    "0.4 null/aes-gcm",
    "0.3 hmac-sha-1-96/aes-cbc",
    "0.2 aes-gmac/null",
    "0.1 hmac-sha-1-96/null",
];
const NO_EALG: [&str; 2] = ["0.2 aes-gmac/-", "0.1 hmac-sha-1-96/-"];
const NO_NULL: [&str; 2] = ["0.2 null/aes-gcm", "0.1 hmac-sha-1-96/aes-cbc"];

#[test]
fn never_announces_no_encryption_algorithm() {
    let (suite, announced) = registers(with(Confidentiality::Never), EVERYTHING);
    assert_eq!(suite, Suite::AesGmacNull);
    assert_eq!(announced, NO_EALG);
    let (suite, announced) = registers(with(Confidentiality::Never), PLAIN);
    assert_eq!(suite, Suite::HmacSha1Null);
    assert_eq!(announced, NO_EALG);
}

#[test]
fn never_refuses_a_phone_that_always_encrypts() {
    let (why, announced) = refused(with(Confidentiality::Never), ENCRYPTED);
    assert_eq!(why, Refusal::Offer(OfferError::OnlyEncrypted));
    assert_eq!(announced, NO_EALG);
}

#[test]
fn when_offered_announces_encryption_even_to_a_phone_that_offers_none() {
    let (suite, announced) = registers(with(Confidentiality::WhenOffered), EVERYTHING);
    assert_eq!(suite, Suite::NullAesGcm);
    assert_eq!(announced, ALL);
    let (suite, announced) = registers(with(Confidentiality::WhenOffered), PLAIN);
    assert_eq!(suite, Suite::HmacSha1Null);
    assert_eq!(announced, ALL);
}

#[test]
fn required_announces_no_null() {
    let (suite, announced) = registers(with(Confidentiality::Required), EVERYTHING);
    assert_eq!(suite, Suite::NullAesGcm);
    assert_eq!(announced, NO_NULL);
}

#[test]
fn required_refuses_a_phone_without_encryption_and_says_what_would_do() {
    let (why, announced) = refused(with(Confidentiality::Required), PLAIN);
    assert_eq!(why, Refusal::Offer(OfferError::Confidentiality));
    assert_eq!(announced, NO_NULL);
    let Refusal::Offer(error) = why else {
        unreachable!()
    };
    let advice = error.advice().expect("words for the operator");
    assert!(advice.contains("edge.confidentiality"), "{advice}");
}

#[test]
fn a_register_without_an_offer_gets_421_with_the_policy() {
    let phone = Phone::new(HUAWEI);
    let text = phone
        .text(&phone.sm1())
        .replace("Security-Client", "X-None");
    for (confidentiality, announced) in [
        (Confidentiality::Never, &NO_EALG[..]),
        (Confidentiality::WhenOffered, &ALL),
        (Confidentiality::Required, &NO_NULL),
    ] {
        let mut rig = Rig::with(with(confidentiality));
        let answer = to_ue(&rig.ue(phone.source, addr(CLEAR), &text))
            .pop()
            .expect("421");
        assert_eq!(answer.status(), Some(421));
        assert_eq!(listed(&answer), announced);
    }
}

/// The operator's order decides, and q says it.
#[test]
fn the_p_cscfs_own_order_is_configured() {
    let mut config = config();
    config.policy.preference = vec![Suite::HmacSha1Null, Suite::HmacSha1AesCbc];
    let (suite, announced) = registers(config, EVERYTHING);
    assert_eq!(suite, Suite::HmacSha1Null);
    assert_eq!(
        announced,
        ["0.2 hmac-sha-1-96/null", "0.1 hmac-sha-1-96/aes-cbc"]
    );
}

/// Legacy suites come behind all others, whatever the operator's list says.
#[test]
fn legacy_suites_are_announced_last_and_only_with_the_switch() {
    let mut policy = Policy {
        preference: vec![Suite::HmacMd5Null, Suite::HmacSha1Null],
        ..Policy::default()
    };
    assert_eq!(policy.suites(), [Suite::HmacSha1Null]);
    policy.legacy = true;
    assert_eq!(
        policy.suites()[..2],
        [Suite::HmacSha1Null, Suite::HmacMd5Null]
    );
    assert_eq!(policy.suites().len(), 5);
    let mut config = config();
    config.policy.legacy = true;
    let (_, announced) = registers(config, EVERYTHING);
    assert_eq!(
        announced,
        [
            "0.8 null/aes-gcm",
            "0.7 hmac-sha-1-96/aes-cbc",
            "0.6 aes-gmac/null",
            "0.5 hmac-sha-1-96/null",
            "0.4 hmac-sha-1-96/des-ede3-cbc",
            "0.3 hmac-md5-96/aes-cbc",
            "0.2 hmac-md5-96/des-ede3-cbc",
            "0.1 hmac-md5-96/null",
        ]
    );
}
