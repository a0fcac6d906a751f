//! The door as a SIP proxy finds it: over HTTP on loopback TCP, with the token. The
//! data plane behind it is a fake that keeps a list.

mod rig;

use std::sync::Arc;
use std::time::Duration;

use gm_sip::aka::base64;
use serde_json::{Value, json};

use crate::testing::{CK, IK};
use rig::*;

#[test]
fn a_proxy_registers_a_phone_and_lets_it_go() {
    let proxy = Proxy::start();
    let told = proxy.register(&sm1());
    assert_eq!(told["action"], "forward");
    assert_eq!(told["step"], "first");
    assert_eq!(told["integrity_protected"], "no");
    assert_eq!(told["impi"], "alice@ims.example");
    let sm6 = proxy.response(&told, &challenge());
    assert_eq!(sm6["action"], "forward");
    assert_eq!(sm6["suite"], "hmac-sha-1-96/aes-cbc");
    let header = sm6["www_authenticate"].as_str().unwrap();
    assert!(
        header.contains(NONCE) && !header.contains("ik="),
        "{header}"
    );
    assert_eq!(
        proxy.fake.state.lock().unwrap().rows.len(),
        4,
        "installed before SM6"
    );

    let told = proxy.register(&sm7(&sm6));
    assert_eq!(
        (&told["step"], &told["integrity_protected"]),
        (&json!("answer"), &json!("yes"))
    );
    let way = &told["way"];
    assert_eq!(way["remote"], "192.0.2.9:6100");
    assert!(
        way["local"].as_str().unwrap().starts_with("192.0.2.1:50"),
        "{way}"
    );
    let sm12 = proxy.response(
        &told,
        &json!({ "status": 200, "expires": 600,
        "associated": ["<sip:alice@ims.example>", "<tel:+1555>"] }),
    );
    assert_eq!((&sm12["action"], &sm12["way"]), (&json!("forward"), way));
    assert_eq!(proxy.states(), ["live"]);

    let flow = json!({ "source": "192.0.2.9:6101", "destination": "192.0.2.1:5063" });
    let owner = proxy.good("POST", "/v1/flow", &flow);
    assert_eq!(
        (&owner["established"], &owner["impi"]),
        (&json!(true), &json!("alice@ims.example"))
    );
    assert_eq!(
        owner["identities"],
        json!(["sip:alice@ims.example", "tel:+1555"])
    );
    let found = proxy.good("GET", "/v1/way?to=192.0.2.9:6100", &Value::Null);
    assert_eq!(&found, way);
    let all = proxy.good("GET", "/v1/registrations", &Value::Null);
    assert_eq!(all[0]["sets"][0]["state"], "established");
    assert!(all[0]["sets"][0]["left_s"].as_u64().unwrap() > 600);

    let mut leave = sm7(&sm6);
    leave["expires"] = 0.into();
    leave["via"] = "SIP/2.0/UDP 192.0.2.9:6100;branch=z9hG4bK3".into();
    let told = proxy.register(&leave);
    assert_eq!(told["step"], "again");
    let bye = proxy.response(&told, &json!({ "status": 200 }));
    assert_eq!(&bye["way"], way, "the 200 still leaves through the SA");
    let (status, _) = proxy.ask("GET", "/v1/way?to=192.0.2.9:6100", TOKEN, &Value::Null);
    assert_eq!(status, 404);
}

/// The SAs are in local terms, whatever address the proxy names itself by.
#[test]
fn a_proxy_behind_a_static_nat_may_name_either_address() {
    for named in ["192.0.2.1", "198.51.100.7"] {
        let proxy = Proxy::behind(
            "advertised = { \"192.0.2.1\" = \"198.51.100.7\" }\n",
            "door = \"http\"\nport_ps = 5063\n",
        );
        let at = |mut message: Value, port: u16| {
            message["destination"] = format!("{named}:{port}").into();
            message
        };
        let told = proxy.register(&at(sm1(), 5060));
        let sm6 = proxy.response(&told, &challenge());
        let ends: Vec<_> = proxy.fake.state.lock().unwrap().rows.clone();
        assert_eq!(ends.len(), 4);
        for row in ends {
            let sa = serde_json::to_value(&row.sa).unwrap();

            assert!(
                [&sa["src"], &sa["dst"]].contains(&&json!("192.0.2.1")),
                "{sa}"
            );
        }
        let told = proxy.register(&at(sm7(&sm6), 5063));
        assert_eq!(told["step"], "answer", "{told}");
        let local = told["way"]["local"].as_str().unwrap();
        assert!(local.starts_with("192.0.2.1:"), "{local}");
        proxy.response(&told, &json!({ "status": 200, "expires": 600 }));
        let flow = json!({ "source": "192.0.2.9:6101", "destination": format!("{named}:5063") });
        let owner = proxy.good("POST", "/v1/flow", &flow);
        assert_eq!(owner["established"], true, "{owner}");
    }
}

#[test]
fn a_whole_message_says_the_same() {
    let proxy = Proxy::start();
    let fields: gm_api::register::RegisterRequest = serde_json::from_value(sm1()).unwrap();
    let message = super::message::register(&fields).unwrap();
    let told = proxy.register(&json!({ "source": "192.0.2.9:5060",
        "destination": "192.0.2.1:5060", "sip": base64::encode(&message.to_bytes()) }));
    assert_eq!(told["impi"], "alice@ims.example");
    let reply = format!(
        "SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: {}\r\n\r\n",
        challenge()["www_authenticate"].as_str().unwrap()
    );
    let sm6 = proxy.response(
        &told,
        &json!({ "status": 401,
        "sip": base64::encode(reply.as_bytes()) }),
    );
    assert!(sm6["security_server"].is_string(), "{sm6}");
    let told = proxy.register(&sm7(&sm6));
    let reply = "SIP/2.0 200 OK\r\nContact: <sip:192.0.2.9:6100>;expires=77\r\n\
                 P-Associated-URI: <sip:alice@ims.example>\r\n\r\n";
    proxy.response(
        &told,
        &json!({ "status": 200, "sip": base64::encode(reply.as_bytes()) }),
    );
    let all = proxy.good("GET", "/v1/registrations", &Value::Null);
    let left = all[0]["sets"][0]["left_s"].as_u64().unwrap();
    assert!((60..=77 + 240).contains(&left), "{left}");
}

#[test]
fn bidding_down_is_answered_where_sm6_went() {
    let proxy = Proxy::start();
    let told = proxy.register(&sm1());
    let sm6 = proxy.response(&told, &challenge());
    let mut cheated = sm7(&sm6);
    cheated["security_verify"] =
        json!(["ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;spi-s=2;port-c=3;port-s=4"]);
    let told = proxy.register(&cheated);
    assert_eq!(
        (&told["action"], &told["status"]),
        (&json!("reply"), &json!(494))
    );
    assert_eq!(told["reason"], "security-verify");
    assert_eq!(told["way"]["remote"], "192.0.2.9:5060", "{told}");
    assert_eq!(told["way"]["local"], "192.0.2.1:5060");
    assert!(
        proxy
            .fake
            .state
            .lock()
            .unwrap()
            .rows
            .iter()
            .all(|row| row.state != "live")
    );
}

#[test]
fn what_is_refused_over_an_sa_is_told_over_it_and_after_a_renewals_challenge_over_the_old_one() {
    let proxy = Proxy::start();
    let (sm6, told) = proxy.challenged();
    proxy.response(&told, &json!({ "status": 200, "expires": 600 }));
    let old = &told["way"];
    let wrong = json!(["ipsec-3gpp;alg=hmac-sha-1-96;spi-c=1;spi-s=2;port-c=3;port-s=4"]);

    // A renewal over the SAs, with another offer.
    let offer = OFFER.replace("port-c=6101", "port-c=6102");
    let offer = offer.replace("200000000", "200000001");
    let mut renewal = sm7(&sm6);
    renewal["security_client"] = json!([offer]);
    let mut cheated = renewal.clone();
    cheated["security_verify"] = wrong.clone();
    let refused = proxy.register(&cheated);
    assert_eq!(refused["action"], "reply", "{refused}");
    assert_eq!(&refused["way"], old);

    let told = proxy.register(&renewal);
    let challenged = proxy.response(&told, &challenge());
    assert_eq!(&challenged["way"], old, "{challenged}");
    let mut cheated = sm7(&challenged);
    cheated["source"] = "192.0.2.9:6102".into();
    cheated["security_client"] = json!([offer]);
    cheated["security_verify"] = wrong;
    let refused = proxy.register(&cheated);
    assert_eq!(refused["reason"], "security-verify", "{refused}");
    for end in ["local", "remote"] {
        assert_eq!(refused["way"][end], old[end], "{refused}");
    }
}

#[test]
fn silence_is_said_to_be_silence_and_explained() {
    let proxy = Proxy::start();
    let mut behind = sm1();
    behind["source"] = "203.0.113.5:40000".into();
    let told = proxy.register(&behind);
    assert_eq!(
        (&told["action"], &told["reason"]),
        (&json!("drop"), &json!("nat-without-tunnel"))
    );
    assert!(told["status"].is_null());
    assert!(told["explain"].as_str().unwrap().contains("NAT"));
}

#[test]
fn a_refused_offer_says_what_the_server_wants() {
    let proxy = Proxy::start();
    let mut poor = sm1();
    poor["security_client"] = json!(["tls;q=0.1"]);
    let told = proxy.register(&poor);
    assert_eq!(told["status"], 494);
    let headers = told["headers"].as_array().unwrap();
    assert!(headers.iter().any(|h| {
        h.as_str()
            .unwrap()
            .starts_with("Security-Server: ipsec-3gpp")
    }));
}

#[test]
fn a_set_that_cannot_be_installed_is_an_error_in_the_place_of_the_challenge() {
    let proxy = Proxy::start();
    let told = proxy.register(&sm1());
    let sm6 = {
        let bad = json!({ "status": 401, "www_authenticate": "Digest nonce=\"AA==\"" });
        proxy.response(&told, &bad)
    };
    assert_eq!(
        (&sm6["action"], &sm6["status"]),
        (&json!("reply"), &json!(500))
    );
}

#[test]
fn an_attempt_that_comes_to_nothing_is_forgotten() {
    let proxy = Proxy::start();
    let (_, sm7) = proxy.challenged();
    let path = format!("/v1/register/{}", sm7["id"]);
    assert_eq!(proxy.good("DELETE", &path, &Value::Null)["ended"], 1);
    assert_eq!(proxy.good("DELETE", &path, &Value::Null)["ended"], 0);
    assert_eq!(
        proxy.good("GET", "/v1/registrations", &Value::Null),
        json!([])
    );
    let (status, answer) = proxy.ask(
        "POST",
        &format!("{path}/response"),
        TOKEN,
        &json!({ "status": 200, "expires": 1 }),
    );
    assert_eq!(
        (status, &answer["error"]["code"]),
        (404, &json!("not-found"))
    );
}

#[test]
fn the_network_ends_a_users_registrations() {
    let proxy = Proxy::start();
    let (_, sm7) = proxy.challenged();
    proxy.response(&sm7, &json!({ "status": 200, "expires": 600 }));
    let ended = proxy.good(
        "DELETE",
        "/v1/registrations?impi=alice@ims.example",
        &Value::Null,
    );
    assert_eq!(ended["ended"], 1);
    let (status, _) = proxy.ask("GET", "/v1/way?impi=alice@ims.example", TOKEN, &Value::Null);
    assert_eq!(status, 404);
}

#[test]
fn a_challenge_in_answer_to_sm7_comes_back_without_its_keys() {
    let proxy = Proxy::start();
    let (_, sm7) = proxy.challenged();
    let mut again = challenge();
    again["www_authenticate"] =
        format!("Digest realm=\"r\", nonce=\"{NONCE}\", ck=\"{CK}\", ik=\"{IK}\"").into();
    let told = proxy.response(&sm7, &again);
    let wanted = format!("Digest realm=\"r\", nonce=\"{NONCE}\"");
    assert_eq!(told["www_authenticate"], wanted);
}

#[test]
fn the_way_to_a_user_is_that_of_a_registered_contact() {
    let proxy = Proxy::start();
    // A stranger names the user, with another instance, before the phone comes.
    let mut stranger = sm1();
    stranger["source"] = "192.0.2.66:5060".into();
    stranger["via"] = "SIP/2.0/UDP 192.0.2.66:5060;branch=z9hG4bKx".into();
    stranger["contact"] = "<sip:192.0.2.66:6100>".into();
    stranger["security_client"] = json!([OFFER
        .replace("spi-c=2", "spi-c=3")
        .replace("spi-s=2", "spi-s=3")]);
    let told = proxy.register(&stranger);
    proxy.response(&told, &challenge());
    let (_, sm7) = proxy.challenged();
    proxy.response(&sm7, &json!({ "status": 200, "expires": 600 }));
    let way = proxy.good("GET", "/v1/way?impi=alice@ims.example", &Value::Null);
    assert_eq!(way["remote"], "192.0.2.9:6100");
}

#[test]
fn the_daemon_is_told_when_the_door_fails() {
    let proxy = Proxy::start();
    let told = proxy.register(&sm1());
    let fake = Arc::clone(&proxy.fake);
    let poisoned = std::thread::spawn(move || {
        let _held = fake.state.lock().unwrap();
        panic!("the fake's lock is poisoned for the test");
    });
    assert!(poisoned.join().is_err());
    let path = format!("/v1/register/{}/response", told["id"]);
    let (status, _) = proxy.ask("POST", &path, TOKEN, &challenge());
    assert_eq!(status, 500);
    let died = proxy.runtime.block_on(async {
        let limit = Duration::from_secs(5);
        tokio::time::timeout(limit, proxy.app.edge_died.notified()).await
    });
    assert!(died.is_ok(), "nobody is told");
}

#[test]
fn without_the_token_nothing_is_answered() {
    let proxy = Proxy::start();
    for path in ["/v1/health", "/v1/openapi.json", "/nowhere"] {
        let (status, answer) = proxy.ask("GET", path, "wrong", &Value::Null);
        assert_eq!(
            (status, &answer["error"]["code"]),
            (401, &json!("unauthorized"))
        );
    }
    let document = proxy.good("GET", "/v1/openapi.json", &Value::Null);
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn files_are_not_written_for_who_comes_over_tcp() {
    let proxy = Proxy::start();
    let (status, answer) = proxy.ask(
        "POST",
        "/v1/capture",
        TOKEN,
        &json!({ "file": "/tmp/x.pcapng" }),
    );
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("forbidden"))
    );
}

#[test]
fn where_the_edge_speaks_sip_itself_there_is_no_door() {
    let proxy = Proxy::with("next_hop = \"127.0.0.1:5059\"\nport_ps = 5063\nenabled = false\n");
    let (status, answer) = proxy.ask("POST", "/v1/register", TOKEN, &sm1());
    assert_eq!((status, &answer["error"]["code"]), (404, &json!("no-door")));
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("door = \"http\"")
    );
}

#[test]
fn requests_that_make_no_sense_are_http_errors() {
    let proxy = Proxy::start();
    for (path, body, says) in [
        ("/v1/register", json!({}), "source is missing"),
        (
            "/v1/register",
            json!({ "source": "192.0.2.9:1", "destination": "198.51.100.1:5060" }),
            "none of [gm] addresses",
        ),
        (
            "/v1/register",
            json!({ "source": "192.0.2.9:1", "destination": "192.0.2.1:5060", "nonsense": 1 }),
            "not the JSON",
        ),
        (
            "/v1/register/x/response",
            json!({ "status": 200 }),
            "no number",
        ),
    ] {
        let (status, answer) = proxy.ask("POST", path, TOKEN, &body);
        assert_eq!(status, 400, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
}
