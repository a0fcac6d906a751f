//! An edge with scripted phones and a scripted core.

use crate::edge::*;
use crate::rand::testing::Steps;
use crate::sec_agree::{Ends, SECURITY_SERVER};

pub const IK: &str = "00112233445566778899aabbccddeeff";
pub const CK: &str = "ffeeddccbbaa99887766554433221100";
pub const UE: &str = "192.0.2.1:5060";
pub const CLEAR: &str = "203.0.113.1:5060";
pub const CORE: &str = "203.0.113.9:5060";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// An edge, its clock and everything that it gave out.
pub struct Rig {
    pub edge: Edge,
    pub now: u64,
    pub out: Vec<Output>,
}

/// One phone's REGISTER lines.
#[derive(Clone)]
pub struct Phone {
    pub user: &'static str,
    pub source: SocketAddr,
    pub ends: Ends,
    pub call: u32,
}

pub fn phone(user: &'static str, n: u16) -> Phone {
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
    pub fn offer(&self) -> String {
        let ends = &self.ends;
        format!(
            "ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; spi-c={}; spi-s={}; port-c={}; port-s={}",
            ends.spi_c, ends.spi_s, ends.port_c, ends.port_s
        )
    }

    pub fn sm1(&self) -> String {
        self.register(self.source, "nonce=\"\",response=\"\"", "")
    }

    /// Over the set: Via and Contact name port-s.
    pub fn sm7(&self, nonce: &str, verify: &str) -> String {
        let at = SocketAddr::new(self.source.ip(), self.ends.port_s);
        let answer = format!("nonce=\"{nonce}\",response=\"0123\",algorithm=AKAv1-MD5");
        self.register(at, &answer, &format!("Security-Verify: {verify}\r\n"))
    }

    pub fn register(&self, at: SocketAddr, answer: &str, more: &str) -> String {
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

    pub fn protected(&self) -> (SocketAddr, SocketAddr) {
        (
            SocketAddr::new(self.source.ip(), self.ends.port_c),
            SocketAddr::new(addr(CLEAR).ip(), 5063),
        )
    }
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080")))
    }

    pub fn with(config: EdgeConfig) -> Rig {
        let mut rig = Rig {
            edge: Edge::new(config, &mut Steps(1)).expect("a configuration"),
            ..Rig::without_spis()
        };
        (0..20).for_each(|n| {
            rig.edge
                .add_spis([1_000_000_000 + 2 * n, 1_000_000_001 + 2 * n])
        });
        rig
    }

    pub fn without_spis() -> Rig {
        let config = EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"));
        Rig {
            edge: Edge::new(config, &mut Steps(1)).expect("a configuration"),
            now: 5_000,
            out: Vec::new(),
        }
    }

    pub fn take(&mut self) -> Vec<Output> {
        let new: Vec<_> = std::iter::from_fn(|| self.edge.poll()).collect();
        self.out.extend(new.iter().cloned());
        new
    }

    pub fn ue(&mut self, source: SocketAddr, local: SocketAddr, text: &str) -> Vec<Output> {
        let input = Input::FromUe {
            local,
            remote: source,
            transport: Transport::Udp,
            bytes: text.as_bytes(),
        };
        self.edge.handle(self.now, input);
        self.take()
    }

    pub fn sm1(&mut self, phone: &Phone) -> Vec<Output> {
        self.ue(phone.source, addr(CLEAR), &phone.sm1())
    }

    pub fn core(&mut self, message: &Message) -> Vec<Output> {
        self.edge.handle(
            self.now,
            Input::FromCore {
                remote: addr(CORE),
                transport: Transport::Udp,
                bytes: &message.to_bytes(),
            },
        );
        self.take()
    }

    /// SM1 to SM6: the set, its nonce and SM6.
    pub fn challenge(&mut self, phone: &Phone, nonce: u8) -> (SetToken, String, Message) {
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
    pub fn register(&mut self, phone: &Phone) -> (SetToken, Message) {
        let (set, nonce, sm6) = self.challenge(phone, phone.call as u8);
        let verify = sm6
            .value(SECURITY_SERVER)
            .expect("Security-Server")
            .into_owned();
        let (source, local) = phone.protected();
        let up = to_core(&self.ue(source, local, &phone.sm7(&nonce, &verify)));
        let ok = Message::response(&up, 200, "OK", "c").with("Contact", &contact(&up));
        let out = self.core(&ok.with("Expires", "3600"));
        assert!(self.out.contains(&Output::Activate { set }), "{out:?}");
        assert_eq!(to_ue(&out)[0].status(), Some(200));
        (set, up)
    }

    pub fn refusals(&mut self) -> Vec<Refusal> {
        self.take();
        let why = |o: &Output| match o {
            Output::Event(FlowEvent::Refused { why, .. }) => Some(*why),
            _ => None,
        };
        self.out.iter().filter_map(why).collect()
    }
}

pub fn contact(up: &Message) -> String {
    let uri = up
        .value("Contact")
        .expect("a Contact")
        .replace("expires=600000", "expires=1800");
    uri.to_owned()
}

pub fn challenge(up: &Message, nonce: u8, keys: &str) -> (String, Message) {
    let nonce = crate::aka::nonce(&[nonce; 16], &[2; 16]);
    let value = format!("Digest realm=\"h\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,{keys}");
    (
        nonce,
        Message::response(up, 401, "Unauthorized", "c").with("WWW-Authenticate", &value),
    )
}

pub fn to_core(out: &[Output]) -> Message {
    let bytes = out.iter().find_map(|o| match o {
        Output::ToCore { bytes, .. } => Some(bytes),
        _ => None,
    });
    Message::parse(bytes.unwrap_or_else(|| panic!("nothing for the core in {out:?}"))).expect("SIP")
}

pub fn packets(out: &[Output]) -> Vec<Packet> {
    let packet = |o: &Output| match o {
        Output::ToUe(packet) => Some(packet.clone()),
        _ => None,
    };
    out.iter().filter_map(packet).collect()
}

pub fn to_ue(out: &[Output]) -> Vec<Message> {
    packets(out)
        .iter()
        .map(|p| Message::parse(&p.bytes).expect("SIP"))
        .collect()
}

pub fn installs(out: &[Output]) -> Vec<SetToken> {
    let token = |o: &Output| match o {
        Output::Install(request) => Some(request.token),
        _ => None,
    };
    out.iter().filter_map(token).collect()
}
