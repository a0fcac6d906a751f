use proptest::prelude::*;
use rstest::rstest;

use super::*;

const IK: &str = "00112233445566778899aabbccddeeff";
const CK: &str = "FFEEDDCCBBAA99887766554433221100";

fn nonce_text() -> String {
    nonce(&[0x11; 16], &[0x22; 16])
}

fn challenge(rest: &str) -> Message {
    let value = format!(
        "Digest realm=\"home.example\",nonce=\"{}\",algorithm=AKAv1-MD5{rest}",
        nonce_text()
    );
    Message::parse(
        format!("SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: {value}\r\nl: 0\r\n\r\n").as_bytes(),
    )
    .expect("a message")
}

// The shapes that cores are seen to write.
#[rstest]
#[case(&format!(", ck=\"{CK}\", ik=\"{IK}\", qop=\"auth\""), ", qop=\"auth\"")]
#[case(&format!(",ik=\"{IK}\",ck=\"{CK}\""), "")]
#[case(&format!(",qop=\"auth,auth-int\",opaque=\"x\",\r\n ik=\"{IK}\",\r\n\tck={CK}"), ",qop=\"auth,auth-int\",opaque=\"x\"")]
#[case(&format!(",IK=\"{IK}\",Ck=\"{CK}\",stale=FALSE"), ",stale=FALSE")]
fn keys_come_out_and_nothing_else_changes(#[case] tail: &str, #[case] left: &str) {
    let mut message = challenge(tail);
    let (ik, ck) = take_keys(&mut message).expect("keys");
    assert_eq!(hex(ik.as_bytes()), IK);
    assert_eq!(hex(ck.as_bytes()), CK.to_ascii_lowercase());
    assert_eq!(message.to_bytes(), challenge(left).to_bytes());
}

#[rstest]
#[case(&format!(",ik=\"{IK}\""), ChallengeError::KeysMissing)]
#[case(&format!(",ck=\"{CK}\""), ChallengeError::KeysMissing)]
#[case(&format!(",ik=\"{}\",ck=\"{CK}\"", &IK[2..]), ChallengeError::KeysMalformed)]
#[case(&format!(",ik=\"{}x\",ck=\"{CK}\"", &IK[1..]), ChallengeError::KeysMalformed)]
#[case("", ChallengeError::KeysMissing)]
fn bad_keys_are_refused_and_still_taken_out(#[case] tail: &str, #[case] error: ChallengeError) {
    let mut message = challenge(tail);
    let got = take_keys(&mut message).expect_err("refused");
    assert_eq!(got, error);
    let text = String::from_utf8(message.to_bytes())
        .expect("text")
        .to_ascii_lowercase();
    assert!(!text.contains("ik=") && !text.contains("ck="), "{text}");
    assert!(!got.to_string().contains(&IK[2..6]));
}

#[test]
fn first_parameters_and_several_challenges() {
    let text = format!(
        "SIP/2.0 401 x\r\nWWW-Authenticate: Digest ik=\"{IK}\",realm=\"a\"\r\nWWW-Authenticate: Digest ck=\"{CK}\", ik=\"{IK}\" , algorithm=AKAv1-MD5,nonce=\"{}\"\r\n\r\n",
        nonce_text()
    );
    let mut message = Message::parse(text.as_bytes()).expect("a message");
    take_keys(&mut message).expect("keys");
    let lines: Vec<_> = message
        .lines("WWW-Authenticate")
        .map(|h| h.value().into_owned())
        .collect();
    assert_eq!(
        lines,
        [
            "Digest realm=\"a\"".to_owned(),
            format!("Digest algorithm=AKAv1-MD5,nonce=\"{}\"", nonce_text())
        ]
    );
}

// RFC 2617 clause 3.5, with the password where RES stands.
#[test]
fn rfc2617_example() {
    let input = DigestInput {
        username: "Mufasa",
        realm: "testrealm@host.com",
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        uri: "/dir/index.html",
        method: "GET",
        qop: Qop::Auth,
        nc: "00000001",
        cnonce: "0a4f113b",
        body: b"",
    };
    let res = Res(b"Circle Of Life".to_vec());
    assert_eq!(
        input.response(Some(&res)),
        "6629fae49393a05397450978507c4ef1"
    );
}

#[rstest]
#[case("")]
#[case(",qop=\"auth\"")]
#[case(",qop=\"auth-int,auth\"")]
#[case(",qop=auth-int,opaque=\"o\"")]
fn both_sides_agree(#[case] tail: &str) {
    let challenge = Challenge::from_message(&challenge(tail)).expect("a challenge");
    assert_eq!((challenge.rand, challenge.autn), ([0x11; 16], [0x22; 16]));
    // RES is binary: zero bytes and line ends count.
    let res = Res::new(&[0, 13, 10, 255, 0, 1, 2, 3]).expect("RES");
    let value = authorization(
        &challenge,
        "u@home.example",
        "sip:home.example",
        "c1",
        Ok(&res),
    );
    let request = Message::request("REGISTER", "sip:home.example").with("Authorization", &value);
    let credentials = Credentials::from_message(&request).expect("credentials");
    assert!(credentials.answers());
    assert!(credentials.check("REGISTER", b"", &res));
    assert!(!credentials.check(
        "REGISTER",
        b"",
        &Res::new(&[0, 13, 10, 255, 0, 1, 2, 4]).expect("RES")
    ));
    assert!(!credentials.check("INVITE", b"", &res));
}

#[test]
fn auts_travels_and_is_no_answer() {
    let challenge = Challenge::from_message(&challenge("")).expect("a challenge");
    let value = authorization(&challenge, "u", "sip:h", "c", Err(&[7; 14]));
    let request = Message::request("REGISTER", "sip:h").with("Authorization", &value);
    let credentials = Credentials::from_message(&request).expect("credentials");
    assert_eq!(credentials.auts, Some(Some([7; 14])));
    assert!(!credentials.answers());
}

#[rstest]
#[case(
    "Digest username=\"u\",nonce=\"\",response=\"\"",
    "Digest username=\"u\",nonce=\"\",response=\"\",integrity-protected=\"yes\""
)]
#[case(
    "Digest username=\"u\",integrity-protected=\"no\",uri=\"x\"",
    "Digest username=\"u\",uri=\"x\",integrity-protected=\"yes\""
)]
#[case(
    "Digest integrity-protected=yes",
    "Digest  integrity-protected=\"yes\""
)]
fn integrity_protected_is_overwritten(#[case] before: &str, #[case] after: &str) {
    let mut message = Message::request("REGISTER", "sip:h").with("Authorization", before);
    set_integrity_protected(&mut message, true);
    let value = message
        .value("Authorization")
        .map(|v| v.into_owned())
        .unwrap_or_default();
    assert_eq!(
        value.split_whitespace().collect::<String>(),
        after.split_whitespace().collect::<String>()
    );
    assert_eq!(
        AuthParams::parse(&value)
            .and_then(|p| p.get("integrity-protected"))
            .as_deref(),
        Some("yes")
    );
}

#[test]
fn nonces_with_more_and_less() {
    let more = base64::encode(&[9; 48]);
    assert_eq!(split_nonce(&more), Some(([9; 16], [9; 16])));
    assert_eq!(split_nonce(&base64::encode(&[9; 31])), None);
    assert_eq!(split_nonce("!"), None);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "[ -~]{0,120}") {
        let _ = AuthParams::parse(&text);
        let _ = edit(&text, &[Edit::Remove("ik"), Edit::Append("x", "1")]);
        let _ = split_nonce(&text);
    }
}
