//! The SIP edge as it runs: sockets and connections around gm-sip's edge,
//! which itself does no I/O.
//!
//! ```text
//! sockets (tokio) ─┐                        ┌─> sockets, connections
//! tcp (tokio) ─────┼─> inbox ─> executor ───┼─> sets ─> data plane
//! clock ───────────┘   (thread of its own)  └─> flow: log and events
//! ```

mod executor;
mod flow;
mod sockets;
mod tcp;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use gm_sip::Transport;
use gm_sip::edge::{Edge, EdgeConfig};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::config::{Config, ConfigError};
use crate::control::App;

pub use executor::Running;

/// Messages of the core and through SAs that may wait for the executor; more are
/// dropped, and the phones repeat them.
const BACKLOG: usize = 4096;
/// The same for messages in clear, which anybody can send.
const BACKLOG_CLEAR: usize = 1024;

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

/// Something for the executor. Messages of the core carry IK and CK, so all
/// are wiped after use.
enum Arrived {
    /// A message on the Gm side.
    FromUe {
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A message on the core side.
    FromCore {
        remote: SocketAddr,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// The end.
    Stop,
}

/// Where sockets and connections put what arrives. What strangers can send waits
/// apart, so that it takes no room and no turn from anything else.
#[derive(Clone)]
struct Inbox {
    first: Sender<Arrived>,
    clear: Sender<Arrived>,
    sip_port: u16,
    dropped: Arc<AtomicU64>,
}

/// The other end of an [`Inbox`].
struct Arrivals {
    first: Receiver<Arrived>,
    clear: Receiver<Arrived>,
}

impl Inbox {
    fn new(sip_port: u16) -> (Inbox, Arrivals) {
        let (first, first_out) = bounded(BACKLOG);
        let (clear, clear_out) = bounded(BACKLOG_CLEAR);
        let inbox = Inbox {
            first,
            clear,
            sip_port,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        let arrivals = Arrivals {
            first: first_out,
            clear: clear_out,
        };
        (inbox, arrivals)
    }

    /// Never waits. False: nobody will ever take it.
    fn put(&self, arrived: Arrived) -> bool {
        let clear =
            matches!(&arrived, Arrived::FromUe { local, .. } if local.port() == self.sip_port);
        let way = if clear { &self.clear } else { &self.first };
        match way.try_send(arrived) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                let dropped = 1 + self.dropped.fetch_add(1, Ordering::Relaxed);
                // A line each would be the next overload.
                if dropped.is_power_of_two() {
                    tracing::warn!(dropped, clear, "SIP overload: messages are dropped");
                }
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Arrivals {
    /// The next one; one in clear only when nothing else waits.
    fn next(&self, patience: Duration) -> Result<Arrived, RecvTimeoutError> {
        if let Ok(arrived) = self.first.try_recv() {
            return Ok(arrived);
        }
        let gone = |_| RecvTimeoutError::Disconnected;
        crossbeam::channel::select! {
            recv(self.first) -> arrived => arrived.map_err(gone),
            recv(self.clear) -> arrived => arrived.map_err(gone),
            default(patience) => Err(RecvTimeoutError::Timeout),
        }
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
    let udp = sockets::open(&places, sip.core_local, &inbox)?;
    let tcp = tcp::Connections::open(&places, &inbox, runtime.clone())?;
    let edge = Edge::new(sip, &mut OsRandom)?;
    executor::start(Arc::clone(app), edge, (udp, tcp), inbox, arrived).map(Some)
}

/// Pairs of SPIs that are kept at hand. Each holds two slots, so there are
/// fewer where there are few slots; but three, because two SPIs that a phone
/// has chosen for itself can make two pairs useless to it.
fn spi_pool(max_sas: u32) -> usize {
    (max_sas as usize / 16).clamp(3, 64)
}

#[cfg(test)]
mod inbox_tests {
    use super::*;

    #[test]
    fn what_strangers_send_waits_for_everything_else() {
        let (inbox, arrivals) = Inbox::new(5060);
        let from_ue = |port: u16, n: u8| Arrived::FromUe {
            local: ([192, 0, 2, 1], port).into(),
            remote: ([192, 0, 2, 2], 5060).into(),
            transport: Transport::Udp,
            bytes: Zeroizing::new(vec![n]),
        };
        for _ in 0..2 * BACKLOG {
            assert!(inbox.put(from_ue(5060, 0)));
        }
        assert!(inbox.put(from_ue(5064, 1)));
        let remote = ([192, 0, 2, 3], 5060).into();
        let bytes = Zeroizing::new(vec![2]);
        assert!(inbox.put(Arrived::FromCore { remote, bytes }));
        let next = || match arrivals.next(Duration::ZERO) {
            Ok(Arrived::FromUe { bytes, .. } | Arrived::FromCore { bytes, .. }) => Some(bytes[0]),
            _ => None,
        };
        assert_eq!([next(), next(), next()], [Some(1), Some(2), Some(0)]);
        assert_eq!(std::iter::from_fn(next).count(), BACKLOG_CLEAR - 1);
    }
}
