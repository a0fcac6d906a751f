//! First REGISTER, 401, protected REGISTER, 200: each kind of phone through an edge.

use gm_esp::Mode;
use gm_sip::edge::Refusal;
use gm_sip::sec_agree::{OfferError, SECURITY_CLIENT, SECURITY_SERVER, SECURITY_VERIFY, SecList};
use gm_sip::{Message, Transport};
use rstest::rstest;

use crate::messages::{Phone, Shape, nonce, success};
use crate::models::{self, Model};
use crate::requests::request;
use crate::rig::*;

#[rstest]
#[case::huawei(models::HUAWEI)]
#[case::pixel(models::PIXEL)]
#[case::samsung(models::SAMSUNG)]
#[case::samsung_with_md5_only(models::SAMSUNG_MD5)]
#[case::iphone(models::IPHONE)]
#[case::qualcomm_with_compact_headers(models::QUALCOMM)]
#[case::zte_with_md5_only(models::ZTE)]
#[case::xiaomi(models::XIAOMI)]
#[case::test_client(models::TEST_CLIENT)]
fn registers(#[case] model: Model) {
    let phone = Phone::new(model);
    let mut rig = Rig::fit(&phone);
    let done = rig.register(&phone, 1);
    let request = installs(&rig.out).pop().expect("an Install");
    let params = request.params;
    assert_eq!((params.suite, params.mode()), (model.suite, Mode::Trans));
    assert_eq!(params.ue_ends, phone.ends);
    // The security agreement ends here; the rest goes on as the phone wrote it.
    for up in [&done.sm2, &done.sm8] {
        for name in [SECURITY_CLIENT, SECURITY_VERIFY, "Proxy-Require"] {
            assert_eq!(up.value(name), None, "{name}");
        }
        assert!(text(up).contains(model.own), "{}", text(up));
    }
    let mark = |up: &gm_sip::Message| text(up).matches("integrity-protected").count();
    assert_eq!((mark(&done.sm2), mark(&done.sm8)), (1, 1));
    assert!(text(&done.sm2).contains("integrity-protected=\"no\""));
    assert!(text(&done.sm8).contains("integrity-protected=\"yes\""));
    // SM6 in clear to the source, SM12 through the SA from port_pc to port_us.
    let sm6 = packets(&rig.out)[0].clone();
    assert_eq!((sm6.local, sm6.remote), (addr(CLEAR), phone.source));
    assert_eq!(done.sm12.remote, phone.server());
    assert_eq!(done.sm12.local.port(), params.pcscf_ends.port_c);
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

/// Pixel and iPhone: REGISTER over TCP, the first from an ephemeral port with 5060 in its
/// Via and no rport, MESSAGE over UDP in the same SAs. Answers come on the connection.
#[rstest]
#[case::pixel(models::PIXEL)]
#[case::iphone(models::IPHONE)]
fn registers_over_tcp(#[case] model: Model) {
    let phone = Phone::new(model);
    let mut rig = Rig::new();
    let tcp = |shape: &Shape| phone.text(shape).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    let (from, to) = (addr("192.0.2.1:49152"), addr(CLEAR));
    let sm2 = to_core(&rig.ue_over(Transport::Tcp, from, to, &tcp(&phone.sm1())));
    let (_, sm6) = rig.challenged(&sm2, 1, &keys());
    let packet = packets(&rig.out).pop().expect("SM6");
    assert_eq!((packet.local, packet.remote), (to, from));
    assert_eq!(packet.transport, Transport::Tcp);
    let server = sm6.value(SECURITY_SERVER).expect("a list").into_owned();
    let sm7 = tcp(&phone.sm7(&nonce(1), &server));
    let (from, to) = (phone.protected(), addr("203.0.113.1:5063"));
    let sm8 = to_core(&rig.ue_over(Transport::Tcp, from, to, &sm7));
    let out = rig.core(&success(&sm8, 3600));
    let packet = packets(&out).pop().expect("SM12");
    assert_eq!(
        (packet.local, packet.remote),
        (to, from),
        "on the connection"
    );
    assert_eq!(packet.transport, Transport::Tcp);
    let up = to_core(&rig.protected(&phone, &request(&phone, "MESSAGE", "")));
    let out = rig.core(&Message::response(&up, 202, "Accepted", "b"));
    let packet = packets(&out).pop().expect("202");
    assert_eq!(packet.remote, phone.server(), "from port_pc to port_us");
    assert_eq!(packet.transport, Transport::Udp);
    assert!(rig.refusals().is_empty(), "{:?}", rig.refusals());
}

/// "No" is told so that all see why: the UE gets 494 with what would do, the log the
/// switch.
#[rstest]
#[case::samsung(models::SAMSUNG_MD5)]
#[case::zte(models::ZTE)]
fn a_phone_with_md5_only_is_refused_with_the_reason_and_the_switch(#[case] model: Model) {
    let phone = Phone::new(model);
    let mut rig = Rig::new();
    let answer = to_ue(&rig.clear(&phone, &phone.sm1())).pop().expect("494");
    assert_eq!(answer.status(), Some(494));
    let list = SecList::from_message(&answer, SECURITY_SERVER).expect("what would do");
    assert!(!list.to_string().contains("md5"), "{list}");
    let [Refusal::Offer(why @ OfferError::LegacyOnly(_))] = rig.refusals()[..] else {
        panic!("{:?}", rig.refusals());
    };
    assert!(why.to_string().contains("hmac-md5-96"), "{why}");
    assert!(
        why.advice()
            .is_some_and(|a| a.contains("edge.legacy_suites"))
    );
}

/// The keys of the 401 go to the data plane and nowhere else.
#[test]
fn no_phone_sees_a_key() {
    for model in models::ALL {
        let phone = Phone::new(model);
        let mut rig = Rig::fit(&phone);
        rig.register(&phone, 1);
        let request = installs(&rig.out).pop().expect("an Install");
        assert_eq!(hex::encode(request.ik.as_bytes()), IK);
        assert_eq!(hex::encode(request.ck.as_bytes()), CK.to_ascii_lowercase());
        for packet in packets(&rig.out) {
            let shown = String::from_utf8_lossy(&packet.bytes).to_ascii_lowercase();
            for secret in [IK, &CK.to_ascii_lowercase(), "ik=", "ck="] {
                assert!(!shown.contains(secret), "{}: {shown}", model.name);
            }
        }
        let shown = format!("{:?}", rig.out).to_ascii_lowercase();
        assert!(!shown.contains(IK), "{}", model.name);
    }
}
