//! TCP towards the core: when, from where it shows, and what becomes of what cannot be sent.

use super::rig::*;
use super::tcp::{config, from_core, one};
use super::*;
use crate::edge::Input;
use crate::framing::{self, Frame};

fn over_tcp(mut config: EdgeConfig) -> EdgeConfig {
    config.core_transport = Transport::Tcp;
    config
}

/// What goes to the core, with its transport.
fn core_side(out: &[Output]) -> Vec<(SocketAddr, Transport, Message)> {
    let sent = |o: &Output| match o {
        Output::ToCore {
            remote,
            transport,
            bytes,
        } => Some((*remote, *transport, Message::parse(bytes).expect("SIP"))),
        _ => None,
    };
    out.iter().filter_map(sent).collect()
}

fn unsent_to_core(rig: &mut Rig, remote: SocketAddr, message: &Message) -> Vec<Output> {
    let bytes = &message.to_bytes();
    rig.edge
        .handle(rig.now, Input::UnsentToCore { remote, bytes });
    rig.take()
}

#[test]
fn a_large_request_to_the_core_goes_over_tcp_and_back_to_udp_where_nobody_listens() {
    let mut rig = Rig::new();
    let mut long = phone("a", 1);
    let more = format!("P-Long: {}\r\nMax-Forwards:", "x".repeat(1300));
    let text = long.sm1().replace("Max-Forwards:", &more);
    let out = rig.ue(long.source, addr(CLEAR), &text);
    let (remote, transport, up) = core_side(&out).remove(0);
    assert_eq!((remote, transport), (addr(CORE), Transport::Tcp));
    assert!(
        up.first_element("Via")
            .expect("Via")
            .starts_with("SIP/2.0/TCP 203.0.113.1:5080;")
    );
    let (_, transport, again) = core_side(&unsent_to_core(&mut rig, remote, &up)).remove(0);
    assert_eq!(transport, Transport::Udp);
    assert!(
        again
            .first_element("Via")
            .expect("Via")
            .starts_with("SIP/2.0/UDP 203.0.113.1:5080;")
    );
    // The phone's retransmission does not try again.
    let out = rig.ue(long.source, addr(CLEAR), &text);
    assert_eq!(core_side(&out)[0].1, Transport::Udp);
    // The answer is the phone's as ever.
    let out = rig.core(&Message::response(&again, 403, "Forbidden", "c"));
    assert_eq!(to_ue(&out)[0].status(), Some(403));
    long.call = 2;
    rig.now += 600_000;
    let text = long.sm1().replace("Max-Forwards:", &more);
    let out = rig.ue(long.source, addr(CLEAR), &text);
    assert_eq!(core_side(&out)[0].1, Transport::Tcp);
    // To a core on this host every message fits.
    let mut config = config();
    config.core = addr("127.0.0.1:5070");
    let mut near = Rig::with(config);
    let out = near.ue(long.source, addr(CLEAR), &text);
    assert_eq!(core_side(&out)[0].1, Transport::Udp);
}

#[test]
fn a_core_over_tcp_hears_of_it_in_via_path_and_record_route() {
    let mut rig = Rig::with(over_tcp(config()));
    let (_, up) = rig.register(&phone("a", 1));
    assert!(
        up.first_element("Via")
            .expect("Via")
            .starts_with("SIP/2.0/TCP ")
    );
    let path = up.first_element("Path").expect("Path");
    assert!(
        path.ends_with("@203.0.113.1:5080;transport=tcp;lr>"),
        "{path}"
    );
}

#[test]
fn a_core_that_cannot_be_reached_is_a_503_for_the_phone() {
    let mut rig = Rig::with(over_tcp(config()));
    let phone = phone("a", 1);
    let (remote, _, up) = core_side(&rig.sm1(&phone)).remove(0);
    let out = unsent_to_core(&mut rig, remote, &up);
    let answer = to_ue(&out).pop().expect("an answer");
    assert_eq!(answer.status(), Some(503));
    assert!(answer.value("Retry-After").is_some() && answer.elements("Via").len() == 1);
    assert!(core_side(&out).is_empty());
    // The same REGISTER goes up again, and then all is well.
    rig.register(&phone);
}

#[test]
fn answers_to_a_core_over_tcp_go_on_its_connection_or_to_its_via() {
    let mut rig = Rig::new();
    let (_, up) = rig.register(&phone("a", 1));
    let request = from_core("MESSAGE", &up, "1", 0);
    let mut request = request;
    request.remove("Via");
    request.insert_top("Via", "SIP/2.0/TCP 203.0.113.9:5066;branch=z9hG4bK1");
    let connection = addr("203.0.113.9:41000");
    let input = Input::FromCore {
        remote: connection,
        transport: Transport::Tcp,
        bytes: &request.to_bytes(),
    };
    rig.edge.handle(rig.now, input);
    let packet = one(&rig.take());
    let answer = Message::response(&Message::parse(&packet.bytes).expect("SIP"), 200, "OK", "u");
    let answer = String::from_utf8(answer.to_bytes()).expect("text");
    let (source, local) = phone("a", 1).protected();
    let (remote, transport, answer) = core_side(&rig.ue(source, local, &answer)).remove(0);
    assert_eq!((remote, transport), (connection, Transport::Tcp));
    // It has gone: RFC 3261 18.2.2.
    let (remote, transport, again) =
        core_side(&unsent_to_core(&mut rig, connection, &answer)).remove(0);
    assert_eq!(
        (remote, transport),
        (addr("203.0.113.9:5066"), Transport::Tcp)
    );
    assert!(core_side(&unsent_to_core(&mut rig, remote, &again)).is_empty());
    // A Via that leads away from the core leads nowhere.
    let mut elsewhere = again.clone();
    elsewhere.set("Via", "SIP/2.0/TCP 198.51.100.1;branch=z9hG4bK1");
    assert!(core_side(&unsent_to_core(&mut rig, connection, &elsewhere)).is_empty());
}

/// What a reader of the stream finds: start lines.
fn on_the_stream(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Ok(Frame::Message(n)) = framing::next(bytes) {
        let line = bytes.split(|b| *b == b'\r').next().unwrap_or_default();
        found.push(String::from_utf8_lossy(line).into_owned());
        bytes = &bytes[n..];
    }
    assert!(bytes.is_empty(), "{:?}", String::from_utf8_lossy(bytes));
    found
}

const SMUGGLED: &str = "INVITE sip:b@home.example SIP/2.0\r\nVia: SIP/2.0/TCP 203.0.113.1:5080;branch=z9hG4bKs\r\n\
     P-Asserted-Identity: <sip:victim@home.example>\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_body_without_a_length_is_no_second_message_to_the_core() {
    let mut rig = Rig::new();
    let stranger = phone("a", 1);
    let more = format!("P-Long: {}\r\nMax-Forwards:", "x".repeat(1300));
    let text = stranger.sm1().replace("Max-Forwards:", &more);
    let text = format!("{}{SMUGGLED}", text.replace("l: 0\r\n", ""));
    let out = rig.ue(stranger.source, addr(CLEAR), &text);
    let bytes = out.iter().find_map(|o| match o {
        Output::ToCore {
            transport: Transport::Tcp,
            bytes,
            ..
        } => Some(bytes.clone()),
        _ => None,
    });
    let found = on_the_stream(&bytes.expect("over TCP"));
    assert_eq!(found, ["REGISTER sip:home.example SIP/2.0"]);
    // Where that makes it too long it does not go at all.
    let text = format!("{}{}", text, "x".repeat(65_400 - text.len()));
    let mut config = config();
    config.limits.clear_message = 70_000;
    let mut rig = Rig::with(config);
    let out = rig.ue(stranger.source, addr(CLEAR), &text);
    for output in &out {
        if let Output::ToCore { bytes, .. } = output {
            assert_eq!(on_the_stream(bytes).len(), 1);
        }
    }
}

#[test]
fn a_body_without_a_length_is_no_second_message_to_a_phone() {
    let mut rig = Rig::new();
    let (_, up) = rig.register(&phone("a", 1));
    let mut request = from_core("MESSAGE", &up, "2", 0);
    request.set_uri("sip:192.0.2.1:32000;transport=tcp");
    request.remove("Content-Length");
    let text = [request.to_bytes(), SMUGGLED.into()].concat();
    let input = Input::FromCore {
        remote: addr(CORE),
        transport: Transport::Udp,
        bytes: &text,
    };
    rig.edge.handle(rig.now, input);
    let packet = one(&rig.take());
    assert_eq!(packet.transport, Transport::Tcp);
    assert_eq!(on_the_stream(&packet.bytes).len(), 1);
}
