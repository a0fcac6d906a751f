//! Who takes part, and what can happen to a message.

use std::net::{IpAddr, SocketAddr};

use gm_sip::edge::EdgeConfig;
use gm_sip::ue::UeConfig;

use crate::world::World;

pub const DOMAIN: &str = "home.example";
pub const PUBLIC: &str = "198.51.100.7";
pub const EDGE: &str = "203.0.113.1:5060";
pub const HOME: &str = "203.0.113.2:5060";

/// Changes a message on its way; `None` loses it.
pub type Way = Box<dyn FnMut(String) -> Option<String>>;

pub fn impi(user: usize) -> String {
    format!("user{user}@{DOMAIN}")
}

pub fn ue_config(user: usize) -> UeConfig {
    let local = IpAddr::from([10, 0, 0, 2 + user as u8]);
    let impu = format!("sip:{}", impi(user));
    UeConfig::new(&impi(user), &impu, DOMAIN, local, addr(EDGE))
}

pub fn edge_config() -> EdgeConfig {
    EdgeConfig::new(addr(HOME), addr("203.0.113.1:5080"))
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn pass_all() -> Way {
    Box::new(Some)
}

pub fn lose_all() -> Way {
    Box::new(|_| None)
}

/// Loses the first message that has this in it.
pub fn lose_first(mark: &'static str) -> Way {
    let mut lost = false;
    Box::new(move |text| {
        if !lost && text.contains(mark) {
            lost = true;
            return None;
        }
        Some(text)
    })
}

pub fn replaced(from: &'static str, to: &'static str) -> Way {
    Box::new(move |text| Some(text.replace(from, to)))
}

impl World {
    /// A MESSAGE of the first phone; its echo comes back as another one.
    pub fn message(&mut self) {
        let echo = format!("sip:echo@{DOMAIN}");
        let now = self.now;
        self.phones[0]
            .ue
            .send(now, "MESSAGE", &echo, "text/plain", b"hello")
            .expect("registered");
        self.run();
    }

    /// A MESSAGE of the network to a phone.
    pub fn message_to(&mut self, number: usize) {
        let impu = self.phones[number].impu.clone();
        let bytes = self
            .home
            .originate(self.now, "MESSAGE", &impu, b"hi", &mut self.random);
        self.home_sends(bytes);
        self.run();
    }
}
