//! Phones that offer only suites of older releases: refused with the reason, and
//! registered where the switch is on.

use gm_esp::{Mode, Suite};
use gm_sip::edge::{EdgeConfig, Refusal};
use gm_sip::sec_agree::{Confidentiality, OfferError};
use gm_sip::ue::{UeConfig, UeFailure};
use rstest::rstest;

use crate::world::{World, edge_config, ue_config};

fn phone(suites: &[Suite]) -> UeConfig {
    UeConfig {
        suites: suites.to_vec(),
        ..ue_config()
    }
}

fn switched_on() -> EdgeConfig {
    let mut edge = edge_config();
    edge.policy.legacy = true;
    edge
}

#[test]
fn off_by_default_and_the_refusal_names_the_switch() {
    let mut world = World::with(phone(&Suite::LEGACY), edge_config());
    world.register();
    assert!(!world.ue.is_registered() && world.installs.is_empty());
    assert_eq!(world.failure(), Some(UeFailure::Status(494)));
    let [Refusal::Offer(why @ OfferError::LegacyOnly(_))] = world.refusals()[..] else {
        panic!("{:?}", world.refusals());
    };
    assert!(why.to_string().contains("hmac-md5-96 and des-ede3-cbc"));
    let advice = why.advice().expect("advice");
    assert!(advice.contains("edge.legacy_suites = true"), "{advice}");
    assert!(world.to_core.is_empty(), "the core does not hear of it");
}

#[rstest]
fn with_the_switch_a_phone_registers_with_each(
    #[values(
        Suite::HmacMd5Null,
        Suite::HmacMd5AesCbc,
        Suite::HmacMd5DesEde3Cbc,
        Suite::HmacSha1DesEde3Cbc
    )]
    suite: Suite,
    #[values(false, true)] nat: bool,
) {
    let mut world = World::with(phone(&[suite]), switched_on());
    world.nat = nat;
    world.register();
    assert!(world.ue.is_registered(), "{:?}", world.ue_events);
    assert_eq!(world.suite_in_use(), Some(suite));
    let mode = if nat { Mode::UdpEncTun } else { Mode::Trans };
    assert_eq!(world.installs[0].params.mode(), mode);
    // And again, through the SAs, with new ones.
    world.home.registrar().always_challenge = true;
    world.pass(60_000);
    world.register();
    assert_eq!((world.installs.len(), world.lost), (2, 0));
    assert!(world.refusals().is_empty(), "{:?}", world.refusals());
    world.assert_no_keys_shown();
}

#[test]
fn with_the_switch_today_s_suites_still_come_first() {
    let mut suites = Suite::LEGACY.to_vec();
    suites.push(Suite::HmacSha1Null);
    let mut world = World::with(phone(&suites), switched_on());
    world.register();
    assert_eq!(world.suite_in_use(), Some(Suite::HmacSha1Null));
}

/// The policy on encryption holds for them too.
#[test]
fn with_the_switch_confidentiality_still_decides() {
    let mut edge = switched_on();
    edge.policy.confidentiality = Confidentiality::Required;
    let mut world = World::with(phone(&[Suite::HmacMd5Null]), edge.clone());
    world.register();
    let refused = Refusal::Offer(OfferError::Confidentiality);
    assert_eq!(world.refusals(), [refused]);
    let mut world = World::with(phone(&Suite::LEGACY), edge);
    world.register();
    assert_eq!(world.suite_in_use(), Some(Suite::HmacSha1DesEde3Cbc));
}
