//! Every rule for one table, broken.

use super::*;

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
        (TRANS, "alg", "alg = \"hmac-md5\"", "alg: must be"),
        (TRANS, "ealg", "ealg = \"des-cbc\"", "ealg: must be"),
        (
            TUNNEL,
            "alg",
            "alg = \"hmac-md5-96\"",
            "ealg: aes-gcm does not go with alg hmac-md5-96",
        ),
        (
            TUNNEL,
            "ealg",
            "ealg = \"des-ede3-cbc\"",
            "ealg: des-ede3-cbc does not go with alg null",
        ),
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
        ("hmac-md5-96", "null", 16, 0, 0),
        ("hmac-md5-96", "aes-cbc", 16, 16, 0),
        ("hmac-md5-96", "des-ede3-cbc", 16, 24, 0),
        ("hmac-sha-1-96", "des-ede3-cbc", 20, 24, 0),
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
fn legacy_suites_may_be_written_by_hand() {
    for suite in Suite::LEGACY {
        let text = with(TRANS, "alg", &format!("alg = \"{}\"", suite.alg()));
        let text = with(&text, "ealg", &format!("ealg = \"{}\"", suite.ealg()));
        let sad = parse(&text)
            .map_err(|e| e.to_string())
            .expect("a good file");
        let entry = &sad.entries[0];
        assert_eq!(entry.spec.suite, suite);
        let ik = hex::decode(IK).expect("hex");
        assert_eq!(entry.keys.integrity().map(|key| &key[..16]), Some(&ik[..]));
        let row = entry.row();
        assert_eq!(
            (row.alg.as_str(), row.ealg.as_str()),
            (suite.alg(), suite.ealg())
        );
    }
}
