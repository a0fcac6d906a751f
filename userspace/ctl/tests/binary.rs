//! The program itself: exit codes, help, and where messages go. What it does
//! with a daemon is tested beside the daemon's control socket.
#![forbid(unsafe_code)]

use std::process::{Command, Output};

fn gmespctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gmespctl"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn help_has_examples_and_exits_0() {
    let output = gmespctl(&["--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.contains("gmespctl sa add --file SAD.toml"), "{text}");
    assert!(text.contains("Exit code:"), "{text}");
}

#[test]
fn help_of_drops_and_explain_teaches_by_examples_and_names_exit_codes() {
    for (command, words) in [
        ("drops", ["--by prefix", "--follow --address", "counted"]),
        (
            "explain",
            [
                "gmespctl explain 198.51.100.7",
                "Exit code: 0",
                "4 nothing is known",
            ],
        ),
        (
            "workers",
            ["gmespctl workers 4", "ethtool -L", "SAs move over"],
        ),
    ] {
        let output = gmespctl(&[command, "--help"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0));
        for word in words {
            assert!(text.contains(word), "{word:?} is not in:\n{text}");
        }
    }
}

#[test]
fn wrong_use_exits_2_on_stderr() {
    for args in [
        &[][..],
        &["sa"],
        &["sa", "del"],
        &["sa", "del", "--set", "x"],
        &["nonsense"],
        &["explain"],
        &["explain", "phone"],
        &["drops", "--follow", "--last", "3"],
        &["drops", "--by", "colour"],
        &["workers", "0"],
    ] {
        let output = gmespctl(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

#[test]
fn no_daemon_exits_1_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s").display().to_string();
    let output = gmespctl(&["--socket", &socket, "health"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("gmespd is not running") && text.contains(&socket),
        "{text}"
    );
}
