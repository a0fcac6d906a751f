//! The SIP edge as it runs: sockets and connections around gm-sip's edge,
//! which itself does no I/O.
//!
//! ```text
//! sockets (tokio) ─┐                        ┌─> sockets, connections, names
//! tcp (tokio) ─────┼─> inbox ─> executor ───┼─> sets ─> data plane
//! names, clock ────┘   (thread of its own)  └─> flow: log and events
//! ```

mod busy;
mod executor;
pub mod flow;
mod inbox;
mod names;
mod sockets;
mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use gm_sip::edge::{Edge, EdgeConfig};
use tokio::runtime::Handle;

use crate::config::{Config, ConfigError};
use crate::control::App;

pub use executor::Running;
use inbox::{Arrivals, Arrived, Inbox};

/// Why the edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What gm-sip thinks of it.
    #[error("[edge]: {0}")]
    Sip(#[from] gm_sip::edge::ConfigError),
    /// A socket.
    #[error("[edge]: cannot listen on {address} ({transport}): {error}; {}", hint(.error))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// UDP or TCP.
        transport: &'static str,
        /// What the operating system says.
        error: io::Error,
    },
    /// No thread.
    #[error("[edge]: a thread does not start: {0}")]
    Thread(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "put the address on the uplink, or take it out of [gm] addresses"
        }
        io::ErrorKind::AddrInUse => {
            "another program has the port: stop it, or configure another port"
        }
        _ => "is the network up?",
    }
}

/// Randomness of the operating system.
pub struct OsRandom;

impl gm_sip::Randomness for OsRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if getrandom::fill(out).is_err() {
            // Only before the kernel has entropy at all, or without the call:
            // nothing that follows would be safe.
            std::process::abort();
        }
    }
}

/// The addresses and ports that the edge listens on.
struct Places {
    /// Unprotected, UDP and TCP.
    clear: Vec<SocketAddr>,
    /// port_ps, UDP and TCP.
    server: Vec<SocketAddr>,
    /// port_pc, UDP; TCP connections go out from there.
    client: Vec<SocketAddr>,
}

impl Places {
    fn new(config: &Config, sip_port: u16, sip: &EdgeConfig) -> Places {
        let addresses = &config.gm.addresses;
        let at = |port: u16| addresses.iter().map(move |ip| SocketAddr::new(*ip, port));
        Places {
            clear: at(sip_port).collect(),
            server: at(sip.server_port).collect(),
            client: sip.client_ports.clone().flat_map(at).collect(),
        }
    }
}

/// Starts the edge if the configuration has one. The policy of the data plane
/// must be in force: from here on there are sockets on protected ports.
pub fn start(app: &Arc<App>, runtime: &Handle) -> Result<Option<Running>, EdgeError> {
    let config = &app.config;
    let Some(table) = config.edge.as_ref().filter(|edge| edge.speaks_sip()) else {
        return Ok(None);
    };
    let mut sip = config.edge_config(table)?;
    sip.limits.spi_low = spi_pool(config.gm.max_sas);
    let places = Places::new(config, table.sip_port(), &sip);
    let (inbox, arrived) = Inbox::new(table.sip_port());

    let _inside = runtime.enter();
    let udp = sockets::open(&places, &sip, &inbox)?;
    let times = tcp::Times::default();
    let tcp = tcp::Connections::open(places, &sip, &inbox, runtime.clone(), times)?;
    let names = names::Names::new(&inbox, runtime.clone());
    let core = sip.core_local;
    let edge = Edge::new(sip, &mut OsRandom)?;
    let ways = executor::Ways {
        core,
        udp,
        tcp,
        names,
    };
    executor::start(Arc::clone(app), edge, ways, inbox, arrived).map(Some)
}

/// Pairs of SPIs that are kept at hand. Each holds two slots, so there are
/// fewer where there are few slots; but three, because two SPIs that a phone
/// has chosen for itself can make two pairs useless to it.
fn spi_pool(max_sas: u32) -> usize {
    (max_sas as usize / 16).clamp(3, 64)
}
