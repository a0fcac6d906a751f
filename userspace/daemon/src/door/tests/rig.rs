//! A SIP proxy in front of the door, and what it says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::config::Config;
use crate::control::{App, Token, serve_tcp};
use crate::events::Events;
use crate::plane::Plane;
use crate::sets::Sets;
use crate::testing::{CK, Fake, IK, assert_no_keys, log_everything};

pub(super) const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub(super) const OFFER: &str = "ipsec-3gpp;alg=hmac-sha-1-96;ealg=aes-cbc;prot=esp;mod=trans;\
                     spi-c=2000000001;spi-s=2000000002;port-c=6101;port-s=6100";
pub(super) const NONCE: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

pub(super) struct Proxy {
    pub(super) app: Arc<App>,
    pub(super) fake: Arc<Fake>,
    pub(super) at: std::net::SocketAddr,
    pub(super) runtime: tokio::runtime::Runtime,
}

impl Proxy {
    pub(super) fn start() -> Proxy {
        Proxy::with("door = \"http\"\nport_ps = 5063\n")
    }

    pub(super) fn with(edge: &str) -> Proxy {
        Proxy::behind("", edge)
    }

    /// With lines of `[gm]` too.
    pub(super) fn behind(gm: &str, edge: &str) -> Proxy {
        log_everything();
        let text = format!(
            "[gm]\nuplinks = [\"gmtest0\"]\naddresses = [\"192.0.2.1\"]\n\
             server_ports = [5063]\nclient_ports = [\"5064-5071\"]\n{gm}[edge]\n{edge}"
        );
        let config = Config::parse(&text, Path::new("t.toml")).unwrap();
        let fake = Arc::new(Fake::default());
        let sets = Sets::new(Arc::clone(&fake) as Arc<dyn Plane>);
        let app = App::new(config, sets, Events::new());
        if let Some(door) = crate::door::start(&app).unwrap() {
            app.open(door);
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TOKEN).unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
        let token = Token::read(file.path()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let at = listener.local_addr().unwrap();
        runtime.spawn(serve_tcp(Arc::clone(&app), listener, token));
        Proxy {
            app,
            fake,
            at,
            runtime,
        }
    }

    /// Status and body.
    pub(super) fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_no_keys(&answer);
        let status = answer[9..12].parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap())
    }

    pub(super) fn good(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, TOKEN, body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub(super) fn register(&self, body: &Value) -> Value {
        self.good("POST", "/v1/register", body)
    }

    pub(super) fn response(&self, told: &Value, body: &Value) -> Value {
        let path = format!("/v1/register/{}/response", told["id"]);
        self.good("POST", &path, body)
    }

    /// SM1, its challenge, and SM7: what was told about SM4, and about SM7.
    pub(super) fn challenged(&self) -> (Value, Value) {
        let told = self.register(&sm1());
        let sm6 = self.response(&told, &challenge());
        let sm7 = self.register(&sm7(&sm6));
        (sm6, sm7)
    }

    pub(super) fn states(&self) -> Vec<String> {
        let state = self.fake.state.lock().unwrap();
        let mut states: Vec<_> = state.rows.iter().map(|row| row.state.clone()).collect();
        states.sort();
        states.dedup();
        states
    }
}

pub(super) fn sm1() -> Value {
    json!({
        "source": "192.0.2.9:5060", "destination": "192.0.2.1:5060",
        "via": "SIP/2.0/UDP 192.0.2.9:5060;branch=z9hG4bK1",
        "to": "<sip:alice@ims.example>",
        "contact": "<sip:192.0.2.9:6100>;+sip.instance=\"<urn:gsma:imei:1>\"",
        "expires": 600000,
        "authorization": "Digest username=\"alice@ims.example\", realm=\"ims.example\", nonce=\"\", uri=\"sip:ims.example\", response=\"\"",
        "security_client": [OFFER],
    })
}

pub(super) fn challenge() -> Value {
    json!({ "status": 401, "www_authenticate": format!(
        "Digest realm=\"ims.example\", nonce=\"{NONCE}\", algorithm=AKAv1-MD5, ck=\"{CK}\", ik=\"{IK}\", qop=\"auth\"") })
}

/// Through the new set, with both lists.
pub(super) fn sm7(sm6: &Value) -> Value {
    let server = sm6["security_server"].as_str().unwrap();
    let param = |name: &str| {
        let all = server
            .split([';', ','])
            .map(|p| p.split_once('=').unwrap_or((p, "")));
        all.clone()
            .find(|(n, _)| n.trim() == name)
            .unwrap()
            .1
            .trim()
            .to_owned()
    };
    let mut sm7 = sm1();
    sm7["source"] = "192.0.2.9:6101".into();
    sm7["destination"] = format!("192.0.2.1:{}", param("port-s")).into();
    sm7["via"] = "SIP/2.0/UDP 192.0.2.9:6100;branch=z9hG4bK2".into();
    sm7["security_verify"] = json!([server]);
    sm7["authorization"] = format!("Digest username=\"alice@ims.example\", realm=\"ims.example\", nonce=\"{NONCE}\", uri=\"sip:ims.example\", response=\"0123456789abcdef0123456789abcdef\"").into();
    sm7
}
