//! SIP over TCP inside real ESP, both ways, from exact ports; and with the core over TCP.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::{DOMAIN, K, Lab, OPC, PCSCF, Plan, UE, program, write_private};

/// `gm-ue register` with these arguments: it has a MESSAGE sent and wants its echo.
fn register(lab: &Lab, args: &[&str]) -> Value {
    let config = lab.dir.path().join("phone.toml");
    write_private(
        &config,
        &format!(
            "[ue]\nuplink = \"u0\"\naddress = \"{UE}\"\npcscf = \"{PCSCF}:5060\"\n\
             domain = \"{DOMAIN}\"\nimpi = \"ue1@{DOMAIN}\"\nimpu = \"sip:ue1@{DOMAIN}\"\n\
             k = \"{K}\"\nopc = \"{OPC}\"\n"
        ),
    );
    let mut command = Command::new(program("gm-ue"));
    command
        .args(["register", "--json", "--message", "hello", "--expect", "10"])
        .arg("--config")
        .arg(config)
        .args(args)
        .stdin(Stdio::null());
    let output = lab.ue.run(|| command.output()).expect("gm-ue runs");
    let words = String::from_utf8_lossy(&output.stderr);
    let summary: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("no summary: {e}; it said: {words}"));
    assert_eq!(output.status.code(), Some(0), "{summary}\n{words}");
    assert_eq!(summary["message"]["status"], 200, "{summary}");
    assert_eq!(summary["received"][0]["body"], "hello", "{summary}");
    assert_eq!(summary["deregistered"], true, "{summary}");
    let mut trace = summary;
    trace["trace"] = Value::String(words.into_owned());
    trace
}

fn with(edge: &'static str) -> Lab {
    Lab::new(&Plan {
        edge,
        ..Plan::one()
    })
}

/// Lines of the trace that hold both.
fn lines(summary: &Value, arrow: &str, text: &str) -> usize {
    let trace = summary["trace"].as_str().unwrap_or_default();
    let both = |line: &&str| line.contains(arrow) && line.contains(text);
    trace.lines().filter(both).count()
}

#[test]
#[ignore = "needs root"]
fn a_phone_speaks_tcp_through_esp_both_ways_again_and_again() {
    let lab = with("");
    for _ in 0..3 {
        // The same port_us each time, and so twice the same two ends.
        let summary = register(
            &lab,
            &["--transport", "tcp", "--again", "1", "--port-s", "41000"],
        );
        assert_eq!(lines(&summary, "UDP", "SIP/2.0"), 0, "{summary}");
        assert_eq!(lines(&summary, "<-- TCP", "MESSAGE sip:"), 1, "{summary}");
        lab.settles(0, 0);
    }
}

#[test]
#[ignore = "needs root"]
fn the_core_may_speak_tcp_too() {
    let lab = with("core_transport = \"tcp\"\n");
    for transport in ["tcp", "udp"] {
        register(&lab, &["--transport", transport]);
        lab.settles(0, 0);
    }
}

#[test]
#[ignore = "needs root"]
fn above_the_bound_the_edge_opens_a_connection_to_a_phone_that_speaks_udp() {
    let lab = with("tcp_above = 300\n");
    let summary = register(&lab, &["--transport", "udp"]);
    assert_eq!(lines(&summary, "<-- TCP", "MESSAGE sip:"), 1, "{summary}");
    assert_eq!(lines(&summary, "--> TCP", "SIP/2.0 200"), 1, "{summary}");
    assert_eq!(lines(&summary, "--> UDP", "MESSAGE sip:"), 1, "{summary}");
}
