use gm_esp::{Mode, SelProto};
use proptest::prelude::*;

use super::*;

mod rules;

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
