//! How `gm-ue` ends: by a signal, before it has begun, and after one that was killed.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gm_tests::netns::NetNs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lab::{K, Lab, UE, program};
use crate::phone::{Run, lab, register};

/// Starts `gm-ue register` as ue1; it says all on pipes.
fn start(lab: &Lab, args: &[&str]) -> Child {
    let config = lab.ue_toml("ue1", K);
    let mut command = Command::new(program("gm-ue"));
    command
        .args(["register", "--json", "--config", &config])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    lab.ue.run(|| command.spawn()).expect("gm-ue starts")
}

fn told(child: Child) -> Run {
    let output = child.wait_with_output().expect("an end");
    let trace = String::from_utf8_lossy(&output.stderr).into_owned();
    Run {
        code: output.status.code(),
        told: serde_json::from_slice(&output.stdout).unwrap_or(Value::Null),
        trace,
    }
}

fn signalled(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).expect("it is there");
}

fn registered(lab: &Lab) {
    let end = Instant::now() + Duration::from_secs(20);
    while lab.health().registrations == 0 {
        assert!(Instant::now() < end, "it does not register");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Nothing of ours is in the phone's namespace.
fn is_clean(ns: &NetNs) {
    let links = ns.ip("-o link show");
    assert!(!links.contains("gm0"), "{links}");
    let lo = ns.ip("-o -4 address show dev lo");
    assert!(!lo.contains("/32"), "{lo}");
}

#[test]
#[ignore = "needs root"]
fn a_signal_de_registers_and_leaves_a_result() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = lab();
        let child = start(&lab, &["--hold", "600"]);
        registered(&lab);
        signalled(&child, signal);
        let run = told(child);
        assert_eq!(run.code, Some(3), "{}", run.trace);
        assert_eq!(run.told["failure"]["step"], "stop");
        assert_eq!(run.told["deregistered"], true, "{}", run.told);
        assert_eq!(run.told["registrations"].as_array().map(Vec::len), Some(1));
        assert_eq!(lab.health().registrations, 0);
        is_clean(&lab.ue);
    }
}

#[test]
#[ignore = "needs root"]
fn a_signal_does_not_de_register_a_phone_that_is_to_stay() {
    let lab = lab();
    let child = start(&lab, &["--hold", "600", "--stay"]);
    registered(&lab);
    signalled(&child, Signal::SIGINT);
    let run = told(child);
    assert_eq!(
        (run.code, &run.told["deregistered"]),
        (Some(3), &false.into())
    );
    assert_eq!(lab.health().registrations, 1);
    is_clean(&lab.ue);
}

#[test]
#[ignore = "needs root"]
fn a_port_that_somebody_has_leaves_nothing_behind() {
    let lab = lab();
    let taken = lab.ue.run(|| std::net::UdpSocket::bind((UE, 5060)));
    let run = register(&lab, &[]);
    assert_eq!(run.code, Some(1), "{}", run.trace);
    let reason = run.reason();
    assert!(reason.contains("192.0.2.10:5060"), "{reason}");
    is_clean(&lab.ue);
    drop(taken);
    register(&lab, &[]).succeeds();
}

#[test]
#[ignore = "needs root"]
fn a_phone_that_was_killed_is_in_nobodys_way() {
    let lab = lab();
    let child = start(&lab, &["--hold", "600"]);
    registered(&lab);
    signalled(&child, Signal::SIGKILL);
    told(child);
    register(&lab, &[]).succeeds();
    is_clean(&lab.ue);
}

#[test]
#[ignore = "needs root"]
fn an_address_that_a_killed_phone_left_is_used_and_stays() {
    use gm_ue::addresses::Addresses;
    let ns = NetNs::new().expect("a namespace");
    ns.ip("link set lo up");
    let public = "192.0.2.77".parse().expect("an address");
    let in_namespace = |end_well: bool| {
        ns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let mut addresses = Addresses::new(&[]).expect("netlink");
                let new = addresses.ensure(public).await.map_err(|e| format!("{e:#}"));
                assert_eq!(new, Ok(true));
                assert!(addresses.all().contains(&public));
                if end_well {
                    addresses.remove_all().await;
                }
            });
        });
        ns.ip("-o -4 address show dev lo").contains("192.0.2.77/32")
    };
    assert!(!in_namespace(true));
    assert!(in_namespace(false));
    assert!(in_namespace(true), "what was there is not ours to take");
}
