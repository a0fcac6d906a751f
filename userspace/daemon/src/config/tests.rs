use std::path::Path;

use super::*;

const SMALL: &str = r#"
[gm]
uplinks = ["eth0"]
addresses = ["192.0.2.1"]
server_ports = [5064]
client_ports = ["5065-5068"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("f.toml")).map_err(|error| error.to_string())
}

/// `SMALL` with a line of `[gm]` put in the place of the one with that key.
fn with(key: &str, line: &str) -> String {
    let mut lines: Vec<&str> = SMALL.lines().filter(|old| !old.starts_with(key)).collect();
    lines.push(line);
    lines.join("\n")
}

#[test]
fn the_example_is_a_configuration() {
    let text = include_str!("../../gmespd.example.toml");
    let config = parse(text).unwrap();
    let edge = config.edge.clone().unwrap();
    assert_eq!(config.edge_config(&edge).unwrap().policy.suites().len(), 4);
    assert_eq!(config.gm.addresses.len(), 2);
}

#[test]
fn the_example_shows_the_defaults() {
    let example = parse(include_str!("../../gmespd.example.toml")).unwrap();
    let small = parse(SMALL).unwrap();
    assert_eq!(example.gm.max_sas, small.gm.max_sas);
    assert_eq!(example.gm.replay_window, small.gm.replay_window);
    assert_eq!(example.gm.encap_port, small.gm.encap_port);
    assert_eq!(example.gm.pin_dir, small.gm.pin_dir);
    assert_eq!(example.gm.gm0, small.gm.gm0);
    assert_eq!(example.control.socket, small.control.socket);
    assert_eq!(example.control.mode, small.control.mode);
    assert_eq!(example.log.level, small.log.level);
    let least = format!("{SMALL}[edge]\nnext_hop = \"127.0.0.1:1\"\n");
    let (edge, least) = (example.edge.unwrap(), parse(&least).unwrap().edge.unwrap());
    assert_eq!(edge.timers, least.timers);
    assert_eq!(edge.suites, least.suites);
    assert_eq!(edge.core(), least.core());
    assert_eq!(edge.sip_port(), least.sip_port());
    assert_eq!(edge.confidentiality, least.confidentiality);
    assert_eq!(edge.door, least.door);
    let switches = |edge: &Edge| {
        [
            edge.enabled,
            edge.nat_traversal,
            edge.legacy_suites,
            edge.resolve_via,
            edge.emergency_in_clear,
        ]
    };
    assert_eq!(switches(&edge), switches(&least));
    let sip = |edge: &Edge| {
        let sip = small_and(edge).expect("good");
        (sip.tcp_above, sip.core_transport, sip.service_route)
    };
    assert_eq!(sip(&edge), sip(&least));
    let home = example.home.unwrap();
    assert_eq!(home.listen, defaults::home_listen());
    assert!(!home.always_challenge);
}

/// What gm-sip is told of an edge on `SMALL`'s link.
fn small_and(edge: &Edge) -> Result<gm_sip::edge::EdgeConfig, ConfigError> {
    let mut edge = edge.clone();
    (edge.port_ps, edge.port_pc, edge.home) = (None, None, None);
    edge.next_hop = Some(SocketAddr::from(([127, 0, 0, 1], 1)));
    parse(SMALL).unwrap().edge_config(&edge)
}

#[test]
fn ports_are_numbers_or_ranges() {
    let config = parse(SMALL).unwrap();
    assert!(config.is_protected(5064) && config.is_protected(5066));
    assert!(!config.is_protected(5069));
    for bad in ["0", "65536", "\"9-8\"", "\"0-1\"", "\"x\"", "-1"] {
        let error = parse(&with("server_ports", &format!("server_ports = [{bad}]"))).unwrap_err();
        assert!(error.contains("[gm] server_ports"), "{bad}: {error}");
        assert!(error.contains("a port from 1 to 65535"), "{bad}: {error}");
    }
}

#[test]
fn errors_name_file_line_table_key_and_advice() {
    let error = parse(&format!("{SMALL}replay_windw = 3\n")).unwrap_err();
    assert!(
        error.starts_with("f.toml: line 7: [gm] replay_windw: unknown field"),
        "{error}"
    );
    assert!(
        error.contains("remove the key or correct its name"),
        "{error}"
    );

    let error = parse("[gm]\nuplinks = [\"a\"]\n").unwrap_err();
    assert!(
        error.contains("[gm]") && error.contains("missing field `addresses`"),
        "{error}"
    );

    let error = parse(&with("uplinks", "uplinks = [\"a\", \"b\"]")).unwrap_err();
    assert!(
        error.contains("f.toml: [gm] uplinks: 2 uplinks are listed"),
        "{error}"
    );
    assert!(error.contains("keep one"), "{error}");
}

#[test]
fn bounds_of_gm() {
    for (key, line) in [
        ("addresses", "addresses = []"),
        ("addresses", "addresses = [\"0.0.0.0\"]"),
        ("addresses", "addresses = [\"192.0.2.1\", \"192.0.2.1\"]"),
        (
            "advertised",
            "advertised = { \"192.0.2.2\" = \"198.51.100.7\" }",
        ),
        (
            "advertised",
            "advertised = { \"192.0.2.1\" = \"2001:db8::7\" }",
        ),
        (
            "advertised",
            "advertised = { \"192.0.2.1\" = \"127.0.0.1\" }",
        ),
        (
            "advertised",
            "advertised = { \"192.0.2.1\" = \"192.0.2.1\" }",
        ),
        ("client_ports", "client_ports = [4500]"),
        ("max_sas", "max_sas = 100"),
        ("replay_window", "replay_window = 31"),
        ("replay_window", "replay_window = 4097"),
        ("encap_port", "encap_port = 0"),
        ("gm0", "gm0 = \"a-name-too-long\""),
        ("pin_dir", "pin_dir = \"here\""),
        ("uplinks", "uplinks = [\"a b\"]"),
    ] {
        let error = parse(&with(key, line)).unwrap_err();
        assert!(error.contains(&format!("[gm] {key}: ")), "{line}: {error}");
    }
    assert!(parse(&with("pin_dir", "pin_dir = \"off\"")).is_ok());
    assert!(parse(&with("replay_window", "replay_window = 4096")).is_ok());
}

#[test]
fn a_static_nat_is_named_by_pairs() {
    let text = with(
        "advertised",
        "advertised = { \"192.0.2.1\" = \"198.51.100.7\" }",
    );
    let config = parse(&text).unwrap();
    let pair = ["192.0.2.1", "198.51.100.7"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(config.advertised(), [(pair[0], pair[1])]);
    assert!(parse(SMALL).unwrap().advertised().is_empty());
    let two = "addresses = [\"192.0.2.1\", \"192.0.2.2\"]\n\
               advertised = { \"192.0.2.1\" = \"198.51.100.7\", \"192.0.2.2\" = \"198.51.100.7\" }";
    let error = parse(&with("addresses", two)).unwrap_err();
    assert!(
        error.contains("[gm] advertised: 198.51.100.7 stands twice"),
        "{error}"
    );
    let error = parse(&with(
        "advertised",
        "advertised = { \"local\" = \"public\" }",
    ))
    .unwrap_err();
    assert!(error.contains("advertised"), "{error}");
}

#[test]
fn the_edge_fits_the_link() {
    let edge = "[edge]\nport_ps = 5064\nport_pc = \"5065-5067\"\ndomain = \"ims.example\"\n";
    let hop = "next_hop = \"127.0.0.1:5070\"\n";
    assert!(parse(&format!("{SMALL}{edge}{hop}")).is_ok());
    for (swap, by, key) in [
        ("5064", "5063", "port_ps"),
        ("5065-5067", "5063-5067", "port_pc"),
        ("5065-5067", "5065-5066", "port_pc"),
        ("5065-5067", "5065-5069", "port_pc"),
        ("ims.example", "ims example", "domain"),
        (hop, "", "next_hop"),
        (hop, "home = \"embedded\"\n", "home"),
        (hop, "next_hop = \"[::1]:5070\"\n", "core"),
        (
            hop,
            "next_hop = \"127.0.0.1:5070\"\nhome = \"embedded\"\n",
            "home",
        ),
        (
            hop,
            "next_hop = \"127.0.0.1:5070\"\nsip_port = 5066\n",
            "sip_port",
        ),
        (
            hop,
            "next_hop = \"127.0.0.1:5070\"\nsuites = [\"hmac-md5-96/null\"]\n",
            "suites",
        ),
        (
            hop,
            "next_hop = \"127.0.0.1:5070\"\nsuites = [\"null/null\"]\n",
            "suites",
        ),
    ] {
        let text = format!("{SMALL}{}", format!("{edge}{hop}").replace(swap, by));
        let error = parse(&text).unwrap_err();
        assert!(
            error.contains(&format!("[edge] {key}: ")),
            "{swap} -> {by}: {error}"
        );
    }
}

#[test]
fn the_home_listens_on_loopback_only() {
    let home = "[home]\ndomain = \"d\"\nsubscribers = \"s\"\nlisten = \"0.0.0.0:5061\"\n";
    let error = parse(&format!("{SMALL}{home}")).unwrap_err();
    assert!(error.contains("[home] listen: "), "{error}");
}

#[test]
fn the_socket_is_not_for_everybody() {
    for mode in ["0666", "0400", "rw", "10660"] {
        let error = parse(&format!("{SMALL}[control]\nmode = \"{mode}\"\n")).unwrap_err();
        assert!(error.contains("[control] mode: "), "{error}");
    }
    assert!(parse(&format!("{SMALL}[control]\nmode = \"0660\"\n")).is_ok());
}

#[test]
fn strangers_get_a_part_of_the_sets() {
    let limits = |sas: u32| {
        let text = with(
            "max_sas",
            &format!("max_sas = {sas}\n[edge]\nnext_hop = \"127.0.0.1:1\""),
        );
        let config = parse(&text).unwrap();
        let limits = config
            .edge_config(config.edge.as_ref().unwrap())
            .unwrap()
            .limits;
        [
            limits.sets_for_strangers,
            limits.pending,
            limits.pending_per_source,
        ]
    };
    assert_eq!(limits(4096), [832, 512, 64]);
    assert_eq!(limits(64), [13, 8, 2]);
    assert_eq!(limits(16), [4, 2, 2]);
}

fn edge(lines: &str) -> Result<gm_sip::edge::EdgeConfig, String> {
    let config = parse(&format!("{SMALL}[edge]\n{lines}"))?;
    let edge = config.edge.as_ref().unwrap();
    config.edge_config(edge).map_err(|error| error.to_string())
}

const HOP: &str = "next_hop = \"127.0.0.1:5070\"\n";

#[test]
fn every_key_of_the_edge_reaches_gm_sip() {
    let sip = edge(&format!(
        "{HOP}legacy_suites = true\nresolve_via = false\ntcp_above = 0\ncore_transport = \"tcp\"\n\
         service_route = \"refuse\"\nemergency_in_clear = true\nnat_traversal = false\n\
         core_trusted = [\"192.0.2.7\"]\nconfidentiality = \"required\"\n\
         [edge.timers]\nawait_auth_s = 1\nmargin_s = 2\nlinger_s = 3\ntransaction_s = 4\n\
         invite_s = 181\nshort_left_s = 6\n"
    ))
    .unwrap();
    assert!(sip.policy.legacy && sip.emergency_in_clear);
    assert!(!sip.resolve_via && !sip.nat_traversal);
    assert_eq!(sip.tcp_above, usize::MAX);
    assert_eq!(sip.core_transport, gm_sip::Transport::Tcp);
    assert_eq!(sip.service_route, gm_sip::edge::ServiceRoute::Refuse);
    assert_eq!(sip.core_trusted, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
    let t = sip.timers;
    assert_eq!(
        [
            t.registration,
            t.margin,
            t.linger,
            t.transaction,
            t.invite,
            t.short_left
        ],
        [1000, 2000, 3000, 4000, 181_000, 6000]
    );
    assert_eq!(
        edge(&format!("{HOP}tcp_above = 900\n")).unwrap().tcp_above,
        900
    );
}

#[test]
fn legacy_suites_are_off_warn_and_come_last() {
    assert!(!edge(HOP).unwrap().policy.legacy);
    let text = format!("{SMALL}[edge]\n{HOP}");
    assert_eq!(parse(&text).unwrap().warnings(), [""; 0]);
    let config = parse(&format!("{text}legacy_suites = true\n")).unwrap();
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("hmac-md5-96 and des-ede3-cbc"),
        "{warnings:?}"
    );
    let suites = config
        .edge_config(config.edge.as_ref().unwrap())
        .unwrap()
        .policy
        .suites();
    assert_eq!(suites.len(), 8);
    assert!(
        suites[..4].iter().all(|s| !s.is_legacy()) && suites[4..].iter().all(|s| s.is_legacy())
    );
    let error = edge(&format!("{HOP}suites = [\"hmac-md5-96/null\"]\n")).unwrap_err();
    assert!(
        error.contains("[edge] suites: ") && error.contains("set legacy_suites = true"),
        "{error}"
    );
}

#[test]
fn suites_fit_the_policy_and_stand_once() {
    for (lines, says) in [
        ("suites = []\n", "leave it out"),
        (
            "suites = [\"null/aes-gcm\"]\nconfidentiality = \"never\"\n",
            "add \"hmac-sha-1-96/null\"",
        ),
        (
            "suites = [\"aes-gmac/null\"]\nconfidentiality = \"required\"\n",
            "add \"hmac-sha-1-96/aes-cbc\"",
        ),
        (
            "suites = [\"aes-gmac/null\", \"aes-gmac/null\"]\n",
            "stands twice",
        ),
    ] {
        let error = edge(&format!("{HOP}{lines}")).unwrap_err();
        assert!(
            error.contains("[edge] suites: ") && error.contains(says),
            "{lines}: {error}"
        );
    }
    let own = edge(&format!(
        "{HOP}suites = [\"aes-gmac/null\", \"hmac-sha-1-96/null\"]\n"
    ))
    .unwrap();
    assert_eq!(
        own.policy.suites(),
        [gm_esp::Suite::AesGmacNull, gm_esp::Suite::HmacSha1Null]
    );
}

#[test]
fn times_that_cannot_work() {
    for (key, value) in [
        ("await_auth_s", 0),
        ("transaction_s", 0),
        ("invite_s", 180),
        ("margin_s", 30_000),
    ] {
        let error = edge(&format!("{HOP}[edge.timers]\n{key} = {value}\n")).unwrap_err();
        assert!(error.contains(&format!("[edge.timers] {key}: ")), "{error}");
    }
}

#[test]
fn with_the_second_door_the_sip_is_the_proxys() {
    let sip = edge("door = \"http\"\nlegacy_suites = true\n").unwrap();
    assert!(sip.policy.legacy && sip.core.ip().is_unspecified());
    let config = parse(&format!("{SMALL}[edge]\ndoor = \"http\"\n")).unwrap();
    assert!(!config.edge.unwrap().speaks_sip());
    for (key, value) in [
        ("sip_port", "5060"),
        ("next_hop", "\"127.0.0.1:1\""),
        ("home", "\"embedded\""),
        ("core", "\"127.0.0.1:5062\""),
        ("core_transport", "\"udp\""),
        ("core_trusted", "[\"192.0.2.7\"]"),
        ("tcp_above", "1300"),
        ("service_route", "\"pass\""),
        ("emergency_in_clear", "true"),
    ] {
        let error = edge(&format!("door = \"http\"\n{key} = {value}\n")).unwrap_err();
        assert!(error.contains(&format!("[edge] {key}: ")), "{error}");
    }
    assert!(
        edge("door = \"window\"\n")
            .unwrap_err()
            .contains("[edge] door")
    );
}

#[test]
fn the_http_door_is_on_loopback_and_locked() {
    let control = |lines: &str| parse(&format!("{SMALL}[control]\n{lines}"));
    let both = "http = \"127.0.0.1:8443\"\ntoken_file = \"/etc/gmesp/token\"\n";
    assert!(control(both).is_ok());
    assert!(control(&both.replace("127.0.0.1", "[::1]")).is_ok());
    for (from, to, key) in [
        ("127.0.0.1", "192.0.2.1", "http"),
        ("127.0.0.1", "0.0.0.0", "http"),
        ("8443", "0", "http"),
        ("token_file = \"/etc/gmesp/token\"\n", "", "token_file"),
        ("http = \"127.0.0.1:8443\"\n", "", "token_file"),
        ("/etc/gmesp/token", "token", "token_file"),
    ] {
        let error = control(&both.replace(from, to)).unwrap_err();
        assert!(
            error.contains(&format!("[control] {key}: ")),
            "{to}: {error}"
        );
    }
}
