use rstest::rstest;

use super::*;
use crate::aka::{ChallengeError, Res, nonce};
use crate::rand::testing::Steps;
use crate::sa_set::SaSetRequest;
use crate::sec_agree::{LegacyNames, OfferError, SECURITY_SERVER, SECURITY_VERIFY, SecList};
use crate::{Packet, Transport};
use gm_esp::{Ck, Ik, Mode, Suite};

const KAMAILIO: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";

/// What the P-CSCF says to a registration over the set that [`KAMAILIO`] made: other
/// SPIs and client port, the same server port.
const SECOND: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4098;spi-s=4099;port-c=5101;port-s=6100;alg=hmac-sha-1-96;ealg=null";

/// A SIM that knows one answer.
struct Sim(Result<(), AkaFailure>);

impl Aka for Sim {
    fn answer(&mut self, _: &[u8; 16], _: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        self.0?;
        let res = Res::new(&[1; 8]).expect("RES");
        Ok(AkaAnswer {
            res,
            ik: Ik::from_bytes([1; 16]),
            ck: Ck::from_bytes([2; 16]),
        })
    }
}

#[path = "tests/again.rs"]
mod again;
#[path = "tests/faults.rs"]
mod faults;
#[path = "tests/nat.rs"]
mod nat;
#[path = "tests/sets.rs"]
mod sets;
#[path = "tests/tcp.rs"]
mod tcp;

struct Rig {
    ue: Ue,
    out: Vec<UeOutput>,
    now: u64,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl Rig {
    fn new() -> Rig {
        Rig::with(Ok(()))
    }

    fn with(sim: Result<(), AkaFailure>) -> Rig {
        Rig::of(sim, |_| ())
    }

    /// A phone that is set up in its own way.
    fn set_up(change: impl FnOnce(&mut UeConfig)) -> Rig {
        Rig::of(Ok(()), change)
    }

    fn of(sim: Result<(), AkaFailure>, change: impl FnOnce(&mut UeConfig)) -> Rig {
        let mut config = UeConfig::new(
            "u@h.example",
            "sip:u@h.example",
            "h.example",
            [192, 0, 2, 1].into(),
            addr("203.0.113.1:5060"),
        );
        change(&mut config);
        let mut ue = Ue::new(config, Box::new(Sim(sim)), Box::new(Steps(3)));
        (0..4).for_each(|n| ue.add_spis([7000 + 2 * n, 7001 + 2 * n]));
        Rig {
            ue,
            out: Vec::new(),
            now: 0,
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.ue.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.ue.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The last message that was sent, and how.
    fn last(&mut self) -> (Packet, Message) {
        self.sent().pop().expect("a message")
    }

    /// Everything since the last look.
    fn news(&mut self) -> Vec<UeOutput> {
        self.take();
        std::mem::take(&mut self.out)
    }

    /// The network's answer to `request`, by the way that belongs to a set.
    fn answer_through(&mut self, set: &SaSetRequest, message: &Message) {
        let (ue, pcscf) = (set.params.ue, set.params.pcscf);
        let local = SocketAddr::new(ue, set.params.ue_ends.port_s);
        let remote = SocketAddr::new(pcscf, set.params.pcscf_ends.port_c);
        self.give(local, remote, message);
    }

    /// The answer to SM1 over a set, with other SPIs and client port of the P-CSCF,
    /// and SM7; the new set.
    fn challenged_again(&mut self, old: &SaSetRequest) -> SaSetRequest {
        self.ue.register(self.now).expect("starts");
        let (_, sm1) = self.last();
        self.answer_through(old, &challenge(&sm1).with(SECURITY_SERVER, SECOND));
        let set = self.install().expect("an Install");
        let input = UeInput::Installed {
            set: set.token,
            ok: true,
        };
        self.ue.handle(self.now, input);
        set
    }

    /// The 200 to the last REGISTER through a set, for so many seconds.
    fn granted(&mut self, set: &SaSetRequest, seconds: u32) {
        let (_, request) = self.last();
        let contact = request.value("Contact").expect("Contact").into_owned();
        let (uri, _) = contact.rsplit_once(';').expect("expires");
        let ok = Message::response(&request, 200, "OK", "s")
            .with("Contact", &format!("{uri};expires={seconds}"));
        self.answer_through(set, &ok);
    }

    fn registered_again(&mut self, old: &SaSetRequest, seconds: u32) -> SaSetRequest {
        let set = self.challenged_again(old);
        self.granted(&set, seconds);
        set
    }

    fn take(&mut self) {
        self.out.extend(std::iter::from_fn(|| self.ue.poll()));
    }

    fn sent(&mut self) -> Vec<(Packet, Message)> {
        self.take();
        let sent = |o: &UeOutput| match o {
            UeOutput::Send(p) => Some((p.clone(), Message::parse(&p.bytes).expect("SIP"))),
            _ => None,
        };
        self.out.iter().filter_map(sent).collect()
    }

    fn events(&mut self) -> Vec<UeEvent> {
        self.take();
        let event = |o: &UeOutput| match o {
            UeOutput::Event(e) => Some(e.clone()),
            _ => None,
        };
        self.out.iter().filter_map(event).collect()
    }

    fn install(&mut self) -> Option<SaSetRequest> {
        self.take();
        self.out.iter().rev().find_map(|o| match o {
            UeOutput::Install(request) => Some((**request).clone()),
            _ => None,
        })
    }

    fn give(&mut self, local: SocketAddr, remote: SocketAddr, message: &Message) {
        self.give_over(Transport::Udp, local, remote, message);
    }

    fn give_over(
        &mut self,
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        message: &Message,
    ) {
        let bytes = message.to_bytes();
        self.ue.handle(
            self.now,
            UeInput::FromNetwork {
                local,
                remote,
                transport,
                bytes: &bytes,
            },
        );
    }

    /// SM1 and a 401 with these Security-Server lines.
    fn challenged(&mut self, server: &[&str]) {
        self.ue.register(self.now).expect("starts");
        let (packet, sm1) = self.sent().pop().expect("SM1");
        let mut sm6 = challenge(&sm1);
        server
            .iter()
            .for_each(|line| sm6.push(SECURITY_SERVER, line));
        self.give(packet.local, packet.remote, &sm6);
    }

    /// The same up to SM12.
    fn registered(&mut self) -> SaSetRequest {
        self.challenged(&[KAMAILIO]);
        let set = self.install().expect("an Install");
        self.ue.handle(
            self.now,
            UeInput::Installed {
                set: set.token,
                ok: true,
            },
        );
        let (packet, sm7) = self.sent().pop().expect("SM7");
        let ok = Message::response(&sm7, 200, "OK", "s")
            .with("Contact", &sm7.value("Contact").expect("Contact"));
        self.give(
            SocketAddr::new(packet.local.ip(), set.params.ue_ends.port_s),
            addr("203.0.113.1:5100"),
            &ok,
        );
        assert!(self.ue.is_registered());
        set
    }
}

fn challenge(sm1: &Message) -> Message {
    let value = format!(
        "Digest realm=\"h.example\",nonce=\"{}\",algorithm=AKAv1-MD5,qop=\"auth\"",
        nonce(&[1; 16], &[2; 16])
    );
    Message::response(sm1, 401, "Unauthorized", "s").with("WWW-Authenticate", &value)
}

/// Security-Server as cores write it: what is chosen, and that it comes back by value.
#[rstest]
#[case::kamailio(&[KAMAILIO], Suite::HmacSha1Null, 5100, 6100)]
#[case::blanks_no_q(&["ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; prot=esp; mod=trans; spi-c=5000; spi-s=5001; port-c=5999; port-s=6000"], Suite::HmacSha1AesCbc, 5999, 6000)]
#[case::several_lines(&["ipsec-3gpp;q=0.2;alg=hmac-sha-1-96;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900", "ipsec-3gpp;q=0.6;alg=aes-gmac;spi-c=5000;spi-s=5001;port-c=9950;port-s=9900"], Suite::AesGmacNull, 9950, 9900)]
#[case::only_the_last_has_ports(&["ipsec-3gpp;q=0.5;alg=hmac-md5-96,ipsec-3gpp;q=0.4;alg=hmac-sha-1-96,ipsec-3gpp;q=0.1;alg=hmac-sha-1-96;ealg=aes-cbc;spi-c=5000;spi-s=5001;port-c=65528;port-s=65529"], Suite::HmacSha1Null, 65528, 65529)]
#[case::another_mechanism_first(&["tls;q=0.9,ipsec-3gpp;ealg=aes-gcm;alg=null;port-c=5000;port-s=5001;spi-c=5000;spi-s=5001;q=0.1"], Suite::NullAesGcm, 5000, 5001)]
fn security_server_shapes(
    #[case] lines: &[&str],
    #[case] suite: Suite,
    #[case] port_c: u16,
    #[case] port_s: u16,
) {
    let mut rig = Rig::new();
    rig.challenged(lines);
    let set = rig.install().expect("an Install");
    assert_eq!((set.params.suite, set.params.mode()), (suite, Mode::Trans));
    assert_eq!(
        (set.params.pcscf_ends.port_c, set.params.pcscf_ends.port_s),
        (port_c, port_s)
    );
    rig.ue.handle(
        0,
        UeInput::Installed {
            set: set.token,
            ok: true,
        },
    );
    let (packet, sm7) = rig.sent().pop().expect("SM7");
    // From port_uc to port_ps; Via and Contact name port_us.
    assert_eq!(
        (packet.local.port(), packet.remote.port()),
        (set.params.ue_ends.port_c, port_s)
    );
    assert!(
        sm7.first_element("Via")
            .is_some_and(|v| v.contains("192.0.2.1:31800"))
    );
    let sent = SecList::parse(&lines.join(","));
    let verify = SecList::from_message(&sm7, SECURITY_VERIFY).expect("Security-Verify");
    assert!(sent.same(&verify), "{verify}");
    let first = rig.sent()[0].1.clone();
    assert_eq!(first.value("Security-Client"), sm7.value("Security-Client"));
}

#[rstest]
#[case::nothing_in_common(
    "ipsec-3gpp;alg=hmac-md5-96;spi-c=5000;spi-s=5001;port-c=1;port-s=2",
    UeFailure::SecurityServer(OfferError::LegacyOnly(LegacyNames::of(&[Suite::HmacMd5Null])))
)]
#[case::no_list("tls;q=0.1", UeFailure::SecurityServer(OfferError::NotIpsec))]
fn unacceptable_proposals_end_the_procedure(#[case] line: &str, #[case] failure: UeFailure) {
    let mut rig = Rig::new();
    rig.challenged(&[line]);
    assert_eq!(rig.events().last(), Some(&UeEvent::Failed(failure)));
    assert!(rig.install().is_none());
    // The next attempt may begin at once, and has the SPIs of this one.
    assert_eq!(rig.ue.register(0), Ok(()));
    assert_eq!(rig.ue.spis.len(), 3);
}

#[test]
fn behind_a_nat_a_list_that_does_not_say_so_is_left() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    let mut sm6 = challenge(&sm1).with(SECURITY_SERVER, KAMAILIO);
    let via = crate::header::via::mark_source(
        &sm6.first_element("Via").expect("Via"),
        addr("198.51.100.7:9"),
        true,
    );
    sm6.replace_first_element("Via", &via.expect("marked"));
    rig.give(packet.local, packet.remote, &sm6);
    assert_eq!(rig.events().last(), Some(&UeEvent::Failed(UeFailure::Nat)));
}

#[test]
fn one_procedure_at_a_time_and_only_what_can_be() {
    let mut rig = Rig::new();
    assert_eq!(rig.ue.deregister(0), Err(UeFailure::NotRegistered));
    assert_eq!(
        rig.ue.send(0, "MESSAGE", "sip:x@h", "", b""),
        Err(UeFailure::NotRegistered)
    );
    rig.ue.register(0).expect("starts");
    assert_eq!(rig.ue.register(0), Err(UeFailure::Busy));
    let mut rig = Rig::new();
    rig.ue.spis.clear();
    assert!(rig.ue.wants_spis());
    assert_eq!(rig.ue.register(0), Err(UeFailure::NoSpi));
}

#[test]
fn requests_are_sent_again_and_given_up() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let mut times = Vec::new();
    while let Some(at) = rig.ue.next_timeout().filter(|_| rig.events().len() < 2) {
        rig.ue.handle_timeout(at);
        times.push(at);
    }
    assert_eq!(times[..5], [500, 1_500, 3_500, 7_500, 11_500]);
    assert_eq!(times.last(), Some(&32_000));
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::Timeout))
    );
    let sent = rig.sent();
    assert!(sent.iter().all(|(p, _)| p == &sent[0].0));
}

#[test]
fn a_network_without_a_mac_is_told_and_left() {
    let mut rig = Rig::with(Err(AkaFailure::Mac));
    rig.challenged(&[KAMAILIO]);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::NetworkAuthentication))
    );
    let (_, report) = rig.sent().pop().expect("the report");
    let authorization = report
        .value("Authorization")
        .expect("Authorization")
        .into_owned();
    assert!(
        authorization.contains("response=\"\"") && !authorization.contains("auts"),
        "{authorization}"
    );
}

#[test]
fn auts_is_sent_and_endless_challenges_are_not_followed() {
    let mut rig = Rig::with(Err(AkaFailure::Synchronisation([9; 14])));
    rig.challenged(&[KAMAILIO]);
    for _ in 0..3 {
        let (packet, request) = rig.sent().pop().expect("a REGISTER");
        assert!(
            request
                .value("Authorization")
                .is_some_and(|a| a.contains("auts=\"CQkJCQkJCQkJCQkJCQk=\""))
        );
        rig.give(
            packet.local,
            packet.remote,
            &challenge(&request).with(SECURITY_SERVER, KAMAILIO),
        );
    }
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Failed(UeFailure::TooManyChallenges))
    );
}

#[test]
fn a_challenge_that_is_none() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    rig.give(
        packet.local,
        packet.remote,
        &Message::response(&sm1, 401, "Unauthorized", "s"),
    );
    let failed = UeEvent::Failed(UeFailure::Challenge(ChallengeError::NotAka));
    assert_eq!(rig.events().last(), Some(&failed));
}

/// Clause 7.1: requests in clear, of strangers, or over another flow are not answered.
#[rstest]
#[case::in_clear("192.0.2.1:5060", "203.0.113.1:5060", Ignored::WrongSa)]
#[case::other_port_of_ours("192.0.2.1:31801", "203.0.113.1:5100", Ignored::WrongSa)]
#[case::other_port_of_theirs("192.0.2.1:31800", "203.0.113.1:5101", Ignored::WrongSa)]
#[case::stranger("192.0.2.1:31800", "203.0.113.2:5100", Ignored::Stranger)]
fn requests_that_are_not_taken(#[case] local: &str, #[case] remote: &str, #[case] why: Ignored) {
    let mut rig = Rig::new();
    rig.registered();
    let before = rig.sent().len();
    rig.give(addr(local), addr(remote), &message());
    assert_eq!(rig.events().last(), Some(&UeEvent::Ignored { why }));
    assert_eq!(rig.sent().len(), before);
}

fn message() -> Message {
    Message::request("MESSAGE", "sip:u@192.0.2.1:31800")
        .with("Via", "SIP/2.0/UDP 203.0.113.1:6100;branch=z9hG4bK1")
        .with("From", "<sip:x@h.example>;tag=1")
        .with("To", "<sip:u@h.example>")
        .with("Call-ID", "9")
        .with("CSeq", "1 MESSAGE")
        .with_body(b"hi")
}

#[test]
fn a_repeated_request_is_answered_the_same_and_told_once() {
    let mut rig = Rig::new();
    let set = rig.registered();
    for _ in 0..2 {
        rig.give(
            addr("192.0.2.1:31800"),
            addr("203.0.113.1:5100"),
            &message(),
        );
    }
    let answers = rig.sent().split_off(2);
    assert_eq!(answers.len(), 2);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(
        (answers[0].0.local.port(), answers[0].0.remote.port()),
        (set.params.ue_ends.port_c, 6100)
    );
    let told = rig
        .events()
        .iter()
        .filter(|e| matches!(e, UeEvent::Request { .. }))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn a_yes_in_clear_is_no_registration() {
    let mut rig = Rig::new();
    rig.ue.register(0).expect("starts");
    let (packet, sm1) = rig.sent().pop().expect("SM1");
    let yes = Message::response(&sm1, 200, "OK", "s");
    rig.give(packet.local, packet.remote, &yes);
    let failed = UeEvent::Failed(UeFailure::NetworkAuthentication);
    assert_eq!(rig.events().last(), Some(&failed));
    assert!(!rig.ue.is_registered() && rig.ue.register(0).is_ok());
}

#[test]
fn an_answer_in_clear_to_a_protected_request_is_ignored() {
    let mut rig = Rig::new();
    rig.registered();
    let id = rig
        .ue
        .send(0, "OPTIONS", "sip:x@h.example", "", b"")
        .expect("registered");
    let (_, request) = rig.sent().pop().expect("OPTIONS");
    let ok = Message::response(&request, 200, "OK", "x");
    rig.give(addr("192.0.2.1:5060"), addr("203.0.113.1:5060"), &ok);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Ignored {
            why: Ignored::WrongSa
        })
    );
    rig.give(addr("192.0.2.1:31800"), addr("203.0.113.1:5100"), &ok);
    assert_eq!(
        rig.events().last(),
        Some(&UeEvent::Answered {
            id,
            status: 200,
            body: Vec::new()
        })
    );
}
