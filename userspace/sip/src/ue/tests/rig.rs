//! A phone on a bench: its network is the test.

use super::*;

pub const KAMAILIO: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null";

/// What the P-CSCF says to a registration over the set that [`KAMAILIO`] made: other
/// SPIs and client port, the same server port.
pub const SECOND: &str = "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4098;spi-s=4099;port-c=5101;port-s=6100;alg=hmac-sha-1-96;ealg=null";

/// A SIM that knows one answer.
pub struct Sim(pub Result<(), AkaFailure>);

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

pub struct Rig {
    pub ue: Ue,
    pub out: Vec<UeOutput>,
    pub now: u64,
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl Rig {
    pub fn new() -> Rig {
        Rig::with(Ok(()))
    }

    pub fn with(sim: Result<(), AkaFailure>) -> Rig {
        Rig::of(sim, |_| ())
    }

    /// A phone that is set up in its own way.
    pub fn set_up(change: impl FnOnce(&mut UeConfig)) -> Rig {
        Rig::of(Ok(()), change)
    }

    pub fn of(sim: Result<(), AkaFailure>, change: impl FnOnce(&mut UeConfig)) -> Rig {
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
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(at) = self.ue.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.ue.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// The last message that was sent, and how.
    pub fn last(&mut self) -> (Packet, Message) {
        self.sent().pop().expect("a message")
    }

    /// Everything since the last look.
    pub fn news(&mut self) -> Vec<UeOutput> {
        self.take();
        std::mem::take(&mut self.out)
    }

    /// The network's answer to `request`, by the way that belongs to a set.
    pub fn answer_through(&mut self, set: &SaSetRequest, message: &Message) {
        let (ue, pcscf) = (set.params.ue, set.params.pcscf);
        let local = SocketAddr::new(ue, set.params.ue_ends.port_s);
        let remote = SocketAddr::new(pcscf, set.params.pcscf_ends.port_c);
        self.give(local, remote, message);
    }

    /// The answer to SM1 over a set, with other SPIs and client port of the P-CSCF,
    /// and SM7; the new set.
    pub fn challenged_again(&mut self, old: &SaSetRequest) -> SaSetRequest {
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
    pub fn granted(&mut self, set: &SaSetRequest, seconds: u32) {
        let (_, request) = self.last();
        let contact = request.value("Contact").expect("Contact").into_owned();
        let (uri, _) = contact.rsplit_once(';').expect("expires");
        let ok = Message::response(&request, 200, "OK", "s")
            .with("Contact", &format!("{uri};expires={seconds}"));
        self.answer_through(set, &ok);
    }

    pub fn registered_again(&mut self, old: &SaSetRequest, seconds: u32) -> SaSetRequest {
        let set = self.challenged_again(old);
        self.granted(&set, seconds);
        set
    }

    pub fn take(&mut self) {
        self.out.extend(std::iter::from_fn(|| self.ue.poll()));
    }

    pub fn sent(&mut self) -> Vec<(Packet, Message)> {
        self.take();
        let sent = |o: &UeOutput| match o {
            UeOutput::Send(p) => Some((p.clone(), Message::parse(&p.bytes).expect("SIP"))),
            _ => None,
        };
        self.out.iter().filter_map(sent).collect()
    }

    pub fn events(&mut self) -> Vec<UeEvent> {
        self.take();
        let event = |o: &UeOutput| match o {
            UeOutput::Event(e) => Some(e.clone()),
            _ => None,
        };
        self.out.iter().filter_map(event).collect()
    }

    pub fn install(&mut self) -> Option<SaSetRequest> {
        self.take();
        self.out.iter().rev().find_map(|o| match o {
            UeOutput::Install(request) => Some((**request).clone()),
            _ => None,
        })
    }

    pub fn give(&mut self, local: SocketAddr, remote: SocketAddr, message: &Message) {
        self.give_over(Transport::Udp, local, remote, message);
    }

    pub fn give_over(
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
    pub fn challenged(&mut self, server: &[&str]) {
        self.ue.register(self.now).expect("starts");
        let (packet, sm1) = self.sent().pop().expect("SM1");
        let mut sm6 = challenge(&sm1);
        server
            .iter()
            .for_each(|line| sm6.push(SECURITY_SERVER, line));
        self.give(packet.local, packet.remote, &sm6);
    }

    /// The same up to SM12.
    pub fn registered(&mut self) -> SaSetRequest {
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

pub fn challenge(sm1: &Message) -> Message {
    let value = format!(
        "Digest realm=\"h.example\",nonce=\"{}\",algorithm=AKAv1-MD5,qop=\"auth\"",
        nonce(&[1; 16], &[2; 16])
    );
    Message::response(sm1, 401, "Unauthorized", "s").with("WWW-Authenticate", &value)
}

pub fn message() -> Message {
    Message::request("MESSAGE", "sip:u@192.0.2.1:31800")
        .with("Via", "SIP/2.0/UDP 203.0.113.1:6100;branch=z9hG4bK1")
        .with("From", "<sip:x@h.example>;tag=1")
        .with("To", "<sip:u@h.example>")
        .with("Call-ID", "9")
        .with("CSeq", "1 MESSAGE")
        .with_body(b"hi")
}

pub fn removed(out: &[UeOutput], set: &SaSetRequest) -> bool {
    out.iter()
        .any(|o| *o == UeOutput::Remove { set: set.token })
}

pub fn ports(packet: &Packet) -> (u16, u16) {
    (packet.local.port(), packet.remote.port())
}

pub fn way_out(set: &SaSetRequest) -> (u16, u16) {
    (set.params.ue_ends.port_c, set.params.pcscf_ends.port_s)
}

impl Rig {
    /// What the last REGISTER offered.
    pub fn offered(&mut self) -> crate::sec_agree::Ends {
        let list = SecList::from_message(&self.last().1, "Security-Client").expect("an offer");
        list.proposals().expect("of ours")[0].ends
    }

    pub fn granted_first(&mut self, set: &SaSetRequest) {
        self.granted(set, 3600);
        assert!(self.ue.is_registered());
    }
}
