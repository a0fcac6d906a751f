//! The edge over real sockets on loopback: a phone and a core that are played
//! by the test, over UDP and TCP. The data plane is a fake, so what should be
//! ESP crosses loopback in clear; the namespace tests show it sealed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use gm_api::control::FlowEvent;
use tokio::sync::broadcast::Receiver;

use super::Running;
use crate::config::Config;
use crate::control::App;
use crate::events::Events;
use crate::plane::Plane;
use crate::sets::Sets;
use crate::testing::{CK, Fake, IK, assert_no_keys, log_everything, logged};

/// Our addresses, of the network 127/8: each test its own.
struct Net {
    gm: Ipv4Addr,
    ue: Ipv4Addr,
    core: SocketAddr,
}

impl Net {
    fn new() -> Net {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let (n, p) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let address = |host: u8| Ipv4Addr::new(127, (p >> 8) as u8 | 0x80, p as u8, n * 8 + host);
        Net {
            gm: address(1),
            ue: address(2),
            core: (address(3), 5060).into(),
        }
    }
}

mod tcp;

struct Bench {
    net: Net,
    app: Arc<App>,
    fake: Arc<Fake>,
    events: Receiver<FlowEvent>,
    core: UdpSocket,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

fn udp(at: impl Into<SocketAddr>) -> UdpSocket {
    let socket = UdpSocket::bind(at.into()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> String {
    let mut buffer = [0; 65_535];
    let (n, _) = socket
        .recv_from(&mut buffer)
        .expect("a message within five seconds");
    String::from_utf8(buffer[..n].to_vec()).unwrap()
}

/// The value of the first header with this name.
fn header<'m>(message: &'m str, name: &str) -> &'m str {
    let found = message.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .trim()
            .eq_ignore_ascii_case(name)
            .then_some(value.trim())
    });
    found.unwrap_or_else(|| panic!("no {name} in {message}"))
}

/// The value of `name=` in a header.
fn parameter(value: &str, name: &str) -> u32 {
    let found = value
        .split([';', ','])
        .find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))
        .and_then(|found| found.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// RAND and AUTN, 32 bytes.
const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const UE_PORTS: &str = "spi-c=35001;spi-s=35002;port-c=31100;port-s=31800";

impl Bench {
    fn start() -> Bench {
        Bench::with("")
    }

    /// With more lines for `[edge]`.
    fn with(more: &str) -> Bench {
        log_everything();
        let net = Net::new();
        let text = format!(
            "[gm]\nuplinks = [\"gmtest0\"]\naddresses = [\"{}\"]\nserver_ports = [5064]\n\
             client_ports = [\"5065-5067\"]\nmax_sas = 64\n\
             [edge]\nnext_hop = \"{}\"\ncore = \"{}:5062\"\n{more}\n",
            net.gm, net.core, net.gm
        );
        let config = Config::parse(&text, Path::new("t.toml")).unwrap();
        let fake = Arc::new(Fake::default());
        let app = App::new(
            config,
            Sets::new(Arc::clone(&fake) as Arc<dyn Plane>),
            Events::new(),
        );
        let events = app.events.subscribe();
        let core = udp(net.core);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let running = super::start(&app, runtime.handle()).unwrap();
        Bench {
            net,
            app,
            fake,
            events,
            core,
            running,
            runtime,
        }
    }

    fn register(&self, transport: &str, from_port: u16, cseq: u32, more: &str) -> String {
        let (ue, impi) = (self.net.ue, "001010000000001@ims.test");
        format!(
            "REGISTER sip:ims.test SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {ue}:{from_port};branch=z9hG4bK{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:{impi}>;tag=a\r\nTo: <sip:{impi}>\r\n\
             Call-ID: c@{ue}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{ue}:31800>;expires=600\r\nExpires: 600\r\n\
             Require: sec-agree\r\nProxy-Require: sec-agree\r\nSupported: path\r\n\
             Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;{UE_PORTS}\r\n\
             {more}Content-Length: 0\r\n\r\n"
        )
    }

    fn sm1(&self, transport: &str, from_port: u16) -> String {
        let authorization = "Authorization: Digest username=\"001010000000001@ims.test\",\
                             realm=\"ims.test\",nonce=\"\",uri=\"sip:ims.test\",response=\"\"\r\n";
        self.register(transport, from_port, 1, authorization)
    }

    fn sm7(&self, transport: &str, security_server: &str) -> String {
        let more = format!(
            "Authorization: Digest username=\"001010000000001@ims.test\",realm=\"ims.test\",\
             nonce=\"{NONCE}\",uri=\"sip:ims.test\",algorithm=AKAv1-MD5,\
             response=\"00000000000000000000000000000000\"\r\n\
             Security-Verify: {security_server}\r\n"
        );
        self.register(transport, 31800, 2, &more)
    }

    /// What the core answers to a request of the edge.
    fn answer(&self, status: &str, request: &str, more: &str) {
        let vias: String = request
            .lines()
            .filter(|line| line.starts_with("Via:"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let answer = format!(
            "SIP/2.0 {status}\r\n{vias}From: {}\r\nTo: {};tag=b\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             {more}Content-Length: 0\r\n\r\n",
            header(request, "From"),
            header(request, "To"),
            header(request, "Call-ID"),
            header(request, "CSeq")
        );
        self.core
            .send_to(answer.as_bytes(), (self.net.gm, 5062))
            .unwrap();
    }

    fn challenge(&self, request: &str) {
        let more = format!(
            "WWW-Authenticate: Digest realm=\"ims.test\",nonce=\"{NONCE}\",algorithm=AKAv1-MD5,\
             ck=\"{CK}\",ik=\"{IK}\",qop=\"auth\"\r\n"
        );
        self.answer("401 Unauthorized", request, &more);
    }

    fn step(&mut self) -> FlowEvent {
        let event =
            async { tokio::time::timeout(Duration::from_secs(5), self.events.recv()).await };
        self.runtime
            .block_on(event)
            .expect("an event within five seconds")
            .unwrap()
    }

    fn states(&self) -> Vec<String> {
        self.fake
            .list()
            .unwrap()
            .into_iter()
            .map(|row| row.state)
            .collect()
    }
}

#[test]
fn a_phone_registers_over_udp() {
    let mut bench = Bench::start();
    let net = (bench.net.gm, bench.net.ue);
    let phone = udp((net.1, 5060));
    phone
        .send_to(bench.sm1("UDP", 5060).as_bytes(), (net.0, 5060))
        .unwrap();
    let sm2 = receive(&bench.core);
    assert!(!sm2.contains("Security-Client"), "{sm2}");
    let sm1 = bench.step();
    assert_eq!(
        (sm1.step.as_str(), sm1.impi.as_deref()),
        ("SM1", Some("001010000000001@ims.test"))
    );

    bench.challenge(&sm2);
    let sm6 = receive(&phone);
    assert!(sm6.starts_with("SIP/2.0 401 "), "{sm6}");
    assert_no_keys(&sm6);
    let server = header(&sm6, "Security-Server").to_owned();
    // Both ways before SM6 has left: SM7 may open a TCP connection.
    assert_eq!(bench.states(), ["live"; 4]);
    let told = bench.step();
    assert_eq!(told.step, "SM6");
    assert_eq!(told.impi.as_deref(), Some("001010000000001@ims.test"));
    assert_eq!(told.suite.as_deref(), Some("hmac-sha-1-96/aes-cbc"));
    assert_eq!(told.mode.as_deref(), Some("trans"));
    assert_eq!(told.spis["uc"], 35001);
    assert_eq!(told.spis["ps"], parameter(&server, "spi-s"));

    let protected = udp((net.1, 31100));
    let port_ps = u16::try_from(parameter(&server, "port-s")).unwrap();
    protected
        .send_to(bench.sm7("UDP", &server).as_bytes(), (net.0, port_ps))
        .unwrap();
    let sm8 = receive(&bench.core);
    assert!(sm8.contains("integrity-protected"), "{sm8}");
    assert_eq!(bench.step().step, "SM7");

    let from_home = udp((net.1, 31800));
    bench.answer(
        "200 OK",
        &sm8,
        &format!("Contact: <sip:{}:31800>;expires=600\r\n", net.1),
    );
    let told = bench.step();
    assert_eq!((told.step.as_str(), told.status), ("SM12", Some(200)));
    // On which of its two pairs the phone hears the answer is gm-sip's matter.
    from_home.set_nonblocking(true).unwrap();
    protected.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    let heard = (0..500).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        [&from_home, &protected]
            .iter()
            .find_map(|socket| socket.recv_from(&mut buffer).ok())
    });
    let (n, from) = heard.expect("SM12 within five seconds");
    assert!(buffer[..n].starts_with(b"SIP/2.0 200 "));
    assert!([5064, 5065, 5066, 5067].contains(&from.port()), "{from}");
    assert_eq!(bench.states(), ["live"; 4]);
    assert_eq!(bench.app.registrations.load(Ordering::Relaxed), 1);

    drop(bench.running.take());
    let log = logged();
    assert!(
        log.contains("SM12 impi=\"001010000000001@ims.test"),
        "{log}"
    );
    assert_no_keys(&log);
}

#[test]
fn a_phone_registers_over_tcp() {
    let mut bench = Bench::start();
    let mut phone = TcpStream::connect((bench.net.gm, 5060)).unwrap();
    phone
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let port = phone.local_addr().unwrap().port();
    // The connection comes from another address of 127/8 than the Via says
    // unless it is bound; the edge takes the source for the phone's address.
    bench.net.ue = match phone.local_addr().unwrap().ip() {
        std::net::IpAddr::V4(v4) => v4,
        std::net::IpAddr::V6(_) => unreachable!("bound to IPv4"),
    };
    phone.write_all(b"\r\n\r\n").unwrap();
    let mut pong = [0; 2];
    phone.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"\r\n");
    let message = bench.sm1("TCP", port);
    // In two pieces, as TCP likes it.
    phone.write_all(&message.as_bytes()[..100]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    phone.write_all(&message.as_bytes()[100..]).unwrap();
    bench.challenge(&receive(&bench.core));
    let mut buffer = [0; 65_535];
    let mut sm6 = String::new();
    while !sm6.ends_with("\r\n\r\n") {
        let n = phone.read(&mut buffer).expect("SM6 within five seconds");
        assert!(n > 0, "closed: {sm6}");
        sm6 += std::str::from_utf8(&buffer[..n]).unwrap();
    }
    assert!(sm6.starts_with("SIP/2.0 401 "), "{sm6}\n{}", logged());
    assert_no_keys(&sm6);
}

#[test]
fn what_is_not_sip_closes_a_connection_and_nothing_else() {
    let bench = Bench::start();
    let mut stranger = TcpStream::connect((bench.net.gm, 5060)).unwrap();
    stranger
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    stranger
        .write_all(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n")
        .unwrap();
    assert_eq!(stranger.read(&mut [0; 16]).unwrap_or(0), 0);
    let phone = udp((bench.net.ue, 5060));
    phone
        .send_to(b"\x00\x01junk", (bench.net.gm, 5060))
        .unwrap();
    phone
        .send_to(bench.sm1("UDP", 5060).as_bytes(), (bench.net.gm, 5060))
        .unwrap();
    assert!(receive(&bench.core).starts_with("REGISTER "));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let bench = Bench::start();
    let error = super::start(&bench.app, bench.runtime.handle())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains(&format!("cannot listen on {}:5060 (UDP)", bench.net.gm)),
        "{error}"
    );
    assert!(error.contains("another program has the port"), "{error}");
}

#[test]
fn the_daemon_is_told_when_the_edge_dies() {
    let bench = Bench::start();
    let fake = Arc::clone(&bench.fake);
    let poisoned = std::thread::spawn(move || {
        let _held = fake.state.lock().unwrap();
        panic!("the fake's lock is poisoned for the test");
    });
    assert!(poisoned.join().is_err());
    let phone = udp((bench.net.ue, 5060));
    let sm1 = bench.sm1("UDP", 5060);
    phone.send_to(sm1.as_bytes(), (bench.net.gm, 5060)).unwrap();
    bench.challenge(&receive(&bench.core));
    let died = bench.runtime.block_on(async {
        let limit = Duration::from_secs(5);
        tokio::time::timeout(limit, bench.app.edge_died.notified()).await
    });
    assert!(died.is_ok(), "nobody is told");
}
