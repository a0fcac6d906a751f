//! A home network as a process of its own: gm-home on one UDP socket.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use gm_home::vectors::Operator;
use gm_home::{Home, HomeConfig, Subscriber};
use gm_sip::Randomness;

pub const DOMAIN: &str = "home.test";
pub const K: [u8; 16] = [0x46; 16];
pub const OPC: [u8; 16] = [0xcd; 16];

struct System;

impl Randomness for System {
    fn fill(&mut self, out: &mut [u8]) {
        getrandom::fill(out).expect("randomness");
    }
}

/// Answers until it is killed.
pub fn serve(local: SocketAddr, subscribers: u32) {
    let mut home = Home::new(HomeConfig {
        domain: DOMAIN.into(),
        local,
        max_expires: 3600,
    });
    for n in 1..=subscribers {
        let name = format!("ue{n}@{DOMAIN}");
        let impu = format!("sip:{name}");
        home.add(Subscriber::new(&name, &[&impu], K, Operator::Opc(OPC), 0));
    }
    let socket = UdpSocket::bind(local).expect("a socket");
    let (began, mut buffer) = (Instant::now(), vec![0; 65_535]);
    while let Ok((n, remote)) = socket.recv_from(&mut buffer) {
        let now = began.elapsed().as_millis() as u64;
        for (to, bytes) in home.handle(now, remote, &buffer[..n], &mut System) {
            // What is lost is sent again.
            let _ = socket.send_to(&bytes, to);
        }
        home.take_events();
    }
}
