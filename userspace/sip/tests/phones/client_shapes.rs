//! Security-Client by phone, at the level of the header: what can be used, and
//! what an edge takes of it, with the switch for legacy suites off and on.

use gm_esp::{Mode, Suite};
use gm_sip::Message;
use gm_sip::sec_agree::{
    Ends, LegacyNames, OfferError, Policy, SECURITY_CLIENT, SecList, choose_offer,
};

use crate::messages::Phone;
use crate::models::{self, Model};

/// As the message brings it, folds and all.
fn offer(model: Model) -> (SecList, Ends) {
    let phone = Phone::new(model);
    let message = Message::parse(phone.text(&phone.sm1()).as_bytes()).expect("SIP");
    let list = SecList::from_message(&message, SECURITY_CLIENT).expect("a list");
    (list, phone.ends)
}

fn takes(model: Model, legacy: bool) -> Result<Suite, OfferError> {
    let (list, ends) = offer(model);
    let policy = Policy {
        legacy,
        ..Policy::default()
    };
    let chosen = choose_offer(&policy, &list, Mode::Trans)?;
    assert_eq!(chosen.ends, ends, "SPIs and ports of {}", model.name);
    Ok(chosen.suite)
}

fn readable(model: Model) -> Vec<Suite> {
    let usable = offer(model).0.proposals().expect("usable");
    usable.iter().map(|p| p.suite).collect()
}

#[test]
fn huawei() {
    assert_eq!(
        readable(models::HUAWEI),
        [
            Suite::HmacSha1DesEde3Cbc,
            Suite::HmacSha1AesCbc,
            Suite::HmacSha1Null
        ]
    );
    assert_eq!(takes(models::HUAWEI, false), Ok(Suite::HmacSha1AesCbc));
}

#[test]
fn pixel_with_six_md5_first() {
    assert_eq!(
        readable(models::PIXEL),
        [
            Suite::HmacMd5AesCbc,
            Suite::HmacMd5DesEde3Cbc,
            Suite::HmacMd5Null,
            Suite::HmacSha1AesCbc,
            Suite::HmacSha1DesEde3Cbc,
            Suite::HmacSha1Null
        ]
    );
    // Its order does not count: the P-CSCF's does (clause 7.2), and legacy comes last.
    assert_eq!(takes(models::PIXEL, false), Ok(Suite::HmacSha1AesCbc));
    assert_eq!(takes(models::PIXEL, true), Ok(Suite::HmacSha1AesCbc));
}

#[test]
fn samsung_parameters_in_its_order() {
    assert_eq!(takes(models::SAMSUNG, false), Ok(Suite::HmacSha1AesCbc));
}

#[test]
fn samsung_that_offers_md5_with_null_only() {
    assert_needs_switch(models::SAMSUNG_MD5, Suite::HmacMd5Null);
}

#[test]
fn iphone_in_alphabetical_order() {
    assert_eq!(readable(models::IPHONE).len(), 6);
    assert_eq!(takes(models::IPHONE, false), Ok(Suite::HmacSha1AesCbc));
}

#[test]
fn qualcomm_with_blanks_and_no_prot_or_mod() {
    assert_eq!(takes(models::QUALCOMM, false), Ok(Suite::HmacSha1AesCbc));
    let first = offer(models::QUALCOMM).0.proposals().expect("usable")[0];
    assert_eq!((first.mode, first.mode_written), (Mode::Trans, false));
}

/// What it offered to China Mobile: this mechanism first, and others.
#[test]
fn qualcomm_that_offers_md5_with_3des_first() {
    assert_eq!(
        readable(models::QUALCOMM).first(),
        Some(&Suite::HmacMd5DesEde3Cbc)
    );
}

#[test]
fn zte_with_one_mechanism_of_md5() {
    assert_needs_switch(models::ZTE, Suite::HmacMd5Null);
}

#[test]
fn xiaomi_with_six_null_first() {
    assert_eq!(
        readable(models::XIAOMI).first(),
        Some(&Suite::HmacMd5Null),
        "in the phone's order"
    );
    assert_eq!(takes(models::XIAOMI, false), Ok(Suite::HmacSha1AesCbc));
}

#[test]
fn test_client_with_tls_ike_ah_folds_and_unknown_parameters() {
    let (list, _) = offer(models::TEST_CLIENT);
    assert_eq!(list.len(), 4);
    assert_eq!(list.mechanisms().last().and_then(|m| m.q()), Some(1000));
    // Padded to ten digits, q=1.000.
    assert_eq!(takes(models::TEST_CLIENT, false), Ok(Suite::HmacSha1Null));
}

#[test]
fn test_client_with_the_largest_spi() {
    let list = SecList::parse(
        "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4294967295;spi-s=4294967294;port-c=1024;port-s=65535",
    );
    let chosen = choose_offer(&Policy::default(), &list, Mode::Trans).expect("chosen");
    assert_eq!(chosen.ends.spi_c, u32::MAX);
    let list = SecList::parse(
        "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4294967296;spi-s=4294967294;port-c=1024;port-s=65535",
    );
    let refused = choose_offer(&Policy::default(), &list, Mode::Trans);
    assert_eq!(refused, Err(OfferError::Spi));
}

/// Clause 7.1: protected ports are other ones than 5060 and 5061.
#[test]
fn test_client_with_port_s_5060_is_refused() {
    let list = SecList::parse(
        "ipsec-3gpp;alg=hmac-sha-1-96;spi-c=4096;spi-s=4097;port-c=31100;port-s=5060",
    );
    let refused = choose_offer(&Policy::default(), &list, Mode::Trans);
    assert_eq!(refused, Err(OfferError::Port));
}

/// Between suites the P-CSCF's order decides (clause 7.2); between entries of one
/// suite the phone's q does.
#[test]
fn q_of_a_phone_counts_between_entries_of_one_suite() {
    let entry = |q, spi, alg| {
        format!("ipsec-3gpp;q={q};alg={alg};spi-c={spi};spi-s=9999;port-c=31100;port-s=31800")
    };
    let list = [
        entry("0.1", 4001, "hmac-sha-1-96"),
        entry("0.5", 4002, "hmac-sha-1-96"),
        entry("0.5", 4003, "hmac-sha-1-96"),
        entry("0.2", 4004, "aes-gmac"),
    ];
    let chosen = choose_offer(
        &Policy::default(),
        &SecList::parse(&list.join(",")),
        Mode::Trans,
    )
    .expect("chosen");
    assert_eq!(chosen.ends.spi_c, 4004, "aes-gmac is better for us");
    let sha = SecList::parse(&list[..3].join(","));
    let chosen = choose_offer(&Policy::default(), &sha, Mode::Trans).expect("chosen");
    assert_eq!(chosen.ends.spi_c, 4002, "the first with the highest q");
}

/// Refused with the reason and, for the operator, the switch; taken with it.
fn assert_needs_switch(model: Model, suite: Suite) {
    let refused = takes(model, false).expect_err("refused");
    assert_eq!(refused, OfferError::LegacyOnly(LegacyNames::of(&[suite])));
    assert!(
        refused.to_string().contains("only hmac-md5-96"),
        "{refused}"
    );
    let advice = refused.advice().expect("words for the operator");
    assert!(advice.contains("set edge.legacy_suites = true"), "{advice}");
    assert_eq!(takes(model, true), Ok(suite));
}
