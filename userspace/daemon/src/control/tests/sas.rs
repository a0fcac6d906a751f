//! SAs: in, listed, out; and no key anywhere.

use std::sync::atomic::Ordering;

use super::Daemon;
use crate::testing::{CK, IK, assert_no_keys, logged};

fn sa(spi: u32, src: &str, dst: &str, more: &str) -> String {
    format!(
        "[[sa]]\nspi = {spi}\nmode = \"trans\"\nsrc = \"{src}\"\ndst = \"{dst}\"\n\
         alg = \"null\"\nealg = \"aes-gcm\"\nik = \"{IK}\"\nck = \"{CK}\"\n{more}\n"
    )
}

const US: &str = "192.0.2.1";
const UE: &str = "198.51.100.7";

fn four() -> String {
    [
        sa(4001, UE, US, "set = 3\ndst_port = 5064\nsrc_port = 40001"),
        sa(4002, UE, US, "set = 3\ndst_port = 5065\nsrc_port = 40002"),
        sa(4003, US, UE, "set = 3\nsrc_port = 5065\nseq = 10"),
        sa(
            4004,
            US,
            UE,
            "set = 3\nsrc_port = 5064\nseq = 1\nreplay_window = 256",
        ),
    ]
    .concat()
}

#[test]
fn a_set_goes_in_is_listed_and_goes_out() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
    let file = daemon.file("four.toml", &four());
    let (code, out, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "set 3 is live: 4 SAs\n", "")
    );

    let rows = daemon.json(&["sa", "list", "--json"]);
    let rows = rows.as_array().unwrap();
    let column = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("spi"), [4001, 4002, 4003, 4004]);
    assert_eq!(column("set"), [3, 3, 3, 3]);
    assert_eq!(column("dir"), ["in", "in", "out", "out"]);
    assert_eq!(column("seq"), [0, 0, 9, 0]);
    assert_eq!(column("replay_window"), [128, 128, 128, 256]);
    assert_eq!(column("state"), ["live", "live", "live", "live"]);
    assert_eq!(rows[0]["drops"]["replay"], 2);
    assert_eq!(rows[0]["alg"], "null");
    assert_eq!(rows[0]["ealg"], "aes-gcm");
    for key in ["ik", "ck", "integrity_key", "encryption_key", "salt"] {
        assert!(rows.iter().all(|row| row.get(key).is_none()), "{key}");
    }

    let table = daemon.ctl(&["sa", "list"]).1;
    assert!(
        table.contains("198.51.100.7:40001") && table.contains("null/aes-gcm"),
        "{table}"
    );

    let (code, out, _) = daemon.ctl(&["sa", "del", "--set", "3"]);
    assert_eq!((code, out.as_str()), (0, "removed set 3: 4 SAs\n"));
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
    let (code, _, err) = daemon.ctl(&["sa", "del", "--set", "3"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no set 3"), "{err}");
}

#[test]
fn an_sa_without_a_set_is_one_and_goes_by_spi_and_destination() {
    let daemon = Daemon::start();
    let file = daemon.file(
        "two.toml",
        &[sa(0x1001, UE, US, ""), sa(0x1002, US, UE, "")].concat(),
    );
    let added = daemon.json(&["sa", "add", "--file", &file, "--json"]);
    let sets = added["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 2);
    assert_ne!(sets[0]["set"], sets[1]["set"]);
    let (code, _, err) = daemon.ctl(&["sa", "del", "--spi", "0x1001", "--dst", UE]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no SA 4097 to 198.51.100.7"), "{err}");
    let gone = daemon.json(&["sa", "del", "--spi", "0x1001", "--dst", US, "--json"]);
    assert_eq!(gone["sets"][0], sets[0]["set"]);
    assert_eq!(
        daemon
            .json(&["sa", "list", "--json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    daemon.json(&["sa", "del", "--spi", "4098", "--dst", UE, "--json"]);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
}

#[test]
fn a_file_is_installed_whole_or_not_at_all() {
    let daemon = Daemon::start();
    // The second set repeats an SPI of the first, to another destination, so
    // the file is well-formed and only the data plane refuses.
    let text = [sa(5001, UE, US, "set = 1"), sa(5001, US, UE, "set = 2")].concat();
    let file = daemon.file("a.toml", &text);
    let (code, out, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("SPI 5001 is taken"), "{err}");
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");

    daemon.fake.refuse_activate.store(true, Ordering::Relaxed);
    let file = daemon.file("b.toml", &four());
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 1);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");

    daemon.fake.refuse_activate.store(false, Ordering::Relaxed);
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 0);
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 1);
    assert!(
        err.contains("set 3 is installed already") && err.contains("sa del --set 3"),
        "{err}"
    );
}

#[test]
fn a_wrong_file_is_named_with_table_and_key() {
    let daemon = Daemon::start();
    let bad_key = four().replace(IK, &IK[..20]);
    let file = daemon.file("bad.toml", &bad_key);
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 2);
    assert!(err.contains("bad.toml: [[sa]] #1: ik:"), "{err}");

    let file = daemon.file("far.toml", &sa(9000, UE, "203.0.113.9", ""));
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 2);
    assert!(err.contains("far.toml: [[sa]] #1: dir: missing"), "{err}");

    // The key is in the wrong place, even outside of TOML.
    let file = daemon.file("worse.toml", &format!("{}\nik = {IK}\n", four()));
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 2);
    assert_eq!(daemon.ctl(&["sa", "add", "--file", "/nowhere.toml"]).0, 2);
    let empty = daemon.file("empty.toml", "");
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &empty]).0, 2);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
}

#[test]
fn unlikely_sas_are_warned_about() {
    let daemon = Daemon::start();
    let text = [
        sa(6001, UE, "203.0.113.9", "dir = \"in\""),
        sa(6002, UE, US, "dst_port = 9"),
        sa(6003, US, UE, "src_port = 5064"),
    ];
    let file = daemon.file("odd.toml", &text.concat());
    let (code, out, _) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 0);
    assert!(
        out.contains("[[sa]] #1: 203.0.113.9 is none of [gm] addresses"),
        "{out}"
    );
    assert!(
        out.contains("[[sa]] #2: port 9 is in neither [gm] server_ports"),
        "{out}"
    );
    assert!(
        out.contains("[[sa]] #3: no seq, so numbers begin at 1"),
        "{out}"
    );
}

#[test]
fn no_answer_and_no_log_line_has_a_key() {
    let daemon = Daemon::start();
    let file = daemon.file("four.toml", &four());
    daemon.ctl(&["sa", "add", "--file", &file]);
    for args in [
        &["sa", "list"][..],
        &["sa", "list", "--json"],
        &["stats"],
        &["health"],
    ] {
        daemon.ctl(args);
    }
    // A body that is no request, with the keys in every place.
    let escaped = four().replace('"', "\\\"").replace('\n', "\\n");
    for body in [
        format!("{{\"sad\": \"{escaped}\", \"{IK}\": 1}}"),
        format!("{{\"sad\": {{\"{IK}\": \"{CK}\"}}}}"),
        format!("{{\"sad\": \"{escaped}"),
        format!("{{\"sad\": \"x = {IK}\", \"name\": \"n\"}}"),
        four(),
    ] {
        let answer = daemon.post("/v1/sa", &body);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"error\":{\"code\":\"bad-"), "{answer}");
    }
    let log = logged();
    assert!(log.contains("SAs added over the control socket"), "{log}");
    assert!(log.contains("uid "), "{log}");
    assert_no_keys(&log);
}

#[test]
fn a_set_is_retired_and_activated_by_its_number() {
    let daemon = Daemon::start();
    let file = daemon.file("four.toml", &four());
    daemon.ctl(&["sa", "add", "--file", &file]);
    assert!(
        daemon
            .post("/v1/sa/3/retire", "")
            .contains(r#"{"set":3,"state":"retired"}"#)
    );
    assert_eq!(
        daemon.json(&["sa", "list", "--json"])[0]["state"],
        "retiring"
    );
    assert!(
        daemon
            .post("/v1/sa/3/activate", "")
            .contains(r#"{"set":3,"state":"active"}"#)
    );
}
