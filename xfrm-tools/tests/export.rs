//! `gm-xfrm export` as a program: what it refuses, and what it leaves behind.

mod common;

use std::os::unix::fs::PermissionsExt;

use common::*;

/// Of both directions, as the P-CSCF has them.
const SAD: &str = r#"
[[sa]]
spi = 4096
mode = "trans"
src = "198.51.100.10"
dst = "203.0.113.5"
src_port = 31000
dst_port = 5064
alg = "hmac-sha-1-96"
ealg = "aes-cbc"
ik = "447266b1847a80f4d2b9e57fb4cd8316"
ck = "a85a9947c4b72d635fa18fb2f71764dc"

[[sa]]
spi = 2831146962
mode = "trans"
src = "203.0.113.5"
dst = "198.51.100.10"
src_port = 5064
dst_port = 31000
alg = "null"
ealg = "aes-gcm"
ik = "447266b1847a80f4d2b9e57fb4cd8316"
ck = "a85a9947c4b72d635fa18fb2f71764dc"
seq = 42
"#;
const IK: &str = "447266b1";
const CK: &str = "a85a9947";

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("text")
}

#[test]
fn keys_are_written_only_when_asked_for() {
    let dir = Dir::new();
    let sad = dir.put("sad.toml", SAD);
    let sad = sad.to_str().expect("text");
    for format in ["ip-xfrm", "wireshark"] {
        let ran = run(&["export", "--sad", sad, "--format", format]);
        assert_eq!((ran.code, ran.out.len()), (2, 0), "{}", ran.err);
        assert!(ran.err.contains("--show-keys"), "{}", ran.err);
    }
    let without = run(&["export", "--sad", sad, "--format", "json"]);
    let with = run(&["export", "--sad", sad, "--format", "json", "--show-keys"]);
    assert_eq!((without.code, with.code), (0, 0));
    assert_eq!(without.err, "");
    assert!(
        with.err.contains("warning: keys on standard output"),
        "{}",
        with.err
    );
    for key in [IK, CK] {
        assert!(!text(without.out.clone()).contains(key));
        assert!(text(with.out.clone()).contains(key));
        assert!(!with.err.contains(key));
    }
}

#[test]
fn a_file_with_keys_is_its_owners_alone() {
    let dir = Dir::new();
    let sad = dir.put("sad.toml", SAD);
    // One that all may read does not stay so.
    let out = dir.put("esp_sa", "old");
    std::fs::set_permissions(&out, PermissionsExt::from_mode(0o644)).expect("mode");
    for format in ["wireshark", "ip-xfrm", "json"] {
        let words = [
            "export",
            "--local",
            "203.0.113.5",
            "--show-keys",
            "--format",
            format,
        ];
        let mut args: Vec<std::ffi::OsString> = words.map(Into::into).into();
        args.extend(["--sad".into(), sad.clone().into()]);
        args.extend(["--out".into(), out.clone().into()]);
        let ran = run(&args);
        assert_eq!((ran.code, ran.out.len()), (0, 0), "{}", ran.err);
        assert!(ran.err.contains("mode 0600"), "{}", ran.err);
        let mode = out.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(text(read(&out)).contains(CK));
    }
    assert_eq!(dir.names(), ["esp_sa", "sad.toml"]);
}

#[test]
fn what_would_overwrite_the_keys_is_refused() {
    let dir = Dir::new();
    let sad = dir.put("sad.toml", SAD);
    let sad = sad.to_str().expect("text");
    let words = ["export", "--format", "json", "--sad", sad, "--out", sad];
    assert_eq!(run(&words).code, 2);
    assert_eq!(text(read(sad.as_ref())), SAD);
}

#[test]
fn the_direction_comes_from_somewhere_or_it_says_what_is_missing() {
    let words = ["export", "--sad", "-", "--format", "ip-xfrm", "--show-keys"];
    let batch = |more: &[&str]| run_with(&[&words[..], more].concat(), SAD.as_bytes());
    let none = batch(&["--local", "192.0.2.99"]);
    assert_eq!((none.code, none.out.len()), (2, 0));
    assert!(none.err.contains("[[sa]] #1: dir: missing"), "{}", none.err);

    let policies = |more: &[&str]| {
        let ran = batch(more);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let all = text(ran.out);
        let dirs = all
            .lines()
            .filter(|line| line.starts_with("xfrm policy add"));
        let dirs: Vec<String> = dirs
            .filter_map(|line| {
                line.split(" dir ")
                    .nth(1)?
                    .split(' ')
                    .next()
                    .map(Into::into)
            })
            .collect();
        (dirs, all)
    };
    let (dirs, all) = policies(&["--local", "203.0.113.5"]);
    assert_eq!(dirs, ["in", "in", "out", "out"]);
    assert!(all.contains(" replay-oseq 41 "), "{all}");
    // The other end accepts what this one has not sent yet.
    let (dirs, all) = policies(&["--local", "203.0.113.5", "--peer"]);
    assert_eq!(dirs, ["out", "out", "in", "in"]);
    assert!(
        all.contains("# Numbers to 41 have come and are refused."),
        "{all}"
    );
}

#[test]
fn wrong_use_is_2() {
    for words in [
        &["export"][..],
        &["export", "--format", "pcap"],
        &["export", "--format", "json", "--peer"],
        &["export", "--format", "json", "--local", "nowhere"],
        &["import"],
        &["import", "--out", "-"],
    ] {
        assert_eq!(run(words).code, 2, "{words:?}");
    }
    let missing = [
        "export",
        "--format",
        "json",
        "--sad",
        "/nonexistent/sad.toml",
    ];
    assert_eq!(run(&missing).code, 1);
}
