//! An edge with scripted phones and a scripted core.

use std::net::SocketAddr;

use gm_sip::edge::{Edge, EdgeConfig, FlowEvent, Input, Output, Refusal};
use gm_sip::sec_agree::SECURITY_SERVER;
use gm_sip::{Message, Packet, Randomness, SaSetRequest, SetToken, Transport};

use crate::messages::{Phone, Shape, challenge, success};

pub const IK: &str = "00112233445566778899aabbccddeeff";
pub const CK: &str = "FFEEDDCCBBAA99887766554433221100";
pub const CLEAR: &str = "203.0.113.1:5060";
pub const CORE: &str = "203.0.113.9:5060";

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// As an S-CSCF writes them.
pub fn keys() -> String {
    format!(", ck=\"{CK}\", ik=\"{IK}\", qop=\"auth\"")
}

/// A counter that looks random enough and repeats its run.
pub struct Steps(pub u64);

impl Randomness for Steps {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self
                .0
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

pub struct Rig {
    pub edge: Edge,
    pub now: u64,
    /// Everything that the edge gave out.
    pub out: Vec<Output>,
}

/// What a registration leaves.
pub struct Registered {
    pub set: SetToken,
    pub sm2: Message,
    pub sm6: Message,
    pub sm8: Message,
    pub sm12: Packet,
    /// Security-Server's value.
    pub server: String,
}

pub fn config() -> EdgeConfig {
    EdgeConfig::new(addr(CORE), addr("203.0.113.1:5080"))
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(config())
    }

    /// For a model that has nothing but legacy suites: with the switch.
    pub fn fit(phone: &Phone) -> Rig {
        let mut config = config();
        config.policy.legacy = phone.model.legacy;
        Rig::with(config)
    }

    pub fn with(config: EdgeConfig) -> Rig {
        let mut edge = Edge::new(config, &mut Steps(1)).expect("a configuration");
        (0..20).for_each(|n| edge.add_spis([1_000_000_000 + 2 * n, 1_000_000_001 + 2 * n]));
        Rig {
            edge,
            now: 5_000,
            out: Vec::new(),
        }
    }

    pub fn take(&mut self) -> Vec<Output> {
        let new: Vec<_> = std::iter::from_fn(|| self.edge.poll()).collect();
        self.out.extend(new.iter().cloned());
        new
    }

    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.edge.handle_timeout(self.now);
        self.take();
    }

    pub fn ue(&mut self, remote: SocketAddr, local: SocketAddr, text: &str) -> Vec<Output> {
        self.ue_over(Transport::Udp, remote, local, text)
    }

    pub fn ue_over(
        &mut self,
        transport: Transport,
        remote: SocketAddr,
        local: SocketAddr,
        text: &str,
    ) -> Vec<Output> {
        let input = Input::FromUe {
            local,
            remote,
            transport,
            bytes: text.as_bytes(),
        };
        self.edge.handle(self.now, input);
        self.take()
    }

    /// In clear.
    pub fn clear(&mut self, phone: &Phone, shape: &Shape) -> Vec<Output> {
        self.ue(phone.source, addr(CLEAR), &phone.text(shape))
    }

    /// From port_uc to port_ps of the phone's present offer.
    pub fn protected(&mut self, phone: &Phone, text: &str) -> Vec<Output> {
        self.ue(phone.protected(), addr("203.0.113.1:5063"), text)
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

    /// The core challenges `up`; SM6 is what the phone gets.
    pub fn challenged(&mut self, up: &Message, n: u8, params: &str) -> (SetToken, Message) {
        let out = self.core(&challenge(up, n, params));
        let set = installs(&out)
            .pop()
            .unwrap_or_else(|| panic!("no Install in {out:?}"))
            .token;
        self.edge
            .handle(self.now, Input::Installed { set, ok: true });
        (set, to_ue(&self.take()).pop().expect("SM6"))
    }

    /// A first REGISTER through to its 200, with the challenge `n`.
    pub fn register(&mut self, phone: &Phone, n: u8) -> Registered {
        self.register_as(phone, n, &phone.sm1())
    }

    pub fn register_as(&mut self, phone: &Phone, n: u8, sm1: &Shape) -> Registered {
        let sm2 = to_core(&self.clear(phone, sm1));
        self.finish(phone, n, sm2)
    }

    /// From SM2 on: challenge, answer over the new set, success.
    pub fn finish(&mut self, phone: &Phone, n: u8, sm2: Message) -> Registered {
        let (set, sm6) = self.challenged(&sm2, n, &keys());
        let server = sm6
            .value(SECURITY_SERVER)
            .expect("Security-Server")
            .into_owned();
        let sm7 = phone.text(&phone.sm7(&crate::messages::nonce(n), &server));
        let sm8 = to_core(&self.protected(phone, &sm7));
        let out = self.core(&success(&sm8, 3600));
        assert!(
            out.contains(&Output::Activate { set }) || self.out.contains(&Output::Activate { set }),
            "{out:?}"
        );
        let sm12 = packets(&out).pop().expect("SM12");
        assert!(sm12.bytes.starts_with(b"SIP/2.0 200"), "{sm12:?}");
        Registered {
            set,
            sm2,
            sm6,
            sm8,
            sm12,
            server,
        }
    }

    /// port_pc of the set that was made last.
    pub fn port_pc(&self) -> u16 {
        let last = installs(&self.out).pop().expect("an Install");
        last.params.pcscf_ends.port_c
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

pub fn installs(out: &[Output]) -> Vec<SaSetRequest> {
    let request = |o: &Output| match o {
        Output::Install(request) => Some((**request).clone()),
        _ => None,
    };
    out.iter().filter_map(request).collect()
}

/// The message's text.
pub fn text(message: &Message) -> String {
    String::from_utf8(message.to_bytes()).expect("text")
}
