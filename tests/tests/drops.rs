//! What becomes of packets that do not arrive, as a person sees it: real
//! packets end for each reason at a real gmespd, gmespctl shows the sample,
//! counts for reason, SA and phone, and says the cause in words.
#![forbid(unsafe_code)]

// Programs and files are those of the tests with SIPp.
#[path = "drops/around.rs"]
mod around;
#[allow(dead_code)]
#[path = "sipp/lab.rs"]
mod common;
#[path = "drops/lab.rs"]
mod lab;
#[path = "drops/phone.rs"]
mod phone;

use std::net::UdpSocket;

use gm_api::drops::Verdict;
use lab::{CK, IK, Lab, OTHER, PAYLOAD};
use phone::{PORT_PC, PORT_PS, PORT_UC, Phone, phone, phone6};

/// One packet through, from the phone to port_ps.
fn pass(uc: &UdpSocket, ps: &UdpSocket) {
    uc.send_to(PAYLOAD, ps.local_addr().unwrap()).unwrap();
    let mut got = [0; 64];
    let n = ps.recv(&mut got).expect("the packet arrives");
    assert_eq!(&got[..n], PAYLOAD);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_nothing_is_wrong_while_packets_pass() {
    let mut lab = Lab::new();
    for ue in [phone(10), phone6(10)] {
        assert_eq!(lab.explain(ue).verdict, Verdict::Unknown);
        lab.join(ue, "trans");
        let (uc, ps) = lab.sockets(ue);
        for _ in 0..5 {
            pass(&uc, &ps);
        }
        let said = lab.explain(ue);
        assert_eq!(said.verdict, Verdict::Fine, "{said:#?}");
        assert_eq!(said.findings[0].cause, "healthy", "{said:#?}");
        assert!(said.findings[0].text.contains("Nothing is wrong here"));
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_names_the_spi_that_was_deleted() {
    let mut lab = Lab::new();
    for ue in [phone(10), phone6(10)] {
        lab.join(ue, "trans");
        let (uc, ps) = lab.sockets(ue);
        pass(&uc, &ps);
        let removed = lab.ctl(&["sa", "del", "--set", &ue.set().to_string()]);
        assert!(removed.status.success());
        for _ in 0..3 {
            uc.send_to(PAYLOAD, ps.local_addr().unwrap()).unwrap();
        }
        for (sample, seq) in lab.samples(ue, "unknown-spi", 3).iter().zip(2..) {
            assert_eq!((sample.src, sample.dst), (ue.address, ue.pcscf));
            assert_eq!((sample.spi, sample.seq), (Some(ue.spi()), Some(seq)));
            assert_eq!(
                (sample.direction.as_str(), sample.proto.as_str()),
                ("in", "esp")
            );
            assert_eq!(sample.station, "uplink");
        }
        lab.counted(ue, "unknown-spi", 3);
        let set = format!("set {}", ue.set());
        let spi = format!("SPI {}", ue.spi());
        lab.cause(
            ue,
            "deleted-spi",
            &[&spi, "was deleted", &set, "carried 1 packet"],
        );
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_names_the_spi_that_was_never_here() {
    let mut lab = Lab::new();
    for (ue, spi) in [(phone(10), 0xdead_beef), (phone6(10), 1_234_567_890)] {
        for seq in 70..74 {
            lab.send(&ue.esp(spi, seq));
        }
        let samples = lab.samples(ue, "unknown-spi", 4);
        assert!(samples.iter().all(|s| s.spi == Some(spi)));
        lab.counted(ue, "unknown-spi", 4);
        lab.cause(
            ue,
            "unknown-spi",
            &[&format!("SPI {spi}"), "sequence number 73"],
        );
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_the_ends_hold_different_keys() {
    let mut lab = Lab::new();
    for ue in [phone(10), phone6(10)] {
        lab.add(ue, "trans");
        lab.add_at_phone(&ue.sad("trans", [OTHER, CK]));
        let (uc, ps) = lab.sockets(ue);
        for _ in 0..3 {
            uc.send_to(PAYLOAD, ps.local_addr().unwrap()).unwrap();
        }
        let samples = lab.samples(ue, "bad-icv", 3);
        assert!(
            samples.iter().zip(1..).all(|(s, n)| s.seq == Some(n)),
            "{samples:#?}"
        );
        assert!(
            samples
                .iter()
                .all(|s| s.spi == Some(ue.spi()) && s.station == "worker")
        );
        lab.counted(ue, "bad-icv", 3);
        assert_eq!(lab.sa(ue).drops, [("bad-icv".to_owned(), 3)].into());
        lab.cause(
            ue,
            "keys-differ",
            &["different keys", "hmac-sha-1-96/aes-cbc"],
        );
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_packets_come_twice() {
    let mut lab = Lab::new();
    let ue = phone(10);
    lab.join(ue, "trans");
    let (uc, ps) = lab.sockets(ue);
    let (tap, frames) = crossbeam::channel::bounded(8);
    lab.phones.tap(Some(tap)).unwrap();
    pass(&uc, &ps);
    let copy = frames.recv().expect("the sealed packet").frame;
    for _ in 0..4 {
        lab.send(&copy);
    }
    let samples = lab.samples(ue, "replay", 4);
    assert!(
        samples
            .iter()
            .all(|s| s.seq == Some(1) && s.spi == Some(ue.spi()))
    );
    lab.counted(ue, "replay", 4);
    assert_eq!(lab.sa(ue).drops, [("replay".to_owned(), 4)].into());
    lab.cause(ue, "replay", &["come twice", "highest number accepted"]);
    // A good packet afterwards: copies did not stop the phone.
    pass(&uc, &ps);
    assert_eq!(lab.explain(ue).verdict, Verdict::Fine);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_tells_raw_esp_from_esp_in_udp() {
    let mut lab = Lab::new();
    let (raw, in_udp) = (phone(10), phone(11));
    lab.add(raw, "udp-enc-tun");
    lab.add(in_udp, "trans");
    lab.send(&raw.esp(raw.spi(), 1));
    lab.send(&raw.esp(raw.spi(), 2));
    let esp = phone::esp(in_udp.spi(), 1);
    lab.send(&in_udp.udp(40_000, 4500, &esp));
    assert_eq!(lab.samples(raw, "mode-mismatch", 2)[1].seq, Some(2));
    let sample = lab.samples(in_udp, "mode-mismatch", 1).remove(0);
    assert_eq!(
        (sample.src_port, sample.dst_port),
        (Some(40_000), Some(4500))
    );
    assert_eq!(sample.spi, Some(in_udp.spi()));
    lab.counted(raw, "mode-mismatch", 2);
    lab.counted(in_udp, "mode-mismatch", 1);
    assert_eq!(lab.sa(raw).drops["mode-mismatch"], 2);
    lab.cause(raw, "mode-mismatch", &["Raw ESP arrives"]);
    lab.cause(in_udp, "mode-mismatch", &["ESP in UDP arrives"]);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_names_the_port_that_cleartext_comes_to() {
    let mut lab = Lab::new();
    let clear = |lab: &mut Lab, ue: Phone| {
        for _ in 0..3 {
            lab.send(&ue.udp(5060, PORT_PC, PAYLOAD));
        }
        let sample = lab.samples(ue, "cleartext-protected", 3).remove(0);
        assert_eq!(
            (sample.src_port, sample.dst_port),
            (Some(5060), Some(PORT_PC))
        );
        assert_eq!((sample.spi, sample.proto.as_str()), (None, "udp"));
        lab.counted(ue, "cleartext-protected", 3);
    };
    for ue in [phone(10), phone6(10)] {
        clear(&mut lab, ue);
        lab.cause(ue, "cleartext-without-sas", &["port 5064", "has no SAs"]);
    }
    for ue in [phone(11), phone6(11)] {
        lab.add(ue, "trans");
        clear(&mut lab, ue);
        let words = ["Cleartext arrives on port 5064 from a phone that has SAs"];
        lab.cause(ue, "cleartext-with-sas", &words);
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_the_inside_is_not_for_the_sa() {
    let mut lab = Lab::new();
    let ue = phone(10);
    lab.add(ue, "trans");
    // The phone seals whatever it sends with the SA for port_ps.
    let sad = ue.sad("trans", [IK, CK]);
    let first = sad.split("[[sa]]").nth(1).unwrap();
    let open: String = first
        .lines()
        .filter(|line| !line.contains("_port"))
        .collect::<Vec<_>>()
        .join("\n");
    lab.add_at_phone(&format!("[[sa]]{open}\n"));
    let (uc, _) = lab.sockets(ue);
    for _ in 0..2 {
        uc.send_to(PAYLOAD, (ue.pcscf, PORT_PC)).unwrap();
    }
    let samples = lab.samples(ue, "selector-mismatch", 2);
    assert!(
        samples.iter().all(|s| s.spi == Some(ue.spi())),
        "{samples:#?}"
    );
    lab.counted(ue, "selector-mismatch", 2);
    assert_eq!(lab.sa(ue).drops["selector-mismatch"], 2);
    let ports = |s: &gm_api::drops::DropSample| (s.src_port, s.dst_port);
    assert_eq!(ports(&samples[0]), (Some(PORT_UC), Some(PORT_PC)));
    let only = format!("10.77.0.10:{PORT_UC} to 10.77.0.1:{PORT_PS} only");
    lab.cause(
        ue,
        "selector-mismatch",
        &["ESP verifies", "from port 6064 to port 5064", &only],
    );
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_what_is_blocked_when_nothing_arrives() {
    let mut lab = Lab::new();
    let (raw, in_udp) = (phone(10), phone(11));
    lab.add(raw, "trans");
    lab.add(in_udp, "udp-enc-tun");
    lab.cause(raw, "esp-blocked", &["IP protocol 50"]);
    lab.cause(
        in_udp,
        "udp-blocked-outbound",
        &["UDP 4500 is blocked outbound"],
    );
    // The phone keeps its NAT open, so UDP 4500 is not what is blocked.
    lab.send(&in_udp.udp(40_000, 4500, &[0xff]));
    assert_eq!(
        lab.samples(in_udp, "keepalive", 1)[0].src_port,
        Some(40_000)
    );
    lab.cause(in_udp, "no-esp-in-udp", &["its keepalives arrive"]);
    // Nothing can be sent to it before it has sent.
    let ps = lab
        .host
        .run(|| UdpSocket::bind((in_udp.pcscf, PORT_PS)).unwrap());
    ps.send_to(PAYLOAD, (in_udp.address, PORT_UC)).unwrap();
    let sample = lab.samples(in_udp, "out-no-encap-port", 1).remove(0);
    assert_eq!(
        (sample.direction.as_str(), sample.dst_port),
        ("out", Some(PORT_UC))
    );
    let said = lab.explain(in_udp);
    assert!(
        said.findings.iter().any(|f| f.cause == "out-no-nat-port"),
        "{said:#?}"
    );
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_where_answers_go_that_no_sa_takes() {
    let mut lab = Lab::new();
    for ue in [phone(10), phone6(10)] {
        let ps = lab
            .host
            .run(|| UdpSocket::bind((ue.pcscf, PORT_PS)).unwrap());
        for _ in 0..2 {
            ps.send_to(PAYLOAD, (ue.address, 9999)).unwrap();
        }
        let sample = lab.samples(ue, "out-no-sa", 2).remove(0);
        assert_eq!((sample.src, sample.dst), (ue.pcscf, ue.address));
        assert_eq!(
            (sample.src_port, sample.dst_port),
            (Some(PORT_PS), Some(9999))
        );
        assert_eq!(sample.direction, "out");
        // Counted for the phone, not for this host.
        lab.counted(ue, "out-no-sa", 2);
        lab.cause(
            ue,
            "out-no-sa",
            &["from port 5063 to port 9999", "has no SA"],
        );
        drop(ps);
        lab.join(ue, "trans");
        let (uc, ps) = lab.sockets(ue);
        pass(&uc, &ps);
        ps.send_to(PAYLOAD, (ue.address, 9999)).unwrap();
        lab.samples(ue, "out-no-sa", 1);
        let carries = format!("{PORT_PS} to ");
        lab.cause(ue, "out-no-sa", &["none of its active SAs", &carries]);
    }
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn explain_says_that_fragments_contradict_each_other() {
    let mut lab = Lab::new();
    let ue = phone(10);
    lab.add(ue, "trans");
    let whole = phone::esp(ue.spi(), 1);
    let piece = |offset: usize, more: bool| {
        let mut frame = ue.frame(50, &whole[offset..(offset + 32).min(whole.len())]);
        let place = (offset / 8) as u16 | if more { 0x2000 } else { 0 };
        frame[20..22].copy_from_slice(&place.to_be_bytes());
        frame
    };
    lab.send(&piece(0, true));
    lab.send(&piece(16, true));
    lab.samples(ue, "fragment-overlap", 1);
    lab.cause(ue, "fragments-lost", &["never becomes whole"]);
}

#[test]
#[ignore = "root: namespaces, BPF, built programs"]
fn a_flood_gives_few_samples_and_every_packet_is_shown_or_counted_as_left_out() {
    const FLOOD: u64 = 20_000;
    let mut lab = Lab::new();
    let (attacker, victim) = (phone(10), phone(11));
    let before = lab.count("unknown-spi");
    let begin = std::time::Instant::now();
    for seq in 0..FLOOD {
        let frame = attacker.esp(0xdead_beef, seq as u32);
        // A full queue of the device: the packet was not sent.
        while lab.wire.send(&frame).is_err() {
            std::thread::yield_now();
        }
    }
    let tenths = begin.elapsed().as_millis() as u64 / 100 + 2;
    // Another reason has its samples all the same.
    lab.send(&victim.udp(5060, PORT_PC, PAYLOAD));
    let (samples, left_out) = lab.rest();
    assert_eq!(lab.count("unknown-spi") - before, FLOOD);
    let shown = samples.iter().filter(|s| s.reason == "unknown-spi").count() as u64;
    assert!(
        (1..=8 * tenths).contains(&shown),
        "{shown} in {tenths} tenths of a second"
    );
    assert!(samples.iter().any(|s| s.src == victim.address));
    let of = |l: &gm_api::drops::LeftOut| l.left_out.get("unknown-spi").copied();
    let hidden: u64 = left_out.iter().filter_map(of).sum();
    assert_eq!(shown + hidden, FLOOD, "{left_out:#?}");
    assert!(left_out.iter().all(|l| l.missed == 0));
    lab.counted(attacker, "unknown-spi", FLOOD);
    let report = lab.ctl(&["drops"]);
    let report = String::from_utf8(report.stdout).unwrap();
    assert!(
        report.contains("unknown-spi") && report.contains("what to look at"),
        "{report}"
    );
}
