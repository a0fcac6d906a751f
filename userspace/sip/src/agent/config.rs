//! What an agent is told at its start.

use std::ops::RangeInclusive;

use crate::lifecycle::Timers;
use crate::sec_agree::Policy;

/// Ports, policy, periods and bounds.
#[derive(Debug, Clone)]
pub struct AgentConfig {
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
    /// Periods.
    pub timers: Timers,
    /// Bounds.
    pub limits: Limits,
}

impl Default for AgentConfig {
    /// Ports 5063 and 5064 to 5071, all suites, NAT traversal, window 64.
    fn default() -> AgentConfig {
        AgentConfig {
            server_port: 5063,
            client_ports: 5064..=5071,
            policy: Policy::default(),
            nat_traversal: true,
            encap_port: 4500,
            replay_window: 64,
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }
}

impl AgentConfig {
    /// Whether `port` is one of ours that only protected messages may use.
    pub fn is_protected(&self, port: u16) -> bool {
        port == self.server_port || self.client_ports.contains(&port)
    }

    /// Says what cannot work: standard SIP ports, too few client ports, no suite.
    pub fn check(&self) -> Result<(), ConfigError> {
        for port in [0, 5060, 5061] {
            if self.is_protected(port) {
                return Err(ConfigError::Port(port));
            }
        }
        if self.client_ports.contains(&self.server_port) {
            return Err(ConfigError::Port(self.server_port));
        }
        if self.client_ports.clone().count() < 3 {
            return Err(ConfigError::ClientPorts);
        }
        if self.policy.suites().is_empty() {
            return Err(ConfigError::Suites);
        }
        Ok(())
    }
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A protected port that may not be one.
    #[error(
        "port {0} cannot be a protected port here; take others than 0, 5060, 5061, and server_port outside client_ports"
    )]
    Port(u16),
    /// Fewer than three client ports.
    #[error("client_ports needs at least three ports: a contact can have three sets at a time")]
    ClientPorts,
    /// No suite is left.
    #[error("policy leaves no suite")]
    Suites,
}

/// Bounds that keep strangers from growing memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Unfinished registrations in all.
    pub pending: usize,
    /// Unfinished registrations of one source: an IPv4 address or an IPv6 /64.
    pub pending_per_source: usize,
    /// Bytes of a message in clear: real ones have 1 to 2 kB.
    pub clear_message: usize,
    /// Contacts with SAs.
    pub contacts: usize,
    /// Transactions, and REGISTERs on their way to the core, that are remembered.
    pub transactions: usize,
    /// The same of one contact.
    pub transactions_per_contact: usize,
    /// Sets in the table, and registrations on their way there, from which on a
    /// REGISTER in clear is refused: what is left is for re-registrations.
    pub sets_for_strangers: usize,
    /// SA sets of one contact: three, six SAs per direction (clause 7.1 rule 3).
    pub sets_per_contact: usize,
    /// Registered contacts of one private identity: several phones, or several ways of one
    /// (Outbound, emergency).
    pub contacts_per_user: usize,
    /// Outputs waiting to be taken; further input is refused above it.
    pub outputs: usize,
    /// Pairs of SPIs below which [`super::Agent::wants_spis`] asks for more.
    pub spi_low: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pending: 8192,
            pending_per_source: 64,
            clear_message: 16_384,
            contacts: 100_000,
            transactions: 65_536,
            transactions_per_contact: 128,
            sets_for_strangers: usize::MAX,
            sets_per_contact: 3,
            contacts_per_user: 16,
            outputs: 65_536,
            spi_low: 64,
        }
    }
}
