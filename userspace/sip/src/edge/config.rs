//! What an edge is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::Transport;
use crate::agent::{AgentConfig, ConfigError, Limits};
use crate::lifecycle::Timers;
use crate::sec_agree::Policy;

/// Addresses, ports, policy and bounds of an edge.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where requests of UEs go: P-CSCF, I-CSCF or the embedded home network.
    pub core: SocketAddr,
    /// Addresses besides `core`'s from which the core may send. Others are refused:
    /// what comes from the core goes out over SAs.
    pub core_trusted: Vec<IpAddr>,
    /// Our address and port towards the core: in Via, Path and Record-Route.
    pub core_local: SocketAddr,
    /// Of a static 1:1 NAT in front of this host: our addresses on the Gm link, each
    /// with the one that phones know it by. Phones are told that one; mostly empty.
    pub advertised: Vec<(IpAddr, IpAddr)>,
    /// port_ps, one for all UEs; not 5060 or 5061.
    pub server_port: u16,
    /// port_pc: each new set of a contact takes one that its other sets do not use,
    /// so at least three (clauses 7.1 and 7.4); not 5060 or 5061, without `server_port`.
    pub client_ports: RangeInclusive<u16>,
    /// Order of suites, and what of encryption.
    pub policy: Policy,
    /// Whether UDP-enc-tun is supported; without it a UE behind a NAT is discarded (M.7.3.2.4).
    pub nat_traversal: bool,
    /// UDP port of encapsulation at our end: 4500.
    pub encap_port: u16,
    /// Numbers in the replay window of inbound SAs, 32 to 4096.
    pub replay_window: u32,
    /// What carries requests to the core.
    pub core_transport: Transport,
    /// Bytes of a request above which it goes over TCP, to phones and to the core (RFC
    /// 3261 clause 18.1.1); where no connection can be made it goes over UDP after all.
    /// `usize::MAX`: never. To a core on loopback, where every message fits, never.
    pub tcp_above: usize,
    /// What becomes of Routes of a phone that its registration has not given it.
    pub service_route: ServiceRoute,
    /// Emergency calls of phones that are not registered are taken in clear (clause 7.1,
    /// TS 24.229 clause 5.2.10).
    pub emergency_in_clear: bool,
    /// Names in a Via are looked up (clause 7.1 rule 2).
    pub resolve_via: bool,
    /// Periods.
    pub timers: Timers,
    /// Bounds.
    pub limits: Limits,
}

impl EdgeConfig {
    /// A configuration with defaults: ports 5063 and 5064 to 5071, all suites,
    /// NAT traversal, window 64.
    pub fn new(core: SocketAddr, core_local: SocketAddr) -> EdgeConfig {
        EdgeConfig {
            core,
            core_trusted: Vec::new(),
            core_local,
            advertised: Vec::new(),
            server_port: 5063,
            client_ports: 5064..=5071,
            policy: Policy::default(),
            nat_traversal: true,
            encap_port: 4500,
            replay_window: 64,
            core_transport: Transport::Udp,
            tcp_above: 1300,
            service_route: ServiceRoute::Replace,
            emergency_in_clear: false,
            resolve_via: true,
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }

    /// Whether `port` is one of ours that only protected messages may use.
    pub fn is_protected(&self, port: u16) -> bool {
        port == self.server_port || self.client_ports.contains(&port)
    }

    /// Whether the core sends from there. On loopback the port counts too: every
    /// user of the host can send from the address.
    pub fn is_core(&self, remote: SocketAddr) -> bool {
        let from_core = remote.ip() == self.core.ip()
            && (remote.port() == self.core.port() || !remote.ip().is_loopback());
        from_core || self.core_trusted.contains(&remote.ip())
    }

    /// Our address `local` as phones know it.
    pub fn told(&self, local: IpAddr) -> IpAddr {
        let pair = self.advertised.iter().find(|(own, _)| *own == local);
        pair.map_or(local, |(_, advertised)| *advertised)
    }

    /// What the agent is told of it.
    pub fn agent(&self) -> AgentConfig {
        AgentConfig {
            server_port: self.server_port,
            client_ports: self.client_ports.clone(),
            policy: self.policy.clone(),
            nat_traversal: self.nat_traversal,
            encap_port: self.encap_port,
            replay_window: self.replay_window,
            timers: self.timers,
            limits: self.limits,
        }
    }

    /// Says what cannot work: standard SIP ports, too few client ports.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.agent().check()
    }
}

/// A request that opens a dialog or stands alone has to name the Service-Route of its
/// registration behind our own Routes (RFC 3608 clause 5, TS 24.229 clause 5.2.6.3). When
/// it does not:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceRoute {
    /// The Service-Route takes the place of what the phone wrote.
    #[default]
    Replace,
    /// 400.
    Refuse,
    /// The phone's Routes go on as they are.
    Pass,
}
