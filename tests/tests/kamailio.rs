//! gmespd's second door with a real Kamailio: the example configuration of both, as it
//! stands in userspace/daemon/examples, between gm-ue as the phone and the embedded home
//! network. Processes of their own in two network namespaces, ESP over XDP between them.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "what was said is shown when a test fails"
)]

#[path = "kamailio/lab.rs"]
mod lab;
// Programs, files and subscribers are those of the tests with SIPp.
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;

use common::K;
use lab::{Core, Lab, OTHER_K};

#[test]
fn both_proxies_listen_where_gmespd_protects() {
    lab::assert_the_examples_agree();
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_registers_renews_passes_messages_both_ways_and_leaves() {
    let lab = Lab::new(Core::Home);
    let told = lab.phone(K, &["--again", "2", "--message", "hello", "--expect", "10"]);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 3);
    assert_eq!(told.json["message"]["status"], 200);
    assert_eq!(told.json["received"][0]["body"], "hello");
    assert_eq!(told.json["deregistered"], true);
    // SM7, renewals, MESSAGE, the answer to one, the end; and what went back.
    let (opened, sealed) = (lab.count("ok"), lab.count("sealed"));
    assert!(
        opened >= 6 && sealed >= 6,
        "{opened} opened, {sealed} sealed"
    );
    // The kernel has no counter for packets that are not for their SA.
    let more = (!gm_tests::plane::is_kernel()).then_some("selector-mismatch");
    for reason in ["bad-icv", "replay", "cleartext-protected"]
        .into_iter()
        .chain(more)
    {
        assert_eq!(lab.count(reason), 0, "{reason}");
    }
    lab.settles(0);
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn renewals_that_are_challenged_move_to_new_sas() {
    let lab = Lab::new(Core::Challenging);
    let told = lab.phone(K, &["--again", "3", "--message", "hello", "--expect", "10"]);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 4);
    let of = |n: usize| &told.json["registrations"][n];
    for n in 0..4 {
        assert_eq!(of(n)["authenticated"], true, "{n}");
    }
    // SPIs are new each time, port_us and port_ps stay (clause 7.4.1a).
    for n in 1..4 {
        for spi in 0..4 {
            assert_ne!(of(n)["spis"][spi], of(n - 1)["spis"][spi]);
        }
        for port in [1, 3] {
            assert_eq!(of(n)["ports"][port], of(0)["ports"][port]);
        }
    }
    assert_eq!(told.json["deregistered"], true);
    lab.settles(0);
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_registers_over_tcp_in_the_sas() {
    let lab = Lab::new(Core::Home);
    let mut args = vec!["--transport", "tcp", "--again", "1"];
    args.extend(["--message", "hello", "--expect", "10"]);
    let told = lab.phone(K, &args);
    assert_eq!(told.code, Some(0));
    assert_eq!(told.registrations(), 2);
    assert_eq!(told.json["message"]["status"], 200);
    assert_eq!(told.json["received"][0]["body"], "hello");
    // It came from port_pc to port_us, on a connection that Kamailio has made.
    let down = told
        .trace
        .lines()
        .find(|line| line.contains("<-- TCP") && line.contains("MESSAGE"));
    let port_pc = &told.json["registrations"][0]["ports"][2];
    assert!(down.is_some_and(|line| line.contains(&format!(":{port_pc} "))));
    assert_eq!(told.json["deregistered"], true);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_phone_with_another_key_is_not_registered() {
    let lab = Lab::new(Core::Home);
    let told = lab.phone(OTHER_K, &[]);
    assert_eq!(told.code, Some(3));
    assert_eq!((told.registrations(), lab.count("ok")), (0, 0));
    lab.assert_no_keys();
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_wrong_response_is_refused_where_the_challenge_came_from() {
    let lab = Lab::new(Core::Home);
    let told = lab.phone(K, &["--fault", "wrong-res"]);
    assert_eq!(told.code, Some(3));
    assert!(told.failure().contains("403"));
    // It came through ESP, and its set is gone.
    assert!(lab.count("ok") >= 1);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn a_security_verify_that_is_not_security_server_is_refused() {
    let lab = Lab::new(Core::Home);
    let told = lab.phone(K, &["--fault", "wrong-verify"]);
    assert_eq!(told.code, Some(3));
    assert!(told.failure().contains("494"));
    assert_eq!(told.registrations(), 0);
    assert!(lab.count("ok") >= 1);
    lab.settles(0);
}

#[test]
#[ignore = "needs root and kamailio"]
fn in_clear_nothing_but_register_is_heard() {
    let lab = Lab::new(Core::Test);
    let (core, phone) = (lab.core(), lab.clear());
    phone.request("MESSAGE", 5060, "");
    phone.request("INVITE", 5060, "");
    // Below Kamailio gmespd has dropped it.
    phone.request("REGISTER", 5063, OFFER);
    phone.hears_nothing();
    core.hears_nothing();
    assert!(lab.count("cleartext-protected") >= 1);
    // Without an offer it is refused, and the core hears nothing of it.
    phone.request("REGISTER", 5060, AUTHORIZATION);
    let (answer, _) = phone.hears();
    assert!(answer.starts_with("SIP/2.0 421"));
    assert!(answer.contains("Security-Server: ipsec-3gpp"));
    core.hears_nothing();
}

const AUTHORIZATION: &str = "Authorization: Digest integrity-protected=\"yes\", \
    username=\"ue1@home.test\",realm=\"home.test\",nonce=\"\",uri=\"sip:home.test\",\
    response=\"\"\r\n";
const OFFER: &str = "Require: sec-agree\r\nProxy-Require: sec-agree\r\n\
    Supported: path, sec-agree, gruu\r\nX-Unknown: stays\r\n\
    Security-Client: ipsec-3gpp;alg=hmac-sha-1-96;ealg=null;spi-c=2000000001;\
    spi-s=2000000002;port-c=6101;port-s=6100\r\n";
const CLAIMS: &str = "Route: <sip:elsewhere.test;lr>\r\nPath: <sip:elsewhere.test;lr>\r\n\
    P-Asserted-Identity: <sip:elsewhere@home.test>\r\n\
    P-Charging-Vector: icid-value=elsewhere\r\nP-Visited-Network-ID: elsewhere\r\n";
const SM4: &str = "WWW-Authenticate: Digest realm=\"home.test\",algorithm=AKAv1-MD5,\
    nonce=\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\",qop=\"auth\",\
    ik=\"00112233445566778899aabbccddeeff\",ck=\"ffeeddccbbaa99887766554433221100\"\r\n";

#[test]
#[ignore = "needs root and kamailio"]
fn what_a_phone_claims_and_what_the_core_tells_both_end_at_the_proxy() {
    let mut lab = Lab::new(Core::Test);
    let (core, phone) = (lab.core(), lab.clear());
    let sm1 = format!("{AUTHORIZATION}{OFFER}{CLAIMS}Security-Verify: x\r\n");
    phone.request("REGISTER", 5060, &sm1);
    let (up, from) = core.hears();
    assert!(!up.contains("Security-") && !up.contains("sec-agree"));
    assert!(up.contains("Supported: path, gruu") && up.contains("X-Unknown: stays"));
    // Nothing of the phone's says where the answer with the keys goes.
    assert!(!up.contains("elsewhere"));
    assert!(up.contains("Path: <sip:127.0.0.1:5062;lr>"));
    assert_eq!(up.matches("integrity-protected").count(), 1);
    assert!(up.contains("integrity-protected=\"no\""));
    let sm4 = format!("{SM4}Security-Server: ipsec-3gpp;alg=null\r\n");
    core.answer(&up, from, "401 Unauthorized", &sm4);
    let (sm6, _) = phone.hears();
    assert!(!sm6.contains("ik=") && !sm6.contains("ck="));
    assert_eq!(sm6.matches("Security-Server: ipsec-3gpp").count(), 1);
    assert!(sm6.contains("port-s=5063"));

    // Nobody takes the keys out: then no challenge goes on.
    phone.request("REGISTER", 5060, &sm1.replace("sip:home", "sip:ims"));
    let (up, from) = core.hears();
    lab.end_gmespd();
    core.answer(&up, from, "401 Unauthorized", SM4);
    let (sm6, _) = phone.hears();
    assert!(sm6.starts_with("SIP/2.0 500"));
    assert!(!sm6.contains("ik=") && !sm6.contains("WWW-Authenticate"));
    phone.request("REGISTER", 5060, OFFER);
    let (answer, _) = phone.hears();
    assert!(answer.starts_with("SIP/2.0 503"), "{answer}");
    lab.assert_no_keys();
}
