//! Migration from a P-CSCF whose SAs are in the kernel: Kamailio with ims_ipsec_pcscf, a
//! phone (gm-ue on a data plane of its own), and gmespd that takes the SAs over and gives
//! them back. Needs a kernel with ESP: tests/vm runs it.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "what was said is shown when a test fails"
)]

#[path = "migrate/core.rs"]
mod core;
#[path = "migrate/files.rs"]
mod files;
#[path = "migrate/gm.rs"]
mod gm;
#[path = "migrate/kamailio.rs"]
mod kamailio;
#[path = "migrate/lab.rs"]
mod lab;
#[path = "migrate/moves.rs"]
mod moves;
#[path = "migrate/phone.rs"]
mod phone;
// Programs, files and subscribers are those of the tests with SIPp.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;

use gm_ue::events::UeEvent;
use lab::Lab;
use phone::{Phone, Registered};

/// Marks what is Kamailio's in the kernel: the "user" of its selectors.
const MARK: u32 = 143_956_232_u32.swap_bytes();

/// SPI, ports from and to, of the four SAs of a registration: those that Kamailio
/// receives on, those that it sends on.
fn four(of: &Registered) -> [(u32, u16, u16); 4] {
    let ([uc, us, pc, ps], spi) = (of.ports, of.spis);
    [
        (spi[3], uc, ps),
        (spi[2], us, pc),
        (spi[0], ps, uc),
        (spi[1], pc, us),
    ]
}

/// Kamailio has put this registration's four SAs into the kernel, as it does.
fn assert_in_kernel(lab: &Lab, of: &Registered) {
    for (spi, from, to) in four(of) {
        let state = lab.state(spi);
        let selector = state.selector;
        let ports = (selector.sport.exact(), selector.dport.exact());
        assert_eq!(ports, (Some(from), Some(to)));
        assert_eq!(state.reqid, spi);
        // What was given back has the largest one.
        assert!([32, 4096].contains(&state.numbers.window));
        assert_eq!((selector.user, selector.proto), (MARK, 0));
        let auth = state.algorithms.auth.expect("HMAC");
        assert_eq!(
            (auth.name.as_str(), auth.key.bytes().len()),
            ("hmac(sha1)", 16)
        );
    }
}

/// The highest numbers that Kamailio's host has received and sent on a registration's
/// SAs, those of both directions together. None below is missing: what the kernel has
/// accepted is as many.
fn numbers(lab: &Lab, of: &Registered) -> (u64, u64) {
    let [a, b, c, d] = four(of).map(|(spi, ..)| lab.state(spi));
    for state in [&a, &b] {
        assert_eq!(state.numbers.top, state.counters.packets, "{:?}", state.id);
    }
    let (received, sent) = ([a, b], [c, d]);
    let received = received.iter().map(|state| state.numbers.top);
    (
        received.sum(),
        sent.iter().map(|state| state.numbers.seq).sum(),
    )
}

fn leave(phone: &mut Phone) {
    phone.say("deregister");
    phone.until(|event| matches!(event, UeEvent::Deregistered).then_some(()));
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn a_phone_registers_at_kamailio_and_messages_go_through_the_kernels_sas() {
    gm_tests::needs_esp!();
    for suite in ["hmac-sha-1-96/aes-cbc", "hmac-sha-1-96/null"] {
        let mut lab = Lab::new();
        let mut phone = lab.phone(suite, "udp");
        let registered = phone.register();
        assert_eq!(registered.suite, suite);
        assert_eq!((lab.states().len(), lab.policies()), (4, 4));
        assert_in_kernel(&lab, &registered);
        // SM7; SM12. More where the machine is so slow that they are sent again.
        let (received, sent) = numbers(&lab, &registered);
        assert!(received >= 1 && sent >= 1);
        phone.echo("hello");
        lab.answers(1);
        // MESSAGE, its answer, the echo, the answer to that.
        let now = numbers(&lab, &registered);
        assert!(now.0 >= received + 2 && now.1 >= sent + 2, "{now:?}");
        lab.assert_nothing_dropped();
        // Kamailio takes what is its with it.
        lab.kamailio.take().expect("kamailio runs").end();
        assert_eq!((lab.states().len(), lab.policies()), (0, 0));
    }
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn renewals_that_kamailio_challenges_move_to_new_sas_beside_the_old_ones() {
    gm_tests::needs_esp!();
    let lab = Lab::new();
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "udp");
    let first = phone.register();
    phone.echo("one");
    let second = phone.register();
    let (received, _) = numbers(&lab, &first);
    phone.echo("two");
    lab.core.message("from the core");
    phone.receive("from the core");
    lab.answers(3);
    assert_in_kernel(&lab, &first);
    assert_in_kernel(&lab, &second);
    // Kamailio keeps port_ps, the phone port_us.
    assert_eq!(first.ports[1], second.ports[1]);
    assert_eq!(first.ports[3], second.ports[3]);
    assert_ne!(first.ports[2], second.ports[2]);
    // Nothing comes over the old ones any more.
    assert_eq!(numbers(&lab, &first).0, received);
    let now = numbers(&lab, &second);
    assert!(now.0 >= 4 && now.1 >= 4, "{now:?}");
    lab.assert_nothing_dropped();
    leave(&mut phone);
}

#[test]
#[ignore = "needs a kernel with ESP, and kamailio"]
fn a_phone_that_speaks_tcp_has_its_connections_in_the_kernels_sas() {
    gm_tests::needs_esp!();
    let lab = Lab::new();
    let mut phone = lab.phone("hmac-sha-1-96/aes-cbc", "tcp");
    let registered = phone.register();
    assert_in_kernel(&lab, &registered);
    phone.echo("hello");
    lab.core.message("from the core");
    phone.receive("from the core");
    lab.answers(2);
    lab.assert_nothing_dropped();
}
