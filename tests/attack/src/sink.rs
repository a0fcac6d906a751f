//! The SIP application: an ordinary UDP socket that knows what it was sent.
//!
//! A payload names its sender, has a number of its own, says whether its SA
//! was removed before it was sealed, and has a keyed hash over all of it. What
//! has no right hash was forged; a number that comes twice was replayed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lab::{Lab, PORT_PS, ours};

/// Bytes of a payload before the filling.
pub const HEAD: usize = 32;

const MAGIC: u32 = 0x676d_6174;

/// Bytes that a socket may keep for the application.
const BUFFER: usize = 64 << 20;

/// What has arrived so far.
#[derive(Debug, Default)]
pub struct Arrived {
    /// New, whole and as it was sent.
    pub verified: AtomicU64,
    /// What nobody sent.
    pub forged: AtomicU64,
    /// What has arrived before.
    pub replayed: AtomicU64,
    /// What was sealed after its SA had been removed.
    pub removed: AtomicU64,
}

/// Writes payloads and recognises them.
#[derive(Clone, Default)]
pub struct Mark(RandomState);

impl Mark {
    /// A payload of `len` bytes, at least [`HEAD`].
    pub fn payload(&self, sender: u32, number: u64, removed: bool, len: usize) -> Vec<u8> {
        let mut p = Vec::with_capacity(len.max(HEAD));
        p.extend(MAGIC.to_le_bytes());
        p.extend(sender.to_le_bytes());
        p.extend(number.to_le_bytes());
        p.extend(u64::from(removed).to_le_bytes());
        p.extend([0; 8]);
        p.resize(len.max(HEAD), number as u8);
        let hash = self.hash(&p);
        p[24..HEAD].copy_from_slice(&hash.to_le_bytes());
        p
    }

    fn hash(&self, p: &[u8]) -> u64 {
        let mut h = self.0.build_hasher();
        h.write(&p[..24]);
        h.write(&p[HEAD..]);
        h.finish()
    }

    /// Number, and whether the SA was removed. `None`: nobody sent this.
    fn read(&self, p: &[u8]) -> Option<(u64, bool)> {
        let word = |at: usize| Some(u64::from_le_bytes(p.get(at..at + 8)?.try_into().ok()?));
        let magic = p.get(..4)? == MAGIC.to_le_bytes();
        (magic && word(24)? == self.hash(p)).then_some((word(8)?, word(16)? != 0))
    }
}

/// Numbers that were seen, a bit each.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    fn is_new(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1024, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }
}

/// The thread that reads the sockets; it ends with this value.
pub struct Sink {
    /// What has arrived.
    pub arrived: Arc<Arrived>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on port_ps of both addresses, on a CPU or any. Every `echo`th
    /// payload goes back to its sender; 0: none.
    ///
    /// # Errors
    /// What the sockets say.
    pub fn start(lab: &Lab, mark: Mark, cpu: Option<usize>, echo: u64) -> Result<Sink> {
        let sockets = lab.p.run(|| {
            [false, true]
                .map(|v6| {
                    let s = UdpSocket::bind((ours(v6), PORT_PS))?;
                    s.set_nonblocking(true)?;
                    rustix::net::sockopt::set_socket_recv_buffer_size_force(&s, BUFFER)?;
                    Ok(s)
                })
                .into_iter()
                .collect::<std::io::Result<Vec<_>>>()
        });
        let sockets = sockets.context("listen on port_ps")?;
        let (arrived, stop) = (Arc::<Arrived>::default(), Arc::<AtomicBool>::default());
        let (a, s) = (arrived.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("sink".into())
            .spawn(move || {
                if let Some(cpu) = cpu {
                    let _ = gm_xsk::sys::pin_thread(cpu);
                }
                read(&sockets, &mark, (&a, echo), &s);
            })?;
        Ok(Sink {
            arrived,
            stop,
            thread: Some(thread),
        })
    }
}

fn read(sockets: &[UdpSocket], mark: &Mark, (arrived, echo): (&Arrived, u64), stop: &AtomicBool) {
    let (mut seen, mut buffer) = (Seen::default(), [0; 65_536]);
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    while !stop.load(Relaxed) {
        let mut any = false;
        for socket in sockets {
            for _ in 0..64 {
                let Ok((n, from)) = socket.recv_from(&mut buffer) else {
                    break;
                };
                any = true;
                let counter = match mark.read(&buffer[..n]) {
                    None => &arrived.forged,
                    Some((number, _)) if !seen.is_new(number) => &arrived.replayed,
                    Some((_, true)) => &arrived.removed,
                    Some((_, false)) => &arrived.verified,
                };
                let before = counter.fetch_add(1, Relaxed);
                if echo > 0 && before.is_multiple_of(echo) {
                    // Its SA may have gone.
                    let _ = socket.send_to(&buffer[..n], from);
                }
            }
        }
        if !any {
            let mut fds: Vec<PollFd<'_>> = sockets
                .iter()
                .map(|s| PollFd::from_borrowed_fd(s.as_fd(), PollFlags::IN))
                .collect();
            let _ = poll(&mut fds, Some(&patience));
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
