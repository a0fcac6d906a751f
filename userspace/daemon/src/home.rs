//! The embedded home network as a SIP element on loopback: a UDP socket of its
//! own, so that the edge speaks real SIP to its next hop.

use std::net::SocketAddr;
use std::time::Instant;

use gm_home::{Home, HomeConfig, Subscriber};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use zeroize::{Zeroize, Zeroizing};

use crate::edge::OsRandom;

/// Longest registration that it grants, in seconds (TS 24.229 5.4.1.2.2F).
const MAX_EXPIRES: u32 = 600_000;
/// Largest UDP payload.
const LARGEST: usize = 65_535;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[error("[home] listen: cannot listen on {address}: {error}; is another home network there?")]
pub struct HomeError {
    address: SocketAddr,
    error: std::io::Error,
}

/// Starts it; it ends with the runtime. With `edge` it hears nobody else: its
/// challenges have IK and CK in them, and loopback is everybody's on the host.
pub fn start(
    listen: SocketAddr,
    edge: Option<SocketAddr>,
    domain: &str,
    subscribers: Vec<Subscriber>,
    runtime: &Handle,
) -> Result<(), HomeError> {
    let _inside = runtime.enter();
    let bound = std::net::UdpSocket::bind(listen).and_then(|socket| {
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    });
    let socket = bound.map_err(|error| HomeError {
        address: listen,
        error,
    })?;
    let config = HomeConfig {
        domain: domain.to_owned(),
        local: listen,
        max_expires: MAX_EXPIRES,
    };
    let mut home = Home::new(config);
    let count = subscribers.len();
    subscribers
        .into_iter()
        .for_each(|subscriber| home.add(subscriber));
    tracing::info!(%listen, domain, subscribers = count, "embedded home network: for labs only");
    tokio::spawn(serve(socket, edge, home));
    Ok(())
}

async fn serve(socket: UdpSocket, edge: Option<SocketAddr>, mut home: Home) {
    let started = Instant::now();
    let mut buffer = Zeroizing::new(vec![0; LARGEST]);
    loop {
        let (n, remote) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about something that was sent.
            Err(error) => {
                tracing::debug!(%error, "home network: receive");
                continue;
            }
        };
        if edge.is_some_and(|edge| edge != remote) {
            tracing::debug!(%remote, "home network: not the edge");
            continue;
        }
        let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        for (to, mut bytes) in home.handle(now, remote, &buffer[..n], &mut OsRandom) {
            if let Err(error) = socket.send_to(&bytes, to).await {
                tracing::warn!(%to, %error, "home network: cannot send");
            }
            // A 401 to the edge has IK and CK in it.
            bytes.zeroize();
        }
        for event in home.take_events() {
            tracing::debug!(?event, "home network");
        }
    }
}
