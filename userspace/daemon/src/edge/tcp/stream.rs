//! One connection: messages cut out of the stream by gm-sip, messages written one by one.
//!
//! Which end closes matters: who closes first keeps the pair of ports in TIME_WAIT for a
//! minute. From port_pc there is no other port to go to, so there we close with a reset
//! (SO_LINGER 0), which leaves nothing at either end; so do connections whose SAs go.

use std::time::{Duration, Instant};

use gm_sip::Transport;
use gm_sip::framing::{self, Frame};
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Arrived, Connections, Ends, Held, Kind, Shared, Waiting};

/// Bytes that are read at once.
const PART: usize = 4096;
/// Blanks further apart than this are no ping.
const PING: Duration = Duration::from_secs(1);
/// How long a reader waits for room in the inbox, before it gives the connection up.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(5);

impl Connections {
    /// Until the connection ends, or its place in the table is gone.
    pub(super) async fn serve(self, mut stream: TcpStream, mut held: Held) {
        // Small messages, and the phone waits for each.
        let _ = stream.set_nodelay(true);
        // A peer that hears nothing any more: the kernel ends it, and the next message
        // finds a new connection.
        let stall = u32::try_from(self.0.times.stall.as_millis()).unwrap_or(u32::MAX);
        let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, stall);
        let mut begun = None;
        let (from, to) = stream.split();
        let (pong, pongs) = channel(1);
        let removed = tokio::select! {
            () = read(from, &self.0, held.ends, held.kind, pong) => false,
            () = write(to, &mut held.messages, pongs, &mut begun, self.0.times.stall) => false,
            _ = &mut held.closed => true,
        };
        if removed || held.kind == Kind::Client {
            let _ = stream.set_zero_linger();
        }
        drop(stream);
        self.over(held, begun);
    }
}

/// What has arrived and is no whole message yet.
struct Buffer {
    /// Of full size from the start: what the core says has keys in it, and a vector that
    /// grows leaves copies behind.
    bytes: Zeroizing<Vec<u8>>,
    most: usize,
    blanks: usize,
    blank_at: Instant,
}

/// Until the peer closes, says nothing for too long, or what cannot be SIP.
async fn read(mut from: ReadHalf<'_>, shared: &Shared, ends: Ends, kind: Kind, pong: Sender<()>) {
    let times = &shared.times;
    let (idle, most) = match kind {
        Kind::Clear => (times.idle_clear, shared.config.limits.clear_message),
        _ => (times.idle, gm_sip::message::MAX_MESSAGE),
    };
    let room = if kind == Kind::Core { most + PART } else { 0 };
    let mut buffer = Buffer {
        bytes: Zeroizing::new(Vec::with_capacity(room)),
        most,
        blanks: 0,
        blank_at: Instant::now(),
    };
    let mut part = Zeroizing::new([0_u8; PART]);
    let mut since = Instant::now();
    loop {
        let whole = loop {
            match buffer.next(&pong) {
                Ok(Some(bytes)) => {
                    since = Instant::now();
                    if !put(shared, ends, kind, bytes).await {
                        return;
                    }
                }
                Ok(None) => break buffer.bytes.is_empty(),
                Err(why) => {
                    tracing::debug!(local = %ends.0, remote = %ends.1, why, "connection closed");
                    return;
                }
            }
        };
        // A message that comes byte by byte gets no more time for each of them.
        let left = if whole {
            since = Instant::now();
            if room == 0 && buffer.bytes.capacity() > 2 * PART {
                // A phone that says nothing for hours keeps no room for its last message.
                buffer.bytes = Zeroizing::new(Vec::new());
            }
            idle
        } else {
            times.part.min(idle).saturating_sub(since.elapsed())
        };
        match timeout(left, from.read(&mut part[..])).await {
            Ok(Ok(n)) if n > 0 => buffer.bytes.extend_from_slice(&part[..n]),
            _ => return,
        }
    }
}

impl Buffer {
    /// The next message that is whole.
    fn next(&mut self, pong: &Sender<()>) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        loop {
            match framing::next(&self.bytes).map_err(|error| error.to_string())? {
                Frame::Incomplete if self.bytes.len() > self.most => {
                    return Err("too long".into());
                }
                Frame::Incomplete => return Ok(None),
                Frame::Keepalive(n) => {
                    self.keepalive(n, pong);
                    self.bytes.drain(..n);
                }
                Frame::Message(n) if n > self.most => return Err("too long".into()),
                Frame::Message(n) => {
                    self.blanks = 0;
                    return Ok(Some(Zeroizing::new(self.bytes.drain(..n).collect())));
                }
            }
        }
    }

    /// A ping of two CRLFs, in one piece or in several, is answered with one (RFC 5626
    /// clause 3.5.1). One CRLF alone is what some phones write now and then.
    fn keepalive(&mut self, n: usize, pong: &Sender<()>) {
        if self.blank_at.elapsed() > PING {
            self.blanks = 0;
        }
        self.blank_at = Instant::now();
        self.blanks += n;
        if self.blanks >= 4 {
            self.blanks = 0;
            // One that waits already will do.
            let _ = pong.try_send(());
        }
    }
}

/// Hands a message to the edge. Nobody repeats it on a connection, so this waits for room,
/// and with it the peer. False: there was none, or never will be.
async fn put(shared: &Shared, ends: Ends, kind: Kind, bytes: Zeroizing<Vec<u8>>) -> bool {
    let (local, remote) = ends;
    let transport = Transport::Tcp;
    let mut arrived = match kind {
        Kind::Core => Arrived::FromCore {
            remote,
            transport,
            bytes,
        },
        _ => Arrived::FromUe {
            local,
            remote,
            transport,
            bytes,
        },
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        arrived = match shared.inbox.offer(arrived) {
            Ok(there) => return there,
            Err(back) => back,
        };
        if Instant::now() > deadline {
            shared.inbox.lost(arrived);
            return false;
        }
        tokio::time::sleep(NAP).await;
    }
}

/// Until a write fails or takes too long. What is being written is in `begun`.
async fn write(
    mut to: WriteHalf<'_>,
    messages: &mut Receiver<Waiting>,
    mut pongs: Receiver<()>,
    begun: &mut Option<Waiting>,
    stall: Duration,
) {
    loop {
        let written = tokio::select! {
            message = messages.recv() => match message {
                Some(message) => {
                    let bytes = &begun.insert(message).bytes;
                    if has_ended(to.as_ref()) {
                        return;
                    }
                    timeout(stall, to.write_all(bytes)).await
                }
                None => return,
            },
            Some(()) = pongs.recv() => timeout(stall, to.write_all(b"\r\n")).await,
        };
        match written {
            Ok(Ok(())) => *begun = None,
            _ => return,
        }
    }
}

/// Whether the peer has closed, and nobody has read so far that it has: what is written
/// now would be taken by the kernel and be lost.
fn has_ended(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(recv(stream, &mut [0_u8], flags), Ok((0, _)))
}
