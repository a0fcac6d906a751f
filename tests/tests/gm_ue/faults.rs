//! Each fault of a phone: what the phone gets, and what the edge says of it.

use crate::phone::{lab, register};

/// Seconds for what gets no answer.
const SHORT: [&str; 2] = ["--timeout", "3"];

/// The phone's exit code is 3 and its reason this one; the edge has counted its own.
fn refused(fault: &str, phone: &str, edge: Option<&str>) {
    let lab = lab();
    let run = register(&lab, &[&["--fault", fault][..], &SHORT].concat());
    assert_eq!(run.code, Some(3), "{fault}: {}", run.told);
    assert_eq!(run.reason(), phone, "{fault}: {}", run.trace);
    assert_eq!(run.told["faults"][0], fault);
    assert_eq!(run.told["registrations"].as_array().map(Vec::len), Some(0));
    if let Some(reason) = edge {
        lab.refuses(reason, 1);
    }
    assert_eq!(lab.health().registrations, 0, "{fault}");
}

#[test]
#[ignore = "needs root"]
fn a_wrong_response_is_forbidden_through_the_new_sa() {
    refused("wrong-res", "the network answered 403", None);
}

#[test]
#[ignore = "needs root"]
fn wrong_keys_fail_in_esp_and_sip_hears_nothing() {
    let lab = lab();
    let run = register(&lab, &[&["--fault", "wrong-keys"][..], &SHORT].concat());
    assert_eq!(run.reason(), "it did not happen in time");
    assert!(lab.count("bad-icv") > 0);
}

#[test]
#[ignore = "needs root"]
fn a_network_that_the_sim_does_not_know_is_told_so() {
    refused("wrong-autn", "the network's authentication failed", None);
}

#[test]
#[ignore = "needs root"]
fn a_sim_ahead_of_the_network_is_caught_up_with() {
    let lab = lab();
    let run = register(&lab, &["--fault", "stale-sqn"]).succeeds();
    // It has asked twice, the second time with AUTS, and each time it was challenged.
    let asked = ["-->", " clear ", "REGISTER"];
    assert_eq!(run.different(&asked), 2, "{}", run.trace);
    assert!(run.lines(&["401 Unauthorized"]) >= 2, "{}", run.trace);
}

#[test]
#[ignore = "needs root"]
fn an_old_response_registers_nobody_and_is_challenged() {
    let lab = lab();
    let run = register(&lab, &["--fault", "replay"]).succeeds();
    // One challenge, at most as often as it was asked for.
    let asked = ["-->", " clear ", "REGISTER"];
    assert_eq!(run.different(&asked), 1, "{}", run.trace);
    let challenges = 1..=run.lines(&asked);
    let seen = run.lines(&["401 Unauthorized"]);
    assert!(challenges.contains(&seen), "{}", run.trace);
    assert_eq!(run.told["registrations"][0]["authenticated"], true);
}

#[test]
#[ignore = "needs root"]
fn lists_that_are_not_what_they_were_are_refused() {
    refused(
        "wrong-verify",
        "the network answered 494",
        Some("security-verify"),
    );
    refused(
        "no-verify",
        "the network answered 494",
        Some("security-verify"),
    );
    refused(
        "wrong-client",
        "the network answered 494",
        Some("security-client"),
    );
    refused(
        "no-client",
        "the network answered 421",
        Some("no-security-client"),
    );
}

#[test]
#[ignore = "needs root"]
fn another_user_or_address_than_the_sa_has_is_forbidden() {
    refused(
        "wrong-user",
        "the network answered 403",
        Some("foreign-user"),
    );
    refused(
        "wrong-via",
        "the network answered 403",
        Some("via-mismatch"),
    );
}

#[test]
#[ignore = "needs root"]
fn an_answer_in_clear_is_discarded() {
    refused("clear-sm7", "it did not happen in time", Some("wrong-sa"));
}

#[test]
#[ignore = "needs root"]
fn a_challenge_without_an_answer_ends_in_time() {
    let lab = lab();
    let run = register(&lab, &[&["--fault", "no-sm7"][..], &SHORT].concat());
    assert_eq!(run.reason(), "it did not happen in time");
    // Its SAs are there until the P-CSCF has waited long enough; it can begin anew.
    assert_eq!(lab.health().sas, 4);
    register(&lab, &[]).succeeds();
}

#[test]
#[ignore = "needs root"]
fn a_phone_that_does_not_see_sm12_repeats_sm7_and_gets_it_again() {
    let lab = lab();
    let run = register(&lab, &[&["--fault", "drop-sm12"][..], &SHORT].concat());
    assert_eq!(run.reason(), "it did not happen in time");
    let answers = run.lines(&["<--", "ESP", "200 OK"]);
    let sent = run.lines(&["-->", "ESP", "REGISTER"]);
    assert!(answers >= 2 && sent >= answers, "{}", run.trace);
    // The network thinks that it is registered; the next first REGISTER sorts it out.
    assert_eq!(lab.health().registrations, 1);
    register(&lab, &[]).succeeds();
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn a_silent_phone_is_registered_and_answers_nobody() {
    let lab = lab();
    let run = register(
        &lab,
        &["--fault", "silent", "--message", "hello", "--hold", "1"],
    )
    .succeeds();
    assert_eq!(
        run.different(&["<--", "ESP", "MESSAGE"]),
        1,
        "{}",
        run.trace
    );
    assert_eq!(run.lines(&["-->", "ESP", "200 OK"]), 0, "{}", run.trace);
}

#[test]
#[ignore = "needs root"]
fn the_port_in_use_is_not_offered_twice() {
    let lab = lab();
    let args = [
        "--fault",
        "same-port",
        "--again",
        "1",
        "--clear",
        "--every",
        "0.1",
    ];
    let run = register(&lab, &args);
    assert_eq!(run.told["failure"]["step"], "again");
    assert_eq!(run.reason(), "the network answered 400", "{}", run.trace);
    lab.refuses("collision", 1);
}
