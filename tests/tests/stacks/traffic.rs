//! Numbered datagrams that keep flowing while something else happens.

use std::net::UdpSocket;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sockets::WAIT;

/// Datagrams under way at most: what a socket's buffer takes at least.
const UNDER_WAY: u64 = 32;

/// One direction between two sockets.
#[derive(Default)]
pub struct Traffic {
    sent: AtomicU64,
    came: AtomicU64,
    stop: AtomicBool,
    /// Between two datagrams.
    pause: Duration,
    seen: Mutex<Vec<bool>>,
}

impl Traffic {
    /// Sends until it is stopped, never more at a time than arrive; any number of threads may.
    pub fn send(&self, from: &UdpSocket, to: &UdpSocket) {
        let to = to.local_addr().unwrap();
        let mut heard = Instant::now();
        let mut known = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let came = self.came.load(Ordering::Relaxed);
            if came != known {
                (known, heard) = (came, Instant::now());
            }
            if self.sent.load(Ordering::Relaxed) >= came + UNDER_WAY {
                if heard.elapsed() > WAIT {
                    // Whoever receives will say what is missing.
                    return;
                }
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            let number = self.sent.fetch_add(1, Ordering::Relaxed);
            // Now and then one that is cut.
            let len = if number % 50 == 49 { 4000 } else { 200 };
            let mut bytes = vec![number as u8; len];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            from.send_to(&bytes, to).unwrap();
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
        }
    }

    /// Receives until it is stopped and all that was sent is there, each once.
    pub fn receive(&self, socket: &UdpSocket) {
        let mut got = [0; 8192];
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let mut heard = Instant::now();
        loop {
            let (came, sent) = (
                self.came.load(Ordering::Relaxed),
                self.sent.load(Ordering::Relaxed),
            );
            match socket.recv(&mut got) {
                Ok(n) => {
                    heard = Instant::now();
                    let number = u64::from_be_bytes(got[..8].try_into().unwrap()) as usize;
                    assert!(got[8..n].iter().all(|b| *b == number as u8));
                    let mut seen = self.seen.lock().unwrap();
                    if seen.len() <= number {
                        seen.resize(number + 1, false);
                    }
                    assert!(!seen[number], "{number} has come twice");
                    seen[number] = true;
                    self.came.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) if self.stop.load(Ordering::Relaxed) && came == sent => return,
                Err(_) if heard.elapsed() > WAIT => panic!("{came} of {sent} have come"),
                Err(_) => {}
            }
        }
    }

    /// How many have come.
    pub fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Waits until so many more have come.
    pub fn wait(&self, more: u64) {
        let (want, end) = (self.came() + more, Instant::now() + 4 * WAIT);
        while self.came() < want {
            assert!(Instant::now() < end, "the traffic stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// No more is sent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Runs `f` while traffic flows both ways between two sockets; what it is given waits until so
/// many more have come, each way. Nothing may get lost.
pub fn during<T>(a: &UdpSocket, b: &UdpSocket, f: impl FnOnce(&dyn Fn(u64)) -> T) -> T {
    during_paced(a, b, Duration::ZERO, f)
}

/// The same with a pause between two datagrams: others want the processor too.
pub fn during_paced<T>(
    a: &UdpSocket,
    b: &UdpSocket,
    pause: Duration,
    f: impl FnOnce(&dyn Fn(u64)) -> T,
) -> T {
    let traffic = || Traffic {
        pause,
        ..Traffic::default()
    };
    let (there, back) = (traffic(), traffic());
    std::thread::scope(|s| {
        s.spawn(|| there.send(a, b));
        s.spawn(|| there.receive(b));
        s.spawn(|| back.send(b, a));
        s.spawn(|| back.receive(a));
        // A panic must end the others too.
        let wait = |more| {
            there.wait(more);
            back.wait(more);
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&wait)));
        there.stop();
        back.stop();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
