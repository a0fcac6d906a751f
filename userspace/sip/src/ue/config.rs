//! Who a UE is and how it behaves.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use gm_esp::{Mode, Suite};

use super::Fault;

/// Identity, addresses, offer and periods of a UE.
#[derive(Debug, Clone)]
pub struct UeConfig {
    /// Private identity, `user@realm`.
    pub impi: String,
    /// Public identity, a SIP URI.
    pub impu: String,
    /// The home network's domain: Request-URI of REGISTER and first realm.
    pub domain: String,
    /// Our own address: private behind a NAT.
    pub local: IpAddr,
    /// The port for messages in clear.
    pub clear_port: u16,
    /// The P-CSCF's address and unprotected port.
    pub pcscf: SocketAddr,
    /// port_us: the same for all registrations.
    pub server_port: u16,
    /// port_uc: one that is free is drawn for each registration.
    pub client_ports: RangeInclusive<u16>,
    /// Suites to offer, in this order.
    pub suites: Vec<Suite>,
    /// Modes to offer.
    pub modes: Vec<Mode>,
    /// Registration to ask for, in seconds.
    pub expires: u32,
    /// Numbers in the replay window of inbound SAs.
    pub replay_window: u32,
    /// UDP port of encapsulation at our end: 4500.
    pub encap_port: u16,
    /// Value of User-Agent.
    pub user_agent: String,
    /// What requests go over.
    pub transport: Carrier,
    /// With [`Carrier::Auto`], the most bytes of a request that goes over UDP
    /// (RFC 3261 clause 18.1.1).
    pub tcp_above: usize,
    /// Milliseconds without a packet after which one NAT keepalive goes out while a
    /// set is UDP-encapsulated (RFC 3948 clause 4); 0: none.
    pub nat_keepalive: u64,
    /// Milliseconds between pings of two CRLFs on the TCP connection to the P-CSCF
    /// (RFC 5626 clause 3.5.1); 0: none.
    pub tcp_keepalive: u64,
    /// Whether to register again by itself before the registration ends: 600 s before,
    /// or at half of it when it is 1200 s or shorter.
    pub renew: bool,
    /// Whether to begin again by itself after a failure that may pass.
    pub retry: Option<Retry>,
    /// Other ports for port_us: one is drawn when the P-CSCF answers a first
    /// REGISTER with 400, as it does to ports that collide (M.7.1 rule 6).
    pub spare_ports: Vec<u16>,
    /// What to do wrong.
    pub faults: Vec<Fault>,
}

/// What requests go over. Answers go back the way the request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// UDP, however long: many phones stay on it.
    #[default]
    Udp,
    /// TCP always; Contact says so.
    Tcp,
    /// UDP up to `tcp_above` bytes, TCP above, and UDP again when no connection
    /// comes up (RFC 3261 clause 18.1.1).
    Auto,
}

/// When to begin again after no answer, a 408, 480, 5xx, or a 421 or 494.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Milliseconds before the first new attempt, doubled for each further one;
    /// Retry-After counts when it is longer.
    pub wait: u64,
    /// The most attempts in a row.
    pub times: u32,
}

impl UeConfig {
    /// Defaults: clear port 5060, port_us 31800, port_uc 31100 to 31199, all suites, both modes, an hour,
    /// UDP, a NAT keepalive after 20 s; no renewal, no retry: the application knows
    /// whether it still wants services.
    pub fn new(impi: &str, impu: &str, domain: &str, local: IpAddr, pcscf: SocketAddr) -> UeConfig {
        UeConfig {
            impi: impi.into(),
            impu: impu.into(),
            domain: domain.into(),
            local,
            clear_port: 5060,
            pcscf,
            server_port: 31800,
            client_ports: 31100..=31199,
            suites: vec![
                Suite::NullAesGcm,
                Suite::HmacSha1AesCbc,
                Suite::AesGmacNull,
                Suite::HmacSha1Null,
            ],
            modes: vec![Mode::Trans, Mode::UdpEncTun],
            expires: 3600,
            replay_window: 64,
            encap_port: 4500,
            user_agent: "gm-ue".into(),
            transport: Carrier::Udp,
            tcp_above: 1300,
            nat_keepalive: 20_000,
            tcp_keepalive: 0,
            renew: false,
            retry: None,
            spare_ports: Vec::new(),
            faults: Vec::new(),
        }
    }
}
