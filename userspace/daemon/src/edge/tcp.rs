//! The edge's TCP connections (TS 33.203 clause 7.1, ARCHITECTURE, reading A-13).
//!
//! ```text
//! phone, any port ---> sip_port      in clear; answers only
//! phone, port_uc  ---> port_ps       requests of the phone, and their answers
//! phone, port_us  <--- port_pc       opened when there is a request for the phone
//! core            ---> core          requests of the core, and their answers
//! core            <--- core          opened when there is a request for the core
//! ```
//!
//! Nobody waits here: a message that a connection does not take goes back to the edge,
//! which knows other ways. A connection lives as long as its place in the table.

mod open;
mod stream;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gm_sip::Packet;
use gm_sip::edge::EdgeConfig;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{Arrived, EdgeError, Inbox, Places};

/// Connections in all; more are closed at once.
const MOST: usize = 16_384;
/// Connections to the unprotected port: strangers can open those.
const MOST_CLEAR: usize = 1024;
/// And of those from one IPv4 address or IPv6 /64.
const MOST_CLEAR_EACH: usize = 64;
/// Connections that the core opens.
const MOST_CORE: usize = 256;
/// Messages that may wait for a slow peer.
const QUEUE: usize = 64;
/// And their bytes.
const QUEUE_BYTES: usize = 256 << 10;
/// Bytes that may wait for all peers together; above half of it none wait for a stranger.
const ALL_BYTES: usize = 64 << 20;

/// Our end and the peer's. Ours is the core's address for all connections of the core,
/// whatever port one of them has.
type Ends = (SocketAddr, SocketAddr);

/// Who is at the other end, and who opens the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Anybody, to the unprotected port.
    Clear,
    /// A phone, to port_ps, through its SA.
    Server,
    /// We, from port_pc, through the phone's SA.
    Client,
    /// The core or we.
    Core,
}

/// All connections.
#[derive(Clone)]
pub(super) struct Connections(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    places: Places,
    config: EdgeConfig,
    inbox: Inbox,
    runtime: Handle,
    times: Times,
    /// Connections that were too many or not the core's.
    closed: AtomicU64,
    waiting: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Table {
    open: HashMap<Ends, Link>,
    next: u64,
    /// Strangers' connections by source.
    clear: HashMap<IpAddr, usize>,
    strangers: usize,
    core: usize,
}

/// A connection's place in the table. Dropped, it ends the connection.
struct Link {
    number: u64,
    kind: Kind,
    queue: Sender<Waiting>,
    bytes: Arc<AtomicUsize>,
    _open: oneshot::Sender<()>,
}

/// What the task of a connection has of it.
struct Held {
    ends: Ends,
    number: u64,
    kind: Kind,
    messages: Receiver<Waiting>,
    closed: oneshot::Receiver<()>,
}

/// A message that waits for its connection; counted while it is there.
struct Waiting {
    bytes: Zeroizing<Vec<u8>>,
    counted: [Arc<AtomicUsize>; 2],
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for count in &self.counted {
            count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
    }
}

/// How long a connection may do nothing, and what else takes time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// A stranger's connection that says nothing is closed.
    pub idle_clear: Duration,
    /// Another one: longer than any registration is refreshed.
    pub idle: Duration,
    /// A message that has begun to arrive.
    pub part: Duration,
    /// A message that is being written; and what was written is heard of.
    pub stall: Duration,
    /// To open one.
    pub connect: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            idle_clear: Duration::from_secs(60),
            idle: Duration::from_secs(2 * 3600),
            part: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            connect: Duration::from_secs(3),
        }
    }
}

impl Connections {
    /// Listens where connections are accepted. Must be called inside the
    /// runtime.
    pub(super) fn open(
        places: Places,
        config: &EdgeConfig,
        inbox: &Inbox,
        runtime: Handle,
        times: Times,
    ) -> Result<Connections, EdgeError> {
        let connections = Connections(Arc::new(Shared {
            table: Mutex::new(Table::default()),
            places,
            config: config.clone(),
            inbox: inbox.clone(),
            runtime,
            times,
            closed: AtomicU64::new(0),
            waiting: Arc::default(),
        }));
        let Shared { places, config, .. } = &*connections.0;
        let phones = places.clear.iter().chain(&places.server);
        for address in phones.chain([&config.core_local]) {
            let core = *address == config.core_local;
            let listener = open::listen(*address, core).map_err(|error| EdgeError::Bind {
                address: *address,
                transport: "TCP",
                error,
            })?;
            tokio::spawn(connections.clone().accept(listener, *address));
        }
        Ok(connections)
    }

    /// Sends on the connection that is there, or opens one where we may: from port_pc
    /// to a phone, and to the core.
    ///
    /// # Errors
    /// The message, when there is no connection for it or that takes no more.
    pub(super) fn send(&self, packet: Packet) -> Result<(), Packet> {
        let ends = (packet.local, packet.remote);
        let mut table = self.table();
        if !table.open.contains_key(&ends) {
            let kind = self.kind(ends.0);
            if !matches!(kind, Kind::Client | Kind::Core) || table.open.len() >= MOST {
                return Err(packet);
            }
            let held = table.enter(ends, kind);
            self.0.runtime.spawn(self.clone().connect(held));
        }
        match table.open.get(&ends) {
            Some(link) => link.take(packet, &self.0.waiting),
            None => Err(packet),
        }
    }

    /// Closes a connection: its SAs go.
    pub(super) fn close(&self, ends: Ends) {
        let link = self.table().leave(ends, None);
        drop(link);
    }

    async fn accept(self, listener: TcpListener, local: SocketAddr) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => match self.admit((local, remote)) {
                    Some(held) => {
                        tokio::spawn(self.clone().serve(stream, held));
                    }
                    None => {
                        let closed = 1 + self.0.closed.fetch_add(1, Ordering::Relaxed);
                        if closed.is_power_of_two() {
                            tracing::warn!(closed, %local, %remote, "connections closed: too many, or not from the core");
                        }
                    }
                },
                Err(error) => {
                    tracing::warn!(%local, %error, "accept: out of file descriptors?");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Gives a connection that was opened to us its place, if it may have one.
    fn admit(&self, ends: Ends) -> Option<Held> {
        let kind = self.kind(ends.0);
        let mut table = self.table();
        let source = table.clear.get(&source(ends.1.ip())).copied();
        let room = match kind {
            Kind::Clear => table.strangers < MOST_CLEAR && source.unwrap_or(0) < MOST_CLEAR_EACH,
            Kind::Core => table.core < MOST_CORE && self.0.config.is_core(ends.1),
            Kind::Server | Kind::Client => true,
        };
        (room && table.open.len() < MOST).then(|| table.enter(ends, kind))
    }

    async fn connect(self, held: Held) {
        let (local, remote) = held.ends;
        match open::connect(local, remote, held.kind, self.0.times.connect).await {
            Ok(stream) => self.serve(stream, held).await,
            Err(error) => {
                tracing::info!(%local, %remote, %error, "cannot connect");
                self.over(held, None);
            }
        }
    }

    /// A connection has ended: what it has not sent goes back to the edge.
    fn over(&self, mut held: Held, begun: Option<Waiting>) {
        let link = self.table().leave(held.ends, Some(held.number));
        drop(link);
        held.messages.close();
        let rest = std::iter::from_fn(|| held.messages.try_recv().ok());
        for mut message in begun.into_iter().chain(rest) {
            let (local, remote) = held.ends;
            let bytes = message.give();
            self.0.inbox.put(match held.kind {
                Kind::Core => Arrived::UnsentToCore { remote, bytes },
                _ => Arrived::UnsentToUe {
                    local,
                    remote,
                    bytes,
                },
            });
        }
    }

    fn kind(&self, local: SocketAddr) -> Kind {
        let Shared { places, config, .. } = &*self.0;
        if local == config.core_local {
            Kind::Core
        } else if places.server.contains(&local) {
            Kind::Server
        } else if places.client.contains(&local) {
            Kind::Client
        } else {
            Kind::Clear
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// A new connection. One with the same ends is over: a phone may come again from
    /// the same port before its old connection is seen to end.
    fn enter(&mut self, ends: Ends, kind: Kind) -> Held {
        drop(self.leave(ends, None));
        let (queue, messages) = channel(QUEUE);
        let (open, closed) = oneshot::channel();
        self.next += 1;
        match kind {
            Kind::Clear => {
                self.strangers += 1;
                *self.clear.entry(source(ends.1.ip())).or_default() += 1;
            }
            Kind::Core => self.core += 1,
            Kind::Server | Kind::Client => {}
        }
        let link = Link {
            number: self.next,
            kind,
            queue,
            bytes: Arc::default(),
            _open: open,
        };
        self.open.insert(ends, link);
        Held {
            ends,
            number: self.next,
            kind,
            messages,
            closed,
        }
    }

    /// Takes one out, when it still is the one with this number.
    fn leave(&mut self, ends: Ends, number: Option<u64>) -> Option<Link> {
        let there = self.open.get(&ends)?.number;
        if number.is_some_and(|number| number != there) {
            return None;
        }
        let link = self.open.remove(&ends)?;
        match link.kind {
            Kind::Clear => {
                self.strangers -= 1;
                let source = source(ends.1.ip());
                if let Some(count) = self.clear.get_mut(&source) {
                    *count -= 1;
                    if *count == 0 {
                        self.clear.remove(&source);
                    }
                }
            }
            Kind::Core => self.core -= 1,
            Kind::Server | Kind::Client => {}
        }
        Some(link)
    }
}

impl Link {
    fn take(&self, packet: Packet, all: &Arc<AtomicUsize>) -> Result<(), Packet> {
        let n = packet.bytes.len();
        let room = |count: &AtomicUsize, most| count.load(Ordering::Relaxed) + n <= most;
        let most = ALL_BYTES >> u8::from(self.kind == Kind::Clear);
        if !room(&self.bytes, QUEUE_BYTES) || !room(all, most) {
            return Err(packet);
        }
        let counted = [Arc::clone(&self.bytes), Arc::clone(all)];
        for count in &counted {
            count.fetch_add(n, Ordering::Relaxed);
        }
        let (local, remote, transport) = (packet.local, packet.remote, packet.transport);
        let bytes = Zeroizing::new(packet.bytes);
        let waiting = Waiting { bytes, counted };
        self.queue.try_send(waiting).map_err(|refused| Packet {
            local,
            remote,
            transport,
            bytes: std::mem::take(&mut *refused.into_inner().give()),
        })
    }
}

impl Waiting {
    /// Takes the bytes out; they count no more.
    fn give(&mut self) -> Zeroizing<Vec<u8>> {
        for count in &self.counted {
            count.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        }
        std::mem::take(&mut self.bytes)
    }
}

/// Strangers are counted by IPv4 address or IPv6 /64.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests;
