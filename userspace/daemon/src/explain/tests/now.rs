//! What is of now and of this phone, and what was or is another's.

use gm_api::drops::{Verdict, Weight};
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::super::explain;
use super::super::facts::Gone;
use super::given::{UE, carried, facts, outbound, sas, seen, step};
use super::{cause, says};

/// The SAs of a newer set, which has carried nothing.
fn newer(udp: bool) -> Vec<gm_api::control::SaStatus> {
    let mut new = sas(udp);
    for row in &mut new {
        (row.sa.set, row.sa.spi) = (Some(4), row.sa.spi + 100);
        row.age_ms = Some(5000);
    }
    new
}

#[test]
fn new_keys_that_differ_are_a_cause_while_the_old_set_goes_on() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 100, 100);
    f.sas.extend(newer(false));
    f.samples = vec![seen(Reason::BadIcv, 1000)];
    f.samples[0].sample.spi = Some(1_000_000_101);
    f.sas[2].drops = [("bad-icv".to_owned(), 1)].into();
    says(&cause(&f, "keys-differ"), &["SPI 1000000101"]);
    // Once the new set has carried something, they are forged.
    f.sas[2].packets = 3;
    f.sas[2].idle_ms = Some(500);
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine, "{said:#?}");
    assert!(said.findings.iter().any(|f| f.cause == "forged"));
}

#[test]
fn one_sa_of_a_set_that_verifies_speaks_for_the_keys_of_all() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 100, 100);
    let mut other = sas(false).remove(0);
    other.sa.spi += 1;
    other.drops = [("bad-icv".to_owned(), 9)].into();
    f.samples = vec![seen(Reason::BadIcv, 1000)];
    f.samples[0].sample.spi = Some(other.sa.spi);
    f.sas.push(other);
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine, "{said:#?}");
    assert!(said.findings.iter().any(|f| f.cause == "forged"));
}

#[test]
fn the_keys_of_an_sa_that_has_worked_and_is_gone_did_not_differ() {
    let mut f = facts(UE);
    f.samples = vec![seen(Reason::BadIcv, 1000)];
    f.gone = vec![Gone {
        spi: 1_000_000_001,
        dir: Dir::In,
        set: Some(3),
        ago_ms: 500,
        why: None,
        packets: 41,
    }];
    assert_eq!(explain(&f).findings[0].cause, "forged");
    f.gone[0].packets = 0;
    cause(&f, "keys-differ");
}

#[test]
fn drops_before_the_sas_do_not_hide_that_nothing_arrives() {
    let mut f = facts(UE);
    f.sas = sas(true);
    f.counts = vec![(Reason::UnknownSpi, 12)];
    f.samples = vec![seen(Reason::UnknownSpi, 90_000)];
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Trouble);
    let blocked = said.findings.iter();
    let blocked = blocked.filter(|f| f.cause == "udp-blocked-outbound");
    let weights: Vec<Weight> = blocked.map(|f| f.weight).collect();
    assert_eq!(weights, [Weight::Cause], "{said:#?}");
    f.samples.clear();
    says(
        &cause(&f, "udp-blocked-outbound"),
        &["among the 12 packets dropped for 198.51.100.7"],
    );
}

#[test]
fn a_phone_that_was_just_asked_is_not_gone() {
    let mut f = facts(UE);
    f.sas = carried(sas(true), 700_000, 1000);
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine, "{said:#?}");
    f.sas = carried(sas(true), 700_000, 5000);
    cause(&f, "no-answer");
}

#[test]
fn what_the_host_had_no_room_for_since_the_start_is_no_trouble_of_this_phone() {
    let mut f = facts(UE);
    f.host = vec![(Reason::NoWorker, 3)];
    f.steps = vec![step("removed", 5000)];
    f.steps[0].event.reason = Some("deregistered".into());
    let said = explain(&f);
    assert_eq!(said.verdict, Verdict::Fine, "{said:#?}");
    let overload = said.findings.iter().find(|f| f.cause == "overload");
    assert_eq!(overload.unwrap().weight, Weight::State);
    // Of its own packets it is.
    f.samples = vec![outbound(Reason::RingFull, 1000)];
    says(&cause(&f, "overload"), &["of this phone", "ring-full"]);
}

#[test]
fn what_is_forgotten_is_not_said_to_have_never_been() {
    let mut f = facts(UE);
    f.samples = vec![seen(Reason::UnknownSpi, 1000)];
    f.remembered_ms = Some(400_000);
    let said = cause(&f, "unknown-spi");
    says(
        &said,
        &["none that was removed in the last 6 min", "more than 6 min"],
    );
    assert!(!said.findings[0].text.contains("has known since"));
}

#[test]
fn the_low_half_of_an_extended_number_does_not_say_that_it_began_anew() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 5000, 5000);
    f.sas[0].top = (1 << 33) + 9;
    f.sas[0].sa.esn = true;
    f.samples = vec![seen(Reason::Replay, 1000)];
    cause(&f, "replay");
}

#[test]
fn a_core_that_does_not_decide_is_named() {
    let mut f = facts(UE);
    f.sas = carried(sas(false), 30_000, 31_000);
    f.steps = vec![step("SM6", 31_000), step("SM7", 30_000)];
    cause(&f, "no-decision");
    f.steps[1].ago_ms = 2000;
    assert_eq!(explain(&f).verdict, Verdict::Fine);
}

#[test]
fn several_phones_behind_one_address_are_said_to_be() {
    let mut f = facts(UE);
    f.sas = carried(sas(true), 100, 100);
    f.sas.extend(newer(true));
    let says_so = |f: &super::Facts| {
        let said = explain(f);
        said.findings.iter().any(|f| f.cause == "several-phones")
    };
    assert!(!says_so(&f), "a new registration is no other phone");
    for row in newer(true) {
        f.sas.push(row);
        f.sas.last_mut().unwrap().sa.set = Some(5);
    }
    assert!(says_so(&f));
}
