//! The digest: challenges as cores write them, credentials as phones do, and what
//! the edge does to both.

use gm_sip::Message;
use gm_sip::aka::{ChallengeError, Credentials};
use gm_sip::edge::{Output, Refusal};
use rstest::rstest;

use crate::messages::{Phone, Shape, nonce};
use crate::models::{HUAWEI, PIXEL};
use crate::rig::*;

/// What the phone gets of a challenge with these parameters behind the algorithm.
fn sm6(params: &str) -> String {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let up = to_core(&rig.clear(&phone, &phone.sm1()));
    let (_, sm6) = rig.challenged(&up, 1, params);
    let request = installs(&rig.out).pop().expect("an Install");
    assert_eq!(hex::encode(request.ik.as_bytes()), IK);
    assert_eq!(hex::encode(request.ck.as_bytes()), CK.to_ascii_lowercase());
    sm6.value("WWW-Authenticate")
        .expect("a challenge")
        .into_owned()
}

/// The same challenge as if the core had not written keys.
fn without(rest: &str) -> String {
    format!(
        "Digest realm=\"home.example\", nonce=\"{}\", algorithm=AKAv1-MD5{rest}",
        nonce(1)
    )
}

#[test]
fn ck_before_ik_and_qop_behind() {
    let value = sm6(&format!(", ck=\"{CK}\", ik=\"{IK}\", qop=\"auth\""));
    assert_eq!(value, without(", qop=\"auth\""));
}

#[test]
fn ik_before_ck() {
    assert_eq!(sm6(&format!(", ik=\"{IK}\", ck=\"{CK}\"")), without(""));
}

#[test]
fn keys_behind_qop() {
    let value = sm6(&format!(", qop=\"auth\", ck=\"{CK}\",ik=\"{IK}\""));
    assert_eq!(value, without(", qop=\"auth\""));
}

/// The comma in quotes divides nothing.
#[test]
fn qop_auth_and_auth_int() {
    let value = sm6(&format!(",qop=\"auth,auth-int\",ck=\"{CK}\",ik=\"{IK}\""));
    assert_eq!(value, without(",qop=\"auth,auth-int\""));
}

#[test]
fn opaque_goes_through() {
    let value = sm6(&format!(", opaque=\"a,b=\\\"c\", ck=\"{CK}\", ik=\"{IK}\""));
    assert_eq!(value, without(", opaque=\"a,b=\\\"c\""));
}

#[test]
fn keys_in_upper_case_hex() {
    let (ck, ik) = (CK.to_ascii_uppercase(), IK.to_ascii_uppercase());
    assert_eq!(sm6(&format!(", ck=\"{ck}\", ik=\"{ik}\"")), without(""));
}

/// Short, odd or missing keys: the phone gets 500, the log the reason, and nobody
/// the digits.
#[rstest]
#[case::short_ik(CK, &IK[..30], ChallengeError::KeysMalformed)]
#[case::odd_ik(CK, &IK[..31], ChallengeError::KeysMalformed)]
#[case::short_ck(&CK[..2], IK, ChallengeError::KeysMalformed)]
#[case::long_ck(&[CK, "00"].concat(), IK, ChallengeError::KeysMalformed)]
#[case::no_hex(&CK.replace('F', "G"), IK, ChallengeError::KeysMalformed)]
#[case::empty_ck("", IK, ChallengeError::KeysMalformed)]
fn bad_keys_are_refused_without_being_shown(
    #[case] ck: &str,
    #[case] ik: &str,
    #[case] why: ChallengeError,
) {
    refused(&format!(", ck=\"{ck}\", ik=\"{ik}\", qop=\"auth\""), why);
}

#[test]
fn missing_keys_are_refused_without_the_other_being_shown() {
    refused(&format!(", ck=\"{CK}\""), ChallengeError::KeysMissing);
    refused(&format!(", ik=\"{IK}\""), ChallengeError::KeysMissing);
    refused("", ChallengeError::KeysMissing);
}

fn refused(params: &str, why: ChallengeError) {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let up = to_core(&rig.clear(&phone, &phone.sm1()));
    let out = rig.core(&crate::messages::challenge(&up, 1, params));
    assert!(installs(&out).is_empty());
    assert_eq!(to_ue(&out).pop().and_then(|m| m.status()), Some(500));
    assert_eq!(rig.refusals(), [Refusal::Challenge(why)]);
    let mut shown = format!("{:?} {why}", rig.out).to_ascii_lowercase();
    for packet in packets(&rig.out) {
        shown += &String::from_utf8_lossy(&packet.bytes).to_ascii_lowercase();
    }
    for secret in [&IK[4..12], &CK.to_ascii_lowercase()[4..12], "ik=", "ck="] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

/// Phones fall silent over what they do not know: of the P-CSCF's own there is
/// nothing in the challenge, and of the core's everything but the keys.
#[test]
fn the_phone_gets_nothing_that_it_does_not_know() {
    let value = sm6(&format!(
        ", stale=false, CK=\"{CK}\", Ik=\"{IK}\", qop=\"auth\""
    ));
    assert_eq!(value, without(", stale=false, qop=\"auth\""));
    let names: Vec<_> = value
        .trim_start_matches("Digest ")
        .split(',')
        .map(|p| p.split('=').next().unwrap_or("").trim())
        .collect();
    assert_eq!(names, ["realm", "nonce", "algorithm", "stale", "qop"]);
}

/// One phone is silent over qop; but the core that asked for it may insist, so it
/// stays as the core wrote it.
#[test]
fn qop_stays_as_the_core_wrote_it() {
    for qop in ["", ", qop=auth", ", qop=\"auth-int\""] {
        assert_eq!(
            sm6(&format!(", ik=\"{IK}\", ck=\"{CK}\"{qop}")),
            without(qop)
        );
    }
}

/// What the core gets of the Authorization in a first REGISTER.
fn sm2_authorization(authorization: &str) -> String {
    let phone = Phone::new(HUAWEI);
    let shape = Shape {
        authorization: authorization.into(),
        ..phone.sm1()
    };
    let up = to_core(&Rig::new().clear(&phone, &shape));
    up.value("Authorization").expect("credentials").into_owned()
}

#[rstest]
#[case::empty_nonce_and_response(
    "Digest username=\"alice@home.example\",realm=\"home.example\",nonce=\"\",uri=\"sip:home.example\",response=\"\""
)]
#[case::with_algorithm(
    "Digest username=\"alice@home.example\",realm=\"home.example\",nonce=\"\",uri=\"sip:home.example\",response=\"\",algorithm=AKAv1-MD5"
)]
#[case::any_order(
    "Digest response=\"\",algorithm=AKAv1-MD5,uri=\"sip:home.example\",nonce=\"\",realm=\"home.example\",username=\"alice@home.example\""
)]
#[case::qop_unquoted("Digest username=\"alice@home.example\",nonce=\"\",response=\"\",qop=auth")]
fn first_credentials_go_on_as_they_are(#[case] authorization: &str) {
    let got = sm2_authorization(authorization);
    assert_eq!(got, format!("{authorization},integrity-protected=\"no\""));
}

/// A Pixel folds behind qop.
#[test]
fn a_header_folded_behind_qop() {
    let phone = Phone::new(PIXEL);
    assert!(phone.model.first.contains("qop=auth,\r\n "));
    let mut rig = Rig::new();
    let done = rig.register(&phone, 1);
    let value = done.sm2.value("Authorization").expect("credentials");
    assert!(value.ends_with(",integrity-protected=\"no\""), "{value}");
    let credentials = Credentials::from_message(&done.sm2).expect("credentials");
    assert_eq!(credentials.username, "alice@home.example");
    assert!(
        text(&done.sm2).contains("qop=auth,\r\n response"),
        "folds stay"
    );
}

/// Some Wi-Fi calling clients write it themselves: overwritten, not appended to.
#[rstest]
#[case::first(
    "Digest integrity-protected=\"yes\",username=\"alice@home.example\",nonce=\"\",response=\"\""
)]
#[case::in_the_middle(
    "Digest username=\"alice@home.example\",Integrity-Protected=yes,nonce=\"\",response=\"\""
)]
#[case::another_value(
    "Digest username=\"alice@home.example\",nonce=\"\",response=\"\",integrity-protected=\"ip-assoc-yes\""
)]
fn integrity_protected_of_the_phone_is_overwritten(#[case] authorization: &str) {
    let got = sm2_authorization(authorization).to_ascii_lowercase();
    assert_eq!(got.matches("integrity-protected").count(), 1, "{got}");
    assert!(got.ends_with(",integrity-protected=\"no\""), "{got}");
}

/// Two of them are for no reader the same: the message is refused.
#[test]
fn integrity_protected_twice_is_refused() {
    let phone = Phone::new(HUAWEI);
    let shape = Shape {
        authorization: "Digest username=\"alice@home.example\",nonce=\"\",response=\"\",integrity-protected=\"yes\",integrity-protected=\"yes\"".into(),
        ..phone.sm1()
    };
    let mut rig = Rig::new();
    let out = rig.clear(&phone, &shape);
    assert_eq!(to_ue(&out).pop().and_then(|m| m.status()), Some(400));
    assert!(!out.iter().any(|o| matches!(o, Output::ToCore { .. })));
}

/// With auts the response beside it means nothing: no answer, and the attempt ends.
#[test]
fn auts_with_a_response_beside_it() {
    let phone = Phone::new(HUAWEI);
    let mut rig = Rig::new();
    let up = to_core(&rig.clear(&phone, &phone.sm1()));
    let (first, _) = rig.challenged(&up, 1, &keys());
    let again = phone.next();
    let authorization = format!(
        "Digest username=\"alice@home.example\",realm=\"home.example\",nonce=\"{}\",uri=\"sip:home.example\",\
         response=\"0123456789abcdef0123456789abcdef\",algorithm=AKAv1-MD5,auts=\"{}\"",
        nonce(1),
        gm_sip::aka::base64::encode(&[7; 14])
    );
    let shape = Shape {
        authorization: authorization.clone(),
        ..again.sm1()
    };
    let out = rig.clear(&again, &shape);
    let up = to_core(&out);
    assert!(out.contains(&Output::Remove { set: first }), "{out:?}");
    let value = up.value("Authorization").expect("credentials").into_owned();
    assert_eq!(value, format!("{authorization},integrity-protected=\"no\""));
    let credentials = Credentials::from_message(&up).expect("credentials");
    assert_eq!(credentials.auts, Some(Some([7; 14])));
    assert!(!credentials.answers());
    // The new vector is answered over its own set.
    rig.finish(&again, 2, up);
    assert!(rig.refusals().is_empty());
}

#[test]
fn an_auts_that_is_no_base64_is_no_answer_either() {
    let request = Message::request("REGISTER", "sip:h").with(
        "Authorization",
        "Digest username=\"u\",nonce=\"x\",response=\"y\",auts=\"!\"",
    );
    let credentials = Credentials::from_message(&request).expect("credentials");
    assert_eq!(credentials.auts, Some(None));
    assert!(!credentials.answers());
}

/// Like the empty nonce and response of a first REGISTER: it says nothing.
#[test]
fn an_empty_auts_is_none() {
    let request = Message::request("REGISTER", "sip:h").with(
        "Authorization",
        "Digest username=\"u\",nonce=\"x\",response=\"y\",auts=\"\"",
    );
    let credentials = Credentials::from_message(&request).expect("credentials");
    assert_eq!(credentials.auts, None);
    assert!(credentials.answers());
}
