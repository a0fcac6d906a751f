//! Messages that are wrong, odd or hostile (the ideas of RFC 4475, and what the Gm
//! link adds): each file of tests/torture goes through the parser, the framing of
//! streams and an edge from three sides, and expect.txt says what comes of it.

mod rig;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gm_sip::Message;
use gm_sip::framing::{Frame, next};
use gm_sip::message::{MAX_HEADERS, MAX_MESSAGE, ParseError};
use rig::{Rig, Side};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/torture")
}

/// All messages by name.
fn corpus() -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder()).expect("tests/torture");
    let sip = files.map(|f| f.expect("a file").path());
    sip.filter(|p| p.extension().is_some_and(|e| e == "sip"))
        .map(|p| {
            let name = p
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read(p).expect("readable"))
        })
        .collect()
}

fn parsed(bytes: &[u8]) -> String {
    match Message::parse(bytes) {
        Ok(message) if message.to_bytes() == bytes => "same".into(),
        Ok(message) => {
            let front = bytes.iter().take_while(|b| b"\r\n".contains(b)).count();
            assert!(bytes[front..].starts_with(&message.to_bytes()));
            "part".into()
        }
        Err(error) => format!("{error:?}"),
    }
}

fn framed(bytes: &[u8]) -> String {
    match next(bytes) {
        Ok(Frame::Message(n)) if n == bytes.len() => "whole".into(),
        Ok(Frame::Message(_)) => "first".into(),
        Ok(Frame::Keepalive(_)) => "keepalive".into(),
        Ok(Frame::Incomplete) => "more".into(),
        Err(error) => format!("{error:?}"),
    }
}

/// One line: name, parser, framing, in clear, over the phone's SA, from the core.
fn verdict(name: &str, bytes: &[u8]) -> String {
    let sides = [Side::Clear, Side::Phone, Side::Core];
    let edge = sides.map(|side| Rig::new().verdict(side, bytes));
    let [clear, phone, core] = edge;
    format!(
        "{name:28} {:14} {:14} {clear:10} {phone:10} {core}",
        parsed(bytes),
        framed(bytes)
    )
}

#[test]
fn each_message_gets_its_verdict() {
    let expected = std::fs::read_to_string(folder().join("expect.txt")).expect("expect.txt");
    let expected: Vec<_> = expected
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .collect();
    let got: Vec<_> = corpus().iter().map(|(n, b)| verdict(n, b)).collect();
    let mut wrong = String::new();
    for line in got.iter().filter(|l| !expected.contains(&l.as_str())) {
        writeln!(wrong, "+ {line}").expect("a string");
    }
    for line in expected.iter().filter(|e| !got.iter().any(|g| g == *e)) {
        writeln!(wrong, "- {line}").expect("a string");
    }
    assert!(wrong.is_empty(), "not as expect.txt (-) says (+):\n{wrong}");
}

/// Headers that an edge writes, takes off or adds (RFC 3261 clause 16.6, TS 24.229
/// clause 5.2); all others are nobody's business.
const OURS: [&str; 17] = [
    "Via",
    "Route",
    "Record-Route",
    "Max-Forwards",
    "Path",
    "Require",
    "Proxy-Require",
    "Authorization",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "P-Charging-Vector",
    "P-Visited-Network-ID",
    "Content-Length",
];

fn others(message: &Message) -> Vec<Vec<u8>> {
    let ours = |name: &str| OURS.iter().any(|o| gm_sip::message::same_name(o, name));
    let lines = message.headers().iter().filter(|h| !ours(h.name()));
    lines.map(|h| h.raw().to_vec()).collect()
}

#[test]
fn unknown_headers_and_their_order_pass_through_byte_for_byte() {
    let (mut up, mut down) = (0, 0);
    for (name, bytes) in corpus() {
        for side in [Side::Clear, Side::Phone, Side::Core] {
            let Some(out) = Rig::new().forwarded(side, &bytes) else {
                continue;
            };
            let mut sent = Message::parse(&bytes).expect("it was forwarded");
            let came = Message::parse(&out).expect("what an edge sends is SIP");
            if side != Side::Core {
                // The one thing that is put right: a phone's LF without CR.
                sent.end_lines();
            }
            assert_eq!(others(&came), others(&sent), "{name} {side:?}");
            assert_eq!(came.body(), sent.body(), "{name} {side:?}");
            match side {
                Side::Core => down += 1,
                Side::Clear | Side::Phone => up += 1,
            }
        }
    }
    assert!(up > 20 && down > 1, "{up} up, {down} down");
}

#[test]
fn answers_keep_unknown_headers_too() {
    let more = "X-Zeta: 1\r\nx-alpha : 2 \r\nX-ZETA:\t\"a,b\" ,\r\n  c\r\nServer: \r\n";
    for side in [Side::Phone, Side::Core] {
        let (sent, came) = Rig::new().answered(side, more, b"\0body\xff");
        assert_eq!(others(&came), others(&sent), "{side:?}");
        assert!(others(&came).concat().windows(7).any(|w| w == b"x-alpha"));
        assert_eq!(came.body(), b"\0body\xff");
    }
}

#[test]
fn no_part_of_a_message_stops_a_reader() {
    let mut count = 0;
    for bytes in corpus().values().filter(|b| b.len() < 3000) {
        for end in 0..bytes.len() {
            let _ = (parsed(&bytes[..end]), framed(&bytes[..end]));
            let mut bent = bytes.clone();
            bent[end] ^= 0x80 >> (end % 8);
            let _ = (parsed(&bent), framed(&bent));
            count += 2;
        }
    }
    assert!(count > 50_000);
}

#[test]
fn bounds_of_a_message() {
    let head = b"OPTIONS sip:a@b SIP/2.0\r\n".to_vec();
    let lines = |n: usize| [head.clone(), b"X: 1\r\n".repeat(n), b"\r\n".to_vec()].concat();
    assert_eq!(parsed(&lines(MAX_HEADERS)), "same");
    let more = lines(MAX_HEADERS + 1);
    assert_eq!(Message::parse(&more), Err(ParseError::TooManyHeaders));
    assert_eq!(next(&more), Err(ParseError::TooManyHeaders));
    let long = |n: usize| {
        let rest = b"\r\n\r\n".as_slice();
        let value = vec![b'v'; n - head.len() - 3 - rest.len()];
        [head.clone(), b"X: ".to_vec(), value, rest.to_vec()].concat()
    };
    assert_eq!(parsed(&long(MAX_MESSAGE)), "same");
    assert_eq!(framed(&long(MAX_MESSAGE)), "whole");
    assert_eq!(parsed(&long(MAX_MESSAGE + 1)), "TooLong");
    assert_eq!(framed(&long(MAX_MESSAGE + 1)), "TooLong");
}
