use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parsed(args: &[&str]) -> Result<Args, String> {
    let line = ["register", "--config", "ue.toml"].iter().chain(args);
    Line::try_parse_from(line)
        .map(|l| l.args)
        .map_err(|e| e.to_string())
}

#[test]
fn suites_are_offered_in_the_order_of_the_command_line() {
    let args = parsed(&["--suites", "hmac-md5-96/null, all"]).unwrap();
    let Offer(suites) = args.suites.unwrap();
    assert_eq!(suites[0], Suite::HmacMd5Null);
    assert_eq!(suites[1..], Suite::ALL);
    let error = parsed(&["--suites", "aes-gmac/aes-gcm"]).unwrap_err();
    assert!(error.contains("does not go with"), "{error}");
    for wrong in [["--every", "-1"], ["--hold", "x"], ["--transport", "sctp"]] {
        assert!(parsed(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn the_help_names_every_fault_and_how_to_begin() {
    use clap::CommandFactory;
    let help = Line::command().render_long_help().to_string();
    for fault in Fault::ALL {
        assert!(help.contains(fault.name()), "{fault}");
    }
    assert!(
        help.contains("[ue.habits]") && help.contains("--trace full"),
        "{help}"
    );
}

#[test]
fn the_command_line_says_otherwise_than_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ue.toml");
    std::fs::write(
        &file,
        "[ue]\nuplink = \"eth0\"\naddress = \"192.0.2.10\"\npcscf = \"192.0.2.1:5060\"\n\
         domain = \"home.test\"\nimpi = \"a@home.test\"\nimpu = \"sip:a@home.test\"\n\
         k = \"465b5ce8b199b49faa5f0a2ee238a6bc\"\nopc = \"cd63cb71954a9f4e48a5994e37a02baf\"\n\
         expires = 600\n[ue.habits]\nretries = 5\n",
    )
    .unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let with = |more: &[&str]| {
        let mut args = parsed(more).unwrap();
        args.config = file.clone();
        args.config().unwrap()
    };
    let plain = with(&[]);
    assert_eq!((plain.expires, plain.habits.retries), (600, 5));
    assert_eq!((plain.habits.trans, plain.udp_enc_tun), (true, false));
    let other = with(&[
        "--mode",
        "udp-enc-tun",
        "--expires",
        "60",
        "--retries",
        "0",
        "--transport",
        "auto",
        "--fault",
        "wrong-res",
        "--fault",
        "silent",
        "--port-s",
        "31800",
    ]);
    assert_eq!((other.expires, other.habits.retries), (60, 0));
    assert_eq!((other.habits.trans, other.udp_enc_tun), (false, true));
    assert_eq!(other.habits.transport, Carrier::Auto);
    assert_eq!(other.habits.faults, [Fault::WrongRes, Fault::Silent]);
    assert_eq!(other.port_s, Some(31800));
}

#[test]
fn an_outcome_is_told_to_people_and_programs() {
    let mut outcome = Outcome {
        registrations: vec![Registered {
            suite: "null/aes-gcm".into(),
            mode: "trans".into(),
            public_address: [192, 0, 2, 10].into(),
            ports: [31100, 31800, 5067, 5066],
            spis: [1, 2, 3, 4],
            expires: 3600,
            authenticated: true,
            ms: 12.34,
        }],
        failure: Some(Failure {
            step: "message".into(),
            reason: "answered with 404".into(),
        }),
        ..Outcome::default()
    };
    let text = outcome.to_string();
    assert!(text.starts_with("registered for 3600 s in 12.3 ms, challenged: null/aes-gcm trans"));
    assert!(
        text.ends_with("FAILED: message: answered with 404"),
        "{text}"
    );
    outcome.ok = true;
    outcome.failure = None;
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["registrations"][0]["spis"][3], 4);
    assert_eq!(json["ok"], true);
    assert!(json.get("failure").is_none());
    assert!(outcome.to_string().ends_with("\nok"));
}

#[test]
fn what_cannot_be_is_refused_before_anything_begins() {
    for wrong in [
        &["--expires", "0"][..],
        &["--port-s", "5060"],
        &["--port-c", "80"],
        &["--to", "sip:b@home.test"],
        &["--clear"],
    ] {
        assert!(parsed(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(parsed(&["--port-s", "1024"]).unwrap().port_s, Some(1024));
}

#[test]
fn a_program_gets_json_also_when_nothing_could_begin() {
    let error = anyhow::anyhow!("no such interface").context("the data path does not start");
    let outcome = Outcome::not_run(&[Fault::WrongRes], &error);
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(
        (&json["ok"], &json["faults"][0]),
        (&false.into(), &"wrong-res".into())
    );
    assert_eq!(json["failure"]["step"], "start");
    let reason = "the data path does not start: no such interface";
    assert_eq!(json["failure"]["reason"], reason);
}

#[test]
fn what_the_network_writes_moves_no_cursor() {
    let outcome = Outcome {
        received: vec![outcome::Received {
            from: "<sip:a@b>\x1b]0;t\x07".into(),
            body: "one\r\n\x1b[2Jtwo".into(),
            transport: "udp".into(),
        }],
        ok: true,
        ..Outcome::default()
    };
    let shown = outcome.to_string();
    assert_eq!(shown.lines().count(), 2, "{shown:?}");
    assert!(
        !shown.replace('\n', "").contains(char::is_control),
        "{shown:?}"
    );
}
