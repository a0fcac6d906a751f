//! The published vectors and those of tests/oracle/make_vectors.py, through
//! the real program. Both were made by implementations other than this one.

mod common;

use common::{Dir, case, lines, more, packets, read, records, run, verdicts};

#[test]
fn annex_i_keys() {
    let text = String::from_utf8(read(&case("annex-i.jsonl"))).expect("text");
    let cases = lines(&text);
    assert!(cases.len() >= 8);
    for case in cases {
        let of = |key: &str| case[key].as_str().expect("string").to_string();
        let names = ["keys", "--alg", &of("alg"), "--ealg", &of("ealg"), "--json"];
        let mut args = names.map(str::to_string).to_vec();
        args.extend(["--ik".into(), of("ik"), "--ck".into(), of("ck")]);
        let ran = run(&args);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        let reply: serde_json::Value = serde_json::from_slice(&ran.out).expect("one object");
        for key in ["integrity_key", "encryption_key", "salt"] {
            assert_eq!(reply.get(key), case.get(key), "{case}");
        }
        assert_eq!(reply.as_object().map(|o| o.len()), Some(3));
    }
}

#[test]
fn one_packet_of_every_suite_opens() {
    let dir = Dir::new();
    let (folder, input) = (case("esp"), case("esp/esp.pcap"));
    let (plain, report) = dir.open(&folder.join("sad.toml"), &input, &[]);
    assert_eq!(packets(&plain), packets(&read(&folder.join("plain.pcap"))));
    let expected = String::from_utf8(read(&folder.join("expect.jsonl"))).expect("text");
    assert_eq!(lines(&report), lines(&expected));
    // Timestamps are the input's; so is the header.
    let times = |pcap: &[u8]| -> Vec<_> {
        let all = records(pcap);
        all.iter().map(|r| (r.sec, r.fraction)).collect()
    };
    assert_eq!(times(&plain), times(&read(&input)));
    assert_eq!(plain[..24], read(&input)[..24]);
}

#[test]
fn what_is_sealed_opens_to_the_same() {
    let mut folders = more();
    folders.push(case("esp"));
    for folder in folders {
        let dir = Dir::new();
        let (sad, input) = (folder.join("sad.toml"), folder.join("plain.pcap"));
        let (sealed, said) = dir.seal(&sad, &input);
        let esp = dir.put("esp.pcap", &sealed);
        assert!(said.contains(" 0 left out"), "{}: {said}", folder.display());
        let (plain, report) = dir.open(&sad, &esp, &[]);
        assert!(plain == read(&input), "{}", folder.display());
        assert!(verdicts(&report).iter().all(|v| v == "ok"), "{report}");
    }
}

#[test]
fn every_verdict_of_the_stream() {
    let dir = Dir::new();
    let folder = case("verdicts");
    let (plain, report) = dir.open(
        &folder.join("sad.toml"),
        &folder.join("esp.pcap"),
        &["--replay-window", "64"],
    );
    let expected = String::from_utf8(read(&folder.join("expect.jsonl"))).expect("text");
    assert_eq!(lines(&report).len(), 179);
    assert_eq!(lines(&report), lines(&expected));
    assert_eq!(packets(&plain), packets(&read(&folder.join("plain.pcap"))));
}

#[test]
fn our_own_vectors() {
    for folder in more() {
        let dir = Dir::new();
        let (plain, report) = dir.open(&folder.join("sad.toml"), &folder.join("esp.pcap"), &[]);
        let expected = String::from_utf8(read(&folder.join("expect.jsonl"))).expect("text");
        for (got, wanted) in report.lines().zip(expected.lines()) {
            assert_eq!(got, wanted, "{}", folder.display());
        }
        assert_eq!(report, expected, "{}", folder.display());
        assert!(
            plain == read(&folder.join("plain.pcap")),
            "{}",
            folder.display()
        );
    }
}

#[test]
fn the_window_of_the_command_line_goes_before_the_files() {
    let folder = case("more/windows");
    let (sad, input) = (folder.join("sad.toml"), folder.join("esp.pcap"));
    let dir = Dir::new();
    let (_, narrow) = dir.open(&sad, &input, &["--replay-window", "32"]);
    let (_, wide) = dir.open(&sad, &input, &["--replay-window", "4096"]);
    let of =
        |report: &str, verdict: &str| verdicts(report).iter().filter(|v| *v == verdict).count();
    // 5000 - size + 1 is left of a smaller window, and 5000 - size within a
    // larger one, for three of the four SAs each.
    assert!(of(&narrow, "ok") < of(&wide, "ok"));
    assert!(of(&narrow, "stale") > of(&wide, "stale"));
}
