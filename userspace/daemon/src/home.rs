//! The embedded home network as a SIP element on loopback, over UDP and TCP, so that the
//! edge speaks real SIP to its next hop.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gm_home::{Home, HomeConfig, Subscriber};
use gm_sip::Message;
use gm_sip::framing::{self, Frame};
use gm_sip::header::Via;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use zeroize::{Zeroize, Zeroizing};

use crate::config;
use crate::edge::OsRandom;

/// Longest registration that it grants, in seconds (TS 24.229 5.4.1.2.2F).
const MAX_EXPIRES: u32 = 600_000;
/// Largest UDP payload.
const LARGEST: usize = 65_535;
/// Messages that may wait for a connection.
const QUEUE: usize = 256;
/// Connections that may wait to be accepted.
const WAITING: u32 = 64;

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[error("[home] listen: cannot listen on {address}: {error}; is another home network there?")]
pub struct HomeError {
    address: SocketAddr,
    error: io::Error,
}

/// It as it runs.
struct Running {
    home: Mutex<Home>,
    listen: SocketAddr,
    edge: Option<SocketAddr>,
    started: Instant,
    udp: UdpSocket,
    /// Connections by their other end.
    tcp: Mutex<HashMap<SocketAddr, Sender<Zeroizing<Vec<u8>>>>>,
}

/// Starts it; it ends with the runtime. With `edge` it hears nobody else: its
/// challenges have IK and CK in them, and loopback is everybody's on the host.
pub fn start(
    table: &config::Home,
    edge: Option<SocketAddr>,
    domain: &str,
    subscribers: Vec<Subscriber>,
    runtime: &Handle,
) -> Result<(), HomeError> {
    let (listen, _inside) = (table.listen, runtime.enter());
    let sockets = udp(listen).and_then(|udp| Ok((udp, tcp(listen)?.listen(WAITING)?)));
    let (udp, tcp) = sockets.map_err(|error| HomeError {
        address: listen,
        error,
    })?;
    let config = HomeConfig {
        domain: domain.to_owned(),
        local: listen,
        max_expires: MAX_EXPIRES,
    };
    let mut home = Home::new(config);
    home.registrar().always_challenge = table.always_challenge;
    let count = subscribers.len();
    subscribers
        .into_iter()
        .for_each(|subscriber| home.add(subscriber));
    tracing::info!(%listen, domain, subscribers = count, "embedded home network: for labs only");
    let running = Arc::new(Running {
        home: Mutex::new(home),
        listen,
        edge,
        started: Instant::now(),
        udp,
        tcp: Mutex::default(),
    });
    tokio::spawn(Arc::clone(&running).datagrams());
    tokio::spawn(running.connections(tcp));
    Ok(())
}

fn udp(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(listen)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// At exactly this address, which what listens and what connects share: the edge believes
/// on loopback only what comes from there.
fn tcp(listen: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if listen.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(listen)?;
    Ok(socket)
}

async fn connect(listen: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    tcp(listen)?.connect(to).await
}

/// What the Via of a request of ours says.
fn is_over_tcp(request: &[u8]) -> bool {
    let message = Message::parse(request).ok();
    let via = message.and_then(|message| message.first_element("Via"));
    via.and_then(|via| Via::parse(&via))
        .is_some_and(|via| via.transport == "TCP")
}

impl Running {
    /// Whether it listens to somebody there.
    fn hears(&self, remote: SocketAddr) -> bool {
        let heard = self.edge.is_none_or(|edge| edge == remote);
        if !heard {
            tracing::debug!(%remote, "home network: not the edge");
        }
        heard
    }

    async fn datagrams(self: Arc<Self>) {
        let mut buffer = Zeroizing::new(vec![0; LARGEST]);
        loop {
            match self.udp.recv_from(&mut buffer).await {
                Ok((n, remote)) if self.hears(remote) => self.take(remote, &buffer[..n]).await,
                Ok(_) => {}
                // An ICMP error about something that was sent.
                Err(error) => tracing::debug!(%error, "home network: receive"),
            }
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, remote)) if self.hears(remote) => {
                    let messages = self.enter(remote);
                    tokio::spawn(Arc::clone(&self).serve(stream, remote, messages));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "home network: accept");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn enter(&self, remote: SocketAddr) -> Receiver<Zeroizing<Vec<u8>>> {
        let (queue, messages) = channel(QUEUE);
        let mut all = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(remote, queue);
        messages
    }

    fn queue(&self, remote: SocketAddr) -> Option<Sender<Zeroizing<Vec<u8>>>> {
        let all = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&remote).filter(|queue| !queue.is_closed()).cloned()
    }

    async fn serve(
        self: Arc<Self>,
        mut stream: TcpStream,
        remote: SocketAddr,
        mut messages: Receiver<Zeroizing<Vec<u8>>>,
    ) {
        // Small messages, and somebody waits for each.
        let _ = stream.set_nodelay(true);
        let (mut from, mut to) = stream.split();
        let write = async {
            while let Some(message) = messages.recv().await {
                if to.write_all(&message).await.is_err() {
                    return;
                }
            }
        };
        let read = async {
            let mut buffer = Zeroizing::new(Vec::with_capacity(2 * LARGEST));
            let mut part = Zeroizing::new([0; 4096]);
            loop {
                match framing::next(&buffer) {
                    Ok(Frame::Message(n)) => {
                        let message: Zeroizing<Vec<u8>> =
                            Zeroizing::new(buffer.drain(..n).collect());
                        self.take(remote, &message).await;
                    }
                    Ok(Frame::Keepalive(n)) => drop(buffer.drain(..n)),
                    Ok(Frame::Incomplete) => match from.read(&mut part[..]).await {
                        Ok(n) if n > 0 => buffer.extend_from_slice(&part[..n]),
                        _ => return,
                    },
                    Err(error) => return tracing::debug!(%remote, %error, "home network"),
                }
            }
        };
        tokio::select! {
            () = read => {}
            () = write => {}
        }
    }

    /// The same with a type that has a name: connections are opened while others serve.
    fn serve_boxed(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        messages: Receiver<Zeroizing<Vec<u8>>>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.serve(stream, remote, messages))
    }

    async fn take(self: &Arc<Self>, remote: SocketAddr, bytes: &[u8]) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (messages, events) = {
            let mut home = self.home.lock().unwrap_or_else(PoisonError::into_inner);
            let messages = home.handle(now, remote, bytes, &mut OsRandom);
            (messages, home.take_events())
        };
        for (to, bytes) in messages {
            // A 401 to the edge has IK and CK in it.
            self.send(to, Zeroizing::new(bytes)).await;
        }
        for event in events {
            tracing::debug!(?event, "home network");
        }
    }

    /// On the connection where there is one, which for an answer is the request's. A
    /// request that is to go over TCP opens one.
    async fn send(self: &Arc<Self>, to: SocketAddr, mut bytes: Zeroizing<Vec<u8>>) {
        let request = !bytes.starts_with(b"SIP/2.0 ");
        let wants_tcp = request && is_over_tcp(&bytes);
        let queue = self.queue(to).filter(|_| wants_tcp || !request);
        if let Some(queue) = queue {
            if queue.try_send(bytes).is_err() {
                tracing::warn!(%to, "home network: the connection takes no more");
            }
            return;
        }
        if wants_tcp {
            let messages = self.enter(to);
            if let Some(queue) = self.queue(to) {
                let _ = queue.try_send(bytes);
            }
            let home = Arc::clone(self);
            tokio::spawn(async move {
                match connect(home.listen, to).await {
                    Ok(stream) => home.serve_boxed(stream, to, messages).await,
                    Err(error) => tracing::warn!(%to, %error, "home network: cannot connect"),
                }
            });
            return;
        }
        if let Err(error) = self.udp.send_to(&bytes, to).await {
            tracing::warn!(%to, %error, "home network: cannot send");
        }
        bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use gm_home::vectors::Operator;

    use super::*;

    fn register(over: &str, from: SocketAddr, n: u32) -> String {
        format!(
            "REGISTER sip:ims.test SIP/2.0\r\nVia: SIP/2.0/{over} {from};branch=z9hG4bK{n};rport\r\n\
             From: <sip:a@ims.test>;tag=1\r\nTo: <sip:a@ims.test>\r\nCall-ID: {n}\r\n\
             CSeq: {n} REGISTER\r\nContact: <sip:192.0.2.1:31800>\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Bound like the edge's: from exactly `local`.
    fn dial(
        runtime: &tokio::runtime::Runtime,
        local: SocketAddr,
        to: SocketAddr,
    ) -> std::net::TcpStream {
        let stream = runtime.block_on(connect(local, to)).unwrap();
        let stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream
    }

    #[test]
    fn over_tcp_it_answers_the_edge_on_its_connection_and_nobody_else() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let free = || {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (listen, edge, stranger) = (free(), free(), free());
        let user = "a@ims.test";
        let key = Operator::Opc([2; 16]);
        let subscriber = Subscriber::new(user, &["sip:a@ims.test"], [1; 16], key, 0);
        let table = config::Home {
            domain: None,
            subscribers: "none".into(),
            listen,
            always_challenge: false,
        };
        start(
            &table,
            Some(edge),
            "ims.test",
            vec![subscriber],
            runtime.handle(),
        )
        .unwrap();
        let mut other = dial(&runtime, stranger, listen);
        let _ = other.write_all(register("TCP", stranger, 1).as_bytes());
        assert!(matches!(other.read(&mut [0; 64]), Ok(0) | Err(_)));
        let mut stream = dial(&runtime, edge, listen);
        // Two in one piece, the second one in two.
        let text = register("TCP", edge, 1) + "\r\n" + &register("TCP", edge, 2);
        let (first, second) = text.as_bytes().split_at(text.len() - 40);
        stream.write_all(first).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        stream.write_all(second).unwrap();
        let mut heard = String::new();
        while heard.matches("\r\n\r\n").count() < 2 {
            let mut part = [0; 4096];
            let n = stream.read(&mut part).unwrap();
            heard.push_str(std::str::from_utf8(&part[..n]).unwrap());
        }
        assert_eq!(heard.matches("SIP/2.0 401 ").count(), 2, "{heard}");
    }
}
