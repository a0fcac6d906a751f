//! Bidding down (TS 33.203 clause 7.2, notes 4 and 5): somebody between makes offers
//! weaker, and comes to nothing.

use gm_esp::Suite;
use gm_sip::edge::Refusal;
use gm_sip::ue::UeConfig;

use crate::world::{World, edge_config, ue_config};

type Hook = Box<dyn FnMut(Vec<u8>) -> Option<Vec<u8>>>;

fn phone(suites: &[Suite]) -> UeConfig {
    UeConfig {
        suites: suites.to_vec(),
        ..ue_config()
    }
}

/// Takes entries with encryption out of the header's list, in messages that are
/// not protected: `first` of them.
fn weaker(header: &'static str, first: usize) -> Hook {
    let mut seen = 0;
    Box::new(move |bytes| {
        let text = String::from_utf8(bytes).expect("text");
        seen += 1;
        if seen > first {
            return Some(text.into_bytes());
        }
        let lines = text.split("\r\n").map(|line| match line.split_once(": ") {
            Some((name, list)) if name == header => {
                let plain = list.split(", ").filter(|entry| entry.contains("ealg=null"));
                format!("{name}: {}", plain.collect::<Vec<_>>().join(", "))
            }
            _ => line.to_owned(),
        });
        Some(lines.collect::<Vec<_>>().join("\r\n").into_bytes())
    })
}

/// Out of SM1: the P-CSCF announces encryption all the same, the phone takes it, and
/// the SAs of the two do not fit.
#[test]
fn a_weaker_offer_ends_the_registration() {
    let mut world = World::with(phone(&Suite::ALL), edge_config());
    world.uplink = weaker("Security-Client", 1);
    world.register();
    assert!(!world.ue.is_registered());
    assert!(world.suite_in_use().is_none() && world.lost > 0);
    world.pass(300_000);
    assert!(world.edge.is_empty() && world.edge_sas.0.is_empty());
}

/// Out of SM6: the echo, which nobody can change, shows it.
#[test]
fn a_weaker_announcement_shows_in_security_verify() {
    let mut world = World::with(phone(&Suite::ALL), edge_config());
    world.uplink = weaker("Security-Client", 1);
    world.downlink = weaker("Security-Server", 1);
    world.register();
    assert!(!world.ue.is_registered());
    assert!(
        world.refusals().contains(&Refusal::SecurityVerify),
        "{:?}",
        world.refusals()
    );
    assert_eq!(world.to_core.len(), 1, "the answer goes no further");
}

/// The same for a phone that has the suite without encryption only: nothing is made
/// weaker, and it registers.
#[test]
fn a_phone_without_encryption_registers() {
    let mut world = World::with(phone(&[Suite::HmacSha1Null]), edge_config());
    world.uplink = weaker("Security-Client", 1);
    world.register();
    assert_eq!(world.suite_in_use(), Some(Suite::HmacSha1Null));
}
