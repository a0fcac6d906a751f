//! What is around the findings: secrets, floods of fragments, what the network
//! says, workers.

use std::net::UdpSocket;
use std::process::Command;

use gm_api::drops::Verdict;

use crate::common::{Lab as Edge, Plan, UE, program};
use crate::lab::{CK, Lab, OTHER, PAYLOAD};
use crate::pass;
use crate::phone::{PORT_PC, PORT_PS, PORT_UC, phone};

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn a_flood_of_fragments_is_cut_off_for_its_phone_and_leaves_the_others() {
    let mut lab = Lab::new();
    let (attacker, victim) = (phone(10), phone(11));
    lab.join(victim, "trans");
    let (uc, ps) = lab.sockets(victim);
    for n in 0..20_000u16 {
        let mut frame = attacker.frame(17, &[0; 64]);
        frame[18..20].copy_from_slice(&n.to_be_bytes());
        frame[20..22].copy_from_slice(&0x2000u16.to_be_bytes());
        while lab.wire.send(&frame).is_err() {
            std::thread::yield_now();
        }
    }
    // What the victim sends is fragmented after it is sealed.
    let long = [7; 4000];
    uc.send_to(&long, ps.local_addr().unwrap()).unwrap();
    assert_eq!(ps.recv(&mut [0; 8000]).expect("it arrives"), long.len());
    let sample = lab.samples(attacker, "fragment-rate", 1).remove(0);
    assert_eq!(
        (sample.station.as_str(), sample.proto.as_str()),
        ("uplink", "udp")
    );
    let row = lab.prefix(attacker, 1000);
    assert!(row.reasons["fragment-rate"] > 1000, "{row:?}");
    lab.cause(
        attacker,
        "fragments-limited",
        &["fragment-rate counted for 10.77.0.10"],
    );
    assert_eq!(lab.explain(victim).verdict, Verdict::Fine);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn no_sample_and_no_explanation_shows_a_key_or_what_was_carried() {
    let mut lab = Lab::new();
    let (live, other) = (phone(10), phone(11));
    lab.join(live, "trans");
    lab.add(other, "trans");
    lab.add_at_phone(&other.sad("trans", [OTHER, CK]));
    let (uc, ps) = lab.sockets(live);
    pass(&uc, &ps);
    lab.send(&live.udp(5060, PORT_PC, PAYLOAD));
    ps.send_to(PAYLOAD, (live.address, 9999)).unwrap();
    let wrong = lab
        .ue
        .run(|| UdpSocket::bind((other.address, PORT_UC)).unwrap());
    wrong.send_to(PAYLOAD, (other.pcscf, PORT_PS)).unwrap();
    lab.samples(other, "bad-icv", 1);
    lab.samples(live, "out-no-sa", 1);
    for ue in [live, other] {
        lab.explain(ue);
        lab.ctl(&["explain", &ue.address.to_string()]);
    }
    let by = [
        ["--by", "reason"],
        ["--by", "prefix"],
        ["--by", "sa"],
        ["--last", "50"],
    ];
    for args in by {
        let shown = lab.ctl(&["drops", args[0], args[1]]);
        assert!(shown.status.success());
        lab.ctl(&["drops", args[0], args[1], "--json"]);
    }
    lab.shows_no_secret();
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_the_network_cannot_reach_the_phone() {
    let mut lab = Lab::new();
    let ue = phone(10);
    lab.join(ue, "trans");
    let (uc, ps) = lab.sockets(ue);
    let (tap, frames) = crossbeam::channel::bounded(64);
    lab.phones.tap(Some(tap)).unwrap();
    ps.send_to(PAYLOAD, uc.local_addr().unwrap()).unwrap();
    let sealed = frames.recv().expect("the sealed packet").frame;
    // Protocol unreachable, with the first eight bytes of ESP.
    let mut icmp = vec![3, 2, 0, 0, 0, 0, 0, 0];
    icmp.extend(&sealed[14..14 + 28]);
    let sum = gm_tests::checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    lab.send(&ue.frame(1, &icmp));
    let sample = lab.samples(ue, "peer-unreachable", 1).remove(0);
    assert_eq!((sample.dst, sample.spi), (ue.address, Some(ue.spi() + 1)));
    lab.cause(
        ue,
        "icmp-unreachable",
        &["cannot be reached", "sequence number 1"],
    );
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn gmespctl_changes_the_number_of_workers_within_what_the_uplink_has_queues_for() {
    let mut lab = Lab::new();
    let text = |output: std::process::Output| {
        let code = output.status.code();
        let both = [output.stdout, output.stderr].concat();
        (code, String::from_utf8(both).unwrap())
    };
    assert_eq!(text(lab.ctl(&["workers"])), (Some(0), "1 worker\n".into()));
    let (code, said) = text(lab.ctl(&["workers", "33"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ethtool -L"), "{said}");
    // The uplink has queues for one at least, and the SAs stay.
    let ue = phone(10);
    lab.join(ue, "trans");
    let (uc, ps) = lab.sockets(ue);
    pass(&uc, &ps);
    assert_eq!(text(lab.ctl(&["workers", "1"])).0, Some(0));
    pass(&uc, &ps);
    let (_, stats) = text(lab.ctl(&["stats", "--json"]));
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["workers"][0]["lanes"][0], 0);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_knows_a_registered_phone_and_one_that_has_left() {
    let edge = Edge::new(&Plan::many(1, 1));
    let socket = edge.dir.path().join("c.sock").display().to_string();
    let explain = || {
        let args = ["--socket", &socket, "explain", UE];
        let output = Command::new(program("gmespctl")).args(args).output();
        let output = output.expect("gmespctl runs");
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    assert_eq!(explain().0, Some(4));
    let (code, summary) = edge.load(&["--count", "1"]);
    assert_eq!(code, Some(0), "{summary}");
    let (code, said) = explain();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("ue1@home.test is registered"), "{said}");
    assert!(said.contains("Nothing is wrong here"), "{said}");
    // It comes again and leaves; the sets go, and their last word is known.
    // Of the three client ports that it draws from one is taken as long as its first
    // registration lives; with that one it is refused, and draws again.
    let mut tries = (0..20).map(|_| edge.load(&["--count", "1", "--deregister", "--hold", "1"]));
    let (code, summary) = tries
        .find(|(_, summary)| summary["failures"]["the network answered 400"].is_null())
        .expect("a port that is free");
    assert_eq!(code, Some(0), "{summary}");
    edge.settles(0, 0);
    let (_, said) = explain();
    assert!(
        said.contains("has no SAs") && said.contains("deregistered"),
        "{said}"
    );
}
