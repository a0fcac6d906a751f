//! TCP from end to end: a phone that registers and is called over it, and a core.

use std::net::{IpAddr, TcpListener};
use std::time::Instant;

use super::*;

/// From exactly `local`, or from any port of it.
fn connect(local: (Ipv4Addr, u16), remote: (Ipv4Addr, u16)) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(local.into()).unwrap();
        socket.connect(remote.into()).await.unwrap()
    });
    let stream = stream.into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    patient(stream)
}

fn patient(stream: TcpStream) -> TcpStream {
    let limit = Some(Duration::from_secs(5));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// The next message without a body.
fn message(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream
            .read_exact(&mut byte)
            .expect("a message within five seconds");
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 64]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false).unwrap();
                return (patient(stream), from);
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("nobody connects: {error}"),
        }
    }
}

/// A request of the core for the phone whose REGISTER went up as `up`.
fn request(bench: &Bench, up: &str, n: u32, more: usize) -> String {
    format!(
        "MESSAGE sip:{}:31800 SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bKc{n}\r\n\
         Max-Forwards: 70\r\nRoute: {}\r\nFrom: <sip:x@ims.test>;tag=x\r\n\
         To: <sip:001010000000001@ims.test>\r\nCall-ID: c{n}\r\nCSeq: {n} MESSAGE\r\n\
         X-Fill: {}\r\nContent-Length: 0\r\n\r\n",
        bench.net.ue,
        bench.net.core,
        header(up, "Path"),
        "x".repeat(more)
    )
}

fn ok(request: &str) -> String {
    let lines = request.lines().filter(|line| {
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    let lines: String = lines.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 200 OK\r\n{lines}Content-Length: 0\r\n\r\n")
}

/// Registers over TCP; gives the connection to port_ps, port_pc and SM8.
fn register(bench: &Bench) -> (TcpStream, u16, String) {
    let (gm, ue) = (bench.net.gm, bench.net.ue);
    // From some port, with 5060 in Via and no rport: answered on the connection.
    let mut first = connect((ue, 0), (gm, 5060));
    first.write_all(bench.sm1("TCP", 5060).as_bytes()).unwrap();
    bench.challenge(&receive(&bench.core));
    let sm6 = message(&mut first);
    assert!(sm6.starts_with("SIP/2.0 401 "), "{sm6}");
    let server = header(&sm6, "Security-Server").to_owned();
    let [port_s, port_c] = ["port-s", "port-c"].map(|name| parameter(&server, name) as u16);
    let mut phone = connect((ue, 31100), (gm, port_s));
    phone
        .write_all(bench.sm7("TCP", &server).as_bytes())
        .unwrap();
    let sm8 = receive(&bench.core);
    let contact = format!("Contact: <sip:{ue}:31800>;expires=600\r\n");
    bench.answer("200 OK", &sm8, &contact);
    assert!(message(&mut phone).starts_with("SIP/2.0 200 "));
    (phone, port_c, sm8)
}

#[test]
fn a_phone_is_called_over_tcp_and_comes_and_goes() {
    let bench = Bench::with("[edge.timers]\nlinger_s = 1");
    let (gm, ue) = (bench.net.gm, bench.net.ue);
    let listener = TcpListener::bind((ue, 31800)).unwrap();
    let (mut phone, port_c, sm8) = register(&bench);
    let to_edge = |text: &str| bench.core.send_to(text.as_bytes(), (gm, 5062)).unwrap();
    let mut called: Option<TcpStream> = None;
    for n in 0..6 {
        to_edge(&request(&bench, &sm8, n, 0));
        let mut stream = called.take().unwrap_or_else(|| {
            let (stream, from) = accept(&listener);
            assert_eq!(from, SocketAddr::from((gm, port_c)));
            stream
        });
        let down = message(&mut stream);
        assert!(down.contains(&format!("CSeq: {n} MESSAGE")), "{down}");
        stream.write_all(ok(&down).as_bytes()).unwrap();
        assert!(receive(&bench.core).contains(&format!("CSeq: {n} MESSAGE")));
        // Every second time the phone closes it, and the SA lives on.
        called = (n % 2 == 0).then_some(stream);
    }
    // Answered on another connection than the request's, if that has gone.
    let options = request(&bench, &sm8, 90, 0)
        .replace("Route:", "X-Route:")
        .replace("UDP", "TCP")
        .replace("sip:x@ims.test", "sip:001010000000001@ims.test");
    phone.write_all(options.as_bytes()).unwrap();
    let up = receive(&bench.core);
    drop(phone);
    std::thread::sleep(Duration::from_millis(100));
    bench.answer("200 OK", &up, "");
    let (mut stream, from) = accept(&listener);
    assert_eq!(from, SocketAddr::from((gm, port_c)));
    assert!(message(&mut stream).starts_with("SIP/2.0 200 "));
    // The SAs go, and with them what went through them.
    let leave = bench
        .register("TCP", 31800, 91, "")
        .replace("expires=600", "expires=0")
        .replace("Expires: 600", "Expires: 0")
        .replace("Security-Client", "X-Offer");
    let mut phone = connect((ue, 31100), (gm, 5064));
    phone.write_all(leave.as_bytes()).unwrap();
    let up = receive(&bench.core);
    bench.answer("200 OK", &up, "");
    assert!(message(&mut phone).starts_with("SIP/2.0 200 "));
    assert!(is_closed(&mut phone) && is_closed(&mut stream));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !bench.states().is_empty() {
        assert!(Instant::now() < deadline, "the set stays");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_phone_that_takes_no_connection_is_called_over_udp() {
    let bench = Bench::start();
    let (_phone, port_c, sm8) = register(&bench);
    let udp = udp((bench.net.ue, 31800));
    for (n, more) in [(1, 0), (2, 2000)] {
        let text = request(&bench, &sm8, n, more);
        bench
            .core
            .send_to(text.as_bytes(), (bench.net.gm, 5062))
            .unwrap();
        let mut buffer = [0; 65_535];
        let (len, from) = udp.recv_from(&mut buffer).unwrap();
        assert_eq!(from, SocketAddr::from((bench.net.gm, port_c)));
        let down = std::str::from_utf8(&buffer[..len]).unwrap();
        assert!(down.contains("Via: SIP/2.0/UDP"), "{down}");
    }
}

#[test]
fn a_core_over_tcp_in_both_directions() {
    let bench = Bench::with("core_transport = \"tcp\"");
    let (gm, ue) = (bench.net.gm, bench.net.ue);
    let listener = TcpListener::bind(bench.net.core).unwrap();
    let phone = udp((ue, 5060));
    phone
        .send_to(bench.sm1("UDP", 5060).as_bytes(), (gm, 5060))
        .unwrap();
    let (mut core, from) = accept(&listener);
    // On loopback an address is everybody's: the port says who it is.
    assert_eq!(from, SocketAddr::from((gm, 5062)));
    let sm2 = message(&mut core);
    assert!(sm2.contains("Via: SIP/2.0/TCP ") && header(&sm2, "Path").contains(";transport=tcp"));
    // Two answers and a request to nobody in one piece, then one in three.
    let refused = ok(&sm2).replace("200 OK", "100 Trying");
    let nobody = request(&bench, &sm2, 5, 0).replace("UDP", "TCP");
    let last = ok(&sm2).replace("200 OK", "403 Forbidden");
    core.write_all(format!("{refused}{nobody}\r\n").as_bytes())
        .unwrap();
    assert!(receive(&phone).starts_with("SIP/2.0 100 "));
    let answer = message(&mut core);
    assert!(answer.starts_with("SIP/2.0 480 "), "{answer}");
    for part in last.as_bytes().chunks(last.len() / 3 + 1) {
        core.write_all(part).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(receive(&phone).starts_with("SIP/2.0 403 "));
    // It goes away and comes back; in between the phone is told.
    drop((core, listener));
    std::thread::sleep(Duration::from_millis(50));
    let again = bench
        .sm1("UDP", 5060)
        .replace("branch=z9hG4bK1", "branch=z9hG4bK2");
    phone.send_to(again.as_bytes(), (gm, 5060)).unwrap();
    let busy = receive(&phone);
    assert!(
        busy.starts_with("SIP/2.0 503 ") && busy.contains("Retry-After"),
        "{busy}"
    );
    let listener = TcpListener::bind(bench.net.core).unwrap();
    phone.send_to(again.as_bytes(), (gm, 5060)).unwrap();
    let (mut core, _) = accept(&listener);
    assert!(message(&mut core).starts_with("REGISTER "));
    // Somebody else of the host is not the core.
    let local = IpAddr::V4(ue);
    assert!(local.is_loopback());
    assert!(is_closed(&mut connect((ue, 0), (gm, 5062))));
}
