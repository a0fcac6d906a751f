//! Sockets for connections, with their addresses and ports.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::Kind;

/// Connections that may wait to be accepted.
const WAITING: u32 = 256;
/// How often a pair of ports that is still in use is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// Listens at exactly this address. The core's port is shared with the connections that
/// we open to the core, which come from it.
pub(super) fn listen(local: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    socket(local, shared)?.listen(WAITING)
}

/// Opens a connection from exactly `local`.
///
/// The same two ends may just have had a connection. Ours leaves no TIME_WAIT behind (see
/// [`super::stream`]); where something of it is left all the same, this waits, for no
/// other port will do.
pub(super) async fn connect(
    local: SocketAddr,
    remote: SocketAddr,
    kind: Kind,
    patience: Duration,
) -> io::Result<TcpStream> {
    let deadline = Instant::now() + patience;
    loop {
        let socket = socket(local, kind == Kind::Core)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let result = match timeout(left, socket.connect(remote)).await {
            Ok(result) => result,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let in_use = |error: &io::Error| {
            matches!(
                error.kind(),
                io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
            )
        };
        match result {
            Err(error) if in_use(&error) && Instant::now() + AGAIN < deadline => {
                sleep(AGAIN).await;
            }
            result => return result,
        }
    }
}

fn socket(local: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = if local.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Several connections from one port_pc, and a restart without a wait.
    socket.set_reuseaddr(true)?;
    if shared {
        socket.set_reuseport(true)?;
    }
    socket.bind(local)?;
    Ok(socket)
}
