//! IK, CK and the SIM's K appear in no message to a phone and in nothing that can be
//! logged: whole registrations, good ones and those that go wrong, with every byte
//! that leaves and every Debug and Display of every type on the way searched for the
//! keys in all the shapes that a leak could have.
//!
//! The programs' own logs are looked through by gmespd's tests and by
//! tests/oracle/check_secrets.py.

mod shapes;

use std::net::SocketAddr;

use gm_esp::{Ck, Ik};
use gm_home::vectors::{Operator, Subscriber};
use gm_home::{Home, HomeConfig};
use gm_sip::edge::{Edge, EdgeConfig, Input, Output};
use gm_sip::ue::{Aka, AkaAnswer, AkaFailure, Ue, UeConfig, UeInput, UeOutput};
use gm_sip::{Message, Packet, Randomness};
use rstest::rstest;
use shapes::Haystack;

const K: [u8; 16] = *b"\x8b\xafG?/\x8f\xd0\x94\x87\xcc\xcb\xd7\t|hb";
const OPC: [u8; 16] = *b"\x8e'\xb6\xaf\x0ei.u\x0f2fz;\x14`]";
const DOMAIN: &str = "home.example";

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

fn subscriber() -> Subscriber {
    let impus = ["sip:user1@home.example", "tel:+15550100"];
    Subscriber::new("user1@home.example", &impus, K, Operator::Opc(OPC), 0)
}

/// A SIM that does what it is told to about the sequence number and the MAC.
struct Sim {
    refusals: Vec<AkaFailure>,
}

impl Aka for Sim {
    fn answer(&mut self, rand: &[u8; 16], _autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure> {
        if let Some(refusal) = self.refusals.pop() {
            return Err(refusal);
        }
        let vector = subscriber().vector_at(*rand, 1);
        Ok(AkaAnswer {
            res: vector.xres.clone(),
            ik: Ik::from_bytes(vector.keys.ik),
            ck: Ck::from_bytes(vector.keys.ck),
        })
    }
}

/// Something that changes what the core answers.
type Bend = fn(String) -> String;

struct World {
    now: u64,
    ue: Ue,
    edge: Edge,
    home: Home,
    random: Steps,
    bend: Bend,
    up: Bend,
    installs: bool,
    spi: u32,
    /// All that left for the phone, and all that could have been logged.
    said: Haystack,
    /// Keys that there were.
    keys: Vec<(String, Vec<u8>)>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

impl World {
    fn new(bend: Bend, refusals: Vec<AkaFailure>) -> World {
        let config = EdgeConfig::new(at("203.0.113.2:5060"), at("203.0.113.1:5080"));
        let mut random = Steps(11);
        let mut home = Home::new(HomeConfig {
            domain: DOMAIN.into(),
            local: at("203.0.113.2:5060"),
            max_expires: 3600,
        });
        home.add(subscriber());
        home.registrar().always_challenge = true;
        let (ip, pcscf) = (at("192.0.2.7:0").ip(), at("203.0.113.1:5060"));
        let ue = UeConfig::new(
            "user1@home.example",
            "sip:user1@home.example",
            DOMAIN,
            ip,
            pcscf,
        );
        let mut said = Haystack::default();
        said.debug(&(
            &config,
            &ue,
            subscriber(),
            subscriber().vector_at([7; 16], 1),
        ));
        World {
            now: 1_000_000,
            ue: Ue::new(ue, Box::new(Sim { refusals }), Box::new(Steps(3))),
            edge: Edge::new(config, &mut random).expect("a configuration"),
            home,
            random,
            bend,
            up: |text| text,
            installs: true,
            spi: 5000,
            said,
            keys: vec![("K".into(), K.to_vec()), ("OPc".into(), OPC.to_vec())],
        }
    }

    fn register(&mut self) {
        for _ in 0..2 {
            self.spi += 4;
            self.ue.add_spis([self.spi, self.spi + 1]);
            self.edge
                .add_spis([self.spi + 1_000_000_002, self.spi + 1_000_000_003]);
        }
        let begun = self.ue.register(self.now);
        self.said.debug(&begun);
        self.run();
    }

    fn run(&mut self) {
        loop {
            if let Some(output) = self.ue.poll() {
                self.said.debug(&output);
                self.ue_does(output);
            } else if let Some(output) = self.edge.poll() {
                self.said.debug(&output);
                self.edge_does(output);
            } else {
                return;
            }
        }
    }

    /// Time-outs and retransmissions say nothing either.
    fn wait(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 500;
            self.ue.handle_timeout(self.now);
            self.edge.handle_timeout(self.now);
            self.run();
        }
    }

    fn ue_does(&mut self, output: UeOutput) {
        match output {
            UeOutput::Send(packet) => {
                let text = String::from_utf8_lossy(&packet.bytes).into_owned();
                let bytes = (self.up)(text).into_bytes();
                // What the phone sends is as open as what it gets.
                self.said.bytes(&bytes);
                let input = Input::FromUe {
                    local: packet.remote,
                    remote: packet.local,
                    transport: packet.transport,
                    bytes: &bytes,
                };
                self.said.debug(&input);
                self.edge.handle(self.now, input);
            }
            UeOutput::Install(request) => {
                let set = request.token;
                self.ue
                    .handle(self.now, UeInput::Installed { set, ok: true });
            }
            UeOutput::Event(event) => self.said.debug(&event),
            _ => {}
        }
    }

    fn edge_does(&mut self, output: Output) {
        match output {
            Output::ToUe(packet) => self.ue_gets(&packet),
            Output::ToCore {
                bytes, transport, ..
            } => {
                let from = at("203.0.113.1:5080");
                for (_, answer) in self.home.handle(self.now, from, &bytes, &mut self.random) {
                    self.note_keys(&answer);
                    let bytes = (self.bend)(String::from_utf8_lossy(&answer).into_owned());
                    let (remote, bytes) = (at("203.0.113.2:5060"), bytes.as_bytes());
                    let input = Input::FromCore {
                        remote,
                        transport,
                        bytes,
                    };
                    self.said.debug(&input);
                    self.said.debug(&Message::parse(bytes));
                    self.edge.handle(self.now, input);
                }
                self.said.debug(&self.home.take_events());
            }
            Output::Install(request) => {
                let (set, ok) = (request.token, self.installs);
                self.said.debug(&(request.keys(), &request));
                self.edge.handle(self.now, Input::Installed { set, ok });
            }
            Output::Event(event) => self.said.debug(&event),
            _ => {}
        }
    }

    fn ue_gets(&mut self, packet: &Packet) {
        self.said.bytes(&packet.bytes);
        self.said.debug(packet);
        let input = UeInput::FromNetwork {
            local: packet.remote,
            remote: packet.local,
            transport: packet.transport,
            bytes: &packet.bytes,
        };
        self.said.debug(&input);
        self.ue.handle(self.now, input);
    }

    /// The keys in a challenge of the home network.
    fn note_keys(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        for name in ["ik", "ck"] {
            let Some((_, rest)) = text.split_once(&format!(",{name}=\"")) else {
                continue;
            };
            let key = hex::decode(&rest[..32]).expect("hex");
            self.keys.push((name.to_owned(), key));
        }
    }

    /// Nothing of any key is in what was said.
    fn search(&self, least: usize) {
        assert!(self.keys.len() >= least, "only {} keys", self.keys.len());
        assert!(self.said.len() > 1000, "hardly anything was said");
        for (name, key) in &self.keys {
            self.said.assert_hides(name, key);
        }
    }
}

#[test]
fn ik_ck_and_k_are_in_nothing_that_is_sent_or_shown() {
    let mut world = World::new(|text| text, Vec::new());
    world.register();
    assert!(world.ue.is_registered());
    for _ in 0..2 {
        world.wait(40_000);
        world.register();
        assert!(world.ue.is_registered());
    }
    let sent = world.ue.send(
        world.now,
        "MESSAGE",
        "sip:echo@home.example",
        "text/plain",
        b"x",
    );
    world.said.debug(&sent);
    world.run();
    world.ue.add_spis([77_001, 77_002]);
    world.said.debug(&world.ue.deregister(world.now));
    world.run();
    world.wait(300_000);
    world.search(2 + 2 * 4);
}

#[rstest]
#[case::upper_case(|t: String| t.replace("ik=\"", "IK=\""))]
#[case::in_another_header(|t: String| t.replace("WWW-Authenticate", "Proxy-Authenticate"))]
#[case::in_two_headers(|t: String| match t.split_once("WWW-Authenticate: ") {
    Some((head, rest)) => {
        let line = rest.split("\r\n").next().unwrap_or("");
        format!("{head}Proxy-Authenticate: {line}\r\nWWW-Authenticate: {rest}")
    }
    None => t,
})]
#[case::folded(|t: String| t.replace(",ik=", ",\r\n ik="))]
#[case::twice(|t: String| match t.split_once(",ik=") {
    Some((head, rest)) => format!("{head},ik={},ik={rest}", &rest[..34]),
    None => t,
})]
#[case::in_another_scheme(|t: String| t.replace("Digest realm", "Bearer realm"))]
#[case::with_an_open_quote(|t: String| t.replace("qop=\"auth\"", "qop=\"auth"))]
#[case::not_hex(|t: String| t.replace(",ck=\"", ",ck=\"z"))]
#[case::without_a_nonce(|t: String| t.replace("nonce=\"", "nonce=\"*"))]
#[case::in_a_success(|t: String| {
    let to = "SIP/2.0 200 OK\r\nP-Note: 1";
    t.replace("SIP/2.0 401 Unauthorized", to).replace("WWW-Authenticate", "Authentication-Info")
})]
#[case::in_a_407(|t: String| t.replace("401 Unauthorized", "407 Proxy"))]
#[case::in_a_403(|t: String| t.replace("401 Unauthorized", "403 No"))]
#[case::not_sip(|t: String| t.replace("SIP/2.0 401", "SIP/9.0 401"))]
fn a_challenge_that_is_wrong_shows_no_key_either(#[case] bend: Bend) {
    let mut world = World::new(bend, Vec::new());
    world.register();
    world.wait(300_000);
    world.search(2 + 2);
}

#[rstest]
#[case::resynchronised(vec![AkaFailure::Synchronisation([9; 14])])]
#[case::wrong_mac(vec![AkaFailure::Mac])]
fn a_sim_that_refuses_shows_no_key_either(#[case] refusals: Vec<AkaFailure>) {
    let mut world = World::new(|text| text, refusals);
    world.register();
    world.wait(300_000);
    world.search(2 + 2);
}

#[rstest]
#[case::a_wrong_response(true, |t: String| t.replace("response=\"", "response=\"0"))]
#[case::another_verify(true, |t: String| t.replace("Security-Verify: ipsec", "Security-Verify: x"))]
#[case::no_installation(false, |t: String| t)]
fn a_registration_that_fails_shows_no_key_either(#[case] installs: bool, #[case] up: Bend) {
    let mut world = World::new(|text| text, Vec::new());
    (world.installs, world.up) = (installs, up);
    world.register();
    assert!(!world.ue.is_registered());
    world.wait(300_000);
    world.search(2 + 2);
}

#[test]
fn errors_about_keys_do_not_show_them() {
    let mut said = Haystack::default();
    let (whole, odd) = (hex::encode(K), format!("{}zz", hex::encode(&K[..15])));
    for text in [&whole[..31], &odd, &format!("{whole}00")] {
        let (ik, ck) = (Ik::from_hex(text), Ck::from_hex(text));
        said.debug(&(&ik, &ck));
        said.bytes(ik.map(drop).expect_err("malformed").to_string().as_bytes());
        said.bytes(ck.map(drop).expect_err("malformed").to_string().as_bytes());
    }
    said.debug(&(Ik::from_bytes(K), Ck::from_bytes(K)));
    said.assert_hides("K", &K);
}

#[test]
fn a_key_is_found_in_every_shape() {
    for shape in shapes::all(&K) {
        let mut said = Haystack::default();
        said.bytes(&[b"before ".as_slice(), &shape, b" behind"].concat());
        let found = std::panic::catch_unwind(|| said.assert_hides("K", &K));
        assert!(
            found.is_err(),
            "{:?} is not found",
            String::from_utf8_lossy(&shape)
        );
    }
}
