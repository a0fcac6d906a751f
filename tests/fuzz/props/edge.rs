//! An edge and a sequence of what comes to it: nothing stops it, what it says is
//! bounded and is SIP, no key goes to a phone, and when time has passed nothing is left.

use std::net::{IpAddr, SocketAddr};

use gm_sip::edge::{Edge, EdgeConfig, Input, Output};
use gm_sip::{Message, Randomness, SaSetRequest, Transport};

/// Records end with this byte; the first byte of one says what happens.
const END: u8 = 0x1e;
/// More than this is not looked at.
const RECORDS: usize = 48;
const IK: &str = "a1b2c3d4e5f60718293a4b5c6d7e8f90";
const CK: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Steps(u64);

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

struct World {
    now: u64,
    edge: Edge,
    /// The latest request that went to the core.
    asked: Vec<u8>,
    set: Option<SaSetRequest>,
    /// Security-Server of the latest SM6, and the list that it answered.
    server: String,
    client: String,
    installs: bool,
    spi: u32,
}

fn at(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::from(ip), port)
}

const EDGE: [u8; 4] = [203, 0, 113, 1];
const CORE: [u8; 4] = [203, 0, 113, 2];

/// What a run is made of: see `World::record`.
pub fn check(data: &[u8]) {
    let mut config = EdgeConfig::new(at(CORE, 5060), at(EDGE, 5080));
    config.emergency_in_clear = data.len().is_multiple_of(2);
    let limits = config.limits;
    let mut world = World {
        now: 1_000_000,
        edge: Edge::new(config, &mut Steps(1)).expect("a configuration"),
        asked: Vec::new(),
        set: None,
        server: String::new(),
        client: String::new(),
        installs: true,
        spi: 1_000_000_000,
    };
    for record in data.split(|b| *b == END).take(RECORDS) {
        world.record(record);
        let (contacts, sets) = world.edge.len();
        assert!(contacts <= sets && sets <= RECORDS && sets <= contacts * limits.sets_per_contact);
    }
    while let Some(next) = world.edge.next_timeout() {
        assert!(next >= world.now, "time stands still");
        // Registrations may last for as long as 32 bits of seconds.
        world.now = next;
        world.edge.handle_timeout(next);
        world.take();
        assert!(
            world.edge.next_timeout() != Some(next),
            "a time-out that stays"
        );
    }
    assert!(world.edge.is_empty(), "something is left");
}

impl World {
    fn record(&mut self, record: &[u8]) {
        while self.edge.wants_spis() {
            self.edge.add_spis([self.spi, self.spi + 1]);
            self.spi += 2;
        }
        let Some((what, rest)) = record.split_first() else {
            return;
        };
        let text = String::from_utf8_lossy(rest).into_owned();
        match what {
            // A first REGISTER with this list; SM7 with more lines; SM7 over TCP.
            b'r' => {
                self.client.clone_from(&text);
                let bytes = self.register(b'7', "", &text, "");
                self.ue_sends(at([198, 51, 100, 7], 5060), 5060, Transport::Udp, &bytes);
            }
            b's' | b'S' => self.answer(
                &text,
                if *what == b's' {
                    Transport::Udp
                } else {
                    Transport::Tcp
                },
            ),
            // The core answers: a challenge, a success, a failure.
            b'k' => {
                let line = format!(
                    "WWW-Authenticate: Digest realm=\"r\",nonce=\"{NONCE}\",algorithm=AKAv1-MD5,ik=\"{IK}\",ck=\"{CK}\",qop=\"auth\"\r\n{text}"
                );
                self.core_answers("401 Unauthorized", &line);
            }
            b'o' => {
                let line = format!("Contact: <sip:u@198.51.100.7:31800>;expires=600\r\n{text}");
                self.core_answers("200 OK", &line);
            }
            b'f' => self.core_answers(text.lines().next().unwrap_or("403 No"), ""),
            // As it is: in clear, over the set in both directions of ports, from the core.
            b'u' => self.ue_sends(at([198, 51, 100, 7], 5060), 5060, Transport::Udp, rest),
            b'p' | b'P' => {
                if let Some(set) = &self.set {
                    let (u, p) = (set.params.ue_ends, set.params.pcscf_ends);
                    let ports = if *what == b'p' {
                        (u.port_c, p.port_s)
                    } else {
                        (u.port_s, p.port_c)
                    };
                    self.ue_sends(
                        SocketAddr::new(set.params.ue, ports.0),
                        ports.1,
                        Transport::Udp,
                        rest,
                    );
                }
            }
            b'd' => self.core_sends(rest),
            // Time, at most some days at a step; an Install that fails.
            b't' => {
                let steps: u64 = rest.iter().take(4).map(|b| u64::from(*b)).product();
                self.now += steps;
                while self.edge.next_timeout().is_some_and(|t| t <= self.now) {
                    self.edge.handle_timeout(self.now);
                    self.take();
                }
            }
            b'i' => self.installs = false,
            _ => {}
        }
    }

    fn register(&self, host: u8, verify: &str, client: &str, more: &str) -> Vec<u8> {
        let port = if verify.is_empty() { 5060 } else { 31800 };
        let (nonce, response) = if verify.is_empty() {
            ("", "")
        } else {
            (NONCE, "00112233445566778899aabbccddeeff")
        };
        let verify = match verify {
            "" => String::new(),
            list => format!("Security-Verify: {list}\r\n"),
        };
        format!(
            "REGISTER sip:r SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.{};branch=z9hG4bK{}{}\r\n\
             From: <sip:u@r>;tag=1\r\nTo: <sip:u@r>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\n\
             Contact: <sip:u@198.51.100.7:31800>\r\nRequire: sec-agree\r\nProxy-Require: sec-agree\r\n\
             Authorization: Digest username=\"u@r\",realm=\"r\",nonce=\"{nonce}\",uri=\"sip:r\",response=\"{response}\"\r\n\
             Security-Client: {client}\r\n{verify}{more}\r\n\r\n",
            format_args!("{}:{port}", host - b'0'),
            self.now,
            self.spi
        )
        .into_bytes()
    }

    /// SM7 through the latest set.
    fn answer(&mut self, more: &str, transport: Transport) {
        let Some(set) = &self.set else {
            return;
        };
        let (u, p) = (set.params.ue_ends, set.params.pcscf_ends);
        let from = SocketAddr::new(set.params.ue, u.port_c);
        let bytes = self.register(b'7', &self.server, &self.client, more);
        self.ue_sends(from, p.port_s, transport, &bytes);
    }

    fn core_answers(&mut self, status: &str, more: &str) {
        let Ok(request) = Message::parse(&self.asked) else {
            return;
        };
        if request.method().is_none() {
            return;
        }
        let answer = Message::response(&request, 401, "Unauthorized", "t2").to_bytes();
        let lines = answer
            .split_at(answer.iter().position(|b| *b == b'\n').unwrap_or(0) + 1)
            .1;
        let head = format!("SIP/2.0 {status}\r\n");
        let end = lines.len() - 2;
        let bytes = [head.as_bytes(), &lines[..end], more.as_bytes(), b"\r\n\r\n"].concat();
        self.core_sends(&bytes);
    }

    fn ue_sends(&mut self, remote: SocketAddr, port: u16, transport: Transport, bytes: &[u8]) {
        let local = at(EDGE, port);
        let input = Input::FromUe {
            local,
            remote,
            transport,
            bytes,
        };
        self.edge.handle(self.now, input);
        self.take();
    }

    fn core_sends(&mut self, bytes: &[u8]) {
        let (remote, transport) = (at(CORE, 5060), Transport::Udp);
        let input = Input::FromCore {
            remote,
            transport,
            bytes,
        };
        self.edge.handle(self.now, input);
        self.take();
    }

    /// Everything that the edge wants, which is little.
    fn take(&mut self) {
        let mut count = 0;
        while let Some(output) = self.edge.poll() {
            count += 1;
            assert!(count < 256, "one input, and it never stops");
            match output {
                Output::ToUe(packet) => self.ue_gets(&packet.bytes),
                Output::ToCore { bytes, .. } => {
                    let message = Message::parse(&bytes).expect("what an edge sends is SIP");
                    if message.method().is_some() {
                        self.asked = bytes;
                    }
                }
                Output::Resolve { id, .. } => {
                    let addresses: &[IpAddr] = &[[198, 51, 100, 7].into()];
                    let addresses = &addresses[..usize::from(self.installs)];
                    self.edge
                        .handle(self.now, Input::Resolved { id, addresses });
                }
                Output::Install(request) => {
                    let (set, ok) = (request.token, std::mem::replace(&mut self.installs, true));
                    let (u, p) = (request.params.ue_ends, request.params.pcscf_ends);
                    let spis = [u.spi_c, u.spi_s, p.spi_c, p.spi_s];
                    assert!((0..4).all(|n| !spis[..n].contains(&spis[n])), "SPIs differ");
                    assert!(
                        !request.params.suite.is_legacy(),
                        "a legacy suite without the switch"
                    );
                    self.set = Some(*request);
                    self.edge.handle(self.now, Input::Installed { set, ok });
                }
                Output::Event(event) => hides_keys(format!("{event:?}").as_bytes()),
                _ => {}
            }
        }
    }

    fn ue_gets(&mut self, bytes: &[u8]) {
        let message = Message::parse(bytes).expect("what an edge sends is SIP");
        if let Some(list) = message
            .value("Security-Server")
            .filter(|_| message.status() == Some(401))
        {
            self.server = list.into_owned();
        }
        hides_keys(bytes);
    }
}

fn hides_keys(bytes: &[u8]) {
    let text = bytes.to_ascii_lowercase();
    for key in [IK, CK] {
        let shown = text.windows(key.len()).any(|w| w == key.as_bytes());
        assert!(!shown, "a key is shown");
    }
}
