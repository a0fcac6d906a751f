//! Security-Server by core: what the UE role makes of each, and sends back.

use std::net::SocketAddr;

use gm_esp::{Ck, Ik, Mode, Suite};
use gm_sip::aka::Res;
use gm_sip::sec_agree::{Ends, SECURITY_SERVER, SECURITY_VERIFY, SecList};
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure, Ue, UeConfig, UeEvent, UeFailure, UeInput, UeOutput};
use gm_sip::{Message, Packet, SaSetRequest, Transport};

use crate::messages::challenge;
use crate::rig::{Steps, addr};

/// A SIM that is content with every challenge.
struct Sim;

impl Aka for Sim {
    fn answer(&mut self, _: &[u8; 16], _: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        Ok(AkaAnswer {
            res: Res::new(&[1; 8]).expect("RES"),
            ik: Ik::from_bytes([1; 16]),
            ck: Ck::from_bytes([2; 16]),
        })
    }
}

struct Phone {
    ue: Ue,
    out: Vec<UeOutput>,
}

impl Phone {
    fn new() -> Phone {
        Phone::with(|_| {})
    }

    fn with(change: fn(&mut UeConfig)) -> Phone {
        let mut config = UeConfig::new(
            "u@home.example",
            "sip:u@home.example",
            "home.example",
            [192, 0, 2, 1].into(),
            addr("203.0.113.1:5060"),
        );
        change(&mut config);
        let mut ue = Ue::new(config, Box::new(Sim), Box::new(Steps(3)));
        (0..4).for_each(|n| ue.add_spis([7000 + 2 * n, 7001 + 2 * n]));
        Phone {
            ue,
            out: Vec::new(),
        }
    }

    fn take(&mut self) {
        self.out.extend(std::iter::from_fn(|| self.ue.poll()));
    }

    fn last_sent(&mut self) -> (Packet, Message) {
        self.take();
        let sent = self.out.iter().rev().find_map(|o| match o {
            UeOutput::Send(packet) => Some(packet.clone()),
            _ => None,
        });
        let packet = sent.expect("something sent");
        let message = Message::parse(&packet.bytes).expect("SIP");
        (packet, message)
    }

    fn give(&mut self, local: SocketAddr, remote: SocketAddr, message: &Message) {
        let bytes = message.to_bytes();
        let input = UeInput::FromNetwork {
            local,
            remote,
            transport: Transport::Udp,
            bytes: &bytes,
        };
        self.ue.handle(0, input);
        self.take();
    }

    /// SM1, and the core's answer to it with these lines of Security-Server.
    fn answered(&mut self, code: Option<(u16, &str)>, lines: &[&str]) {
        self.ue.register(0).expect("starts");
        let (packet, sm1) = self.last_sent();
        let mut answer = match code {
            Some((code, reason)) => Message::response(&sm1, code, reason, "c"),
            None => challenge(&sm1, 1, ", qop=\"auth\""),
        };
        lines
            .iter()
            .for_each(|line| answer.push(SECURITY_SERVER, line));
        self.give(packet.local, packet.remote, &answer);
    }

    fn install(&self) -> Option<SaSetRequest> {
        self.out.iter().rev().find_map(|o| match o {
            UeOutput::Install(request) => Some((**request).clone()),
            _ => None,
        })
    }

    fn failure(&self) -> Option<UeFailure> {
        self.out.iter().find_map(|o| match o {
            UeOutput::Event(UeEvent::Failed(failure)) => Some(*failure),
            _ => None,
        })
    }
}

/// The core challenges with these lines: what the phone takes, and that it gives the
/// whole list back over the new SAs.
fn takes(lines: &[&str]) -> (Suite, Ends) {
    taken_by(Phone::new(), lines)
}

fn taken_by(mut phone: Phone, lines: &[&str]) -> (Suite, Ends) {
    phone.answered(None, lines);
    let request = phone
        .install()
        .unwrap_or_else(|| panic!("{:?}", phone.failure()));
    let input = UeInput::Installed {
        set: request.token,
        ok: true,
    };
    phone.ue.handle(0, input);
    let (packet, sm7) = phone.last_sent();
    let ends = request.params.pcscf_ends;
    assert_eq!(packet.remote.port(), ends.port_s, "SM7 goes to port_ps");
    let sent = SecList::parse(&lines.join(","));
    let verify = SecList::from_message(&sm7, SECURITY_VERIFY).expect("Security-Verify");
    assert!(sent.same(&verify), "{verify}");
    assert_eq!(request.params.mode(), Mode::Trans);
    (request.params.suite, ends)
}

fn ends(spi_c: u32, spi_s: u32, port_c: u16, port_s: u16) -> Ends {
    Ends {
        spi_c,
        spi_s,
        port_c,
        port_s,
    }
}

#[test]
fn kamailio() {
    let line = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";
    let want = (Suite::HmacSha1Null, ends(4096, 4097, 5100, 6100));
    assert_eq!(takes(&[line]), want);
}

#[test]
fn opensips_with_s_before_c() {
    let line = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-s=4097;spi-c=4096;port-s=6100;port-c=5100;alg=hmac-sha-1-96;ealg=aes-cbc";
    let want = (Suite::HmacSha1AesCbc, ends(4096, 4097, 5100, 6100));
    assert_eq!(takes(&[line]), want);
}

#[test]
fn huawei_sbc_without_q() {
    let line = "ipsec-3gpp;alg=hmac-sha-1-96;prot=esp;mod=trans;ealg=aes-cbc;spi-c=1400001;spi-s=1400002;port-c=9950;port-s=9900";
    let want = (
        Suite::HmacSha1AesCbc,
        ends(1_400_001, 1_400_002, 9950, 9900),
    );
    assert_eq!(takes(&[line]), want);
}

#[test]
fn nokia_with_blanks_and_spi_c_behind_spi_s() {
    let line = "ipsec-3gpp; q=0.1; alg=hmac-sha-1-96; prot=esp; mod=trans; ealg=null; spi-c=20000002; spi-s=20000001; port-c=6001; port-s=6000";
    let want = (
        Suite::HmacSha1Null,
        ends(20_000_002, 20_000_001, 6001, 6000),
    );
    assert_eq!(takes(&[line]), want);
}

/// Six lines with different q; the core answers 494 unless all of them come back.
#[test]
fn indian_core_with_six_lines_wants_the_whole_list_back() {
    let tail = "prot=esp;mod=trans;spi-c=8001;spi-s=8002;port-c=7001;port-s=7000";
    let line =
        |q: &str, alg: &str, ealg: &str| format!("ipsec-3gpp;q={q};alg={alg};ealg={ealg};{tail}");
    let lines = [
        line("0.1", "hmac-md5-96", "null"),
        line("0.2", "hmac-sha-1-96", "null"),
        line("0.3", "hmac-md5-96", "des-ede3-cbc"),
        line("0.4", "hmac-sha-1-96", "des-ede3-cbc"),
        line("0.5", "hmac-sha-1-96", "aes-cbc"),
        line("0.6", "hmac-md5-96", "aes-cbc"),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let want = ends(8001, 8002, 7001, 7000);
    assert_eq!(takes(&lines), (Suite::HmacSha1AesCbc, want));
    // A phone that still speaks the old ones takes the core's first choice.
    let old = Phone::with(|c| c.suites.extend(Suite::LEGACY));
    assert_eq!(taken_by(old, &lines), (Suite::HmacMd5AesCbc, want));
}

/// One line of six: no encryption is no ealg, and only the last has SPIs and ports.
#[test]
fn british_core_with_ports_in_the_last_mechanism_only() {
    let line = "ipsec-3gpp;q=0.6;alg=hmac-sha-1-96;ealg=aes-cbc,ipsec-3gpp;q=0.5;alg=hmac-md5-96;ealg=aes-cbc,\
                ipsec-3gpp;q=0.4;alg=hmac-sha-1-96;ealg=des-ede3-cbc,ipsec-3gpp;q=0.3;alg=hmac-md5-96;ealg=des-ede3-cbc,\
                ipsec-3gpp;q=0.2;alg=hmac-sha-1-96,ipsec-3gpp;q=0.1;alg=hmac-md5-96;spi-c=9001;spi-s=9002;port-c=5555;port-s=5556";
    let want = ends(9001, 9002, 5555, 5556);
    assert_eq!(takes(&[line]), (Suite::HmacSha1AesCbc, want));
    let plain = Phone::with(|c| c.suites = vec![Suite::HmacSha1Null]);
    assert_eq!(taken_by(plain, &[line]), (Suite::HmacSha1Null, want));
}

#[test]
fn q_last_and_ealg_before_alg() {
    let line = "ipsec-3gpp;ealg=aes-cbc;alg=hmac-sha-1-96;prot=esp;mod=trans;port-c=5100;port-s=6100;spi-c=4096;spi-s=4097;q=0.1";
    let want = (Suite::HmacSha1AesCbc, ends(4096, 4097, 5100, 6100));
    assert_eq!(takes(&[line]), want);
}

#[test]
fn ports_equal_to_spis() {
    let line = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=5100;spi-s=6100;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";
    let want = (Suite::HmacSha1Null, ends(5100, 6100, 5100, 6100));
    assert_eq!(takes(&[line]), want);
}

#[test]
fn ports_65528_and_65529() {
    let line = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4294967294;spi-s=4294967295;port-c=65528;port-s=65529;alg=hmac-sha-1-96;ealg=null";
    let want = (
        Suite::HmacSha1Null,
        ends(u32::MAX - 1, u32::MAX, 65528, 65529),
    );
    assert_eq!(takes(&[line]), want);
}

/// The phone has offered less than the core's policy asks: it gives up, tells why
/// and keeps nothing.
#[test]
fn an_empty_offer_with_421_or_494() {
    for code in [421, 494] {
        let mut phone = Phone::new();
        phone.answered(Some((code, "No")), &["ipsec-3gpp ; q=0.1"]);
        assert_eq!(phone.failure(), Some(UeFailure::Status(code)));
        assert!(phone.install().is_none());
        assert!(!phone.ue.is_registered());
    }
}

/// In a 401 it names nothing to take.
#[test]
fn an_empty_offer_in_a_401_ends_the_procedure() {
    let mut phone = Phone::new();
    phone.answered(None, &["ipsec-3gpp ; q=0.1"]);
    assert!(
        matches!(phone.failure(), Some(UeFailure::SecurityServer(_))),
        "{:?}",
        phone.failure()
    );
    assert!(phone.install().is_none());
}

#[test]
fn another_mechanism_with_a_higher_q_first() {
    let line = "tls;q=0.9,ipsec-ike;q=0.8,ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";
    let want = (Suite::HmacSha1Null, ends(4096, 4097, 5100, 6100));
    assert_eq!(takes(&[line]), want);
}
