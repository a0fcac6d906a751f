//! The core network behind Kamailio: gm-home on a UDP socket of loopback. Its 401 has IK
//! and CK in it, as an S-CSCF's has.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gm_home::vectors::Operator;
use gm_home::{Home, HomeConfig, HomeEvent, Subscriber};
use gm_tests::netns::NetNs;
use gm_ue::agent::System;

use crate::common::{DOMAIN, K, OPC};

/// Where kamailio.cfg sends what goes to the core.
const LISTEN: &str = "127.0.0.1:5061";

/// The home network, for as long as it lives.
pub struct Core {
    home: Arc<Mutex<Home>>,
    socket: UdpSocket,
    began: Instant,
    events: Arc<Mutex<Vec<HomeEvent>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Core {
    /// It knows ue1 and challenges every REGISTER when told so.
    pub fn start(ns: &NetNs, always_challenge: bool) -> Core {
        let local: SocketAddr = LISTEN.parse().expect("an address");
        let mut home = Home::new(HomeConfig {
            domain: DOMAIN.to_owned(),
            local,
            max_expires: 3600,
        });
        home.registrar().always_challenge = always_challenge;
        let impu = format!("sip:ue1@{DOMAIN}");
        home.add(Subscriber::new(
            &format!("ue1@{DOMAIN}"),
            &[&impu],
            octets(K),
            Operator::Opc(octets(OPC)),
            0,
        ));
        let socket = ns.run(|| UdpSocket::bind(local)).expect("the core's port");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("a limit");
        let mut core = Core {
            home: Arc::new(Mutex::new(home)),
            socket,
            began: Instant::now(),
            events: Arc::default(),
            ends: Arc::default(),
            thread: None,
        };
        let socket = core.socket.try_clone().expect("the socket");
        let (home, events) = (Arc::clone(&core.home), Arc::clone(&core.events));
        let (ends, began) = (Arc::clone(&core.ends), core.began);
        core.thread = Some(std::thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while !ends.load(Ordering::Relaxed) {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let mut home = home.lock().expect("the home network");
                let now = began.elapsed().as_millis() as u64;
                let out = home.handle(now, from, &buffer[..n], &mut System);
                events.lock().expect("events").extend(home.take_events());
                for (to, bytes) in out {
                    let _ = socket.send_to(&bytes, to);
                }
            }
        }));
        core
    }

    /// A MESSAGE to ue1, wherever it is registered.
    pub fn message(&self, body: &str) {
        let mut home = self.home.lock().expect("the home network");
        let now = self.began.elapsed().as_millis() as u64;
        let impu = format!("sip:ue1@{DOMAIN}");
        let out = home.originate(now, "MESSAGE", &impu, body.as_bytes(), &mut System);
        assert!(!out.is_empty(), "nobody is registered");
        for (to, bytes) in out {
            self.socket.send_to(&bytes, to).expect("sent");
        }
    }

    /// How often a MESSAGE of the core's own, an echo among them, was answered with 200.
    pub fn answered(&self) -> usize {
        let events = self.events.lock().expect("events");
        let ok = |event: &&HomeEvent| **event == HomeEvent::Answered { status: 200 };
        events.iter().filter(ok).count()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn octets(hex: &str) -> [u8; 16] {
    let octet = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).expect("hex");
    std::array::from_fn(octet)
}
