//! The interface over a real Unix socket, asked by the real gmespctl. The data
//! plane behind it is a fake that keeps a list; the real one is covered by the
//! tests in network namespaces.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gm_api::control::FlowEvent;
use gm_dataplane::{Direction, TapPacket};
use serde_json::Value;

use super::App;
use crate::config::Config;
use crate::events::Events;
use crate::plane::Plane;
use crate::sets::Sets;
use crate::socket::ControlSocket;
use crate::testing::{CK, Fake, IK, assert_no_keys, log_everything, logged};

struct Daemon {
    app: Arc<App>,
    fake: Arc<Fake>,
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    _socket: ControlSocket,
}

impl Daemon {
    fn start() -> Daemon {
        log_everything();
        let dir = tempfile::tempdir().unwrap();
        let text = "[gm]\nuplinks = [\"gmtest0\"]\naddresses = [\"192.0.2.1\"]\n\
                    server_ports = [5064]\nclient_ports = [5065]\nreplay_window = 128\n";
        let config = Config::parse(text, Path::new("t.toml")).unwrap();
        let fake = Arc::new(Fake::default());
        let sets = Sets::new(Arc::clone(&fake) as Arc<dyn Plane>);
        let app = App::new(config, sets, Events::new());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (socket, listener) =
            ControlSocket::bind(&dir.path().join("control.sock"), 0o600, None).unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::from_std(listener).unwrap()
        };
        runtime.spawn(super::serve(Arc::clone(&app), listener));
        Daemon {
            app,
            fake,
            dir,
            runtime,
            _socket: socket,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// gmespctl: exit code, output, errors.
    fn ctl(&self, args: &[&str]) -> (u8, String, String) {
        let socket = self.socket().display().to_string();
        let all = ["gmespctl", "--socket", &socket]
            .into_iter()
            .chain(args.iter().copied());
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = gmespctl::run(all, &mut std::io::empty(), &mut out, &mut err);
        let (out, err) = (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        );
        for text in [&out, &err] {
            assert_no_keys(text);
        }
        (code, out, err)
    }

    fn json(&self, args: &[&str]) -> Value {
        let (code, out, err) = self.ctl(args);
        assert_eq!(code, 0, "{args:?}: {err}");
        serde_json::from_str(&out).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// One request in plain HTTP: the whole answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_no_keys(&answer);
        answer
    }

    fn post(&self, path: &str, body: &str) -> String {
        self.raw(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }
}

fn sa(spi: u32, src: &str, dst: &str, more: &str) -> String {
    format!(
        "[[sa]]\nspi = {spi}\nmode = \"trans\"\nsrc = \"{src}\"\ndst = \"{dst}\"\n\
         alg = \"null\"\nealg = \"aes-gcm\"\nik = \"{IK}\"\nck = \"{CK}\"\n{more}\n"
    )
}

const US: &str = "192.0.2.1";
const UE: &str = "198.51.100.7";

fn four() -> String {
    [
        sa(4001, UE, US, "set = 3\ndst_port = 5064\nsrc_port = 40001"),
        sa(4002, UE, US, "set = 3\ndst_port = 5065\nsrc_port = 40002"),
        sa(4003, US, UE, "set = 3\nsrc_port = 5065\nseq = 10"),
        sa(
            4004,
            US,
            UE,
            "set = 3\nsrc_port = 5064\nreplay_window = 256",
        ),
    ]
    .concat()
}

#[test]
fn a_set_goes_in_is_listed_and_goes_out() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
    let file = daemon.file("four.toml", &four());
    let (code, out, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (0, "set 3 is live: 4 SAs\n", "")
    );

    let rows = daemon.json(&["sa", "list", "--json"]);
    let rows = rows.as_array().unwrap();
    let column = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(column("spi"), [4001, 4002, 4003, 4004]);
    assert_eq!(column("set"), [3, 3, 3, 3]);
    assert_eq!(column("dir"), ["in", "in", "out", "out"]);
    assert_eq!(column("seq"), [0, 0, 9, 0]);
    assert_eq!(column("replay_window"), [128, 128, 128, 256]);
    assert_eq!(column("state"), ["live", "live", "live", "live"]);
    assert_eq!(rows[0]["drops"]["replay"], 2);
    assert_eq!(rows[0]["alg"], "null");
    assert_eq!(rows[0]["ealg"], "aes-gcm");
    for key in ["ik", "ck", "integrity_key", "encryption_key", "salt"] {
        assert!(rows.iter().all(|row| row.get(key).is_none()), "{key}");
    }

    let table = daemon.ctl(&["sa", "list"]).1;
    assert!(
        table.contains("198.51.100.7:40001") && table.contains("null/aes-gcm"),
        "{table}"
    );

    let (code, out, _) = daemon.ctl(&["sa", "del", "--set", "3"]);
    assert_eq!((code, out.as_str()), (0, "removed set 3: 4 SAs\n"));
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
    let (code, _, err) = daemon.ctl(&["sa", "del", "--set", "3"]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no set 3"), "{err}");
}

#[test]
fn an_sa_without_a_set_is_one_and_goes_by_spi_and_destination() {
    let daemon = Daemon::start();
    let file = daemon.file(
        "two.toml",
        &[sa(0x1001, UE, US, ""), sa(0x1002, US, UE, "")].concat(),
    );
    let added = daemon.json(&["sa", "add", "--file", &file, "--json"]);
    let sets = added["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 2);
    assert_ne!(sets[0]["set"], sets[1]["set"]);
    let (code, _, err) = daemon.ctl(&["sa", "del", "--spi", "0x1001", "--dst", UE]);
    assert_eq!(code, 1);
    assert!(err.contains("there is no SA 4097 to 198.51.100.7"), "{err}");
    let gone = daemon.json(&["sa", "del", "--spi", "0x1001", "--dst", US, "--json"]);
    assert_eq!(gone["sets"][0], sets[0]["set"]);
    assert_eq!(
        daemon
            .json(&["sa", "list", "--json"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    daemon.json(&["sa", "del", "--spi", "4098", "--dst", UE, "--json"]);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
}

#[test]
fn a_file_is_installed_whole_or_not_at_all() {
    let daemon = Daemon::start();
    // The second set repeats an SPI of the first, to another destination, so
    // the file is well-formed and only the data plane refuses.
    let text = [sa(5001, UE, US, "set = 1"), sa(5001, US, UE, "set = 2")].concat();
    let file = daemon.file("a.toml", &text);
    let (code, out, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("SPI 5001 is taken"), "{err}");
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");

    daemon.fake.refuse_activate.store(true, Ordering::Relaxed);
    let file = daemon.file("b.toml", &four());
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 1);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");

    daemon.fake.refuse_activate.store(false, Ordering::Relaxed);
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 0);
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 1);
    assert!(
        err.contains("set 3 is installed already") && err.contains("sa del --set 3"),
        "{err}"
    );
}

#[test]
fn a_wrong_file_is_named_with_table_and_key() {
    let daemon = Daemon::start();
    let bad_key = four().replace(IK, &IK[..20]);
    let file = daemon.file("bad.toml", &bad_key);
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 2);
    assert!(err.contains("bad.toml: [[sa]] #1: ik:"), "{err}");

    let file = daemon.file("far.toml", &sa(9000, UE, "203.0.113.9", ""));
    let (code, _, err) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 2);
    assert!(err.contains("far.toml: [[sa]] #1: dir: missing"), "{err}");

    // The key is in the wrong place, even outside of TOML.
    let file = daemon.file("worse.toml", &format!("{}\nik = {IK}\n", four()));
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &file]).0, 2);
    assert_eq!(daemon.ctl(&["sa", "add", "--file", "/nowhere.toml"]).0, 2);
    let empty = daemon.file("empty.toml", "");
    assert_eq!(daemon.ctl(&["sa", "add", "--file", &empty]).0, 2);
    assert_eq!(daemon.ctl(&["sa", "list"]).1, "no SAs\n");
}

#[test]
fn unlikely_sas_are_warned_about() {
    let daemon = Daemon::start();
    let text = [
        sa(6001, UE, "203.0.113.9", "dir = \"in\""),
        sa(6002, UE, US, "dst_port = 9"),
    ];
    let file = daemon.file("odd.toml", &text.concat());
    let (code, out, _) = daemon.ctl(&["sa", "add", "--file", &file]);
    assert_eq!(code, 0);
    assert!(
        out.contains("[[sa]] #1: 203.0.113.9 is none of [gm] addresses"),
        "{out}"
    );
    assert!(
        out.contains("[[sa]] #2: port 9 is in neither [gm] server_ports"),
        "{out}"
    );
}

#[test]
fn no_answer_and_no_log_line_has_a_key() {
    let daemon = Daemon::start();
    let file = daemon.file("four.toml", &four());
    daemon.ctl(&["sa", "add", "--file", &file]);
    for args in [
        &["sa", "list"][..],
        &["sa", "list", "--json"],
        &["stats"],
        &["health"],
    ] {
        daemon.ctl(args);
    }
    // A body that is no request, with the keys in every place.
    let escaped = four().replace('"', "\\\"").replace('\n', "\\n");
    for body in [
        format!("{{\"sad\": \"{escaped}\", \"{IK}\": 1}}"),
        format!("{{\"sad\": {{\"{IK}\": \"{CK}\"}}}}"),
        format!("{{\"sad\": \"{escaped}"),
        format!("{{\"sad\": \"x = {IK}\", \"name\": \"n\"}}"),
        four(),
    ] {
        let answer = daemon.post("/v1/sa", &body);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"error\":{\"code\":\"bad-"), "{answer}");
    }
    let log = logged();
    assert!(log.contains("SAs added over the control socket"), "{log}");
    assert!(log.contains("uid "), "{log}");
    assert_no_keys(&log);
}

#[test]
fn wrong_requests_get_json_errors() {
    let daemon = Daemon::start();
    let get = |path: &str| {
        daemon.raw(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
    };
    let delete = |path: &str| {
        daemon.raw(&format!(
            "DELETE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
    };
    for (answer, status, code) in [
        (get("/v2/sa"), "404", "not-found"),
        (delete("/v1/stats"), "405", "no-method"),
        (delete("/v1/sa"), "400", "bad-request"),
        (delete("/v1/sa?set=x"), "400", "bad-request"),
        (delete("/v1/sa?spi=1"), "400", "bad-request"),
        (delete("/v1/sa?set=1&spi=1&dst=::1"), "400", "bad-request"),
        (delete("/v1/sa?sets=1"), "400", "bad-request"),
        (delete("/v1/sa?spi=99&dst=::1"), "404", "not-found"),
        (daemon.post("/v1/sa/x/activate", ""), "400", "bad-request"),
        (daemon.post("/v1/sa/5/retire", ""), "404", "not-found"),
        (
            daemon.post("/v1/sa", &" ".repeat((4 << 20) + 1)),
            "413",
            "too-large",
        ),
    ] {
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{code}: {answer}"
        );
        assert!(
            answer.contains(&format!("{{\"error\":{{\"code\":\"{code}\"")),
            "{answer}"
        );
    }
}

#[test]
fn a_set_is_retired_and_activated_by_its_number() {
    let daemon = Daemon::start();
    let file = daemon.file("four.toml", &four());
    daemon.ctl(&["sa", "add", "--file", &file]);
    assert!(
        daemon
            .post("/v1/sa/3/retire", "")
            .contains(r#"{"set":3,"state":"retired"}"#)
    );
    assert_eq!(
        daemon.json(&["sa", "list", "--json"])[0]["state"],
        "retiring"
    );
    assert!(
        daemon
            .post("/v1/sa/3/activate", "")
            .contains(r#"{"set":3,"state":"active"}"#)
    );
}

#[test]
fn stats_and_health() {
    let daemon = Daemon::start();
    let stats = daemon.json(&["stats", "--json"]);
    assert_eq!(stats["reasons"]["ok"], 5);
    assert_eq!(stats["reasons"]["replay"], 0);
    assert_eq!(stats["workers"][0]["packets"], 9);
    let health = daemon.json(&["health", "--json"]);
    assert_eq!(health["status"], "ok");
    assert_eq!(health["pid"], std::process::id());
    assert_eq!(health["sas"], 0);
    assert!(daemon.ctl(&["health"]).1.contains("addresses: 192.0.2.1\n"));
}

#[test]
fn a_capture_is_started_fed_and_stopped() {
    let daemon = Daemon::start();
    let file = daemon.dir.path().join("wire.pcapng").display().to_string();
    let (code, _, err) = daemon.ctl(&["capture", "stop"]);
    assert_eq!(code, 1);
    assert!(err.contains("no capture runs"), "{err}");
    assert_eq!(daemon.ctl(&["capture", "start", &file]).0, 0);
    assert_eq!(daemon.json(&["health", "--json"])["capture"], file);
    let (code, _, err) = daemon.ctl(&["capture", "start", &format!("{file}2")]);
    assert_eq!(code, 1);
    assert!(err.contains("runs already"), "{err}");

    let tap = daemon.fake.state.lock().unwrap().tap.clone().unwrap();
    let packet = TapPacket {
        at: Duration::from_secs(1),
        direction: Direction::Out,
        frame: vec![0x5a; 77],
    };
    tap.send(packet).unwrap();
    drop(tap);
    let (code, out, _) = daemon.ctl(&["capture", "stop"]);
    assert_eq!(code, 0);
    assert!(
        out.contains(": 1 packet, ") && out.contains(" 0 missed"),
        "{out}"
    );
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.windows(77).any(|window| window == [0x5a; 77]));
    assert!(daemon.fake.state.lock().unwrap().tap.is_none());
}

#[test]
fn events_are_streamed_until_the_daemon_stops() {
    let daemon = Daemon::start();
    let client = gmespctl::client::Client::new(daemon.socket());
    daemon.runtime.block_on(async {
        let mut events = client.events().await.unwrap();
        for step in ["SM1", "SM6"] {
            daemon.app.events.send(FlowEvent {
                step: step.into(),
                ..FlowEvent::default()
            });
        }
        let first = events.next().await.unwrap().unwrap();
        assert_eq!(first.step, "SM1");
        assert!(first.time_ms > 1_500_000_000_000);
        assert_eq!(events.next().await.unwrap().unwrap().step, "SM6");
        daemon.app.stop();
        assert_eq!(events.next().await.unwrap(), None);
    });
}

#[test]
fn without_a_daemon_gmespctl_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = |socket: &Path| {
        let mut err = Vec::new();
        let socket = socket.display().to_string();
        let args = ["gmespctl", "--socket", &socket, "stats"];
        let code = gmespctl::run(args, &mut std::io::empty(), &mut std::io::sink(), &mut err);
        (code, String::from_utf8(err).unwrap())
    };
    let (code, err) = run(&dir.path().join("none"));
    assert_eq!(code, 1);
    assert!(
        err.starts_with("gmespctl: gmespd is not running: no socket at /"),
        "{err}"
    );
    assert!(err.contains("gmespd run --config FILE"), "{err}");

    let stale = dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let (code, err) = run(&stale);
    assert_eq!(code, 1);
    assert!(err.contains("not running: nobody listens at"), "{err}");
}
