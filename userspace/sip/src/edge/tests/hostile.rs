//! What a phone or a core writes to be read in two ways.

use super::rig::*;
use super::*;

/// A registered phone; the answer to its challenge that `again` sends once more.
fn registered(rig: &mut Rig) -> (Phone, SocketAddr, SocketAddr) {
    let phone = phone("a", 1);
    rig.register(&phone);
    let (source, local) = phone.protected();
    (phone, source, local)
}

fn refresh(phone: &Phone, branch: &str) -> String {
    let at = SocketAddr::new(phone.source.ip(), phone.ends.port_s);
    let text = phone.register(at, "nonce=\"\",response=\"\"", "");
    let offer = format!("Security-Client: {}\r\n", phone.offer());
    text.replace("branch=z9hG4bK", &format!("branch=z9hG4bK{branch}"))
        .replace(&offer, "")
}

fn forwarded(out: &[Output]) -> Vec<String> {
    let text = |o: &Output| match o {
        Output::ToCore { bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    };
    out.iter().filter_map(text).collect()
}

#[test]
fn another_request_under_a_known_branch_is_no_retransmission() {
    let mut rig = Rig::new();
    let (phone, source, local) = registered(&mut rig);
    let first = refresh(&phone, "x");
    let up = forwarded(&rig.ue(source, local, &first));
    assert!(up[0].contains("integrity-protected=\"yes\""), "{up:?}");
    assert_eq!(forwarded(&rig.ue(source, local, &first)), up);
    // Through the SA, and in clear, where everybody at this address can write it.
    let other = first
        .replace("username=\"a@", "username=\"b@")
        .replace("t: <sip:a@", "t: <sip:b@");
    for (source, local) in [(source, local), (phone.source, addr(CLEAR))] {
        assert!(forwarded(&rig.ue(source, local, &other)).is_empty());
    }
    assert!(forwarded(&rig.ue(phone.source, addr(CLEAR), &first)).is_empty());
}

#[test]
fn two_users_in_one_register_reach_nobody() {
    let mut rig = Rig::new();
    let (phone, source, local) = registered(&mut rig);
    let own = "Authorization: Digest username=\"a@home.example\"";
    let foreign = "Digest username=\"b@home.example\",realm=\"h\",nonce=\"\",response=\"\"";
    for (n, credentials) in [
        format!("Authorization: {foreign}\r\n{own}"),
        format!("{own},username=\"b@home.example\""),
        format!("{own},Digest username=\"b@home.example\""),
        format!("{own}\r\nauthorization : {foreign}\r\nX: y"),
        format!("Authorization: Other integrity-protected=\"yes\"\r\n{own}"),
        format!("{own},x=\"\\\",integrity-protected=\\\"yes\""),
        format!("{own},x=\"y,integrity-protected=\"yes\""),
        format!("{own},x=\"y\",z=\"open"),
        format!("{own},username*=UTF-8''b%40home.example"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = refresh(&phone, &format!("two{n}")).replace(own, &credentials);
        let out = rig.ue(source, local, &text);
        assert!(forwarded(&out).is_empty(), "{credentials}: {out:?}");
    }
    assert_eq!(rig.refusals(), [Refusal::Headers; 9]);
}

#[test]
fn a_header_that_stands_once_stands_once() {
    let mut rig = Rig::new();
    let (phone, source, local) = registered(&mut rig);
    for (n, more) in [
        "To: <sip:b@home.example>",
        "From: <sip:b@home.example>;tag=9",
        "f: <sip:b@home.example>;tag=9",
        "Call-ID: other",
        "CSeq: 9 REGISTER",
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("{more}\r\nMax-Forwards:");
        let text = refresh(&phone, &format!("once{n}")).replace("Max-Forwards:", &line);
        let out = rig.ue(source, local, &text);
        assert!(forwarded(&out).is_empty(), "{more}: {out:?}");
    }
    let cseq = refresh(&phone, "cseq").replace("1 REGISTER", "1 MESSAGE");
    assert!(forwarded(&rig.ue(source, local, &cseq)).is_empty());
}

#[test]
fn no_line_hides_in_another() {
    let mut rig = Rig::new();
    let (phone, source, local) = registered(&mut rig);
    for (n, subject) in [
        "x\rP-Asserted-Identity: <sip:b@home.example>",
        "x\r\rP-Asserted-Identity: <sip:b@home.example>",
        "x\0P-Asserted-Identity: <sip:b@home.example>",
    ]
    .into_iter()
    .enumerate()
    {
        let line = format!("Subject: {subject}\r\nMax-Forwards:");
        let text = refresh(&phone, &format!("hide{n}")).replace("Max-Forwards:", &line);
        let out = rig.ue(source, local, &text);
        assert!(forwarded(&out).is_empty(), "{subject:?}: {out:?}");
    }
    assert_eq!(rig.refusals(), [Refusal::Malformed; 3]);
}

#[test]
fn an_identity_that_others_read_otherwise_is_refused() {
    let mut rig = Rig::new();
    for (n, to) in [
        "sip:a@home.example, <sip:b@home.example>",
        "sip:a@home.example;x=<sip:b@home.example>",
        "\"a <sip:a@home.example>",
        "<mailto:a@home.example>",
    ]
    .into_iter()
    .enumerate()
    {
        let mut phone = phone("a", 1);
        phone.call = 100 + n as u32;
        let text = phone
            .sm1()
            .replace("t: <sip:a@home.example>", &format!("t: {to}"));
        let out = rig.ue(phone.source, addr(CLEAR), &text);
        assert!(forwarded(&out).is_empty(), "{to}: {out:?}");
    }
}

#[test]
fn what_only_the_network_says_is_taken_from_a_phone() {
    let mut rig = Rig::new();
    let (phone, source, local) = registered(&mut rig);
    let lines = "Path: <sip:b@203.0.113.66;lr>\r\nP-Asserted-Service: x\r\n\
                 P-Charging-Vector: icid-value=1\r\nP-Served-User: <sip:b@home.example>\r\nMax-Forwards:";
    let text = refresh(&phone, "np").replace("Max-Forwards:", lines);
    let up = forwarded(&rig.ue(source, local, &text)).remove(0);
    assert_eq!(up.matches("Path: ").count(), 1, "{up}");
    for name in ["P-Asserted-Service", "P-Charging-Vector", "P-Served-User"] {
        assert!(!up.contains(name), "{up}");
    }
}

#[test]
fn keys_never_reach_the_phone_in_any_form() {
    for header in [
        format!("WWW-Authenticate: Basic realm=\"x\", Digest ik=\"{IK}\", ck=\"{CK}\""),
        format!("WWW-Authenticate: Digest realm=\"a\",nonce=\"b\", Digest ik=\"{IK}\",CK={CK}"),
        format!("WWW-Authenticate: Digest realm=\"open,ik=\"{IK}\",ck=\"{CK}\""),
        format!("Proxy-Authenticate: Digest\r\n\tik = \"{IK}\" ,\r\n ck=\"{CK}\",realm=\"a\""),
        format!("Authentication-Info: ik=\"{IK}\",ck=\"{CK}\",qop=auth"),
        format!("Proxy-Authentication-Info: qop=auth,ck=\"{CK}\",ik=\"{IK}\""),
    ] {
        for code in [401, 403, 407] {
            let mut rig = Rig::new();
            let phone = phone("a", 1);
            let up = to_core(&rig.sm1(&phone));
            let answer = Message::response(&up, code, "No", "c").to_bytes();
            let answer = String::from_utf8(answer).expect("text");
            let text = format!(
                "{}{header}\r\n\r\n",
                answer.trim_end_matches("\r\n").to_owned() + "\r\n"
            );
            let input = Input::FromCore {
                remote: addr(CORE),
                transport: Transport::Udp,
                bytes: text.as_bytes(),
            };
            rig.edge.handle(rig.now, input);
            for packet in packets(&rig.take()) {
                let text = String::from_utf8_lossy(&packet.bytes).into_owned();
                assert!(!text.contains(IK) && !text.contains(CK), "{header}: {text}");
            }
        }
    }
}

#[test]
fn strangers_leave_room_for_those_who_are_registered() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.limits.sets_for_strangers = 3;
    let mut rig = Rig::with(config);
    rig.register(&phone("a", 1));
    for n in 2..6 {
        let mut stranger = phone(["b", "c", "d", "e"][usize::from(n) - 2], n);
        stranger.ends.port_s += n;
        let out = rig.sm1(&stranger);
        assert_eq!(forwarded(&out).len(), usize::from(n < 4), "{n}: {out:?}");
    }
    assert_eq!(rig.refusals(), [Refusal::Overload; 2]);
    // Who is registered gets its next set.
    let mut again = phone("a", 9);
    again.ends.port_s = phone("a", 1).ends.port_s;
    let (source, local) = phone("a", 1).protected();
    let at = SocketAddr::new(source.ip(), again.ends.port_s);
    let out = rig.ue(
        source,
        local,
        &again.register(at, "nonce=\"\",response=\"\"", ""),
    );
    let (_, message) = challenge(&to_core(&out), 9, &format!("ik=\"{IK}\",ck=\"{CK}\""));
    assert_eq!(installs(&rig.core(&message)).len(), 1);
}

#[test]
fn a_stranger_leaves_little_behind() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let long = "a".repeat(600);
    for (n, (from, to)) in [
        ("username=\"a@", format!("username=\"{long}@")),
        ("t: <sip:a@", format!("t: <sip:{long}@")),
        (";expires=600000", format!(";+sip.instance=\"{long}\"")),
        ("Supported: ", format!("Supported: {}", long.repeat(30))),
        ("ipsec-3gpp;", format!("ipsec-3gpp{}; ", ";a".repeat(2000))),
    ]
    .into_iter()
    .enumerate()
    {
        let text = phone.sm1().replace("i: 1", &format!("i: {n}"));
        assert!(text.contains(from), "{from}");
        let out = rig.ue(phone.source, addr(CLEAR), &text.replace(from, &to));
        assert!(forwarded(&out).is_empty(), "{from}: {out:?}");
    }
}

#[test]
fn the_core_is_an_address_and_on_loopback_a_port() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.core_trusted.push([127, 0, 0, 9].into());
    let from = |config: &EdgeConfig, at: &str| config.is_core(addr(at));
    assert!(from(&config, CORE) && from(&config, "203.0.113.9:1"));
    assert!(!from(&config, "203.0.113.8:5060"));
    config.core = addr("127.0.0.1:5061");
    assert!(from(&config, "127.0.0.1:5061") && !from(&config, "127.0.0.1:5062"));
    assert!(from(&config, "127.0.0.9:1"));
}
