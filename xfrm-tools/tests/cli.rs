//! The command line: exit codes, messages of one line, and what is written
//! when something is wrong (nothing).

mod common;

use std::os::unix::fs::PermissionsExt;

use common::*;

const IK: &str = "d985111ee1a25bb4a1de18528ad453ef";
const CK: &str = "9d657ca83cf0c6d6ad34145f089492b1";

fn code(args: &[&str]) -> (i32, String) {
    let ran = run(args);
    (ran.code, ran.err)
}

#[test]
fn help_teaches_with_examples() {
    for (args, wanted) in [
        (&["install", "--help"][..], "all of them or none"),
        (&["remove", "--help"], "gm-xfrm remove --all"),
        (&["list", "--help"], "--show-keys"),
        (&["diff", "--help"], "missing (in the file only)"),
        (&["watch", "--help"], "Keys are never shown"),
        (&["--help"], "gm-xfrm pcap open --sad SAD.toml"),
        (&["keys", "--help"], "ik=HEX and ck=HEX"),
        (&["pcap", "--help"], "[[sa]]"),
        (&["pcap", "open", "--help"], "\"verdict\":\"ok\""),
        (
            &["pcap", "seal", "--help"],
            "first SA in the file that matches",
        ),
    ] {
        let ran = run(args);
        let text = String::from_utf8(ran.out).expect("text");
        assert_eq!(ran.code, 0);
        assert!(text.contains(wanted) && text.contains("xample"), "{text}");
    }
}

#[test]
fn the_example_of_the_help_is_one() {
    let text = String::from_utf8(run(&["pcap", "--help"]).out).expect("text");
    let table = text.split_once("[[sa]]").expect("a table").1;
    let dir = Dir::new();
    let sad = dir.put("sad.toml", format!("[[sa]]{table}"));
    dir.seal(&sad, &case("verdicts/plain.pcap"));
}

#[test]
fn wrong_use_is_2() {
    let sad = case("esp/sad.toml");
    let sad = sad.to_str().expect("text");
    for args in [
        &[][..],
        &["keys"],
        &["pcap"],
        &["open"],
        &["keys", "--alg", "null", "--ealg", "aes-gcm"],
        &["keys", "--alg", "null", "--ealg", "aes-gcm", "--ik", IK],
        &[
            "keys", "--alg", "null", "--ealg", "null", "--ik", IK, "--ck", CK,
        ],
        &[
            "keys", "--alg", "sha", "--ealg", "null", "--ik", IK, "--ck", CK,
        ],
        &[
            "keys",
            "--alg",
            "null",
            "--ealg",
            "aes-gcm",
            "--ik",
            IK,
            "--ck",
            CK,
            "--keys-from",
            "-",
        ],
        &[
            "keys",
            "--alg",
            "null",
            "--ealg",
            "aes-gcm",
            "--ik",
            &IK[1..],
            "--ck",
            CK,
        ],
        &[
            "keys", "--alg", "null", "--ealg", "aes-gcm", "--ik", IK, "--ck", "xyz",
        ],
        &["pcap", "open", "--sad", sad, "--out", "x", "in"],
        &["pcap", "open", "--sad", sad, "--report", "x", "in"],
        &[
            "pcap", "open", "--sad", sad, "--out", "x", "--report", "x", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", "-", "--report", "-", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", "in", "--report", "x", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", "./in", "--report", "x", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", "x", "--report", "in", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", sad, "--report", "x", "in",
        ],
        &[
            "pcap", "open", "--sad", sad, "--out", "x", "--report", "y", "in", "more",
        ],
        &[
            "pcap",
            "open",
            "--sad",
            sad,
            "--out",
            "x",
            "--report",
            "y",
            "--replay-window",
            "31",
            "in",
        ],
        &[
            "pcap",
            "open",
            "--sad",
            sad,
            "--out",
            "x",
            "--report",
            "y",
            "--replay-window",
            "4097",
            "in",
        ],
        &[
            "pcap",
            "open",
            "--sad",
            sad,
            "--out",
            "x",
            "--report",
            "y",
            "--replay-window",
            "a",
            "in",
        ],
        &["pcap", "seal", "--sad", sad, "--out", "in", "in"],
        &["pcap", "seal", "--out", "x", "in"],
    ] {
        let (code, err) = code(args);
        assert_eq!(code, 2, "{args:?}: {err}");
        assert!(!err.is_empty(), "{args:?}");
        assert!(!err.contains(&IK[..8]) && !err.contains(&CK[..8]), "{err}");
    }
    assert!(!std::path::Path::new("x").exists() && !std::path::Path::new("y").exists());
}

#[test]
fn files_that_cannot_be_read_or_written_are_1() {
    let sad = case("esp/sad.toml");
    let sad = sad.to_str().expect("text");
    let input = case("esp/esp.pcap");
    let input = input.to_str().expect("text");
    let dir = Dir::new();
    let path = |name| dir.path(name).to_str().expect("text").to_string();
    let (out, report, none) = (path("out"), path("report"), path("none/there"));
    for (args, wanted) in [
        (
            vec![
                "pcap", "open", "--sad", &none, "--out", &out, "--report", &report, input,
            ],
            &none,
        ),
        (
            vec![
                "pcap", "open", "--sad", sad, "--out", &none, "--report", &report, input,
            ],
            &none,
        ),
        (
            vec![
                "pcap", "open", "--sad", sad, "--out", &out, "--report", &none, input,
            ],
            &none,
        ),
        (
            vec![
                "pcap", "open", "--sad", sad, "--out", &out, "--report", &report, &none,
            ],
            &none,
        ),
        (
            vec!["pcap", "seal", "--sad", sad, "--out", &out, &none],
            &none,
        ),
        (
            vec![
                "keys",
                "--alg",
                "null",
                "--ealg",
                "aes-gcm",
                "--keys-from",
                &none,
            ],
            &none,
        ),
        (
            vec!["pcap", "seal", "--sad", sad, "--out", "/dev/full", input],
            &"/dev/full".to_string(),
        ),
    ] {
        let (code, err) = code(&args);
        assert_eq!(code, 1, "{args:?}: {err}");
        assert!(
            err.starts_with("gm-xfrm: error: cannot ") && err.contains(wanted),
            "{err}"
        );
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert!(dir.names().is_empty(), "{:?}", dir.names());
}

#[test]
fn a_wrong_sad_is_2_names_the_place_and_writes_nothing() {
    let good = String::from_utf8(read(&case("verdicts/sad.toml"))).expect("text");
    let third = |from: &str, to: &str| {
        let mut tables = good
            .split_inclusive("\n\n")
            .map(str::to_string)
            .collect::<Vec<_>>();
        assert!(tables[2].contains(from), "{}", tables[2]);
        tables[2] = tables[2].replace(from, to);
        tables.concat()
    };
    for (text, wanted) in [
        (
            third("src_port", "source_port"),
            "[[sa]] #3: source_port: unknown key",
        ),
        (third("ik = \"b1", "ik = \"zz"), "[[sa]] #3: ik: not hex"),
        (
            third("ck = \"66", "ck = \""),
            "[[sa]] #3: ck: must be 32 hexadecimal digits",
        ),
        (
            third("aes-cbc", "aes-gcm"),
            "[[sa]] #3: ealg: aes-gcm does not go with alg",
        ),
        (
            third("\"trans\"", "\"udp-enc-tun\""),
            "[[sa]] #3: outer_src: missing",
        ),
        (
            third("2522661686", "2831146962"),
            "[[sa]] #3: spi: [[sa]] #1 has this destination",
        ),
        (
            third("44813", "0"),
            "[[sa]] #3: dst_port: must be an integer from 1",
        ),
        (third("= 61995", "61995"), "line "),
        (good.replace("[[sa]]", "[[sas]]"), "unknown key sas"),
    ] {
        let dir = Dir::new();
        let sad = dir.put("sad.toml", text);
        let (sad, out, report) = (sad.as_path(), dir.path("out"), dir.path("report"));
        let input = case("verdicts/esp.pcap");
        let mut args = vec!["pcap".as_ref(), "open".as_ref(), "--sad".as_ref(), sad];
        args.extend([
            "--out".as_ref(),
            out.as_path(),
            "--report".as_ref(),
            &report,
            &input,
        ]);
        let ran = run(&args);
        assert_eq!(ran.code, 2, "{wanted}: {}", ran.err);
        let place = format!("{}: {wanted}", sad.display());
        assert!(ran.err.contains(&place), "{wanted}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert!(!ran.err.contains("73d335ab"), "{}", ran.err);
        assert_eq!(dir.names(), ["sad.toml"]);
    }
}

#[test]
fn keys_come_from_a_file_or_a_pipe() {
    let gcm = ["keys", "--alg", "null", "--ealg", "aes-gcm", "--keys-from"];
    let json = format!("{{\"integrity_key\":null,\"encryption_key\":\"{CK}\",\"salt\":");
    for text in [
        format!("ik={IK}\nck={CK}\n"),
        format!("{{\"ik\":\"{IK}\",\"ck\":\"{CK}\"}}\n"),
    ] {
        let ran = run_with(&[&gcm[..], &["-", "--json"]].concat(), text.as_bytes());
        assert_eq!(ran.code, 0, "{}", ran.err);
        let out = String::from_utf8(ran.out).expect("text");
        assert!(out.starts_with(&json) && out.ends_with("\"}\n"), "{out}");

        let dir = Dir::new();
        let file = dir.put("keys.txt", &text);
        let ran = run(&[&gcm[..], &[file.to_str().expect("text")]].concat());
        let out = String::from_utf8(ran.out).expect("text");
        assert!(out.contains("integrity_key   none\n"), "{out}");
        assert!(out.contains(&format!("encryption_key  {CK}\n")), "{out}");
    }
    for (text, wanted) in [
        ("", "standard input: ik is missing"),
        (
            "ik=12\n",
            "standard input: line 1: ik: must be 32 hexadecimal digits",
        ),
        (
            "{\"ik\": 1}",
            "standard input: line 1: must be one JSON object",
        ),
    ] {
        let ran = run_with(&[&gcm[..], &["-"]].concat(), text.as_bytes());
        assert_eq!(ran.code, 2, "{}", ran.err);
        assert!(ran.err.contains(wanted), "{}", ran.err);
        assert!(ran.out.is_empty());
    }
}

#[test]
fn keys_of_the_legacy_suites_are_those_of_their_releases() {
    let ask = |alg: &str, ealg: &str| {
        let ran = run(&["keys", "--alg", alg, "--ealg", ealg, "--ik", IK, "--ck", CK]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        String::from_utf8(ran.out).expect("text")
    };
    let shown = |integrity: &str, encryption: &str| {
        format!("integrity_key   {integrity}\nencryption_key  {encryption}\nsalt            none\n")
    };
    let three = format!("{CK}{}", &CK[..16]);
    assert_eq!(ask("hmac-md5-96", "null"), shown(IK, "none"));
    assert_eq!(ask("hmac-md5-96", "aes-cbc"), shown(IK, CK));
    assert_eq!(ask("hmac-md5-96", "des-ede3-cbc"), shown(IK, &three));
    assert_eq!(
        ask("hmac-sha-1-96", "des-ede3-cbc"),
        shown(&format!("{IK}00000000"), &three)
    );
}

#[test]
fn a_sad_comes_through_a_pipe() {
    let dir = Dir::new();
    let out = dir.path("out");
    let (out, input) = (out.to_str().expect("text"), case("esp/plain.pcap"));
    let input = input.to_str().expect("text");
    let seal = ["pcap", "seal", "--sad", "-", "--out", out];
    let sad = read(&case("esp/sad.toml"));
    let ran = run_with(&[&seal[..], &[input]].concat(), &sad);
    assert_eq!(
        (ran.code, ran.err.contains("24 packets sealed")),
        (0, true),
        "{}",
        ran.err
    );
    let ran = run_with(&[&seal[..], &[input]].concat(), b"[[sa]]\nspi = 1");
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("standard input: [[sa]] #1: spi"),
        "{}",
        ran.err
    );
    assert_eq!(run_with(&[&seal[..], &["-"]].concat(), &sad).code, 2);
}

#[test]
fn plaintext_is_for_its_owner_only() {
    let dir = Dir::new();
    dir.open(&case("esp/sad.toml"), &case("esp/esp.pcap"), &[]);
    let mode = |name: &str| {
        dir.path(name)
            .metadata()
            .expect("file")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("plain.out"), 0o600);
    assert_ne!(mode("report.out"), 0o600);
    assert_eq!(dir.names(), ["plain.out", "report.out"]);
}

#[test]
fn a_failure_leaves_what_was_there() {
    let dir = Dir::new();
    let (out, report) = (dir.put("out", "old"), dir.put("report", "older"));
    let mut cut = read(&case("esp/esp.pcap"));
    cut.pop();
    let (sad, input) = (case("esp/sad.toml"), dir.put("in", cut));
    let mut args = vec![
        "pcap".as_ref(),
        "open".as_ref(),
        "--sad".as_ref(),
        sad.as_path(),
    ];
    args.extend([
        "--out".as_ref(),
        out.as_path(),
        "--report".as_ref(),
        &report,
        &input,
    ]);
    assert_eq!(run(&args).code, 1);
    assert_eq!(
        (read(&out), read(&report)),
        (b"old".to_vec(), b"older".to_vec())
    );
    assert_eq!(dir.names(), ["in", "out", "report"]);
}
