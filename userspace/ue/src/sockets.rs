//! UDP sockets, one for each local address and port that a phone speaks from.
//! What they receive goes into the host's one queue.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use gm_sip::Transport;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::host::Arrival;

/// Largest UDP payload.
const DATAGRAM: usize = 65_535;
/// Turns of the runtime that closing a socket may take.
const MOMENTS: usize = 100;

/// All open sockets.
pub(crate) struct Sockets {
    open: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>,
    queue: mpsc::Sender<Arrival>,
}

impl Sockets {
    /// No sockets yet; they will put what they receive into `queue`. What does
    /// not fit is lost, as on any wire.
    pub(crate) fn new(queue: mpsc::Sender<Arrival>) -> Sockets {
        Sockets {
            open: HashMap::new(),
            queue,
        }
    }

    /// Listens on `local`; nothing happens if it does already.
    pub(crate) async fn listen(&mut self, local: SocketAddr) -> Result<Arc<UdpSocket>> {
        if let Some((socket, _)) = self.open.get(&local) {
            return Ok(Arc::clone(socket));
        }
        let socket = patiently(async || UdpSocket::bind(local).await)
            .await
            .with_context(|| format!("cannot open the UDP socket {local}"))?;
        let socket = Arc::new(socket);
        let receiving = tokio::spawn(receive(local, Arc::clone(&socket), self.queue.clone()));
        self.open.insert(local, (Arc::clone(&socket), receiving));
        Ok(socket)
    }

    /// Closes what listens on `local`.
    pub(crate) fn close(&mut self, local: SocketAddr) {
        if let Some((_, receiving)) = self.open.remove(&local) {
            receiving.abort();
        }
    }

    /// Sends from `local`, which is opened if need be.
    pub(crate) async fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Result<()> {
        let socket = self.listen(local).await?;
        let sent = socket.send_to(bytes, remote).await;
        sent.with_context(|| format!("cannot send from {local} to {remote}"))?;
        Ok(())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        for (_, receiving) in self.open.values() {
            receiving.abort();
        }
    }
}

/// Opens a socket on a port that was perhaps closed a moment ago: what is
/// aborted lets go of it when the runtime comes to it.
pub(crate) async fn patiently<T>(open: impl AsyncFn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..MOMENTS {
        match open().await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::task::yield_now().await;
            }
            done => return done,
        }
    }
    open().await
}

thread_local! {
    /// One for all sockets of a thread: thousands of phones have thousands of them.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM]);
}

async fn receive(local: SocketAddr, socket: Arc<UdpSocket>, queue: mpsc::Sender<Arrival>) {
    loop {
        let received = match socket.readable().await {
            Ok(()) => BUFFER.with_borrow_mut(|buffer| {
                let (length, remote) = socket.try_recv_from(buffer)?;
                Ok((buffer.get(..length).unwrap_or_default().to_vec(), remote))
            }),
            Err(error) => Err(error),
        };
        match received {
            Ok((bytes, remote)) => {
                let arrival = Arrival::Message {
                    local,
                    remote,
                    transport: Transport::Udp,
                    bytes,
                };
                if let Err(mpsc::error::TrySendError::Closed(_)) = queue.try_send(arrival) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // An ICMP error of an earlier datagram; the socket goes on.
            Err(error) => tracing::debug!("{local}: {error}"),
        }
    }
}
