//! The edge: what it takes over which SA, and what it says of it (clauses 6.1.5, 7.1, 7.2, 7.4.2a).

use gm_sip::edge::{FlowEvent, Refusal};
use rstest::rstest;

use crate::parts::SoftSim;
use crate::world::*;

/// Registered twice, the second set not used yet.
fn two_sets(nat: bool) -> World {
    let mut world = World::at(nat);
    world.register();
    world.authenticate_again();
    assert_eq!(world.sets(), (2, 2));
    world
}

/// Registered and challenged again; SM7 is lost.
fn awaiting_sm7(nat: bool) -> (World, String) {
    let mut world = World::at(nat);
    world.register();
    let mut registers = 0;
    world.up = Box::new(move |text| {
        registers += usize::from(text.starts_with("REGISTER"));
        (registers != 2).then_some(text)
    });
    world.authenticate_again();
    let sm7 = world.last(true, "REGISTER").text();
    world.up = pass_all();
    (world, sm7)
}

fn marks(world: &World) -> Vec<bool> {
    let registers = world.to_core.iter().filter(|t| t.starts_with("REGISTER"));
    registers
        .map(|t| {
            let (yes, no) = ("integrity-protected=\"yes\"", "integrity-protected=\"no\"");
            assert!(t.contains(yes) != t.contains(no), "{t}");
            t.contains(yes)
        })
        .collect()
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn a_register_over_an_older_set_is_not_marked_as_protected(#[case] nat: bool) {
    let mut world = two_sets(nat);
    assert_eq!(marks(&world), [false, true, true, true]);
    // A refresh over the latest set, then over the one before.
    let refresh = world.sent(true, "REGISTER")[2].text();
    let without = |text: &str| {
        let keep = |line: &&str| !line.starts_with("Security-");
        text.split("\r\n")
            .filter(keep)
            .collect::<Vec<_>>()
            .join("\r\n")
    };
    for (n, mark) in [(0, false), (1, true)] {
        let text = another(&without(&refresh), &format!("m{n}"));
        let (from, to) = world.flow_up(n);
        world.edge_hears(from, to, text.as_bytes());
        world.run();
        assert_eq!(marks(&world).last(), Some(&mark), "over set {n}");
    }
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn an_answer_to_no_challenge_of_this_set_is_not_marked_as_protected(#[case] nat: bool) {
    let mut world = World::at(nat);
    world.register();
    let sm7 = world.sent(true, "REGISTER")[1].text();
    let nonce = sm7.find("nonce=\"").expect("a nonce") + 7;
    let mut other = another(&sm7, "n");
    let at = nonce + 1;
    let letter = if &other[at..=at] == "A" { "B" } else { "A" };
    other.replace_range(at..=at, letter);
    let (from, to) = world.flow_up(0);
    let before = marks(&world).len();
    world.edge_hears(from, to, other.as_bytes());
    world.run();
    assert_eq!(&marks(&world)[before..], [false]);
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn until_sm12_the_new_set_carries_nothing_else(#[case] nat: bool) {
    let (mut world, _) = awaiting_sm7(nat);
    world.message();
    let before = world.to_core.len();
    let request = another(&world.last(true, "MESSAGE").text(), "z");
    let (from, to) = world.flow_up(1);
    world.edge_hears(from, to, request.as_bytes());
    world.run();
    assert_eq!(world.refusals(), [Refusal::WrongSa]);
    assert_eq!(world.to_core.len(), before);
    // What the core sends leaves over the old one.
    world.message_to(0);
    assert_eq!(world.last(false, "MESSAGE").ports().0, world.port_pc(0));
}

#[rstest]
#[case::replaced(false)]
#[case::lingering(true)]
fn sm1_over_a_set_that_ends_is_dropped(#[case] leaves: bool) {
    let mut world = two_sets(false);
    let sm1 = another(&world.sent(true, "REGISTER")[2].text(), "y");
    let ends = if leaves {
        world.home.registrar().always_challenge = false;
        world.top_up();
        let now = world.now;
        world.phones[0].ue.deregister(now).expect("starts");
        world.run();
        1
    } else {
        world.message();
        let switched = |e: &FlowEvent| matches!(e, FlowEvent::SwitchedOver { .. });
        assert!(world.events.iter().any(switched));
        0
    };
    let (core, sent) = (world.to_core.len(), world.log.len());
    let (from, to) = world.flow_up(ends);
    world.edge_hears(from, to, sm1.as_bytes());
    world.run();
    assert_eq!((world.to_core.len(), world.log.len()), (core, sent));
    let last = world.refusals().pop();
    assert!(
        matches!(last, Some(Refusal::WrongSa | Refusal::NoSa)),
        "{last:?}"
    );
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn the_sm7_of_a_cancelled_attempt_comes_to_nothing(#[case] nat: bool) {
    let mut world = World::at(nat);
    let mut registers = 0;
    world.up = Box::new(move |text| {
        registers += 1;
        (registers == 1).then_some(text)
    });
    world.register();
    let sm7 = world.last(true, "REGISTER").text();
    // The phone starts again before SM7 has arrived.
    world.restart(ue_config(0), SoftSim { k: K, sqn: 0x100 });
    world.up = pass_all();
    world.register();
    assert!(world.phones[0].ue.is_registered());
    let before = world.to_core.len();
    let (from, to) = world.flow_up(0);
    world.edge_hears(from, to, sm7.as_bytes());
    world.run();
    assert_eq!(world.refusals(), [Refusal::NoSa]);
    assert_eq!(world.to_core.len(), before);
}

#[rstest]
#[case::direct(false)]
#[case::behind_a_nat(true)]
fn sm7_belongs_on_the_new_set(#[case] nat: bool) {
    let (mut world, sm7) = awaiting_sm7(nat);
    let before = world.to_core.len();
    let (from, to) = world.flow_up(0);
    world.edge_hears(from, to, sm7.as_bytes());
    world.run();
    assert_eq!(world.refusals(), [Refusal::WrongSa]);
    assert_eq!(world.to_core.len(), before);
    // There it is taken.
    world.pass(1_000);
    assert_eq!(world.to_core.len(), before + 1);
    assert!(world.phones[0].ue.is_registered());
}

#[rstest]
#[case::success("SIP/2.0 200 OK\r\n")]
#[case::failure("SIP/2.0 403 Forbidden\r\n")]
fn nothing_of_the_cores_security_agreement_reaches_the_phone(#[case] first: &'static str) {
    let mut world = World::new();
    world.core_down = Box::new(move |text| {
        let (line, rest) = text.split_once("\r\n").expect("a line");
        if line.starts_with("SIP/2.0 401") {
            return Some(text);
        }
        Some(format!(
            "{first}Security-Server: ipsec-3gpp;alg=null\r\nSecurity-Client: tls\r\nSecurity-Verify: tls\r\n{rest}"
        ))
    });
    world.register();
    let last = world.last(false, first.trim_end());
    assert!(last.over.is_some());
    assert!(!last.text().contains("Security-"), "{}", last.text());
}
