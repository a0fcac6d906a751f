use super::*;

use gm_api::drops::Finding;

fn sample() -> DropSample {
    DropSample {
        time_ms: 86_400_000 + 3_723_004,
        reason: "bad-icv".into(),
        direction: "in".into(),
        station: "worker".into(),
        interface: None,
        proto: "udp".into(),
        src: "2001:db8::7".parse().unwrap(),
        src_port: Some(33_333),
        dst: "2001:db8::1".parse().unwrap(),
        dst_port: Some(4500),
        spi: Some(1_000_000_007),
        seq: Some(12),
        length: 148,
    }
}

fn args(words: &[&str]) -> Drops {
    use clap::Parser;
    let all = ["gmespctl", "drops"].iter().chain(words);
    match crate::args::Args::try_parse_from(all).unwrap().command {
        crate::args::Command::Drops(drops) => drops,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sample_is_one_line_with_addresses_spi_number_and_reason() {
    assert_eq!(
        sample_line(&sample()),
        "01:02:03.004  in   bad-icv             udp [2001:db8::7]:33333 > [2001:db8::1]:4500  \
         SPI 1000000007 (0x3b9aca07) seq 12  148 bytes at worker"
    );
    let bare = DropSample {
        src_port: None,
        dst_port: None,
        spi: None,
        seq: None,
        interface: Some("eth0".into()),
        ..sample()
    };
    let line = sample_line(&bare);
    let ending = "udp 2001:db8::7 > 2001:db8::1  148 bytes at worker eth0";
    assert!(line.ends_with(ending), "{line}");
}

#[test]
fn filters_are_all_met_and_each_has_alternatives() {
    let wants = |words: &[&str]| wanted(&args(words), &sample());
    assert!(wants(&[]));
    assert!(wants(&["--reason", "replay", "--reason", "bad-icv"]));
    assert!(!wants(&["--reason", "replay"]));
    assert!(wants(&["--address", "2001:db8::1"]) && wants(&["--address", "2001:db8::7"]));
    assert!(!wants(&["--address", "2001:db8::8"]));
    assert!(wants(&["--spi", "0x3b9aca07", "--reason", "bad-icv"]));
    assert!(!wants(&["--spi", "0x3b9aca07", "--reason", "replay"]));
}

#[test]
fn what_is_left_out_is_said_for_the_wanted_reasons() {
    let left_out = LeftOut {
        time_ms: 3_723_004,
        left_out: [("replay".to_owned(), 3), ("bad-icv".to_owned(), 500)].into(),
        missed: 0,
    };
    let line = |words: &[&str]| narrowed(&args(words), left_out.clone()).map(|l| left_out_line(&l));
    assert_eq!(
        line(&[]).unwrap(),
        "01:02:03.004  ...  not shown: bad-icv 500, replay 3"
    );
    let one = line(&["--reason", "replay"]).unwrap();
    assert!(one.ends_with("not shown: replay 3"), "{one}");
    assert_eq!(line(&["--reason", "stale"]), None);
}

#[test]
fn an_explanation_reads_from_the_cause_to_the_state() {
    let finding = |weight, cause: &str, text: &str| Finding {
        cause: cause.into(),
        weight,
        text: text.into(),
        evidence: vec!["seen \u{1b}[2J 3 times".into()],
        advice: Some("do this ".repeat(20)),
    };
    let said = Explanation {
        address: "192.0.2.7".parse().unwrap(),
        verdict: Verdict::Trouble,
        findings: vec![
            finding(Weight::Cause, "deleted-spi", "ESP arrives."),
            finding(Weight::State, "sas", "It has SAs."),
        ],
    };
    let mut out = Vec::new();
    explanation(&said, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(
        text.starts_with("192.0.2.7: something is wrong\n\nProbable causes"),
        "{text}"
    );
    assert!(text.contains("  * ESP arrives. [deleted-spi]\n"), "{text}");
    assert!(text.contains("      - seen \\u{1b}[2J 3 times\n"), "{text}");
    assert!(text.contains("\nHow it stands\n"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= WIDTH),
        "{text}"
    );
}
