//! gmespd's second door with a real Kamailio: the example configuration of both, as it
//! stands in userspace/daemon/examples, between gm-ue as the phone and the embedded home
//! network. Processes of their own in two network namespaces, ESP over XDP between them.
#![forbid(unsafe_code)]

#[path = "kamailio/lab.rs"]
mod lab;
// Programs, files and subscribers are those of the tests with SIPp.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;

use common::K;
use lab::{Lab, OTHER_K};

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_registers_renews_passes_messages_both_ways_and_leaves() {
    let lab = Lab::new();
    let told = lab.phone(K, &["--again", "2", "--message", "hello", "--expect", "10"]);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 3);
    assert_eq!(told.json["message"]["status"], 200);
    assert_eq!(told.json["received"][0]["body"], "hello");
    assert_eq!(told.json["deregistered"], true);
    // SM7, renewals, MESSAGE, the answer to one, the end; and what went back.
    let (opened, sealed) = (lab.count("ok"), lab.count("sealed"));
    assert!(
        opened >= 6 && sealed >= 6,
        "{opened} opened, {sealed} sealed"
    );
    for reason in [
        "bad-icv",
        "replay",
        "selector-mismatch",
        "cleartext-protected",
    ] {
        assert_eq!(lab.count(reason), 0, "{reason}");
    }
    lab.settles(0);
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn renewals_that_are_challenged_move_to_new_sas() {
    let lab = Lab::with(true);
    let told = lab.phone(K, &["--again", "3", "--message", "hello", "--expect", "10"]);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 4);
    let of = |n: usize| &told.json["registrations"][n];
    for n in 0..4 {
        assert_eq!(of(n)["authenticated"], true, "{n}");
    }
    // SPIs are new each time, port_us and port_ps stay (clause 7.4.1a).
    for n in 1..4 {
        for spi in 0..4 {
            assert_ne!(of(n)["spis"][spi], of(n - 1)["spis"][spi]);
        }
        for port in [1, 3] {
            assert_eq!(of(n)["ports"][port], of(0)["ports"][port]);
        }
    }
    assert_eq!(told.json["deregistered"], true);
    lab.settles(0);
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_registers_over_tcp_in_the_sas() {
    let lab = Lab::new();
    let args = ["--transport", "tcp", "--again", "1", "--message", "hello"];
    let told = lab.phone(K, &args);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 2);
    assert_eq!(told.json["message"]["status"], 200);
    assert_eq!(told.json["deregistered"], true);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_with_another_key_is_not_registered() {
    let lab = Lab::new();
    let told = lab.phone(OTHER_K, &[]);
    assert_eq!(told.code, Some(3));
    assert_eq!((told.registrations(), lab.count("ok")), (0, 0));
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_wrong_response_is_refused_where_the_challenge_came_from() {
    let lab = Lab::new();
    let told = lab.phone(K, &["--fault", "wrong-res"]);
    assert_eq!(told.code, Some(3));
    assert!(told.failure().contains("403"));
    // It came through ESP, and its set is gone.
    assert!(lab.count("ok") >= 1);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_security_verify_that_is_not_security_server_is_refused() {
    let lab = Lab::new();
    let told = lab.phone(K, &["--fault", "wrong-verify"]);
    assert_eq!(told.code, Some(3));
    assert!(told.failure().contains("494"));
    assert_eq!(told.registrations(), 0);
    assert!(lab.count("ok") >= 1);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn in_clear_nothing_but_register_is_heard() {
    let lab = Lab::new();
    let ask = |method: &str, port: u16| lab.in_clear(method, port);
    assert!(ask("MESSAGE", 5060).is_none());
    assert!(ask("INVITE", 5060).is_none());
    // Below Kamailio gmespd has dropped it.
    assert!(ask("REGISTER", 5063).is_none());
    assert!(lab.count("cleartext-protected") >= 1);
    // A REGISTER is answered: without Security-Client it is refused.
    let answer = ask("REGISTER", 5060).expect("an answer");
    assert!(answer.starts_with("SIP/2.0 4"), "{answer}");
}
