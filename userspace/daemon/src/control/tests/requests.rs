//! Everything else: errors, counters, captures, events.

use std::path::Path;
use std::time::Duration;

use gm_api::control::{FlowEvent, MAX_BODY};
use gm_dataplane::{Direction, TapPacket};

use super::Daemon;

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
        (delete("/v1/sa?set=1&to=x"), "400", "bad-request"),
        (delete("/v1/sa?spi=1&dst=::1&to=2"), "400", "bad-request"),
        (delete("/v1/sa?set=1&to=2"), "404", "not-found"),
        (get("/v1/sa?limit=x"), "400", "bad-request"),
        (get("/v1/sa?first=1"), "400", "bad-request"),
        (delete("/v1/sa?spi=99&dst=::1"), "404", "not-found"),
        (daemon.post("/v1/sa/x/activate", ""), "400", "bad-request"),
        (daemon.post("/v1/sa/5/retire", ""), "404", "not-found"),
        (
            daemon.post("/v1/sa", &" ".repeat(MAX_BODY + 1)),
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
