//! The edge's TCP connections: accepted on the unprotected port and port_ps,
//! opened from port_pc. Messages are cut out of the stream by gm-sip.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gm_sip::framing::{self, Frame};
use gm_sip::{Packet, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, WeakSender, channel};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Arrived, EdgeError, Inbox, Places};

/// Connections in all; more are closed at once.
const MOST: usize = 16_384;
/// Connections to the unprotected port: strangers can open those.
const MOST_CLEAR: usize = 1024;
/// And of those from one address.
const MOST_CLEAR_EACH: usize = 64;
/// Messages that may wait for a slow peer.
const QUEUE: usize = 64;
/// A stranger's connection that says nothing is closed.
const IDLE_CLEAR: Duration = Duration::from_secs(60);
/// A phone's: longer than any registration is refreshed.
const IDLE: Duration = Duration::from_secs(2 * 3600);
const CONNECT: Duration = Duration::from_secs(10);
const WAITING: u32 = 256;

type Ends = (SocketAddr, SocketAddr);
/// By which a connection knows its own entry in the table.
type Own = WeakSender<Vec<u8>>;

/// All connections.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    open: Mutex<HashMap<Ends, Sender<Vec<u8>>>>,
    clear: Vec<SocketAddr>,
    client: Vec<SocketAddr>,
    inbox: Inbox,
    runtime: Handle,
    /// Connections that were too many.
    closed: AtomicU64,
}

impl Connections {
    /// Listens where connections are accepted. Must be called inside the
    /// runtime.
    pub(super) fn open(
        places: &Places,
        inbox: &Inbox,
        runtime: Handle,
    ) -> Result<Connections, EdgeError> {
        let connections = Connections(Arc::new(Shared {
            open: Mutex::new(HashMap::new()),
            clear: places.clear.clone(),
            client: places.client.clone(),
            inbox: inbox.clone(),
            runtime,
            closed: AtomicU64::new(0),
        }));
        for address in places.clear.iter().chain(&places.server) {
            let listener = listen(*address).map_err(|error| EdgeError::Bind {
                address: *address,
                transport: "TCP",
                error,
            })?;
            tokio::spawn(connections.clone().accept(listener, *address));
        }
        Ok(connections)
    }

    /// Sends on the connection that is there, or opens one from a protected
    /// client port. Answers on a connection that is gone are lost: the phone
    /// repeats its request.
    pub(super) fn send(&self, packet: Packet) {
        let ends = (packet.local, packet.remote);
        let mut open = self.table();
        let queued = match open.get(&ends) {
            Some(queue) => queue.try_send(packet.bytes).is_ok(),
            None if self.0.client.contains(&packet.local) && open.len() < MOST => {
                let (queue, messages) = channel(QUEUE);
                let queued = queue.try_send(packet.bytes).is_ok();
                let own = queue.downgrade();
                open.insert(ends, queue);
                let connect = self.clone().connect(ends, messages, own);
                self.0.runtime.spawn(connect);
                queued
            }
            None => false,
        };
        if !queued {
            tracing::warn!(local = %ends.0, remote = %ends.1, "no connection takes the message");
        }
    }

    async fn accept(self, listener: TcpListener, local: SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    let (queue, messages) = channel(QUEUE);
                    let own = queue.downgrade();
                    if self.admit((local, remote), queue) {
                        tokio::spawn(self.clone().serve(stream, (local, remote), messages, own));
                    } else {
                        let closed = 1 + self.0.closed.fetch_add(1, Ordering::Relaxed);
                        if closed.is_power_of_two() {
                            tracing::warn!(closed, %local, %remote, "too many connections: closed");
                        }
                    }
                }
                Err(error) => {
                    // Out of file descriptors, as a rule; give others time.
                    tracing::warn!(%local, %error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, ends: Ends, queue: Sender<Vec<u8>>) -> bool {
        let mut open = self.table();
        if open.len() >= MOST {
            return false;
        }
        if self.is_clear(ends.0) {
            let strangers = || open.keys().filter(|(local, _)| self.is_clear(*local));
            let same = |(_, remote): &&Ends| remote.ip() == ends.1.ip();
            if strangers().count() >= MOST_CLEAR
                || strangers().filter(same).count() >= MOST_CLEAR_EACH
            {
                return false;
            }
        }
        open.insert(ends, queue);
        true
    }

    async fn connect(self, ends: Ends, messages: Receiver<Vec<u8>>, own: Own) {
        let (local, remote) = ends;
        match timeout(CONNECT, open(local, remote)).await {
            Ok(Ok(stream)) => self.serve(stream, ends, messages, own).await,
            result => {
                let why = match result {
                    Ok(Err(error)) => error.to_string(),
                    _ => "no answer".into(),
                };
                tracing::warn!(%local, %remote, why, "cannot connect");
                self.forget(ends, &own);
            }
        }
    }

    /// Takes the connection out of the table, unless a new one has its place: a
    /// phone may come again from the same port before the old one is seen to end.
    fn forget(&self, ends: Ends, own: &Own) {
        let mut open = self.table();
        let there = open.get(&ends).zip(own.upgrade());
        if there.is_some_and(|(there, own)| there.same_channel(&own)) {
            open.remove(&ends);
        }
    }

    async fn serve(self, stream: TcpStream, ends: Ends, messages: Receiver<Vec<u8>>, own: Own) {
        let idle = if self.is_clear(ends.0) {
            IDLE_CLEAR
        } else {
            IDLE
        };
        // Small messages, and the phone waits for each.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let (pong, pongs) = channel(1);
        tokio::select! {
            () = read(reader, ends, idle, &self.0.inbox, pong) => {}
            () = write(writer, messages, pongs) => {}
        }
        self.forget(ends, &own);
    }

    fn is_clear(&self, local: SocketAddr) -> bool {
        self.0.clear.contains(&local)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Ends, Sender<Vec<u8>>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn socket(local: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Several connections from one port_pc, and a restart without a wait.
    socket.set_reuseaddr(true)?;
    socket.bind(local)?;
    Ok(socket)
}

fn listen(local: SocketAddr) -> io::Result<TcpListener> {
    socket(local)?.listen(WAITING)
}

async fn open(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    socket(local)?.connect(remote).await
}

/// Until the peer closes, says nothing for too long, or what cannot be SIP.
async fn read(
    mut from: OwnedReadHalf,
    ends: Ends,
    idle: Duration,
    inbox: &Inbox,
    pong: Sender<()>,
) {
    let (local, remote) = ends;
    let mut buffer = Zeroizing::new(Vec::new());
    let mut part = Zeroizing::new([0_u8; 4096]);
    loop {
        loop {
            match framing::next(&buffer) {
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Keepalive(n)) => {
                    // A ping of two CRLFs is answered with one (RFC 5626 3.5.1).
                    if n >= 4 {
                        let _ = pong.try_send(());
                    }
                    buffer.drain(..n);
                }
                Ok(Frame::Message(n)) => {
                    let bytes = Zeroizing::new(buffer.drain(..n).collect());
                    let transport = Transport::Tcp;
                    if !inbox.put(Arrived::FromUe {
                        local,
                        remote,
                        transport,
                        bytes,
                    }) {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%local, %remote, %error, "not SIP: connection closed");
                    return;
                }
            }
        }
        match timeout(idle, from.read(&mut part[..])).await {
            Ok(Ok(n)) if n > 0 => buffer.extend_from_slice(&part[..n]),
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
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_an_old_connection_leaves_the_new_one() {
        let (inbox, _arrivals) = Inbox::new(5060);
        let places = Places {
            clear: Vec::new(),
            server: Vec::new(),
            client: Vec::new(),
        };
        let all = Connections::open(&places, &inbox, Handle::current()).unwrap();
        let ends = (
            "192.0.2.1:5064".parse().unwrap(),
            "192.0.2.2:31100".parse().unwrap(),
        );
        let ((old, _old), (new, _new)) = (channel(1), channel(1));
        let (own_old, own_new) = (old.downgrade(), new.downgrade());
        assert!(all.admit(ends, old) && all.admit(ends, new));
        all.forget(ends, &own_old);
        assert_eq!(all.table().len(), 1);
        all.forget(ends, &own_new);
        assert!(all.table().is_empty());
    }

    #[tokio::test]
    async fn one_stranger_does_not_take_all_connections() {
        let (inbox, _arrivals) = Inbox::new(5060);
        let clear: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let places = Places {
            clear: vec![clear],
            server: Vec::new(),
            client: Vec::new(),
        };
        let all = Connections::open(&places, &inbox, Handle::current()).unwrap();
        let admitted =
            |address: [u8; 4], port: u16| all.admit((clear, (address, port).into()), channel(1).0);
        let count = (1..=200)
            .filter(|port| admitted([192, 0, 2, 1], *port))
            .count();
        assert_eq!(count, MOST_CLEAR_EACH);
        assert!(admitted([192, 0, 2, 2], 1));
    }
}
