//! Dropped packets, explanations, workers: what gmespctl shows of them.

use std::net::IpAddr;
use std::time::Duration;

use gm_api::drops::{DropLine, Verdict};
use gm_dataplane::{DropNews, DropSample, PrefixCounts, Reason, Station, monotonic_ns};

use super::Daemon;

const UE: &str = "198.51.100.7";

fn sample(reason: Reason, seq: u32) -> DropSample {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    DropSample {
        at: monotonic_ns(),
        reason,
        station: Station::Uplink,
        outbound: false,
        interface: 0,
        proto: 50,
        src: address(UE),
        dst: address("192.0.2.1"),
        src_port: None,
        dst_port: None,
        spi: Some(1_000_000_001),
        seq: Some(seq),
        len: 120,
    }
}

fn with_samples() -> Daemon {
    let daemon = Daemon::start();
    let mut state = daemon.fake.state.lock().unwrap();
    state.samples = vec![sample(Reason::UnknownSpi, 9), sample(Reason::UnknownSpi, 8)];
    state.prefixes = vec![PrefixCounts {
        prefix: UE.parse().unwrap(),
        drops: vec![(Reason::UnknownSpi, 15), (Reason::Replay, 2)],
    }];
    drop(state);
    daemon
}

#[test]
fn drops_are_counted_by_reason_with_what_to_do_by_phone_and_by_sa() {
    let daemon = with_samples();
    let report = daemon.json(&["drops", "--json"]);
    let row = &report["reasons"][0];
    assert_eq!(
        (&row["reason"], &row["packets"]),
        (&"unknown-spi".into(), &20.into())
    );
    assert_eq!(row["left_out"], 18);
    let table = daemon.ctl(&["drops"]).1;
    assert!(
        table.contains("unknown-spi") && table.contains("register again"),
        "{table}"
    );

    let rows = daemon.json(&["drops", "--by", "prefix", "--json"]);
    assert_eq!(rows[0]["prefix"], UE);
    assert_eq!(
        (&rows[0]["packets"], &rows[0]["reasons"]["replay"]),
        (&17.into(), &2.into())
    );
    let table = daemon.ctl(&["drops", "--by", "prefix", "--limit", "5"]).1;
    assert!(table.contains("unknown-spi 15, replay 2"), "{table}");
    assert_eq!(
        daemon.ctl(&["drops", "--by", "sa"]).1,
        "no SA has dropped packets\n"
    );
    assert_eq!(daemon.ctl(&["drops", "--by", "nothing"]).0, 2);
    assert_eq!(
        daemon.ctl(&["drops", "--by", "prefix", "--limit", "0"]).0,
        2
    );

    let quiet = Daemon::start();
    assert_eq!(quiet.ctl(&["drops"]).1, "nothing was dropped\n");
}

#[test]
fn the_last_samples_are_shown_the_newest_last() {
    let daemon = with_samples();
    let (code, out, _) = daemon.ctl(&["drops", "--last", "5"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 2));
    assert!(
        lines[0].contains("seq 8") && lines[1].contains("seq 9"),
        "{out}"
    );
    let one = daemon.ctl(&["drops", "--last", "1", "--json"]).1;
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["seq"], &one["src"]), (&9.into(), &UE.into()));
    assert_eq!(
        daemon.ctl(&["drops", "--last", "5", "--reason", "stale"]).1,
        "no samples\n"
    );
}

#[test]
fn samples_are_streamed_with_what_was_left_out_until_the_daemon_stops() {
    let daemon = Daemon::start();
    let client = gmespctl::client::Client::new(daemon.socket());
    daemon.runtime.block_on(async {
        let mut first = client.follow_drops().await.unwrap();
        let mut second = client.follow_drops().await.unwrap();
        let to = {
            let state = daemon.fake.state.lock().unwrap();
            assert_eq!(state.followers.len(), 1, "one follower feeds all clients");
            state.followers[0].clone()
        };
        to.send(DropNews::Sample(sample(Reason::BadIcv, 7)))
            .unwrap();
        let news = DropNews::LeftOut {
            by_reason: vec![(Reason::BadIcv, 99)],
            missed: 1,
        };
        to.send(news).unwrap();
        for lines in [&mut first, &mut second] {
            let Some(DropLine::Sample(sample)) = lines.next().await.unwrap() else {
                panic!("a sample comes first");
            };
            assert_eq!((sample.reason.as_str(), sample.seq), ("bad-icv", Some(7)));
            assert!(sample.time_ms > 1_500_000_000_000);
            let Some(DropLine::LeftOut(left_out)) = lines.next().await.unwrap() else {
                panic!("then what was left out");
            };
            assert_eq!((left_out.left_out["bad-icv"], left_out.missed), (99, 1));
        }
        daemon.app.stop();
        assert_eq!(first.next().await.unwrap(), None);
    });
}

#[test]
fn when_the_last_client_goes_nobody_follows_and_the_next_one_does_again() {
    let daemon = Daemon::start();
    let client = gmespctl::client::Client::new(daemon.socket());
    let followers = || daemon.fake.state.lock().unwrap().followers.clone();
    daemon.runtime.block_on(async {
        drop(client.follow_drops().await.unwrap());
        let until = std::time::Instant::now() + Duration::from_secs(20);
        // The next sample finds nobody, and the thread ends.
        while followers()[0]
            .send(DropNews::Sample(sample(Reason::Stale, 1)))
            .is_ok()
        {
            assert!(std::time::Instant::now() < until, "it still follows");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut lines = client.follow_drops().await.unwrap();
        let news = DropNews::Sample(sample(Reason::Stale, 2));
        followers().last().unwrap().send(news).unwrap();
        assert!(lines.next().await.unwrap().is_some());
    });
}

#[test]
fn explain_answers_in_words_in_json_and_by_its_exit_code() {
    let daemon = with_samples();
    let (code, out, err) = daemon.ctl(&["explain", UE]);
    assert_eq!((code, err.as_str()), (gmespctl::TROUBLE, ""));
    assert!(
        out.starts_with("198.51.100.7: something is wrong\n"),
        "{out}"
    );
    assert!(
        out.contains("SPI 1000000001 (0x3b9aca01)") && out.contains("What to do:"),
        "{out}"
    );
    let (code, out, _) = daemon.ctl(&["explain", "2001:db8::7", "--json"]);
    let said: gm_api::drops::Explanation = serde_json::from_str(&out).unwrap();
    assert_eq!((code, said.verdict), (gmespctl::UNKNOWN, Verdict::Unknown));
    // The same phone in the other way of writing it.
    assert_eq!(
        daemon.ctl(&["explain", "::ffff:198.51.100.7"]).0,
        gmespctl::TROUBLE
    );
    let (code, _, err) = daemon.ctl(&["explain", "192.0.2.1"]);
    assert_eq!(code, 2);
    assert!(err.contains("this host's own address"), "{err}");
    assert_eq!(daemon.ctl(&["explain", "phone"]).0, 2);
}

#[test]
fn the_number_of_workers_is_shown_and_changed() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ctl(&["workers"]).1, "1 worker\n");
    assert_eq!(daemon.ctl(&["workers", "3"]).0, 0);
    assert_eq!(daemon.fake.state.lock().unwrap().workers, 3);
    let (code, _, err) = daemon.ctl(&["workers", "9"]);
    assert_eq!(code, 1);
    assert!(err.contains("the uplink has 4 queues"), "{err}");
    assert_eq!(daemon.ctl(&["workers", "0"]).0, 2);
    let answer = daemon.raw(
        "PUT /v1/workers HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 13\r\n\r\n{\"workers\":-1}",
    );
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn explain_knows_what_the_registrations_of_a_phone_have_come_to() {
    let daemon = Daemon::start();
    let step = |step: &str, ue: Option<&str>| {
        daemon.app.events.send(gm_api::control::FlowEvent {
            step: step.into(),
            impi: Some("alice@ims".into()),
            ue: ue.map(|ue| format!("{ue}:5060")),
            set: Some(7),
            reason: ue.is_none().then(|| "unfinished".into()),
            ..Default::default()
        });
    };
    let uplink = |step: &str| {
        daemon.app.events.send(gm_api::control::FlowEvent {
            step: step.into(),
            ..Default::default()
        });
    };
    uplink("uplink-gone");
    let out = daemon.ctl(&["explain", UE]).1;
    assert!(out.contains("The uplink is gone"), "{out}");
    uplink("uplink-back");
    step("SM1", Some(UE));
    step("SM6", Some(UE));
    let (code, out, _) = daemon.ctl(&["explain", UE]);
    assert!(
        out.contains("alice@ims was challenged 0.") && code == 0,
        "{out}"
    );
    // The set goes, and its event names no address.
    step("removed", None);
    let (code, out, _) = daemon.ctl(&["explain", UE]);
    assert_eq!(code, gmespctl::TROUBLE);
    assert!(
        out.contains("SAs of alice@ims were removed") && out.contains("unfinished"),
        "{out}"
    );
    assert!(out.contains("did not answer its challenge"), "{out}");
}
