//! Sets carry, are renewed, and go.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use gm_tests::needs_esp;

use crate::four::Four;
use crate::lab::{
    Lab, PC, PCSCF, PCSCF6, PS, UC, UE, UE6, US, crosses, is_dropped, received, until,
};

const SUITES: [(&str, &str); 4] = [
    ("hmac-sha-1-96", "null"),
    ("hmac-sha-1-96", "aes-cbc"),
    ("aes-gmac", "null"),
    ("null", "aes-gcm"),
];

#[test]
#[ignore = "needs a kernel with ESP"]
fn all_suites_carry_udp_and_tcp_both_ways_and_nothing_goes_without() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    for v6 in [false, true] {
        let (ue, pcscf) = if v6 { (UE6, PCSCF6) } else { (UE, PCSCF) };
        for (n, suite) in (0..).zip(SUITES) {
            let four = Four {
                v6,
                suite,
                ..Four::new(10 + n, 10_000 + 10 * n as u32 + 1000 * u32::from(v6))
            };
            let [set] = lab.add(&four.pcscf())[..] else {
                panic!("one set");
            };
            lab.peer("install", &four.ue());
            let here = [PS, PC].map(|port| Lab::udp(&lab.pcscf, pcscf, port));
            let phone = [UC, US].map(|port| Lab::udp(&lab.ue, ue, port));
            for size in [1, 1500, 4000] {
                let text = vec![n as u8; size];
                crosses(&phone[0], &here[0], &text);
                crosses(&here[0], &phone[0], &text);
                crosses(&here[1], &phone[1], &text);
                crosses(&phone[1], &here[1], &text);
            }
            tcp(&lab, (pcscf, PS), (ue, UC));
            let rows = lab.sas();
            assert_eq!(rows.len(), 4, "{rows:?}");
            for row in rows {
                assert!(row.packets >= 3, "{row:?}");
                assert!(row.drops.is_empty(), "{row:?}");
                assert!(row.idle_ms.is_some_and(|ms| ms < 60_000), "{row:?}");
            }
            // Ports that the SAs are not for.
            let other = Lab::udp(&lab.ue, ue, 6003);
            is_dropped(&other, &here[0]);
            is_dropped(&here[0], &other);
            lab.ask(async |c| c.remove_set(set).await).expect("removed");
            is_dropped(&phone[0], &here[0]);
            is_dropped(&here[0], &phone[0]);
            lab.peer("remove", &four.ue());
        }
    }
    assert!(lab.sas().is_empty());
    daemon.stop();
}

/// A connection from the phone carries a long text there and back.
fn tcp(lab: &Lab, server: (&str, u16), client: (&str, u16)) {
    let address = |(ip, port): (&str, u16)| SocketAddr::new(ip.parse().unwrap(), port);
    let listener = lab
        .pcscf
        .run(|| TcpListener::bind(address(server)))
        .unwrap();
    let text: Vec<u8> = (0..60_000u32).map(|n| n as u8).collect();
    std::thread::scope(|s| {
        s.spawn(|| {
            let (mut stream, from) = listener.accept().unwrap();
            assert_eq!(from.port(), client.1);
            let mut got = vec![0; text.len()];
            stream.read_exact(&mut got).unwrap();
            stream.write_all(&got).unwrap();
        });
        let mut stream = lab.ue.run(|| {
            let family = match address(server).is_ipv6() {
                true => rustix::net::AddressFamily::INET6,
                false => rustix::net::AddressFamily::INET,
            };
            let socket =
                rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            // Its end is a reset, so that the next one finds the ports free.
            rustix::net::sockopt::set_socket_linger(&socket, Some(std::time::Duration::ZERO))
                .unwrap();
            rustix::net::bind(&socket, &address(client)).unwrap();
            rustix::net::connect(&socket, &address(server)).unwrap();
            TcpStream::from(socket)
        });
        stream.write_all(&text).unwrap();
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, text);
    });
}

/// Old and new set with the same addresses and ports: make before break.
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_renewal_with_equal_selectors_loses_nothing_under_traffic() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let (old, new) = (Four::new(1, 20_000), Four::new(2, 21_000));
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    let mut sent = 0u32;
    let mut both = |n: u32| {
        for _ in 0..n {
            crosses(&phone, &here, &sent.to_be_bytes());
            crosses(&here, &phone, &sent.to_be_bytes());
            sent += 1;
        }
    };
    lab.add(&old.pcscf());
    lab.peer("install", &old.ue());
    both(20);
    // The phone can receive with both; gmespd sends with the new one from here on.
    lab.peer("install", &new.ue());
    lab.add(&new.pcscf());
    both(20);
    let state = |spi: u32| lab.sas().into_iter().find(|row| row.sa.spi == spi).unwrap();
    assert_eq!(state(20_002).packets, 20, "the old one has sent no more");
    assert_eq!(state(20_002).state, "standby");
    assert_eq!(state(21_002).packets, 20);
    // The phone has moved, too; then the old set goes, and what both share stays.
    assert_eq!(state(21_000).packets, 20);
    lab.ask(async |c| c.retire(1).await).expect("retired");
    both(5);
    lab.ask(async |c| c.remove_set(1).await).expect("removed");
    both(20);
    assert_eq!(lab.sas().len(), 4);
    assert_eq!(state(21_002).packets, 45);
    lab.ask(async |c| c.retire(2).await).expect("retired");
    is_dropped(&here, &phone);
    // Inbound still accepts, for what is on its way.
    crosses(&phone, &here, b"late");
    lab.ask(async |c| c.remove_set(2).await).expect("removed");
    is_dropped(&phone, &here);
    daemon.stop();
}

/// Key and SPI name a nonce together with the number (ARCHITECTURE, rule 7).
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_key_and_spi_that_come_again_go_on_with_their_numbers() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four::new(1, 25_000);
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    for _ in 0..3 {
        crosses(&phone, &here, b"up");
        crosses(&here, &phone, b"down");
    }
    lab.ask(async |c| c.remove_set(1).await).expect("removed");
    lab.add(&four.pcscf());
    let row = |spi: u32| lab.sas().into_iter().find(|row| row.sa.spi == spi).unwrap();
    assert_eq!((row(25_002).sa.seq, row(25_000).top), (Some(3), 3));
    // The phone has gone on, and takes nothing twice.
    crosses(&phone, &here, b"up");
    crosses(&here, &phone, b"down");
    assert_eq!((row(25_002).sa.seq, row(25_000).top), (Some(4), 4));
    daemon.stop();
}

/// All four or none: the fourth SA's SPI is somebody else's.
#[test]
#[ignore = "needs a kernel with ESP"]
fn a_set_that_does_not_fit_leaves_nothing_and_harms_nobody() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    lab.pcscf.sh(
        "ip",
        &[
            "xfrm",
            "state",
            "add",
            "src",
            PCSCF,
            "dst",
            UE,
            "proto",
            "esp",
            "spi",
            "30003",
            "reqid",
            "7",
            "mode",
            "transport",
            "enc",
            "ecb(cipher_null)",
            "",
            "auth-trunc",
            "hmac(sha1)",
            "0x000102030405060708090a0b0c0d0e0f10111213",
            "96",
        ],
    );
    let before = lab.tables();
    let request = gm_api::control::AddRequest {
        sad: Four::new(3, 30_000).pcscf(),
        name: None,
    };
    let error = lab.refused(lab.ask(async |c| c.add(&request).await));
    assert_eq!(error.code, "exists");
    assert!(
        error.message.contains("0x00007533 to 192.0.2.10"),
        "{error}"
    );
    assert_eq!(lab.tables(), before);
    assert!(lab.sas().is_empty());
    // The same with other SPIs goes.
    lab.add(&Four::new(3, 31_000).pcscf());
    daemon.stop();
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn replays_and_forgeries_are_counted_for_their_sa() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four::new(1, 40_000);
    lab.add(&four.pcscf());
    lab.peer("install", &four.ue());
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    crosses(&phone, &here, b"first");
    // The phone's SA made anew: it begins at 1 again.
    lab.peer("remove", &four.ue());
    lab.peer("install", &four.ue());
    phone
        .send_to(b"second", here.local_addr().unwrap())
        .unwrap();
    until("the replay is counted", || lab.count("replay") == 1);
    assert_eq!(received(&here), None);
    let row = |spi: u32| lab.sas().into_iter().find(|row| row.sa.spi == spi).unwrap();
    assert_eq!(row(40_000).drops["replay"], 1);
    // With another key.
    lab.peer("remove", &four.ue());
    lab.peer(
        "install",
        &four.ue().replace("0011", "0012").replace("ffee", "ffef"),
    );
    for _ in 0..3 {
        phone
            .send_to(b"forged", here.local_addr().unwrap())
            .unwrap();
    }
    until("bad ICVs are counted", || lab.count("bad-icv") > 0);
    assert_eq!(received(&here), None);
    assert!(row(40_000).drops["bad-icv"] > 0);
    // What a set has counted is not lost with it.
    let sum = (lab.count("replay"), lab.count("bad-icv"), lab.count("ok"));
    lab.ask(async |c| c.remove_set(1).await).expect("removed");
    assert_eq!(
        (lab.count("replay"), lab.count("bad-icv"), lab.count("ok")),
        sum
    );
    daemon.stop();
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_end_of_the_sequence_numbers_is_told_and_nothing_goes_in_clear_after_it() {
    needs_esp!();
    let lab = Lab::new();
    let daemon = lab.start();
    let four = Four {
        seq: u64::from(u32::MAX) - 4,
        ..Four::new(1, 50_000)
    };
    lab.add(&four.pcscf());
    lab.peer("install", &Four { seq: 1, ..four }.ue());
    let here = Lab::udp(&lab.pcscf, PCSCF, PS);
    let phone = Lab::udp(&lab.ue, UE, UC);
    let mut carried = 0;
    for _ in 0..8 {
        let _ = here.send_to(b"x", phone.local_addr().unwrap());
        carried += u32::from(received(&phone).is_some());
    }
    assert!((4..=5).contains(&carried), "{carried}");
    assert!(lab.count("out-seq-exhausted") >= 3);
    daemon.stop();
}
