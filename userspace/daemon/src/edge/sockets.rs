//! The edge's UDP sockets: one per address and port, so that a message's local
//! address is known by its socket and answers leave from where they must.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gm_sip::Transport;
use gm_sip::edge::EdgeConfig;
use tokio::net::UdpSocket;
use zeroize::Zeroizing;

use super::busy::Busy;
use super::{Arrived, EdgeError, Inbox, Places};

/// Largest UDP payload.
const LARGEST: usize = 65_535;
/// Kernel memory for a burst of REGISTERs after a power cut.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Messages that could not be sent, since the start.
static FAILED: AtomicU64 = AtomicU64::new(0);

/// Duplicate address detection is over by then.
const DETECTION: Duration = Duration::from_secs(3);

/// The sockets, to send from.
pub(super) struct Sockets {
    gm: HashMap<SocketAddr, Arc<UdpSocket>>,
    core: Arc<UdpSocket>,
}

/// Binds all and starts to receive. Must be called inside the runtime.
pub(super) fn open(
    places: &Places,
    config: &EdgeConfig,
    inbox: &Inbox,
) -> Result<Sockets, EdgeError> {
    let mut gm = HashMap::new();
    let busy = Arc::new(Busy::new());
    for local in places
        .clear
        .iter()
        .chain(&places.server)
        .chain(&places.client)
    {
        let socket = bind(*local)?;
        let clear = places.clear.contains(local).then(|| Arc::clone(&busy));
        let (local, inbox, back) = (*local, inbox.clone(), Arc::clone(&socket));
        tokio::spawn(receive(Arc::clone(&socket), move |remote, bytes| {
            let arrived = Arrived::FromUe {
                local,
                remote,
                transport: Transport::Udp,
                bytes,
            };
            inbox.offer(arrived).unwrap_or_else(|arrived| {
                if let (Some(busy), Arrived::FromUe { bytes, .. }) = (&clear, &arrived)
                    && let Some((to, answer)) = busy.answer(remote, bytes)
                {
                    send(&back, to, &answer);
                }
                inbox.lost(arrived);
                true
            })
        }));
        gm.insert(local, socket);
    }
    let core = bind(config.core_local)?;
    let (inbox, config) = (inbox.clone(), config.clone());
    tokio::spawn(receive(Arc::clone(&core), move |remote, bytes| {
        let arrived = Arrived::FromCore {
            remote,
            transport: Transport::Udp,
            bytes,
        };
        // Whoever reaches the port may fill what strangers have, and no more.
        if config.is_core(remote) {
            inbox.put(arrived)
        } else {
            inbox.put_stranger(arrived)
        }
    }));
    Ok(Sockets { gm, core })
}

fn bind(address: SocketAddr) -> Result<Arc<UdpSocket>, EdgeError> {
    let bound = patiently(|| std::net::UdpSocket::bind(address)).and_then(|socket| {
        socket.set_nonblocking(true)?;
        // Less is still enough to work.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        UdpSocket::from_std(socket)
    });
    bound.map(Arc::new).map_err(|error| EdgeError::Bind {
        address,
        transport: "UDP",
        error,
    })
}

/// An IPv6 address that was just configured cannot be used until the kernel
/// has made sure that nobody else has it (RFC 4862 5.4): wait for that.
fn patiently<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + DETECTION;
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

async fn receive(socket: Arc<UdpSocket>, put: impl Fn(SocketAddr, Zeroizing<Vec<u8>>) -> bool) {
    let mut buffer = Zeroizing::new(vec![0; LARGEST]);
    loop {
        match socket.recv_from(&mut buffer).await {
            // Keepalives of phones: blank datagrams.
            Ok((n, _))
                if buffer[..n]
                    .iter()
                    .all(|byte| matches!(byte, b'\r' | b'\n' | 0)) => {}
            Ok((n, remote)) => {
                if !put(remote, Zeroizing::new(buffer[..n].to_vec())) {
                    return;
                }
            }
            // An ICMP error about something that was sent: SIP repeats it.
            Err(error) => tracing::debug!(%error, "receive"),
        }
    }
}

impl Sockets {
    /// Sends to a phone from a local address and port of the edge.
    pub(super) fn to_ue(&self, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        match self.gm.get(&local) {
            Some(socket) => send(socket, remote, bytes),
            None => tracing::warn!(%local, %remote, "no socket to send from"),
        }
    }

    /// Sends to the core.
    pub(super) fn to_core(&self, remote: SocketAddr, bytes: &[u8]) {
        send(&self.core, remote, bytes);
    }
}

/// UDP: what cannot be sent now is lost, and SIP repeats it.
fn send(socket: &UdpSocket, remote: SocketAddr, bytes: &[u8]) {
    if let Err(error) = socket.try_send_to(bytes, remote) {
        // A stranger can have answers sent to where nothing can be sent.
        let failed = 1 + FAILED.fetch_add(1, Ordering::Relaxed);
        if failed.is_power_of_two() {
            tracing::warn!(failed, %remote, bytes = bytes.len(), %error, "cannot send");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_hears_503_when_the_edge_has_no_room() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let free = |port: u16| std::net::UdpSocket::bind(("127.0.0.1", port)).unwrap();
        let (clear, core) = (free(0).local_addr().unwrap(), free(0).local_addr().unwrap());
        // Nobody takes anything out.
        let (inbox, _arrivals) = Inbox::new(clear.port());
        let places = Places {
            clear: vec![clear],
            server: Vec::new(),
            client: Vec::new(),
        };
        let config = EdgeConfig::new(core, core);
        let _sockets = open(&places, &config, &inbox).unwrap();
        let phone = free(0);
        phone
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let text = "REGISTER sip:a SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z\r\n\r\n";
        let mut answer = [0; 2048];
        let heard = (0..20_000).any(|_| {
            phone.send_to(text.as_bytes(), clear).unwrap();
            phone.set_nonblocking(true).unwrap();
            let heard = phone.recv_from(&mut answer).is_ok();
            phone.set_nonblocking(false).unwrap();
            heard
        });
        let n = if heard {
            0
        } else {
            phone.recv_from(&mut answer).unwrap().0
        };
        let answer = String::from_utf8_lossy(&answer[..n.max(400)]);
        assert!(
            answer.starts_with("SIP/2.0 503 ") && answer.contains("Retry-After: 30"),
            "{answer}"
        );
    }
}
