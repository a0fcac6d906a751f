//! Connections over loopback TCP. Any user of the host can open those, so the ones that
//! have not shown the token are few and have little time; when they are too many the
//! oldest one gives way. Who has shown it is not counted.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;

/// How many strangers, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Connections that have not shown the token.
    pub strangers: usize,
    /// Time to show it.
    pub patience: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            strangers: 256,
            patience: Duration::from_secs(10),
        }
    }
}

const STRANGER: u8 = 0;
const GUEST: u8 = 1;
const GONE: u8 = 2;

/// What is known of one connection.
#[derive(Debug, Default)]
pub(super) struct Standing {
    state: AtomicU8,
    waker: AtomicWaker,
}

impl Standing {
    /// It has shown the token.
    pub(super) fn admit(&self) {
        self.change(GUEST);
    }

    /// It gives way to another one.
    fn end(&self) {
        if self.change(GONE) {
            self.waker.wake();
        }
    }

    /// Only a stranger becomes something else.
    fn change(&self, to: u8) -> bool {
        let (all, set) = (Ordering::AcqRel, Ordering::Acquire);
        self.state.compare_exchange(STRANGER, to, all, set).is_ok()
    }

    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Acquire) == state
    }
}

/// The listener.
pub(super) struct Guests {
    listener: TcpListener,
    bounds: Bounds,
    /// Oldest first.
    strangers: VecDeque<Weak<Standing>>,
}

impl Guests {
    pub(super) fn new(listener: TcpListener, bounds: Bounds) -> Guests {
        Guests {
            listener,
            bounds,
            strangers: VecDeque::new(),
        }
    }

    fn enter(&mut self) -> Arc<Standing> {
        let still = |weak: &Weak<Standing>| weak.upgrade().is_some_and(|s| s.is(STRANGER));
        if self.strangers.len() >= self.bounds.strangers {
            self.strangers.retain(still);
        }
        if self.strangers.len() >= self.bounds.strangers
            && let Some(oldest) = self.strangers.pop_front().and_then(|weak| weak.upgrade())
        {
            oldest.end();
        }
        let standing = Arc::new(Standing::default());
        self.strangers.push_back(Arc::downgrade(&standing));
        standing
    }
}

impl Listener for Guests {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let (stream, remote) = Listener::accept(&mut self.listener).await;
        let guest = Guest {
            stream,
            standing: self.enter(),
            patience: Box::pin(tokio::time::sleep(self.bounds.patience)),
        };
        (guest, remote)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection.
pub(super) struct Guest {
    stream: TcpStream,
    standing: Arc<Standing>,
    patience: Pin<Box<Sleep>>,
}

impl Guest {
    pub(super) fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.standing.is(GUEST) {
            self.standing.waker.register(cx.waker());
            if self.patience.as_mut().poll(cx).is_ready() {
                self.standing.change(GONE);
            }
            if self.standing.is(GONE) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control::serve::serve_guests;
    use crate::control::{App, Token};
    use crate::events::Events;
    use crate::sets::Sets;
    use crate::testing::Fake;
    use std::io::{Read, Write};
    use std::net::TcpStream as Stream;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn served(bounds: Bounds) -> (tokio::runtime::Runtime, SocketAddr) {
        let text = "[gm]\nuplinks = [\"eth0\"]\naddresses = [\"192.0.2.1\"]\n\
                    server_ports = [5063]\nclient_ports = [\"5064-5071\"]\n";
        let config = Config::parse(text, Path::new("t.toml")).unwrap();
        let app = App::new(config, Sets::new(Arc::new(Fake::default())), Events::new());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), TOKEN).unwrap();
        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
        let token = Token::read(file.path()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let at = listener.local_addr().unwrap();
        runtime.spawn(serve_guests(app, Guests::new(listener, bounds), token));
        (runtime, at)
    }

    fn connect(at: SocketAddr) -> Stream {
        let stream = Stream::connect(at).unwrap();
        let soon = Some(Duration::from_secs(10));
        stream.set_read_timeout(soon).unwrap();
        stream
    }

    /// The status of a request with this token on a connection that stays.
    fn ask(stream: &mut Stream, token: &str) -> io::Result<String> {
        let request = format!(
            "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length])?;
        Ok(head[9..12].to_owned())
    }

    fn is_closed(stream: &mut Stream) -> bool {
        match stream.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    #[test]
    fn who_shows_no_token_is_cut_off_and_who_does_stays() {
        let bounds = Bounds {
            patience: Duration::from_millis(300),
            ..Bounds::default()
        };
        let (_runtime, at) = served(bounds);
        let (mut silent, mut slow, mut wrong) = (connect(at), connect(at), connect(at));
        slow.write_all(b"GET /v1/health HTTP/1.1\r\n").unwrap();
        assert_eq!(ask(&mut wrong, "wrong").unwrap(), "401");
        let mut proxy = connect(at);
        assert_eq!(ask(&mut proxy, TOKEN).unwrap(), "200");
        for stream in [&mut silent, &mut slow, &mut wrong] {
            assert!(is_closed(stream));
        }
        assert_eq!(ask(&mut proxy, TOKEN).unwrap(), "200");
    }

    #[test]
    fn strangers_who_hold_connections_leave_room_for_the_proxy() {
        let bounds = Bounds {
            strangers: 4,
            patience: Duration::from_secs(600),
        };
        let (_runtime, at) = served(bounds);
        let mut proxy = connect(at);
        assert_eq!(ask(&mut proxy, TOKEN).unwrap(), "200");
        let mut strangers: Vec<_> = (0..20).map(|_| connect(at)).collect();
        assert!(strangers.iter_mut().take(16).all(is_closed));
        assert_eq!(ask(&mut connect(at), TOKEN).unwrap(), "200");
        assert_eq!(ask(&mut proxy, TOKEN).unwrap(), "200");
    }
}
