//! The phone's UDP sockets, one for each local address and port that the
//! protocol speaks from. What they receive comes together in one queue.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Largest UDP payload.
const DATAGRAM: usize = 65_535;
/// Datagrams that wait for the agent; more are lost, as on any wire.
const QUEUE: usize = 256;

/// A datagram that came in.
#[derive(Debug)]
pub struct Datagram {
    /// Our address and port.
    pub local: SocketAddr,
    /// The sender's address and port.
    pub remote: SocketAddr,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// All open sockets.
pub struct Sockets {
    open: HashMap<SocketAddr, (Arc<UdpSocket>, JoinHandle<()>)>,
    sender: mpsc::Sender<Datagram>,
}

impl Sockets {
    /// No sockets yet, and the queue of what they will receive.
    pub fn new() -> (Sockets, mpsc::Receiver<Datagram>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (
            Sockets {
                open: HashMap::new(),
                sender,
            },
            queue,
        )
    }

    /// Listens on `local`; nothing happens if it does already.
    pub async fn listen(&mut self, local: SocketAddr) -> Result<Arc<UdpSocket>> {
        if let Some((socket, _)) = self.open.get(&local) {
            return Ok(Arc::clone(socket));
        }
        let socket = UdpSocket::bind(local)
            .await
            .with_context(|| format!("cannot open the UDP socket {local}"))?;
        let socket = Arc::new(socket);
        let receiving = tokio::spawn(receive(local, Arc::clone(&socket), self.sender.clone()));
        self.open.insert(local, (Arc::clone(&socket), receiving));
        Ok(socket)
    }

    /// Sends from `local`, which is opened if need be.
    pub async fn send(
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

async fn receive(local: SocketAddr, socket: Arc<UdpSocket>, queue: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, remote)) => {
                let bytes = buffer[..length].to_vec();
                if let Err(mpsc::error::TrySendError::Closed(_)) = queue.try_send(Datagram {
                    local,
                    remote,
                    bytes,
                }) {
                    return;
                }
            }
            // An ICMP error of an earlier datagram; the socket goes on.
            Err(error) => tracing::debug!("{local}: {error}"),
        }
    }
}
