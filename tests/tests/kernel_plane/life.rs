//! Start, kill, take-over, stop.

use std::sync::atomic::{AtomicBool, Ordering};

use gm_tests::needs_esp;

use crate::four::Four;
use crate::lab::{Lab, PCSCF, PCSCF6, PS, UC, UE, UE6, crosses, is_dropped, received, until};

/// Whether the policy is in force: in both directions, both families and inside.
fn is_closed(lab: &Lab) {
    for (ue, pcscf) in [(UE, PCSCF), (UE6, PCSCF6)] {
        let here = Lab::udp(&lab.pcscf, pcscf, PS);
        let phone = Lab::udp(&lab.ue, ue, 6009);
        let inside = Lab::udp(&lab.pcscf, pcscf, 0);
        is_dropped(&phone, &here);
        is_dropped(&here, &phone);
        is_dropped(&inside, &here);
    }
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_kill_leaves_the_policy_and_a_successor_takes_over_without_a_gap() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four::new(1, 60_000);
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    crosses(&phone, &here, b"carried");
    drop((here, phone));
    daemon.kill();
    is_closed(&lab);
    assert!(lab.pcscf.ip("xfrm state").contains("0x0000ea60"));

    // Cleartext is tried without a pause while the next one takes over: none comes through.
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let flood = |from: (&'static str, u16), to: (&'static str, u16), inside: bool| {
            let (lab, stop) = (&lab, &stop);
            let ns = if inside { &lab.pcscf } else { &lab.ue };
            let sender = Lab::udp(ns, from.0, from.1);
            let receiver = Lab::udp(&lab.pcscf, to.0, to.1);
            receiver.set_nonblocking(true).unwrap();
            s.spawn(move || {
                let mut came = 0;
                while !stop.load(Ordering::Relaxed) {
                    let _ = sender.send_to(b"cleartext", receiver.local_addr().unwrap());
                    came += u32::from(received(&receiver).is_some());
                    std::thread::sleep(std::time::Duration::from_micros(200));
                }
                came
            })
        };
        let floods = [
            flood((UE, 6009), (PCSCF, PS), false),
            flood((UE6, 6009), (PCSCF6, PS), false),
            flood((PCSCF, 0), (PCSCF, 5070), true),
        ];
        let daemon = lab.start();
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            assert_eq!(flood.join().unwrap(), 0, "cleartext has come through");
        }
        // What the killed one had left is gone, and its SPIs are free.
        let tables = lab.tables();
        assert!(!tables.contains("spi 0x"), "{tables}");
        assert!(!tables.contains("priority 26477"), "{tables}");
        is_closed(&lab);
        lab.add(&four.pcscf());
        lab.peer("remove", &four.ue());
        lab.peer("install", &four.ue());
        let here = Lab::udp(&lab.pcscf, PCSCF, PS);
        let phone = Lab::udp(&lab.ue, UE, UC);
        crosses(&phone, &here, b"carried again");
        daemon.stop();
    });
    let tables = lab.tables();
    assert_eq!(tables, "", "an orderly stop leaves nothing");
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, 6009);
    crosses(&phone, &here, b"in clear");
    crosses(&here, &phone, b"in clear");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_successor_that_protects_other_ports_takes_the_old_policy_along() {
    needs_esp!();
    let lab = Lab::new();
    lab.start().kill();
    let before = lab.pcscf.ip("xfrm policy").matches("action block").count();
    // The last server_ports in the file would be an error: another one is in client_ports.
    let file = lab.dir.path().join("gmespd.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let other = text.replace("5067-5074", "7000");
    assert_ne!(text, other);
    let daemon = lab.start_text(&other);
    let policies = lab.pcscf.ip("xfrm policy");
    assert!(
        policies.contains("port 7000") && !policies.contains("port 5068"),
        "{policies}"
    );
    assert!(policies.matches("action block").count() < before);
    let here = Lab::udp(&lab.pcscf, PCSCF, 5068);
    crosses(&Lab::udp(&lab.ue, UE, 6009), &here, b"open now");
    let here = Lab::udp(&lab.pcscf, PCSCF, 7000);
    is_dropped(&Lab::udp(&lab.ue, UE, 6009), &here);
    daemon.stop();
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_start_that_fails_leaves_what_there_was() {
    needs_esp!();
    let lab = Lab::new();
    // An IKE daemon has UDP 4500.
    let ike = Lab::udp(&lab.pcscf, PCSCF, 4500);
    let failed = lab.spawn("").wait_with_output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(lab.tables(), "", "nothing was there, nothing is left");
    drop(ike);
    let daemon = lab.start();
    // A second one is refused and harms nothing.
    let second = lab.spawn("").wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    is_closed(&lab);
    daemon.kill();
    let ike = Lab::udp(&lab.pcscf, PCSCF, 4500);
    assert_eq!(
        lab.spawn("").wait_with_output().unwrap().status.code(),
        Some(1)
    );
    drop(ike);
    is_closed(&lab);
    lab.start().stop();
    assert_eq!(lab.tables(), "");
}

/// What is put back when somebody flushes the tables under a running daemon.
#[test]
#[ignore = "needs a kernel with ESP"]
fn what_somebody_else_removes_is_put_back_or_said() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four::new(1, 61_000);
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    crosses(&phone, &here, b"before");
    let policies = || {
        let text = lab.pcscf.ip("xfrm policy");
        (
            text.matches("action block").count(),
            text.matches("dir in priority").count(),
            text.matches("dir out priority").count(),
        )
    };
    let before = policies();
    assert_eq!((before.1, before.2), (4, 4));
    lab.pcscf.ip("xfrm policy flush");
    until("the policies are back", || policies() == before);
    lab.pcscf.sh("nft", &["flush", "ruleset"]);
    until("the guard is back", || {
        lab.pcscf
            .sh("nft", &["list", "ruleset"])
            .contains("clear-icmp")
    });
    crosses(&phone, &here, b"after");
    crosses(&here, &phone, b"after");
    let other = Lab::udp(&lab.ue, UE, 6009);
    is_dropped(&other, &here);
    // Guard and base policies stay where a set goes by hand of somebody else.
    lab.pcscf.ip("xfrm state flush");
    until("the SAs are said to be gone", || {
        lab.sas().iter().all(|row| row.state == "gone")
    });
    is_dropped(&phone, &here);
    is_dropped(&here, &phone);
    lab.ask(async |c| c.remove_set(1).await)
        .expect("removed all the same");
    assert!(lab.sas().is_empty());
    daemon.stop();
    assert_eq!(lab.tables(), "");
}

/// Capabilities reach nft although gmespd has given up all but a few of them.
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_user_who_is_not_root_and_has_the_capabilities_can_run_it() {
    needs_esp!();
    let lab = Lab::new();
    let capabilities = "+net_admin,+net_bind_service,+ipc_lock";
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        &format!("--inh-caps={capabilities}"),
        &format!("--ambient-caps={capabilities}"),
    ];
    let daemon = lab.start_as(&words);
    is_closed(&lab);
    let held = daemon.capabilities();
    // NET_BIND_SERVICE (10), NET_ADMIN (12), IPC_LOCK (14), and no other.
    assert_eq!(held, 1 << 10 | 1 << 12 | 1 << 14, "{held:#x}");
    daemon.stop();
    assert_eq!(lab.tables(), "");
}
