use super::*;

const GOOD: &str = r#"
[ue]
uplink = "eth0"
address = "192.0.2.10"
pcscf = "192.0.2.1:5060"
domain = "home.test"
impi = "alice@home.test"
impu = "sip:alice@home.test"
k = "465b5ce8b199b49faa5f0a2ee238a6bc"
opc = "cd63cb71954a9f4e48a5994e37a02baf"
suites = ["null/aes-gcm"]
"#;

#[test]
fn a_good_file_is_read() {
    let config = Config::parse(GOOD, "ue.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.suites, [Suite::NullAesGcm]);
    assert_eq!(config.expires, 3600);
    assert_eq!(config.habits, Habits::default());
}

#[test]
fn habits_are_a_table_of_their_own() {
    let text = format!("{GOOD}\n[ue.habits]\ntransport = \"auto\"\nretries = 3\n");
    let config = Config::parse(&text, "ue.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.habits.transport, Carrier::Auto);
    assert_eq!((config.habits.retries, config.habits.renew), (3, true));
    for (line, wants) in [
        ("transport = \"sctp\"", "none of udp, tcp, auto"),
        ("trans = false", "udp_enc_tun = true is wanted"),
        ("retrys = 3", "retrys"),
    ] {
        let text = format!("{GOOD}\n[ue.habits]\n{line}\n");
        let error = Config::parse(&text, "ue.toml").err().expect(line);
        assert!(error.to_string().contains(wants), "{error}");
    }
}

#[test]
fn a_legacy_suite_is_offered_by_name_and_never_by_itself() {
    let text = GOOD.replace("null/aes-gcm", "hmac-md5-96/des-ede3-cbc");
    let config = Config::parse(&text, "ue.toml").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(config.suites, [Suite::HmacMd5DesEde3Cbc]);
    let text = GOOD.replace("suites = [\"null/aes-gcm\"]", "");
    let config = Config::parse(&text, "ue.toml").unwrap_or_else(|e| panic!("{e}"));
    assert!(config.suites.iter().all(|s| !s.is_legacy()));
}

#[test]
fn op_stands_for_the_opc_that_it_makes_with_k() {
    // TS 35.208, test set 1.
    let op = "op = \"cdc202d5123e20f62b6d676ac72cb318\"";
    let opc = "opc = \"cd63cb71954a9f4e48a5994e37a02baf\"";
    let of = |text: &str| Config::parse(text, "ue.toml");
    let made = of(&GOOD.replace(opc, op)).unwrap_or_else(|e| panic!("{e}"));
    let given = of(GOOD).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(*made.opc, *given.opc);
    for (text, wants) in [
        (GOOD.replace(opc, ""), "[ue] opc: is missing"),
        (format!("{GOOD}{op}"), "[ue] op: stands beside opc"),
        (GOOD.replace(opc, "op = \"cd\""), "[ue] op: 32 hex"),
    ] {
        let error = of(&text).err().expect("refused").to_string();
        assert!(error.contains(wants), "{error}");
    }
}

#[test]
fn errors_name_the_key_and_show_no_secret() {
    for (from, to, wants) in [
        ("465b5c", "465b5x", "[ue] k: 32 hex digits"),
        ("null/aes-gcm", "aes-gmac/aes-gcm", "[ue] suites: "),
        ("192.0.2.1:5060", "[2001:db8::1]:5060", "[ue] pcscf: "),
        ("suites", "expires = 0\nsuites", "[ue] expires: 0 seconds"),
        (
            "suites",
            "port_c = 1023\nsuites",
            "[ue] port_c: a protected",
        ),
        (
            "suites",
            "port_s = 5060\nsuites",
            "[ue] port_s: a protected",
        ),
        ("uplink", "uplnk", "uplnk"),
        ("k = \"", "k = ", "line "),
    ] {
        let text = GOOD.replacen(from, to, 1);
        let error = Config::parse(&text, "ue.toml")
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.starts_with("ue.toml: ") && error.contains(wants),
            "{error}"
        );
        assert!(!error.contains("e8b199"), "{error}");
    }
}
