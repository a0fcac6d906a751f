//! TCP connections: opened from exactly the port that the protocol names,
//! accepted on port_us (TS 33.203 clause 7.1, TCP case). Messages are cut out
//! of the streams by gm-sip; a ping of two CRLFs is answered with one (RFC 5626
//! clause 4.4.1).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use gm_sip::Transport;
use gm_sip::framing::{self, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::host::Arrival;
use crate::sockets::patiently;

/// Messages that may wait for a slow peer.
const WAITING: usize = 64;
/// Connections that may wait to be accepted.
const BACKLOG: u32 = 64;
/// Connections of one process.
const MOST: usize = 16_384;
/// How long a connection may take to come up: the SYNs of 1, 2 and 4 s.
const CONNECT: Duration = Duration::from_secs(8);

type Ends = (SocketAddr, SocketAddr);

struct Connection {
    /// Ends may come again: a connection takes out only itself.
    serial: u64,
    queue: Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

/// All connections and listeners. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    open: Mutex<HashMap<Ends, Connection>>,
    listening: Mutex<HashMap<SocketAddr, JoinHandle<()>>>,
    serials: AtomicU64,
    queue: mpsc::Sender<Arrival>,
}

impl Connections {
    /// No connections yet; they will put what they receive into `queue`.
    pub(crate) fn new(queue: mpsc::Sender<Arrival>) -> Connections {
        Connections(Arc::new(Shared {
            open: Mutex::new(HashMap::new()),
            listening: Mutex::new(HashMap::new()),
            serials: AtomicU64::new(0),
            queue,
        }))
    }

    /// Accepts connections on `local`; nothing happens if it does already.
    pub(crate) async fn listen(&self, local: SocketAddr) -> Result<()> {
        if lock(&self.0.listening).contains_key(&local) {
            return Ok(());
        }
        let listener = patiently(async || socket(local)?.listen(BACKLOG))
            .await
            .with_context(|| format!("cannot listen on TCP {local}"))?;
        let accepting = tokio::spawn(self.clone().accept(listener, local));
        lock(&self.0.listening).insert(local, accepting);
        Ok(())
    }

    /// Sends on the connection between these two addresses. One that is not
    /// there is opened, unless connections to `local` are accepted: nothing is
    /// opened from a server port. A message that no connection takes comes
    /// back as [`Arrival::Unreachable`].
    pub(crate) fn send(&self, local: SocketAddr, remote: SocketAddr, bytes: Vec<u8>) {
        let ends = (local, remote);
        let server = lock(&self.0.listening).contains_key(&local);
        let mut open = lock(&self.0.open);
        let queued = match open.get(&ends) {
            Some(connection) => connection.queue.try_send(bytes).is_ok(),
            None if server || open.len() >= MOST => false,
            None => {
                let (queue, messages) = channel(WAITING);
                let queued = queue.try_send(bytes).is_ok();
                let serial = self.serial();
                let task = tokio::spawn(self.clone().connect(serial, ends, messages));
                let connection = Connection {
                    serial,
                    queue,
                    task,
                };
                open.insert(ends, connection);
                queued
            }
        };
        drop(open);
        if !queued {
            self.tell(Arrival::Unreachable { local, remote });
        }
    }

    /// Stops listening on `local` and resets its connections: what would say
    /// goodbye for them, the SA, is gone.
    pub(crate) fn close(&self, local: SocketAddr) {
        if let Some(accepting) = lock(&self.0.listening).remove(&local) {
            accepting.abort();
        }
        lock(&self.0.open).retain(|(at, _), connection| {
            let stays = *at != local;
            if !stays {
                connection.task.abort();
            }
            stays
        });
    }

    /// How many connections there are.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0.open).len()
    }

    /// Ends everything.
    pub(crate) fn close_all(&self) {
        lock(&self.0.listening).drain().for_each(|(_, t)| t.abort());
        lock(&self.0.open).drain().for_each(|(_, c)| c.task.abort());
    }

    async fn accept(self, listener: TcpListener, local: SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let (queue, messages) = channel(WAITING);
                    let ends = (local, remote);
                    let mut open = lock(&self.0.open);
                    if open.len() >= MOST {
                        continue;
                    }
                    let serial = self.serial();
                    let task = tokio::spawn(self.clone().serve(serial, stream, ends, messages));
                    let connection = Connection {
                        serial,
                        queue,
                        task,
                    };
                    // The peer may come again before its old connection is seen to end.
                    if let Some(old) = open.insert(ends, connection) {
                        old.task.abort();
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot accept on {local}: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn serial(&self) -> u64 {
        self.0.serials.fetch_add(1, Ordering::Relaxed)
    }

    /// False when it has been closed from here, or another has its place.
    fn forget(&self, serial: u64, ends: Ends) -> bool {
        let mut open = lock(&self.0.open);
        let own = open.get(&ends).is_some_and(|c| c.serial == serial);
        if own {
            open.remove(&ends);
        }
        own
    }

    async fn connect(self, serial: u64, ends: Ends, messages: Receiver<Vec<u8>>) {
        let (local, remote) = ends;
        let why = match timeout(CONNECT, open(local, remote)).await {
            Ok(Ok(stream)) => return self.serve(serial, stream, ends, messages).await,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".into(),
        };
        tracing::debug!("no TCP connection from {local} to {remote}: {why}");
        if self.forget(serial, ends) {
            self.tell(Arrival::Unreachable { local, remote });
        }
    }

    async fn serve(self, serial: u64, stream: TcpStream, ends: Ends, messages: Receiver<Vec<u8>>) {
        // Small messages, and the peer waits for each.
        let _ = stream.set_nodelay(true);
        // Ports are exact and come again: no connection of ours lingers in TIME_WAIT.
        let _ = stream.set_zero_linger();
        let (reader, writer) = stream.into_split();
        let (pong, pongs) = channel(1);
        tokio::select! {
            () = read(reader, ends, &self.0.queue, pong) => {}
            () = write(writer, messages, pongs) => {}
        }
        let (local, remote) = ends;
        if self.forget(serial, ends) {
            self.tell(Arrival::Closed { local, remote });
        }
    }

    fn tell(&self, arrival: Arrival) {
        // A full queue means that the phones are behind; their timers decide.
        let _ = self.0.queue.try_send(arrival);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn socket(local: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(local)?;
    Ok(socket)
}

async fn open(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    socket(local)?.connect(remote).await
}

/// Until the peer closes or says what cannot be SIP.
async fn read(
    mut from: OwnedReadHalf,
    ends: Ends,
    queue: &mpsc::Sender<Arrival>,
    pong: Sender<()>,
) {
    let (local, remote) = ends;
    let (mut buffer, mut part) = (Vec::new(), [0_u8; 4096]);
    loop {
        loop {
            match framing::next(&buffer) {
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Keepalive(n)) => {
                    if n >= 4 {
                        let _ = pong.try_send(());
                    }
                    buffer.drain(..n);
                }
                Ok(Frame::Message(n)) => {
                    let bytes = buffer.drain(..n).collect();
                    let message = Arrival::Message {
                        local,
                        remote,
                        transport: Transport::Tcp,
                        bytes,
                    };
                    // Here the peer can be made to wait.
                    if queue.send(message).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!("{remote}: {error}: connection closed");
                    return;
                }
            }
        }
        match from.read(&mut part).await {
            Ok(n) if n > 0 => buffer.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut messages: Receiver<Vec<u8>>, mut pongs: Receiver<()>) {
    loop {
        let written = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => to.write_all(&message).await,
                None => return,
            },
            Some(()) = pongs.recv() => to.write_all(b"\r\n").await,
        };
        if written.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "tcp/tests.rs"]
mod tests;
