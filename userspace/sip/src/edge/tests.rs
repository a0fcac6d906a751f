use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::aka::ChallengeError;
use crate::rand::testing::Steps;
use crate::sec_agree::{Ends, OfferError, SECURITY_SERVER};
use gm_esp::{Mode, Suite};

const IK: &str = "00112233445566778899aabbccddeeff";
const CK: &str = "ffeeddccbbaa99887766554433221100";
const UE: &str = "192.0.2.1:5060";
const CLEAR: &str = "203.0.113.1:5060";
const CORE: &str = "203.0.113.9:5060";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// An edge, its clock and everything that it gave out.
struct Rig {
    edge: Edge,
    now: u64,
    out: Vec<Output>,
}

/// One phone's REGISTER lines.
#[derive(Clone)]
struct Phone {
    user: &'static str,
    source: SocketAddr,
    ends: Ends,
    call: u32,
}

fn phone(user: &'static str, n: u16) -> Phone {
    let spi = 4000 + u32::from(n) * 2;
    let ends = Ends {
        spi_c: spi,
        spi_s: spi + 1,
        port_c: 31000 + n,
        port_s: 32000,
    };
    Phone {
        user,
        source: addr(UE),
        ends,
        call: u32::from(n),
    }
}

impl Phone {
    fn offer(&self) -> String {
        let ends = &self.ends;
        format!(
            "ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; spi-c={}; spi-s={}; port-c={}; port-s={}",
            ends.spi_c, ends.spi_s, ends.port_c, ends.port_s
        )
    }

    fn sm1(&self) -> String {
        self.register(self.source, "nonce=\"\",response=\"\"", "")
    }

    /// Over the set: Via and Contact name port-s.
    fn sm7(&self, nonce: &str, verify: &str) -> String {
        let at = SocketAddr::new(self.source.ip(), self.ends.port_s);
        let answer = format!("nonce=\"{nonce}\",response=\"0123\",algorithm=AKAv1-MD5");
        self.register(at, &answer, &format!("Security-Verify: {verify}\r\n"))
    }

    fn register(&self, at: SocketAddr, answer: &str, more: &str) -> String {
        let (user, call, offer) = (self.user, self.call, self.offer());
        let contact = SocketAddr::new(at.ip(), self.ends.port_s);
        format!(
            "REGISTER sip:home.example SIP/2.0\r\n\
             v: SIP/2.0/UDP {at};branch=z9hG4bK{call}{}\r\n\
             Max-Forwards: 70\r\nf: <sip:{user}@home.example>;tag=7\r\nt: <sip:{user}@home.example>\r\n\
             i: {call}\r\nCSeq: 1 REGISTER\r\nm: <sip:{contact}>;expires=600000\r\n\
             Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path,sec-agree\r\n\
             Authorization: Digest username=\"{user}@home.example\",uri=\"sip:home.example\",{answer}\r\n\
             P-Strange: a,\r\n\t\"b;c\"  \r\n\
             Security-Client: {offer}\r\n{more}l: 0\r\n\r\n",
            answer.len()
        )
    }

    fn protected(&self) -> (SocketAddr, SocketAddr) {
        (
            SocketAddr::new(self.source.ip(), self.ends.port_c),
            SocketAddr::new(addr(CLEAR).ip(), 5063),
        )
    }
}

impl Rig {
    fn new() -> Rig {
        Rig::with(EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080")))
    }

    fn with(config: EdgeConfig) -> Rig {
        let mut edge = Edge::new(config, &mut Steps(1)).expect("a configuration");
        (0..20).for_each(|n| edge.add_spis([1_000_000_000 + 2 * n, 1_000_000_001 + 2 * n]));
        Rig {
            edge,
            now: 5_000,
            out: Vec::new(),
        }
    }

    fn take(&mut self) -> Vec<Output> {
        let new: Vec<_> = std::iter::from_fn(|| self.edge.poll()).collect();
        self.out.extend(new.iter().cloned());
        new
    }

    fn ue(&mut self, source: SocketAddr, local: SocketAddr, text: &str) -> Vec<Output> {
        let input = Input::FromUe {
            local,
            remote: source,
            transport: Transport::Udp,
            bytes: text.as_bytes(),
        };
        self.edge.handle(self.now, input);
        self.take()
    }

    fn sm1(&mut self, phone: &Phone) -> Vec<Output> {
        self.ue(phone.source, addr(CLEAR), &phone.sm1())
    }

    fn core(&mut self, message: &Message) -> Vec<Output> {
        self.edge.handle(
            self.now,
            Input::FromCore {
                remote: addr(CORE),
                bytes: &message.to_bytes(),
            },
        );
        self.take()
    }

    /// SM1 to SM6: the set, its nonce and SM6.
    fn challenge(&mut self, phone: &Phone, nonce: u8) -> (SetToken, String, Message) {
        let up = to_core(&self.sm1(phone));
        let (text, message) = challenge(&up, nonce, &format!("ik=\"{IK}\",ck=\"{CK}\""));
        let out = self.core(&message);
        let set = installs(&out).pop().expect("an Install");
        assert!(to_ue(&out).is_empty(), "SM6 waits for the SAs");
        self.edge
            .handle(self.now, Input::Installed { set, ok: true });
        (set, text, to_ue(&self.take()).pop().expect("SM6"))
    }

    /// The whole of it: gives the set and SM8.
    fn register(&mut self, phone: &Phone) -> (SetToken, Message) {
        let (set, nonce, sm6) = self.challenge(phone, phone.call as u8);
        let verify = sm6
            .value(SECURITY_SERVER)
            .expect("Security-Server")
            .into_owned();
        let (source, local) = phone.protected();
        let up = to_core(&self.ue(source, local, &phone.sm7(&nonce, &verify)));
        let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
        let out = self.core(&ok.with("Expires", "3600"));
        assert!(out.contains(&Output::Activate { set }), "{out:?}");
        assert_eq!(to_ue(&out)[0].status(), Some(200));
        (set, up)
    }

    fn refusals(&mut self) -> Vec<Refusal> {
        self.take();
        let why = |o: &Output| match o {
            Output::Event(FlowEvent::Refused { why, .. }) => Some(*why),
            _ => None,
        };
        self.out.iter().filter_map(why).collect()
    }
}

fn contact(up: &Message) -> String {
    let uri = up
        .value("Contact")
        .expect("a Contact")
        .replace("expires=600000", "expires=1800");
    uri.to_owned()
}

fn challenge(up: &Message, nonce: u8, keys: &str) -> (String, Message) {
    let nonce = crate::aka::nonce(&[nonce; 16], &[2; 16]);
    let value = format!("Digest realm=\"h\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,{keys}");
    (
        nonce,
        Message::response(up, 401, "Unauthorized", "c").with("WWW-Authenticate", &value),
    )
}

fn to_core(out: &[Output]) -> Message {
    let bytes = out.iter().find_map(|o| match o {
        Output::ToCore { bytes, .. } => Some(bytes),
        _ => None,
    });
    Message::parse(bytes.unwrap_or_else(|| panic!("nothing for the core in {out:?}"))).expect("SIP")
}

fn packets(out: &[Output]) -> Vec<Packet> {
    let packet = |o: &Output| match o {
        Output::ToUe(packet) => Some(packet.clone()),
        _ => None,
    };
    out.iter().filter_map(packet).collect()
}

fn to_ue(out: &[Output]) -> Vec<Message> {
    packets(out)
        .iter()
        .map(|p| Message::parse(&p.bytes).expect("SIP"))
        .collect()
}

fn installs(out: &[Output]) -> Vec<SetToken> {
    let token = |o: &Output| match o {
        Output::Install(request) => Some(request.token),
        _ => None,
    };
    out.iter().filter_map(token).collect()
}

#[test]
fn what_a_phone_wrote_reaches_the_core_byte_for_byte() {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let text = String::from_utf8(up.to_bytes()).expect("text");
    for kept in [
        "i: 1\r\nCSeq: 1 REGISTER\r\nm: <sip:192.0.2.1:32000>;expires=600000\r\n",
        "Supported: path,sec-agree\r\n",
        "P-Strange: a,\r\n\t\"b;c\"  \r\nl: 0\r\n",
    ] {
        assert!(text.contains(kept), "{kept:?} in {text}");
    }
    assert_eq!(up.elements("Via").len(), 2);
}

#[test]
fn a_whole_registration_and_its_sas() {
    let mut rig = Rig::new();
    let (set, _) = rig.register(&phone("a", 1));
    let requests: Vec<_> = rig
        .out
        .iter()
        .filter_map(|o| {
            if let Output::Install(r) = o {
                Some(r)
            } else {
                None
            }
        })
        .collect();
    let params = requests[0].params;
    assert_eq!(
        (params.suite, params.mode()),
        (Suite::HmacSha1AesCbc, Mode::Trans)
    );
    assert_eq!(
        (params.pcscf_ends.port_c, params.pcscf_ends.port_s),
        (5064, 5063)
    );
    assert_eq!(
        requests[0].inbound.map(|s| s.spi),
        [1_000_000_001, 1_000_000_000]
    );
    // SM12 from port_pc to port_us.
    let last = packets(&rig.out).pop().expect("SM12");
    assert_eq!(
        (last.local, last.remote),
        (addr("203.0.113.1:5064"), addr("192.0.2.1:32000"))
    );
    let sm12 = FlowEvent::Sm12 {
        set,
        ue: last.remote,
        expires: 1800,
    };
    assert!(rig.out.contains(&Output::Event(sm12)), "{:?}", rig.out);
    assert!(rig.refusals().is_empty());
}

#[test]
fn ipv6_registers_too() {
    let mut rig = Rig::with(EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080")));
    let mut six = phone("a", 1);
    six.source = addr("[2001:db8::1]:5060");
    let out = rig.ue(six.source, addr("[2001:db8::f]:5060"), &six.sm1());
    let (_, message) = challenge(&to_core(&out), 1, &format!("ik=\"{IK}\",ck=\"{CK}\""));
    let out = rig.core(&message);
    assert_eq!(installs(&out).len(), 1, "{out:?}");
}

#[test]
fn over_tcp_the_answer_goes_on_the_connection() {
    let mut rig = Rig::new();
    let source = addr("192.0.2.1:49152");
    let bytes = phone("a", 1).sm1().replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let input = Input::FromUe {
        local: addr(CLEAR),
        remote: source,
        transport: Transport::Tcp,
        bytes: bytes.as_bytes(),
    };
    rig.edge.handle(rig.now, input);
    let up = to_core(&rig.take());
    rig.core(&Message::response(&up, 403, "Forbidden", "c"));
    let packet = packets(&rig.out).pop().expect("an answer");
    assert_eq!((packet.remote, packet.transport), (source, Transport::Tcp));
}

#[test]
fn a_repeated_sm1_gets_the_same_sm6_and_no_second_set() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, _, sm6) = rig.challenge(&phone, 1);
    let out = rig.sm1(&phone);
    assert_eq!(to_ue(&out), [sm6]);
    assert_eq!(installs(&rig.out).len(), 1);
}

#[test]
fn a_newer_challenge_takes_the_place_of_the_older() {
    let mut rig = Rig::new();
    let (first, _, _) = rig.challenge(&phone("a", 1), 1);
    let (second, _, _) = rig.challenge(&phone("a", 2), 2);
    assert!(rig.out.contains(&Output::Remove { set: first }) && first != second);
    assert_eq!(rig.edge.len(), (1, 1));
}

#[test]
fn strangers_are_bounded_by_source() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.limits.pending_per_source = 3;
    let mut rig = Rig::with(config);
    for n in 1..=3 {
        to_core(&rig.sm1(&phone("a", n)));
    }
    let answer = to_ue(&rig.sm1(&phone("a", 4))).pop().expect("an answer");
    assert_eq!(
        (answer.status(), answer.value("Retry-After").as_deref()),
        (Some(503), Some("30"))
    );
    assert_eq!(rig.refusals(), [Refusal::Overload]);
    let other = Phone {
        source: addr("192.0.2.2:5060"),
        ..phone("b", 5)
    };
    to_core(&rig.sm1(&other));
    // Nobody answered: after 64 * T1 there is room again.
    rig.now += 32_000;
    rig.edge.handle_timeout(rig.now);
    to_core(&rig.sm1(&phone("a", 6)));
}

#[test]
fn an_unfinished_set_counts_until_it_is_finished_or_gone() {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.limits.pending_per_source = 1;
    let mut rig = Rig::with(config);
    rig.challenge(&phone("a", 1), 1);
    rig.now += 60_000;
    rig.edge.handle_timeout(rig.now);
    let other = Phone {
        ends: Ends {
            port_s: 32100,
            ..phone("b", 2).ends
        },
        ..phone("b", 2)
    };
    rig.sm1(&other);
    assert_eq!(rig.refusals(), [Refusal::Overload]);
    rig.now += 240_000;
    rig.edge.handle_timeout(rig.now);
    rig.take();
    assert!(rig.edge.is_empty() && rig.edge.next_timeout().is_none());
    rig.register(&other);
    rig.register(&phone("a", 3));
}

#[rstest]
#[case::own_live_port("a", 31001, 32000, 99)]
#[case::other_users_server_port("b", 31009, 32000, 99)]
#[case::spi_in_use("b", 31009, 32009, 4003)]
fn collisions_get_an_error_that_says_so(
    #[case] user: &'static str,
    #[case] port_c: u16,
    #[case] port_s: u16,
    #[case] spi_s: u32,
) {
    let mut rig = Rig::new();
    rig.register(&phone("a", 1));
    let ends = Ends {
        spi_c: 777,
        spi_s: if spi_s == 99 { 778 } else { spi_s },
        port_c,
        port_s,
    };
    let out = rig.sm1(&Phone {
        ends,
        ..phone(user, 9)
    });
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(400));
    assert!(
        answer
            .value("Warning")
            .is_some_and(|w| w.contains("in use"))
    );
    assert_eq!(rig.refusals(), [Refusal::Collision]);
}

#[rstest]
#[case::no_offer("Security-Client:", "X-None:", 421, Refusal::NoSecurityClient)]
#[case::legacy(
    "alg=hmac-sha-1-96",
    "alg=hmac-md5-96",
    494,
    Refusal::Offer(OfferError::LegacyOnly)
)]
#[case::ports("port-c=31001", "port-c=5060", 494, Refusal::Offer(OfferError::Port))]
#[case::hops("Max-Forwards: 70", "Max-Forwards: 0", 483, Refusal::Hops)]
#[case::name("UDP 192.0.2.1:5060", "UDP phone.example:5060", 400, Refusal::ViaName)]
#[case::no_cseq("CSeq: 1 REGISTER", "X: y", 400, Refusal::Headers)]
fn refused_first_registers(
    #[case] from: &str,
    #[case] to: &str,
    #[case] status: u16,
    #[case] why: Refusal,
) {
    let mut rig = Rig::new();
    let text = phone("a", 1).sm1();
    assert!(text.contains(from));
    let out = rig.ue(addr(UE), addr(CLEAR), &text.replace(from, to));
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(status));
    assert_eq!(
        answer.value(SECURITY_SERVER).is_some(),
        matches!(status, 421 | 494)
    );
    assert_eq!(rig.refusals(), [why]);
    assert!(!out.iter().any(|o| matches!(o, Output::ToCore { .. })));
}

#[rstest]
#[case::missing("qop=\"auth\"", ChallengeError::KeysMissing)]
#[case::short(
    "ik=\"0011\",ck=\"ffeeddccbbaa99887766554433221100\"",
    ChallengeError::KeysMalformed
)]
fn a_challenge_without_good_keys(#[case] keys: &str, #[case] why: ChallengeError) {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let out = rig.core(&challenge(&up, 1, keys).1);
    assert_eq!(to_ue(&out)[0].status(), Some(500));
    assert_eq!(rig.refusals(), [Refusal::Challenge(why)]);
    assert!(rig.edge.is_empty());
}

#[test]
fn nobody_is_registered_without_authentication() {
    let mut rig = Rig::new();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let out = rig.core(&Message::response(&up, 200, "OK", "c"));
    assert_eq!(to_ue(&out)[0].status(), Some(500));
}

#[test]
fn a_challenge_in_answer_to_sm7_is_a_failure_and_loses_its_keys() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (set, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let up = to_core(&rig.ue(source, local, &phone.sm7(&nonce, &verify)));
    let out = rig.core(&challenge(&up, 9, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1);
    assert_eq!(out[0], Output::Activate { set });
    let answer = &to_ue(&out)[0];
    assert_eq!(answer.status(), Some(401));
    assert!(!String::from_utf8_lossy(&answer.to_bytes()).contains(IK));
    rig.now += 4_000;
    rig.edge.handle_timeout(rig.now);
    assert!(rig.take().contains(&Output::Remove { set }));
}

#[rstest]
#[case::auts(
    "response=\"0123\"",
    "response=\"\",auts=\"AAAAAAAAAAAAAAAAAAA=\"",
    Refusal::WrongSa
)]
#[case::other_nonce("nonce=\"AQEB", "nonce=\"CQEB", Refusal::NotAnAnswer)]
fn not_for_the_unconfirmed_sa(#[case] from: &str, #[case] to: &str, #[case] why: Refusal) {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let text = phone.sm7(&nonce, &verify);
    assert!(text.contains(from), "{text}");
    let out = rig.ue(source, local, &text.replace(from, to));
    assert!(to_ue(&out).is_empty() && !out.iter().any(|o| matches!(o, Output::ToCore { .. })));
    assert_eq!(rig.refusals(), [why]);
}

#[test]
fn a_repeated_sm7_after_sm12_is_no_new_procedure() {
    let mut rig = Rig::new();
    let phone = phone("a", 1);
    let (_, nonce, sm6) = rig.challenge(&phone, 1);
    let verify = sm6
        .value(SECURITY_SERVER)
        .expect("Security-Server")
        .into_owned();
    let (source, local) = phone.protected();
    let sm7 = phone.sm7(&nonce, &verify);
    let up = to_core(&rig.ue(source, local, &sm7));
    let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
    rig.core(&ok);
    let again = to_core(&rig.ue(source, local, &sm7));
    assert_eq!(again.to_bytes(), up.to_bytes());
    let out = rig.core(&ok);
    assert_eq!(to_ue(&out)[0].status(), Some(200));
    assert!(!out.iter().any(|o| matches!(o, Output::Activate { .. })));
    assert!(rig.refusals().is_empty());
}

#[test]
fn without_spis_there_is_an_error_and_with_the_ues_own_another_pair() {
    let mut rig = Rig::new();
    rig.edge.spis.clear();
    let up = to_core(&rig.sm1(&phone("a", 1)));
    let message = challenge(&up, 1, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1;
    assert_eq!(to_ue(&rig.core(&message))[0].status(), Some(500));
    assert_eq!(rig.refusals(), [Refusal::NoSpi]);
    assert!(rig.edge.wants_spis());
    rig.edge.add_spis([4002, 1]);
    rig.edge.add_spis([5000, 5001]);
    let out = rig.core(&message);
    let Some(Output::Install(request)) = out.iter().find(|o| matches!(o, Output::Install(_)))
    else {
        panic!("{out:?}")
    };
    assert_eq!(
        request.params.pcscf_ends.spi_c, 5000,
        "4002 is the UE's spi-c"
    );
}

#[test]
fn the_core_side_is_for_the_core() {
    let mut rig = Rig::new();
    let request = Message::request("MESSAGE", "sip:192.0.2.1:32000")
        .with("Via", "SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK5")
        .with("From", "<sip:x@h>;tag=1")
        .with("To", "<sip:a@home.example>")
        .with("Call-ID", "5")
        .with("CSeq", "1 MESSAGE");
    rig.edge.handle(
        rig.now,
        Input::FromCore {
            remote: addr("198.51.100.1:5060"),
            bytes: &request.to_bytes(),
        },
    );
    let out = rig.core(&request);
    assert_eq!(to_core(&out).status(), Some(480));
    rig.core(&Message::response(&request, 200, "OK", "x"));
    assert_eq!(
        rig.refusals(),
        [
            Refusal::CoreUntrusted,
            Refusal::NoContact,
            Refusal::NoTransaction
        ]
    );
    // Registered: by the address in the Request-URI, out of port_pc.
    rig.register(&phone("a", 1));
    let out = rig.core(&request);
    let packet = packets(&out).pop().expect("for the UE");
    assert_eq!(
        (packet.local.port(), packet.remote),
        (5064, addr("192.0.2.1:32000"))
    );
    let down = Message::parse(&packet.bytes).expect("SIP");
    assert!(
        down.first_element("Via")
            .is_some_and(|v| v.starts_with("SIP/2.0/UDP 203.0.113.1:5063;branch="))
    );
    // The answer comes back to port_ps and goes to the core without our Via.
    let answer = Message::response(&down, 200, "OK", "u");
    let (source, local) = phone("a", 1).protected();
    let up = to_core(&rig.ue(
        source,
        local,
        &String::from_utf8(answer.to_bytes()).expect("text"),
    ));
    assert_eq!(up.elements("Via").len(), 1);
}

#[test]
fn two_phones_behind_one_nat() {
    let mut rig = Rig::new();
    let nat = |user, n, port_s| {
        let one = phone(user, n);
        Phone {
            source: addr("198.51.100.7:20001"),
            ends: Ends { port_s, ..one.ends },
            ..one
        }
    };
    let text = |p: &Phone| {
        p.sm1()
            .replace("UDP 198.51.100.7:20001", "UDP 10.0.0.2:5060")
            .replace("ealg=aes-cbc;", "ealg=aes-cbc;mod=UDP-enc-tun;")
    };
    let first = nat("a", 1, 32000);
    let up = to_core(&rig.ue(first.source, addr(CLEAR), &text(&first)));
    assert!(
        up.elements("Via")[1].contains("received=198.51.100.7"),
        "{:?}",
        up.elements("Via")
    );
    let out = rig.core(&challenge(&up, 1, &format!("ik=\"{IK}\",ck=\"{CK}\"")).1);
    assert_eq!(installs(&out).len(), 1, "{out:?}");
    // The second one with the first one's server port would get its messages.
    let out = rig.ue(first.source, addr(CLEAR), &text(&nat("b", 2, 32000)));
    assert_eq!(to_ue(&out)[0].status(), Some(400));
    assert_eq!(rig.refusals(), [Refusal::Collision]);
    to_core(&rig.ue(first.source, addr(CLEAR), &text(&nat("b", 2, 32001))));
}

#[rstest]
#[case(5060, 5064..=5071, ConfigError::Port(5060))]
#[case(5063, 5058..=5071, ConfigError::Port(5060))]
#[case(5066, 5064..=5071, ConfigError::Port(5066))]
#[case(5063, 5064..=5065, ConfigError::ClientPorts)]
fn configurations_that_cannot_work(
    #[case] server: u16,
    #[case] client: std::ops::RangeInclusive<u16>,
    #[case] error: ConfigError,
) {
    let mut config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
    config.server_port = server;
    config.client_ports = client;
    assert_eq!(config.check(), Err(error));
}

proptest! {
    #[test]
    fn no_bytes_hurt(cuts in proptest::collection::vec((0usize..900, any::<u8>()), 0..6), local in prop_oneof![Just(5060u16), Just(5063)], from_core in any::<bool>()) {
        let mut rig = Rig::new();
        rig.register(&phone("a", 1));
        let mut bytes = phone("a", 1).sm7("x", "ipsec-3gpp;alg=null").into_bytes();
        for (at, byte) in cuts {
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
        }
        let remote = if from_core { addr(CORE) } else { addr("192.0.2.1:31001") };
        let input = if from_core {
            Input::FromCore { remote, bytes: &bytes }
        } else {
            Input::FromUe { local: SocketAddr::new(addr(CLEAR).ip(), local), remote, transport: Transport::Udp, bytes: &bytes }
        };
        rig.edge.handle(rig.now, input);
        rig.take();
    }
}
