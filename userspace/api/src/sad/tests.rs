use gm_esp::{Mode, SelProto};
use proptest::prelude::*;

use super::*;

const IK: &str = "447266b1847a80f4d2b9e57fb4cd8316";
const CK: &str = "a85a9947c4b72d635fa18fb2f71764dc";

const TRANS: &str = r#"
[[sa]]
spi = 2831146962
mode = "trans"
src = "198.51.100.10"
dst = "203.0.113.5"
src_port = 62557
dst_port = 9206
alg = "hmac-sha-1-96"
ealg = "null"
ik = "447266b1847a80f4d2b9e57fb4cd8316"
ck = "a85a9947c4b72d635fa18fb2f71764dc"
"#;

const TUNNEL: &str = r#"
[[sa]]
spi = 0x4bf1f021
mode = "udp-enc-tun"
src = "198.51.100.10"
dst = "203.0.113.5"
src_port = 27013
dst_port = 58017
alg = "null"
ealg = "aes-gcm"
encryption_key = "109130f1ba3b2d578334917719322f7b"
salt = "c381fb1a"
outer_src = "198.51.100.99"
outer_dst = "203.0.113.55"
encap_sport = 57203
encap_dport = 4500
set = 7
dir = "in"
seq = 1000
replay_window = 4096
esn = true
proto = "any"
"#;

fn parse(text: &str) -> Result<Sad, SadError> {
    Sad::parse("SAD.toml", text)
}

fn error(text: &str) -> String {
    match parse(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

/// `text` with the line of `key` replaced, or removed by an empty line.
fn with(text: &str, key: &str, line: &str) -> String {
    let mut found = false;
    let lines = text.lines().map(|old| {
        if old.split('=').next().map(str::trim) == Some(key) {
            found = true;
            line
        } else {
            old
        }
    });
    let changed = lines.collect::<Vec<_>>().join("\n");
    if found {
        changed + "\n"
    } else {
        format!("{text}{line}\n")
    }
}

#[test]
fn all_keys_arrive() {
    let sad = parse(&format!("{TRANS}{TUNNEL}")).map_err(|e| e.to_string());
    let entries = sad.expect("a good file").entries;
    let [trans, tunnel] = entries.as_slice() else {
        panic!("{} entries", entries.len());
    };
    assert_eq!(trans.table, 1);
    assert_eq!(trans.spec.spi, 2_831_146_962);
    assert_eq!(trans.spec.mode, Mode::Trans);
    assert_eq!(trans.spec.selector.src_port, Some(62_557));
    assert_eq!(trans.spec.selector.proto, SelProto::UdpTcp);
    assert_eq!(trans.spec.replay_window, 64);
    assert_eq!(trans.replay_window, None);
    assert!(!trans.spec.esn && trans.spec.outer.is_none());
    assert_eq!((trans.set, trans.dir, trans.seq), (None, None, None));
    assert_eq!(trans.destination(), IpAddr::from([203, 0, 113, 5]));
    let expanded = hex::decode(format!("{IK}00000000")).expect("hex");
    assert_eq!(trans.keys.integrity(), Some(expanded.as_slice()));

    assert_eq!(tunnel.table, 2);
    assert_eq!(tunnel.spec.mode, Mode::UdpEncTun);
    assert_eq!(tunnel.spec.selector.proto, SelProto::Any);
    assert_eq!(tunnel.spec.replay_window, 4096);
    assert!(tunnel.spec.esn);
    assert_eq!(
        (tunnel.set, tunnel.dir, tunnel.seq),
        (Some(7), Some(Dir::In), Some(1000))
    );
    assert_eq!(tunnel.destination(), IpAddr::from([203, 0, 113, 55]));
    assert_eq!(tunnel.keys.salt(), Some([0xc3, 0x81, 0xfb, 0x1a]));
}

#[test]
fn what_may_be_left_out_is_any_or_unknown() {
    let text = with(&with(TUNNEL, "src_port", ""), "dst_port", "");
    let text = with(&text, "encap_sport", "");
    let entry = parse(&text)
        .map_err(|e| e.to_string())
        .expect("good")
        .entries[0]
        .clone();
    assert_eq!(entry.spec.selector.src_port, None);
    assert_eq!(entry.spec.selector.dst_port, None);
    assert_eq!(entry.spec.outer.expect("outer").sport, None);
    assert_eq!(
        parse("")
            .map_err(|e| e.to_string())
            .expect("empty")
            .entries
            .len(),
        0
    );
}

#[test]
fn every_broken_rule_names_file_table_and_key() {
    let second = |text: String| format!("{}{text}", with(TRANS, "spi", "spi = 300"));
    let long = format!("ik = \"{IK}00\"");
    let odd = format!("ik = \"{}\"", &IK[1..]);
    let letter = format!("ck = \"g{}\"", &CK[1..]);
    for (base, key, line, wanted) in [
        (TRANS, "spi", "", "spi: missing"),
        (
            TRANS,
            "spi",
            "spi = 255",
            "spi: must be an integer from 256 to 4294967295",
        ),
        (TRANS, "spi", "spi = 0", "spi: must be an integer from 256"),
        (
            TRANS,
            "spi",
            "spi = 4294967296",
            "spi: must be an integer from 256",
        ),
        (TRANS, "spi", "spi = -5", "spi: must be an integer from 256"),
        (TRANS, "spi", "spi = \"300\"", "spi: must be an integer"),
        (TRANS, "mode", "", "mode: missing"),
        (
            TRANS,
            "mode",
            "mode = \"tunnel\"",
            "mode: must be \"trans\" or \"udp-enc-tun\"",
        ),
        (TRANS, "mode", "mode = 1", "mode: must be a string"),
        (TRANS, "src", "", "src: missing"),
        (TRANS, "dst", "", "dst: missing"),
        (
            TRANS,
            "src",
            "src = \"198.51.100.256\"",
            "src: must be an IPv4 or IPv6 address",
        ),
        (
            TRANS,
            "dst",
            "dst = \"2001:db8::1\"",
            "dst: must be of one family with src",
        ),
        (
            TRANS,
            "src_port",
            "src_port = 0",
            "src_port: must be an integer from 1 to 65535",
        ),
        (
            TRANS,
            "dst_port",
            "dst_port = 65536",
            "dst_port: must be an integer from 1",
        ),
        (
            TRANS,
            "proto",
            "proto = \"udp\"",
            "proto: must be \"udp-tcp\" or \"any\"",
        ),
        (TRANS, "alg", "", "alg: missing"),
        (TRANS, "ealg", "", "ealg: missing"),
        (TRANS, "alg", "alg = \"hmac-md5-96\"", "alg: must be"),
        (TRANS, "ealg", "ealg = \"des-ede3-cbc\"", "ealg: must be"),
        (
            TRANS,
            "ealg",
            "ealg = \"aes-gcm\"",
            "ealg: aes-gcm does not go with alg hmac-sha-1-96",
        ),
        (
            TRANS,
            "alg",
            "alg = \"null\"",
            "ealg: null does not go with alg null",
        ),
        (TRANS, "ik", "", "ik: missing"),
        (TRANS, "ck", "", "ck: missing"),
        (
            TRANS,
            "ik",
            &long,
            "ik: must be 32 hexadecimal digits (16 bytes), not 34",
        ),
        (
            TRANS,
            "ik",
            &odd,
            "ik: must be 32 hexadecimal digits (16 bytes), not 31",
        ),
        (TRANS, "ck", &letter, "ck: not hex: character 1"),
        (TRANS, "ck", "ck = 5", "ck: must be a string"),
        (
            TRANS,
            "salt",
            "salt = \"c381fb1a\"",
            "salt: give either ik and ck, or explicit keys",
        ),
        (
            TRANS,
            "outer_src",
            "outer_src = \"192.0.2.1\"",
            "outer_src: only an SA with mode",
        ),
        (
            TRANS,
            "encap_dport",
            "encap_dport = 4500",
            "encap_dport: only an SA with mode",
        ),
        (TRANS, "set", "set = -1", "set: must be an integer"),
        (
            TRANS,
            "dir",
            "dir = \"both\"",
            "dir: must be \"in\" or \"out\"",
        ),
        (
            TRANS,
            "seq",
            "seq = 0",
            "seq: must be an integer from 1 to 4294967295",
        ),
        (
            TRANS,
            "seq",
            "seq = 4294967296",
            "seq: must be an integer from 1 to 4294967295",
        ),
        (
            TRANS,
            "replay_window",
            "replay_window = 31",
            "replay_window: must be an integer from 32 to 4096",
        ),
        (
            TRANS,
            "replay_window",
            "replay_window = 4097",
            "replay_window: must be",
        ),
        (TRANS, "esn", "esn = 1", "esn: must be true or false"),
        (
            TRANS,
            "srcport",
            "srcport = 5",
            "srcport: unknown key; the keys are spi, mode",
        ),
        (TUNNEL, "outer_src", "", "outer_src: missing"),
        (TUNNEL, "outer_dst", "", "outer_dst: missing"),
        (
            TUNNEL,
            "outer_dst",
            "outer_dst = \"2001:db8::2\"",
            "outer_dst: must be of one family",
        ),
        (
            TUNNEL,
            "encap_dport",
            "encap_dport = 0",
            "encap_dport: must be an integer from 1",
        ),
        (TUNNEL, "salt", "", "salt: missing"),
        (
            TUNNEL,
            "salt",
            "salt = \"c381fb\"",
            "salt: must be 8 hexadecimal digits",
        ),
        (TUNNEL, "encryption_key", "", "encryption_key: missing"),
        (
            TUNNEL,
            "integrity_key",
            "integrity_key = \"00\"",
            "integrity_key: null with aes-gcm has no such key",
        ),
    ] {
        let said = error(&second(with(base, key, line)));
        let start = format!("SAD.toml: [[sa]] #2: {wanted}");
        assert!(said.starts_with(&start), "{key}: {said}");
        for secret in [&IK[1..9], &CK[1..9], "109130f1", "c381fb"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn explicit_keys_have_the_lengths_of_their_suite() {
    for (alg, ealg, integrity, encryption, salt) in [
        ("hmac-sha-1-96", "null", 20, 0, 0),
        ("hmac-sha-1-96", "aes-cbc", 20, 16, 0),
        ("aes-gmac", "null", 16, 0, 4),
        ("null", "aes-gcm", 0, 16, 4),
    ] {
        let mut text = with(&with(TRANS, "ik", ""), "ck", "");
        text = with(&text, "alg", &format!("alg = \"{alg}\""));
        text = with(&text, "ealg", &format!("ealg = \"{ealg}\""));
        let all = [
            ("integrity_key", integrity),
            ("encryption_key", encryption),
            ("salt", salt),
        ];
        for (key, len) in all {
            if len > 0 {
                text += &format!("{key} = \"{}\"\n", "5c".repeat(len));
            }
        }
        assert!(parse(&text).is_ok(), "{text}");
        for (key, len) in all {
            let longer = with(&text, key, &format!("{key} = \"{}\"", "5c".repeat(len + 1)));
            let said = error(&longer);
            assert!(
                said.starts_with(&format!("SAD.toml: [[sa]] #1: {key}: ")),
                "{said}"
            );
        }
    }
}

#[test]
fn one_destination_and_spi_is_one_sa() {
    let twice = format!("{TRANS}{}", with(TRANS, "src_port", "src_port = 1"));
    let said = error(&twice);
    assert!(
        said.starts_with("SAD.toml: [[sa]] #2: spi: [[sa]] #1 has this destination"),
        "{said}"
    );

    // The outer destination counts: a tunnel to the same place ...
    let spi = "spi = 2831146962";
    let tunnel = with(
        &with(TUNNEL, "spi", spi),
        "outer_dst",
        "outer_dst = \"203.0.113.5\"",
    );
    assert!(error(&format!("{TRANS}{tunnel}")).contains("#2: spi"));
    // ... but not one whose inner destination only is the same.
    assert!(parse(&format!("{TRANS}{}", with(TUNNEL, "spi", spi))).is_ok());
    // Another destination with one SPI is another SA.
    let other = with(TRANS, "dst", "dst = \"203.0.113.6\"");
    assert!(parse(&format!("{TRANS}{other}")).is_ok());
}

#[test]
fn what_is_no_sad_is_said_so() {
    assert!(error("[gm]\nuplink = \"eth0\"\n").starts_with("SAD.toml: unknown key gm"));
    assert!(error(&TRANS.replace("[[sa]]", "[sa]")).contains("two brackets"));
    let swapped = error(&format!("{TRANS}{IK} = \"ik\"\n"));
    assert!(
        swapped.starts_with("SAD.toml: [[sa]] #1: (a long key): unknown"),
        "{swapped}"
    );
    assert!(error("sa = [1]").starts_with("SAD.toml: [[sa]] #1: sa: must be a table"));
}

#[test]
fn syntax_errors_name_the_line_and_quote_nothing() {
    for broken in [
        format!("{TRANS}ik = \"{IK}\n"),
        TRANS.replace(&format!("\"{IK}\""), IK),
        TRANS.replace(&format!("ik = \"{IK}\""), &format!("ik \"{IK}\"")),
        format!("{TRANS}ck = \"{CK}\"\n"),
    ] {
        let said = error(&broken);
        assert!(said.starts_with("SAD.toml: line 1"), "{said}");
        assert!(
            !said.contains(&IK[..6]) && !said.contains(&CK[..6]),
            "{said}"
        );
    }
}

#[test]
fn a_row_has_no_secret_and_reads_back() {
    let sad = parse(&format!("{TRANS}{TUNNEL}")).map_err(|e| e.to_string());
    for entry in sad.expect("good").entries {
        let json = serde_json::to_string(&entry.row()).expect("json");
        for secret in [
            IK,
            CK,
            "109130f1",
            "c381fb1a",
            "integrity",
            "encryption",
            "salt",
        ] {
            assert!(!json.contains(secret), "{json}");
        }
        let back: SaRow = serde_json::from_str(&json).expect("json");
        assert_eq!(back, entry.row());
    }
}

proptest! {
    /// Damage anywhere in a file gives an error or a file, never a panic, and
    /// no error repeats a key.
    #[test]
    fn damage_is_survived(at in 0usize..1000, with in any::<u8>()) {
        let mut bytes = format!("{TRANS}{TUNNEL}").into_bytes();
        let at = at % bytes.len();
        bytes[at] = with;
        let text = String::from_utf8_lossy(&bytes);
        if let Err(e) = parse(&text) {
            let said = e.to_string();
            for secret in [&IK[..8], &IK[24..], &CK[..8], &CK[24..], "109130f1", "19322f7b"] {
                prop_assert!(!said.contains(secret), "{}", said);
            }
        }
    }
}
