//! The edge: what it takes over which SA, and what it says of it (clauses 6.1.5, 7.1, 7.2, 7.4.2a).

use gm_sip::edge::{FlowEvent, Refusal};
use rstest::rstest;

use crate::parts::SoftSim;
use crate::world::*;

/// Registered twice, the second set not used yet.
fn two_sets() -> World {
    let mut world = World::new();
    world.register();
    world.authenticate_again();
    assert_eq!(world.sets(), (2, 2));
    world
}

/// Registered and challenged again; SM7 is lost.
fn awaiting_sm7() -> (World, String) {
    let mut world = World::new();
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

#[test]
fn a_register_over_an_older_set_is_not_marked_as_protected() {
    let mut world = two_sets();
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

#[test]
fn an_answer_to_no_challenge_of_this_set_is_not_marked_as_protected() {
    let mut world = World::new();
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

#[test]
fn until_sm12_the_new_set_carries_nothing_else() {
    let (mut world, _) = awaiting_sm7();
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
    let mut world = two_sets();
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

#[test]
fn the_sm7_of_a_cancelled_attempt_comes_to_nothing() {
    let mut world = World::new();
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
