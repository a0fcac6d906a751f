use proptest::prelude::*;
use rstest::rstest;

use super::*;

const REGISTER: &str = "REGISTER sip:home.example SIP/2.0\r\n\
v: SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1, SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK0\r\n\
f: <sip:u@home.example>;tag=1\r\n\
X-Strange :  \u{fffd}kept\t \r\n\
t: \"U, the <user>\" <sip:u@home.example>\r\n\
i: 77\r\n\
CSeq: 1\r\n REGISTER\r\n\
m: <sip:192.0.2.1:5070>\r\n\
k: path,\r\n\t sec-agree\r\n\
l: 0\r\n\r\n";

fn register() -> Message {
    Message::parse(REGISTER.as_bytes()).expect("a message")
}

#[test]
fn bytes_come_back_as_they_came() {
    assert_eq!(register().to_bytes(), REGISTER.as_bytes());
    let lf = REGISTER.replace("\r\n", "\n");
    assert_eq!(
        Message::parse(lf.as_bytes()).expect("a message").to_bytes(),
        lf.as_bytes()
    );
}

#[test]
fn names_compact_forms_and_folds() {
    let message = register();
    assert_eq!(message.method(), Some("REGISTER"));
    assert_eq!(message.value("call-id").as_deref(), Some("77"));
    assert_eq!(message.value("CSEQ").as_deref(), Some("1 REGISTER"));
    assert_eq!(message.elements("Supported"), ["path", "sec-agree"]);
    assert_eq!(message.elements("Via").len(), 2);
    assert_eq!(
        message.value("To").as_deref(),
        Some("\"U, the <user>\" <sip:u@home.example>")
    );
}

#[test]
fn edits_touch_their_line_only() {
    let mut message = register();
    message.insert_top("Via", "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK9");
    message.insert_top("Path", "<sip:x@203.0.113.1;lr>");
    let text = String::from_utf8(message.to_bytes()).expect("text");
    let want = format!(
        "REGISTER sip:home.example SIP/2.0\r\nPath: <sip:x@203.0.113.1;lr>\r\nVia: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK9\r\n{}",
        &REGISTER["REGISTER sip:home.example SIP/2.0\r\n".len()..]
    );
    assert_eq!(text, want);
    message.remove("Path");
    assert_eq!(
        message.remove_first_element("Via").as_deref(),
        Some("SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK9")
    );
    assert_eq!(message.to_bytes(), REGISTER.as_bytes());
}

#[test]
fn elements_of_a_list_are_taken_and_replaced_alone() {
    let mut message = register();
    assert!(message.replace_first_element("Via", "SIP/2.0/UDP new;branch=z"));
    assert_eq!(
        message.elements("Via"),
        [
            "SIP/2.0/UDP new;branch=z",
            "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK0"
        ]
    );
    message.remove_first_element("Via");
    assert_eq!(
        message.elements("Via"),
        ["SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK0"]
    );
    message.remove_first_element("Via");
    assert_eq!(message.value("Via"), None);
}

#[test]
fn a_value_cannot_grow_a_header() {
    let message = register().with("X", "a\r\nEvil: 1\r\n\tfold");
    assert_eq!(message.value("Evil"), None);
    assert_eq!(message.value("X").as_deref(), Some("a  Evil: 1 fold"));
    let message = register().with("X", "a\0b");
    assert!(Message::parse(&message.to_bytes()).is_ok());
}

#[test]
fn responses_copy_what_they_must() {
    let response =
        Message::response(&register(), 401, "Unauthorized", "t1").with("Content-Length", "0");
    assert_eq!(response.status(), Some(401));
    assert_eq!(response.elements("Via"), register().elements("Via"));
    assert_eq!(
        response.value("To").as_deref(),
        Some("\"U, the <user>\" <sip:u@home.example>;tag=t1")
    );
    assert_eq!(response.value("Contact"), None);
    assert_eq!(Message::parse(&response.to_bytes()), Ok(response));
}

#[rstest]
#[case("", ParseError::Empty)]
#[case("\r\n\r\n", ParseError::Empty)]
#[case("REGISTER sip:a SIP/2.0\r\nA: b\r\n", ParseError::NoEnd)]
#[case("REGISTER sip:a SIP/3.0\r\n\r\n", ParseError::StartLine)]
#[case("REGISTER  sip:a SIP/2.0\r\n\r\n", ParseError::StartLine)]
#[case("SIP/2.0 99 x\r\n\r\n", ParseError::StartLine)]
#[case("SIP/2.0 2000 x\r\n\r\n", ParseError::StartLine)]
#[case("REGISTER sip:a SIP/2.0\r\nno colon\r\n\r\n", ParseError::Header)]
#[case("REGISTER sip:a SIP/2.0\r\n fold first\r\n\r\n", ParseError::Header)]
#[case("REGISTER sip:a SIP/2.0\r\nl: 3\r\n\r\nab", ParseError::Truncated)]
#[case(
    "REGISTER sip:a SIP/2.0\r\nl: 3\r\nl: 2\r\n\r\nabc",
    ParseError::ContentLength
)]
#[case(
    "REGISTER sip:a SIP/2.0\r\nl: -1\r\n\r\nabc",
    ParseError::ContentLength
)]
fn no_messages(#[case] text: &str, #[case] error: ParseError) {
    assert_eq!(Message::parse(text.as_bytes()), Err(error));
}

#[test]
fn bounds() {
    assert_eq!(
        Message::parse(&vec![b'x'; MAX_MESSAGE + 1]),
        Err(ParseError::TooLong)
    );
    let many = format!(
        "OPTIONS sip:a SIP/2.0\r\n{}\r\n",
        "A: b\r\n".repeat(MAX_HEADERS + 1)
    );
    assert_eq!(
        Message::parse(many.as_bytes()),
        Err(ParseError::TooManyHeaders)
    );
}

#[test]
fn a_body_ends_where_its_length_says() {
    let message =
        Message::parse(b"MESSAGE sip:a SIP/2.0\r\nl: 2\r\n\r\nhi there").expect("a message");
    assert_eq!(message.body(), b"hi");
    let message = Message::parse(b"SIP/2.0 200\r\n\r\nrest").expect("a message");
    assert_eq!(
        (message.status(), message.body()),
        (Some(200), &b"rest"[..])
    );
}

#[test]
fn debug_shows_no_value() {
    let message = register().with(
        "WWW-Authenticate",
        "Digest ik=\"00112233445566778899aabbccddeeff\"",
    );
    let shown = format!("{message:?} {:?}", message.headers());
    assert!(!shown.contains("0011"), "{shown}");
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Message::parse(&bytes);
    }

    #[test]
    fn header_bytes_survive(values in proptest::collection::vec("[ -~\\x80-\\xff]{0,40}(\r\n [!-~]{1,9})?", 0..12), body in proptest::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = b"OPTIONS sip:a@b SIP/2.0\r\n".to_vec();
        for (n, value) in values.iter().enumerate() {
            bytes.extend_from_slice(format!("X-{n}:{value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("l:{}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(&body);
        let mut message = Message::parse(&bytes).expect("well formed");
        prop_assert_eq!(&message.to_bytes(), &bytes);
        message.insert_top("Via", "SIP/2.0/UDP h;branch=z");
        message.remove_first_element("Via");
        prop_assert_eq!(&message.to_bytes(), &bytes);
    }

    #[test]
    fn every_reader_stands_any_text(text in "[ -~]{0,80}") {
        let _ = crate::header::Via::parse(&text);
        let _ = crate::header::NameAddr::parse(&text).map(|a| a.parsed_uri());
        let _ = crate::header::Uri::parse(&text);
        let _ = crate::header::via::mark_source(&text, ([1, 2, 3, 4], 5).into(), true);
        let _ = list::split(&text, ',').count();
    }
}

#[test]
fn an_empty_element_is_not_the_first() {
    let text = "OPTIONS sip:a SIP/2.0\r\nVia: , ,SIP/2.0/UDP a;x=\",\", SIP/2.0/UDP b\r\n\r\n";
    let mut message = Message::parse(text.as_bytes()).expect("SIP");
    let first = message.first_element("Via").expect("a Via");
    assert!(message.replace_first_element("Via", &first));
    assert_eq!(message.elements("Via").len(), 2);
    assert_eq!(message.remove_first_element("Via"), Some(first));
    assert_eq!(message.elements("Via"), ["SIP/2.0/UDP b"]);
}

/// Who reads an element and who takes it away must mean the same one, also where
/// white space is none of ASCII's (found by fuzzing).
#[test]
fn white_space_of_any_kind_is_no_element() {
    for odd in ["\u{b}", "\u{a0}", "\u{85}"] {
        let text = format!("OPTIONS sip:a SIP/2.0\r\nRoute: {odd} ,{odd}<sip:b>, <sip:c>\r\n\r\n");
        let mut message = Message::parse(text.as_bytes()).expect("SIP");
        assert_eq!(message.elements("Route"), ["<sip:b>", "<sip:c>"]);
        let first = message.remove_first_element("Route");
        assert_eq!(first.as_deref(), Some("<sip:b>"));
        assert_eq!(message.elements("Route"), ["<sip:c>"]);
    }
}

#[test]
fn an_edit_of_an_empty_line_stays_on_it() {
    let mut message =
        Message::parse(b"OPTIONS sip:a SIP/2.0\r\nVia: \r\nX:1\r\n\r\n").expect("SIP");
    assert!(message.replace_first_element("Via", "one"));
    assert_eq!(
        message.to_bytes(),
        b"OPTIONS sip:a SIP/2.0\r\nVia:one \r\nX:1\r\n\r\n"
    );
}
