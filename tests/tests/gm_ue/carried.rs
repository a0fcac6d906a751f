//! What carries SIP in the SAs, and registrations one after another.

use crate::lab::{Lab, Plan, UE};
use crate::phone::{Phone, lab, register};

const TALK: [&str; 4] = ["--message", "hello", "--expect", "5"];

#[test]
#[ignore = "needs root"]
fn over_udp_everything_goes_through_the_sa() {
    let lab = lab();
    let run = register(&lab, &TALK).succeeds();
    assert_eq!(run.told["received"][0]["body"], "hello");
    assert_eq!(run.told["deregistered"], true);
    // SM1 and SM6 in clear, the rest in ESP.
    assert_eq!(run.different(&[" clear "]), 2, "{}", run.trace);
    assert_eq!(run.lines(&["TCP "]), 0, "{}", run.trace);
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn over_tcp_both_ends_open_connections_from_their_client_ports() {
    let lab = lab();
    let args = ["--transport", "tcp", "--again", "1", "--every", "0.1"];
    let run = register(&lab, &[&TALK[..], &args].concat()).succeeds();
    assert_eq!(run.lines(&["UDP "]), 0, "{}", run.trace);
    assert_eq!(run.told["registrations"].as_array().map(Vec::len), Some(2));
    assert_eq!(run.told["received"][0]["transport"], "tcp");
    let port = |n: usize| format!(":{}", run.told["registrations"][0]["ports"][n]);
    let (uc, us, pc, ps) = (port(0), port(1), port(2), port(3));
    // Ours from port_uc to port_ps, with its answers; theirs from port_pc to port_us.
    assert!(
        run.lines(&["-->", &format!("{uc} > "), &ps, "ESP", "MESSAGE"]) == 1,
        "{}",
        run.trace
    );
    assert!(
        run.lines(&["<--", &format!("{uc} < "), &ps, "ESP", "200 OK"]) >= 3,
        "{}",
        run.trace
    );
    assert!(
        run.lines(&["<--", &format!("{us} < "), &pc, "ESP", "MESSAGE"]) == 1,
        "{}",
        run.trace
    );
    assert!(
        run.lines(&["-->", &format!("{us} > "), &pc, "ESP", "200 OK"]) == 1,
        "{}",
        run.trace
    );
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn long_requests_go_over_tcp_and_short_ones_over_udp() {
    let lab = lab();
    let run = register(&lab, &[&TALK[..], &["--transport", "auto"]].concat()).succeeds();
    assert_eq!(
        run.different(&["--> UDP", " clear ", "REGISTER"]),
        1,
        "{}",
        run.trace
    );
    assert_eq!(
        run.lines(&["--> TCP", " ESP ", "REGISTER"]),
        2,
        "{}",
        run.trace
    );
    assert_eq!(
        run.different(&["--> UDP", " ESP ", "MESSAGE"]),
        1,
        "{}",
        run.trace
    );
}

#[test]
#[ignore = "needs root"]
fn registrations_one_after_another_keep_port_us_and_change_port_uc() {
    let lab = lab();
    let args = ["--again", "3", "--every", "0.1", "--clear"];
    let run = register(&lab, &[&TALK[..], &args].concat()).succeeds();
    let all = run.told["registrations"].as_array().expect("a list");
    assert_eq!(all.len(), 4);
    for pair in all.windows(2) {
        let (old, new) = (&pair[0], &pair[1]);
        assert_eq!(old["ports"][1], new["ports"][1], "port_us stays");
        assert_eq!(old["ports"][3], new["ports"][3], "port_ps stays");
        assert_ne!(old["ports"][0], new["ports"][0], "port_uc changes");
        assert_ne!(old["ports"][2], new["ports"][2], "port_pc changes");
        assert_ne!(old["spis"], new["spis"]);
        assert_eq!(new["authenticated"], true);
    }
    lab.settles(0, 0);
}

#[test]
#[ignore = "needs root"]
fn every_suite_carries_tcp() {
    let lab = lab();
    for suite in gm_esp::Suite::ALL {
        let suite = suite.to_string();
        let args = ["--transport", "tcp", "--suites", &suite];
        let run = register(&lab, &[&TALK[..], &args].concat()).succeeds();
        assert_eq!(run.told["registrations"][0]["suite"], suite.as_str());
    }
}

#[test]
#[ignore = "needs root"]
fn a_phone_that_stays_away_leaves_its_sas_and_comes_back() {
    let lab = lab();
    register(&lab, &["--stay"]).succeeds();
    lab.settles(1, 4);
    // It has forgotten everything; its SM1 comes in clear, and the old SAs go.
    register(&lab, &TALK).succeeds();
    lab.settles(0, 0);
}

/// Clause 7.5: from another address it registers in clear, and what was is no more.
#[test]
#[ignore = "needs root"]
fn a_phone_that_moves_registers_from_its_new_address() {
    let moved = "192.0.2.11";
    let lab = Lab::new(&Plan {
        max_sas: 1024,
        ues: vec![UE.to_owned(), moved.to_owned()],
        ..Plan::one()
    });
    let mut phone = Phone::start(&lab);
    let first = phone.told("register").says("registered");
    assert_eq!(first["public_address"], UE);
    let second = phone.told(&format!("address {moved}")).says("registered");
    assert_eq!(second["public_address"], moved);
    assert_eq!(second["authenticated"], true);
    let sent = phone
        .told("message sip:echo@home.test from elsewhere")
        .says("message-sent");
    assert_eq!(sent["status"], 200);
    assert_eq!(phone.says("message-received")["body"], "from elsewhere");
    phone.told("deregister").says("deregistered");
    drop(phone);
    lab.settles(0, 0);
}
