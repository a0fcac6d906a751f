//! The proxy against messages of a UE and of a P-CSCF, without I/O.

mod life;
mod pass;
mod register;

use std::net::SocketAddr;

use gm_esp::{Ck, Ik};
use gm_sip::aka;
use gm_sip::message::Message;
use gm_sip::sec_agree::{self, Ends, Policy, SecList};
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure, UeConfig};
use gm_sip::{Packet, Randomness, SaSetRequest, SetToken, Transport};

use super::machine::{Proxy, ProxyConfig, ProxyEvent, ProxyInput, ProxyOutput};

const UE: &str = "127.0.0.1:5071";
const LISTEN: &str = "127.0.0.1:5070";
const CLEAR: &str = "192.0.2.10:5060";
const PCSCF: &str = "192.0.2.1:5060";

/// The P-CSCF's end of the n-th set: port_pc differs, port_ps does not.
fn network(n: u8) -> Ends {
    Ends {
        spi_c: 7000 + u32::from(n),
        spi_s: 8000 + u32::from(n),
        port_c: 5066 + u16::from(n),
        port_s: 5066,
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Knows every challenge but those whose AUTN begins with 0xbad.
struct Usim;

impl Aka for Usim {
    fn answer(&mut self, _: &[u8; 16], autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        if autn[..2] == [0xba, 0xd0] {
            return Err(AkaFailure::Mac);
        }
        Ok(AkaAnswer {
            res: aka::Res::new(&[1; 8]).ok_or(AkaFailure::Mac)?,
            ik: Ik::from_bytes([0x11; 16]),
            ck: Ck::from_bytes([0x22; 16]),
        })
    }
}

struct Count(u32);

impl Randomness for Count {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (self.0 >> 24) as u8;
        }
    }
}

struct Rig {
    proxy: Proxy,
    /// A P-CSCF that has one port_pc for all sets.
    one_port: bool,
    now: u64,
    cseq: u32,
    spi: u32,
}

/// What came out, by kind.
#[derive(Default, Debug)]
struct Out {
    ue: Vec<(SocketAddr, Message)>,
    network: Vec<(Packet, Message)>,
    installs: Vec<SaSetRequest>,
    activated: Vec<SetToken>,
    removed: Vec<SetToken>,
    unreserved: Vec<[u32; 2]>,
    events: Vec<ProxyEvent>,
}

impl Out {
    fn to_ue(&self) -> &Message {
        assert_eq!(self.ue.len(), 1, "{self:?}");
        &self.ue[0].1
    }

    fn to_network(&self) -> &(Packet, Message) {
        assert_eq!(self.network.len(), 1, "{self:?}");
        &self.network[0]
    }

    fn dropped(&self) -> &str {
        assert!(self.ue.is_empty() && self.network.is_empty(), "{self:?}");
        match self.events.as_slice() {
            [ProxyEvent::Dropped { reason }] => reason,
            other => panic!("{other:?}"),
        }
    }
}

impl Rig {
    fn new() -> Rig {
        let ip = at(CLEAR).ip();
        let gm = UeConfig::new("a@home.test", "sip:a@home.test", "home.test", ip, at(PCSCF));
        let listen = at(LISTEN);
        let config = ProxyConfig { gm, listen };
        let mut rig = Rig {
            proxy: Proxy::new(config, Box::new(Usim), Box::new(Count(1))),
            one_port: false,
            now: 1000,
            cseq: 0,
            spi: 1_000_000_000,
        };
        rig.refill();
        rig
    }

    fn refill(&mut self) {
        while self.proxy.wants_spis() {
            self.spi += 2;
            self.proxy.add_spis([self.spi, self.spi + 1]);
        }
    }

    fn drain(&mut self) -> Out {
        let mut out = Out::default();
        while let Some(output) = self.proxy.poll() {
            let parse = |bytes: &[u8]| Message::parse(bytes).expect("SIP");
            match output {
                ProxyOutput::ToUe { remote, bytes } => out.ue.push((remote, parse(&bytes))),
                ProxyOutput::ToNetwork(packet) => {
                    let message = parse(&packet.bytes);
                    out.network.push((packet, message));
                }
                ProxyOutput::Install(request) => out.installs.push(*request),
                ProxyOutput::Activate(set) => out.activated.push(set),
                ProxyOutput::Retire(_) => {}
                ProxyOutput::Remove(set) => out.removed.push(set),
                ProxyOutput::Unreserve(spis) => out.unreserved.push(spis),
                ProxyOutput::Event(event) => out.events.push(event),
            }
        }
        self.refill();
        out
    }

    fn ue_sends(&mut self, message: &Message) -> Out {
        self.ue_sends_at(UE, message)
    }

    fn ue_sends_at(&mut self, remote: &str, message: &Message) -> Out {
        let (bytes, remote) = (message.to_bytes(), at(remote));
        let input = ProxyInput::FromUe {
            remote,
            bytes: &bytes,
        };
        self.proxy.handle(self.now, input);
        self.drain()
    }

    /// From `remote` to `local`, in clear or out of an SA by these addresses.
    fn network_sends(&mut self, local: SocketAddr, remote: SocketAddr, message: &Message) -> Out {
        let bytes = message.to_bytes();
        let input = ProxyInput::FromNetwork {
            local,
            remote,
            transport: Transport::Udp,
            bytes: &bytes,
        };
        self.proxy.handle(self.now, input);
        self.drain()
    }

    fn in_clear(&mut self, message: &Message) -> Out {
        self.network_sends(at(CLEAR), at(PCSCF), message)
    }

    /// Through a set: from port_pc to port_us.
    fn sealed(&mut self, set: &SaSetRequest, message: &Message) -> Out {
        let (ue, pcscf) = (set.params.ue, set.params.pcscf);
        let local = SocketAddr::new(ue, set.params.ue_ends.port_s);
        let remote = SocketAddr::new(pcscf, set.params.pcscf_ends.port_c);
        self.network_sends(local, remote, message)
    }

    fn installed(&mut self, set: SetToken, ok: bool) -> Out {
        self.proxy
            .handle(self.now, ProxyInput::Installed { set, ok });
        self.drain()
    }

    fn register(&mut self, authorization: &str, expires: u32) -> Message {
        self.cseq += 1;
        let n = self.cseq;
        Message::request("REGISTER", "sip:home.test")
            .with(
                "Via",
                &format!("SIP/2.0/UDP {UE};branch=z9hG4bK-sipp-{n};x=y"),
            )
            .with("From", "<sip:a@home.test>;tag=1")
            .with("To", "<sip:a@home.test>")
            .with("Call-ID", "1@sipp")
            .with("CSeq", &format!("{n} REGISTER"))
            .with("Contact", "<sip:a@127.0.0.1:5072;transport=udp>")
            .with("Expires", &expires.to_string())
            .with("Max-Forwards", "70")
            .with("Authorization", authorization)
            .with("Content-Length", "0")
    }

    fn first(&mut self, expires: u32) -> Message {
        self.register(
            "Digest username=\"a@home.test\",realm=\"home.test\",nonce=\"\",uri=\"sip:home.test\",response=\"\"",
            expires,
        )
    }

    fn answer(&mut self, nonce: &str, expires: u32) -> Message {
        let value = format!(
            "Digest username=\"a@home.test\",realm=\"home.test\",nonce=\"{nonce}\",uri=\"sip:home.test\",response=\"{}\"",
            "0".repeat(32)
        );
        self.register(&value, expires)
    }

    /// A whole registration with a challenge; the set in use afterwards.
    fn registered(&mut self, autn: u8, expires: u32) -> SaSetRequest {
        let over = self.proxy.sets.current().map(|s| s.token);
        let first = self.first(expires);
        let sm1 = self.ue_sends(&first);
        let (packet, sm1) = sm1.to_network();
        let mut challenge = challenged(sm1, autn);
        if self.one_port {
            challenge.rewrite("Security-Server", |list| {
                Some(list.replace(&format!("port-c={}", network(autn).port_c), "port-c=5067"))
            });
        }
        let sm6 = self.network_sends(packet.local, packet.remote, &challenge);
        let set = sm6.installs[0].clone();
        assert_eq!(over.is_some(), packet.local != at(CLEAR));
        self.installed(set.token, true);
        let answer = self.answer(&nonce(autn), expires);
        let sm7 = self.ue_sends(&answer);
        let ok = granted(&sm7.to_network().1, expires);
        let sm12 = self.sealed(&set, &ok);
        assert_eq!(sm12.to_ue().status(), Some(200));
        set
    }
}

fn nonce(autn: u8) -> String {
    aka::nonce(&[9; 16], &[autn; 16])
}

/// A 401 as a P-CSCF sends it.
fn challenged(request: &Message, autn: u8) -> Message {
    let offer = SecList::from_message(request, "Security-Client").expect("an offer");
    assert_eq!(offer.proposals().map(|p| p.len()), Ok(8), "{offer}");
    Message::response(request, 401, "Unauthorized", "net")
        .with(
            "WWW-Authenticate",
            &format!(
                "Digest realm=\"home.test\",nonce=\"{}\",algorithm=AKAv1-MD5,qop=\"auth\"",
                nonce(autn)
            ),
        )
        .with(
            "Security-Server",
            &sec_agree::server_list(&Policy::default(), gm_esp::Mode::Trans, &network(autn)),
        )
        .with("Require", "sec-agree")
        .with("X-Core", "  stays ")
}

/// A 200 that grants what the contact asks for.
fn granted(request: &Message, expires: u32) -> Message {
    let contact = request.value("Contact").unwrap_or_default().into_owned();
    Message::response(request, 200, "OK", "net")
        .with("Contact", &format!("{contact};expires={expires}"))
        .with("Service-Route", "<sip:scscf.home.test;lr>")
}

fn message_to(uri: &str, branch: &str) -> Message {
    Message::request("MESSAGE", uri)
        .with("Via", branch)
        .with("From", "<sip:a@home.test>;tag=2")
        .with("To", "<sip:echo@home.test>")
        .with("Call-ID", "2@sipp")
        .with("CSeq", "1 MESSAGE")
        .with("X-Unknown", "  kept")
        .with_body(b"hello")
}
