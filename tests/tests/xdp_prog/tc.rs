//! The tc programs: guard, egress, injection.

use gm_abi::verdict::Reason;

use super::frames::*;
use super::lab::*;

fn guard(lab: &mut Lab, frame: &[u8]) -> (u32, Vec<(Reason, u64)>) {
    let ran = lab.tc("gm_tc_guard", frame, 0);
    (ran.action, ran.counted)
}

fn dropped(reason: Reason) -> (u32, Vec<(Reason, u64)>) {
    (TC_DROP, vec![(reason, 1)])
}

fn passed() -> (u32, Vec<(Reason, u64)>) {
    (TC_NEXT, vec![])
}

fn taken() -> (u32, Vec<(Reason, u64)>) {
    (TC_REDIRECT, vec![(Reason::SteerOutbound, 1)])
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_guard_drops_what_did_not_come_through_a_worker() {
    let mut lab = Lab::new();
    let clear = v4(UDP, &udp(5060, PROTECTED, b"REGISTER"));
    let first = |payload: &[u8]| frame(THEIRS_V4, OURS_V4, UDP, 0x2000, payload);
    let seven = (0..7).fold(udp(1, 5060, b"x"), |rest, i| {
        extension(if i == 0 { UDP } else { DESTINATION }, &rest)
    });
    for (name, frame, reason) in [
        ("UDP", clear.clone(), Reason::CleartextProtected),
        (
            "TCP",
            v6(TCP, &tcp(1, PROTECTED)),
            Reason::CleartextProtected,
        ),
        (
            "behind extension headers",
            v6(
                0,
                &extension(DESTINATION, &extension(UDP, &udp(1, PROTECTED, b"x"))),
            ),
            Reason::CleartextProtected,
        ),
        (
            "VLAN",
            tagged(&clear, &[0x8100]),
            Reason::CleartextProtected,
        ),
        (
            "QinQ",
            tagged(&clear, &[0x88a8, 0x8100]),
            Reason::CleartextProtected,
        ),
        (
            "first fragment",
            first(&udp(1, PROTECTED, b"x")),
            Reason::CleartextProtected,
        ),
        (
            "first fragment without ports",
            first(&[0x13]),
            Reason::CleartextProtected,
        ),
        (
            "later fragment",
            frame(THEIRS_V4, OURS_V4, UDP, 185, b"x"),
            Reason::CleartextProtected,
        ),
        (
            "IPv6 fragment",
            v6(FRAGMENT, &fragment(DESTINATION, 1448, b"x")),
            Reason::CleartextProtected,
        ),
        (
            "UDP without ports",
            v4(UDP, &[0x13, 0xf0]),
            Reason::Malformed,
        ),
        (
            "a chain too long",
            v6(DESTINATION, &seven),
            Reason::Malformed,
        ),
        ("ESP", v4(ESP, &esp(1, 1)), Reason::UnknownSpi),
        (
            "ESP in UDP",
            v6(UDP, &udp(1, 4500, &esp(1, 1))),
            Reason::UnknownSpi,
        ),
        (
            "keepalive",
            v4(UDP, &udp(1, 4500, &[0xff])),
            Reason::Keepalive,
        ),
    ] {
        assert_eq!(guard(&mut lab, &frame), dropped(reason), "{name}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_guard_lets_everything_else_through() {
    let mut lab = Lab::new();
    let marker = [&[0u8; 4][..], &[0xab; 60]].concat();
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    for (name, frame) in [
        ("unprotected port", v4(UDP, &udp(1, 5060, b"REGISTER"))),
        ("protected source port", v4(TCP, &tcp(PROTECTED, 5060))),
        (
            "for somebody else",
            frame(THEIRS_V4, THEIRS_V4, UDP, 0, &udp(1, PROTECTED, b"x")),
        ),
        (
            "somebody else's fragment",
            frame(THEIRS_V4, THEIRS_V4, UDP, 185, b"x"),
        ),
        ("ICMP", v4(1, &[8, 0, 0, 0, 0, 0, 0, 0])),
        ("fragment of ICMP", frame(THEIRS_V4, OURS_V4, 1, 185, b"x")),
        ("marker", v4(UDP, &udp(1, 4500, &marker))),
        ("ARP", arp),
    ] {
        assert_eq!(guard(&mut lab, &frame), passed(), "{name}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn the_cookie_opens_the_guard_and_is_taken_off() {
    let mut lab = Lab::new();
    for frame in [
        v4(UDP, &udp(5060, PROTECTED, b"x")),
        frame(THEIRS_V4, OURS_V4, UDP, 185, b"x"),
    ] {
        let ran = lab.tc("gm_tc_guard", &frame, COOKIE);
        assert_eq!((ran.action, ran.mark), (TC_NEXT, 0));
        assert_eq!(ran.counted, [(Reason::PassInjected, 1)]);
        let ran = lab.tc("gm_tc_guard", &frame, COOKIE ^ 1);
        assert_eq!((ran.action, ran.mark), (TC_DROP, COOKIE ^ 1));
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn without_a_cookie_no_mark_opens_the_guard() {
    let mut lab = Lab::new();
    let mut config = lab.array::<[u8; 32]>("CONFIG").get(&0, 0).unwrap();
    config[16..20].fill(0);
    lab.array::<[u8; 32]>("CONFIG").set(0, config, 0).unwrap();
    let clear = v4(UDP, &udp(5060, PROTECTED, b"x"));
    assert_eq!(guard(&mut lab, &clear), dropped(Reason::CleartextProtected));
    let ran = lab.tc("gm_tc_gm0", &clear, 0);
    assert_eq!((ran.action, ran.counted), dropped(Reason::Malformed));
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn gm0_marks_and_injects() {
    let mut lab = Lab::new();
    let b = v4(UDP, &udp(5060, PROTECTED, b"x"));
    let ran = lab.tc("gm_tc_gm0", &b, 0);
    assert_eq!((ran.action, ran.mark), (TC_REDIRECT, COOKIE));
    assert_eq!(ran.data, b);
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let ran = lab.tc("gm_tc_gm0", &arp, 0);
    assert_eq!((ran.action, ran.counted), dropped(Reason::Malformed));
}

fn egress(lab: &mut Lab, frame: &[u8]) -> (u32, Vec<(Reason, u64)>) {
    let ran = lab.tc("gm_tc_egress", frame, 0);
    (ran.action, ran.counted)
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn egress_takes_what_leaves_from_a_protected_port() {
    let mut lab = Lab::new();
    let from = |proto, payload: &[u8]| frame(OURS_V4, THEIRS_V4, proto, 0, payload);
    let from_v6 = |proto, payload: &[u8]| frame(OURS_V6, THEIRS_V6, proto, 0, payload);
    let udp_out = from(UDP, &udp(PROTECTED, 5060, b"x"));
    for (name, frame, answer) in [
        ("UDP", udp_out.clone(), taken()),
        ("TCP", from_v6(TCP, &tcp(PROTECTED, 5060)), taken()),
        (
            "extension header",
            from_v6(0, &extension(UDP, &udp(PROTECTED, 1, b"x"))),
            taken(),
        ),
        ("VLAN", tagged(&udp_out, &[0x8100]), taken()),
        (
            "unprotected port",
            from(UDP, &udp(5060, 5060, b"x")),
            passed(),
        ),
        (
            "protected destination port",
            from(UDP, &udp(5060, PROTECTED, b"x")),
            passed(),
        ),
        ("ICMP", from(1, &[8, 0, 0, 0, 0, 0, 0, 0]), passed()),
        ("ESP", from(ESP, &esp(1, 1)), passed()),
        (
            "not our address",
            v4(UDP, &udp(PROTECTED, 5060, b"x")),
            passed(),
        ),
        (
            "UDP without ports",
            from(UDP, &[0x13]),
            dropped(Reason::OutMalformed),
        ),
        (
            "hidden",
            from_v6(DESTINATION, &[UDP, 9, 0, 0, 0, 0, 0, 0]),
            dropped(Reason::OutMalformed),
        ),
    ] {
        assert_eq!(egress(&mut lab, &frame), answer, "{name}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn egress_of_another_interface_drops() {
    let mut lab = Lab::new();
    // The test's packets go through interface 1.
    lab.configure(2, 1, &[OURS_V4, OURS_V6]);
    let from = |port| frame(OURS_V4, THEIRS_V4, UDP, 0, &udp(port, 5060, b"x"));
    assert_eq!(egress(&mut lab, &from(PROTECTED)), dropped(Reason::OutNoSa));
    assert_eq!(egress(&mut lab, &from(5060)), passed());
}

/// What a VLAN device on a VLAN device hands down: the EtherType of a tag, the
/// other tag beside the packet, and the network layer at the IP header.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn egress_reads_behind_stacked_vlan_devices() {
    let mut lab = Lab::new();
    let stacked = |src, sport| {
        let mut b = frame(src, THEIRS_V4, UDP, 0, &udp(sport, 5060, b"x"));
        b[12..14].copy_from_slice(&[0x81, 0]);
        b
    };
    let protected = stacked(OURS_V4, PROTECTED);
    assert_eq!(egress(&mut lab, &protected), taken());
    assert_eq!(egress(&mut lab, &stacked(OURS_V4, 5060)), passed());
    assert_eq!(egress(&mut lab, &stacked(THEIRS_V4, PROTECTED)), passed());
}

/// The stack answers an opened packet for a closed port with an ICMP error that
/// quotes it.
#[test]
#[ignore = "needs root: run by ./tests/run"]
fn no_icmp_error_quotes_an_opened_packet() {
    let mut lab = Lab::new();
    let ip = |frame: Vec<u8>| frame[14..].to_vec();
    let icmp = |kind: u8, about: &[u8]| [&[kind, 3, 0, 0, 0, 0, 0, 0], about].concat();
    let v4_error = |kind, about: &[u8]| frame(OURS_V4, THEIRS_V4, 1, 0, &icmp(kind, about));
    let v6_error = |kind, about: &[u8]| frame(OURS_V6, THEIRS_V6, 58, 0, &icmp(kind, about));
    // Longer than what is quoted of it.
    let long = udp(5060, PROTECTED, &[b'x'; 900]);
    let mut cut = ip(v4(UDP, &long));
    cut.truncate(548);
    let opened_v6 = ip(v6(TCP, &tcp(5060, PROTECTED)));
    let behind = ip(v6(
        DESTINATION,
        &extension(UDP, &udp(5060, PROTECTED, b"x")),
    ));
    let later = ip(frame(THEIRS_V4, OURS_V4, UDP, 185, b"secret"));
    // Ports stand behind the options; in front of them is a protected one.
    let mut options = ip(v4(UDP, &udp(PROTECTED, PROTECTED, b"")));
    options.truncate(24);
    options[0] = 0x46;
    options.extend(udp(1, 5060, b"x"));
    for (name, error, answer) in [
        ("port", v4_error(3, &cut), dropped(Reason::OutNoSa)),
        ("time", v4_error(11, &cut), dropped(Reason::OutNoSa)),
        ("fragment", v4_error(11, &later), dropped(Reason::OutNoSa)),
        ("IPv6", v6_error(1, &opened_v6), dropped(Reason::OutNoSa)),
        (
            "VLAN",
            tagged(&v4_error(3, &cut), &[0x8100]),
            dropped(Reason::OutNoSa),
        ),
        ("nothing", v4_error(3, &[]), dropped(Reason::OutMalformed)),
        (
            "clear port",
            v4_error(3, &ip(v4(UDP, &udp(1, 5060, b"x")))),
            passed(),
        ),
        ("ESP", v4_error(3, &ip(v4(ESP, &esp(1, 1)))), passed()),
        (
            "somebody else's",
            v4_error(3, &ip(frame(THEIRS_V4, THEIRS_V4, UDP, 0, &long))),
            passed(),
        ),
        ("options", v4_error(3, &options), passed()),
        ("no port", v4_error(3, &cut[..20]), dropped(Reason::OutNoSa)),
        (
            "no header",
            v4_error(3, &cut[..16]),
            dropped(Reason::OutMalformed),
        ),
        ("extensions", v6_error(1, &behind), dropped(Reason::OutNoSa)),
        (
            "IPv6 clear",
            v6_error(1, &ip(v6(TCP, &tcp(1, 5060)))),
            passed(),
        ),
        ("IPv6 ESP", v6_error(1, &ip(v6(ESP, &esp(1, 1)))), passed()),
        ("echo reply", v4_error(0, &cut), passed()),
        ("IPv6 echo reply", v6_error(129, &opened_v6), passed()),
    ] {
        assert_eq!(egress(&mut lab, &error), answer, "{name}");
    }
}

#[test]
#[ignore = "needs root: run by ./tests/run"]
fn egress_follows_the_first_fragment() {
    let mut lab = Lab::new();
    let id = |mut b: Vec<u8>, id: u8| {
        b[19] = id;
        b
    };
    let first = |sport| {
        frame(
            OURS_V4,
            THEIRS_V4,
            UDP,
            0x2000,
            &udp(sport, 5060, b"01234567"),
        )
    };
    let later = frame(OURS_V4, THEIRS_V4, UDP, 2, b"x");
    assert_eq!(
        egress(&mut lab, &id(later.clone(), 1)),
        dropped(Reason::OutMalformed)
    );
    assert_eq!(egress(&mut lab, &id(first(PROTECTED), 1)), taken());
    assert_eq!(egress(&mut lab, &id(later.clone(), 1)), taken());
    assert_eq!(egress(&mut lab, &id(first(5060), 2)), passed());
    assert_eq!(egress(&mut lab, &id(later.clone(), 2)), passed());
    // An identification that is used again.
    assert_eq!(egress(&mut lab, &id(first(PROTECTED), 2)), taken());
    assert_eq!(egress(&mut lab, &id(later, 2)), taken());
    let icmp = frame(OURS_V4, THEIRS_V4, 1, 2, b"x");
    assert_eq!(egress(&mut lab, &icmp), passed());
    let no_ports = frame(OURS_V4, THEIRS_V4, UDP, 0x2000, &[1, 2]);
    assert_eq!(egress(&mut lab, &no_ports), dropped(Reason::OutMalformed));

    let v6 = |place, payload: &[u8]| {
        frame(
            OURS_V6,
            THEIRS_V6,
            FRAGMENT,
            0,
            &fragment(UDP, place, payload),
        )
    };
    assert_eq!(
        egress(&mut lab, &v6(16, b"x")),
        dropped(Reason::OutMalformed)
    );
    assert_eq!(
        egress(&mut lab, &v6(1, &udp(PROTECTED, 5060, b"01234567"))),
        taken()
    );
    assert_eq!(egress(&mut lab, &v6(16, b"x")), taken());
}
