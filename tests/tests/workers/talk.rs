//! Phones that talk, and a count of what was not answered.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::net::{Net, PORT_PS, PORT_UC, WAIT, pcscf, udp};

/// Phones that say something and are answered, as often as is wanted. A datagram
/// or answer that gets lost is missed, not repeated.
pub struct Talk {
    ps: [UdpSocket; 2],
    phones: Vec<UdpSocket>,
    pub sent: AtomicU64,
    pub answered: AtomicU64,
    stop: AtomicBool,
}

/// Ends the answering, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Datagrams of one phone that are under way at a time.
const WINDOW: usize = 4;

impl Talk {
    pub fn new(net: &Net) -> Talk {
        let bind = |ip: IpAddr, port| {
            let s = udp(ip, port);
            s.set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            s
        };
        let ps = net
            .p
            .ns
            .run(|| [false, true].map(|v6| bind(pcscf(v6), PORT_PS)));
        let phones = net.phones.iter();
        let phones = net
            .u
            .ns
            .run(|| phones.map(|ip| bind(*ip, PORT_UC)).collect());
        Talk {
            ps,
            phones,
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// The length of datagram `n`: most in one piece, some in fragments.
    fn len(n: u32) -> usize {
        match n % 8 {
            7 => 3500,
            n => 40 + 100 * n as usize,
        }
    }

    /// Phone `s` sends one datagram.
    fn say(&self, s: &UdpSocket, n: u32) {
        let mut bytes = vec![n as u8; Talk::len(n)];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        let to = pcscf(s.local_addr().unwrap().is_ipv6());
        // Without a link there is no way.
        if s.send_to(&bytes, (to, PORT_PS)).is_ok() {
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hears answers until none comes for `patience`; how many.
    fn hear(&self, s: &UdpSocket, want: usize, patience: Duration) -> usize {
        let mut got = vec![0; 8192];
        let (mut heard, mut last) = (0, Instant::now());
        while heard < want && last.elapsed() < patience {
            if let Ok(n) = s.recv(&mut got) {
                let number = u32::from_be_bytes(*got.first_chunk().unwrap());
                assert_eq!(n, Talk::len(number), "a piece of something else");
                assert!(got[4..n].iter().all(|b| *b == number as u8));
                self.answered.fetch_add(1, Ordering::Relaxed);
                (heard, last) = (heard + 1, Instant::now());
            }
        }
        heard
    }

    fn answer(&self, s: &UdpSocket) {
        let mut bytes = vec![0; 8192];
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok((n, from)) = s.recv_from(&mut bytes) {
                let _ = s.send_to(&bytes[..n], from);
            }
        }
    }

    /// All phones talk while `f` runs. Whoever misses an answer waits for it as
    /// long as `patience`.
    pub fn during<T>(&self, patience: Duration, f: impl FnOnce() -> T) -> T {
        self.stop.store(false, Ordering::Relaxed);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for s in &self.ps {
                scope.spawn(|| self.answer(s));
            }
            let phones: Vec<_> = self
                .phones
                .iter()
                .map(|s| {
                    let done = &done;
                    scope.spawn(move || {
                        let mut n = 0;
                        while !done.load(Ordering::Relaxed) {
                            for _ in 0..WINDOW {
                                self.say(s, n);
                                n += 1;
                            }
                            self.hear(s, WINDOW, patience);
                        }
                    })
                })
                .collect();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            done.store(true, Ordering::Relaxed);
            let joined: Vec<_> = phones.into_iter().map(|p| p.join()).collect();
            self.stop.store(true, Ordering::Relaxed);
            joined.into_iter().for_each(|p| p.unwrap());
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Every phone says `n` things and hears all answers.
    pub fn rounds(&self, n: u32) {
        self.stop.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for s in &self.ps {
                scope.spawn(|| self.answer(s));
            }
            let _stop = Stop(&self.stop);
            let missing: Vec<_> = self
                .phones
                .iter()
                .filter(|s| {
                    (0..n).for_each(|i| self.say(s, i * 7));
                    self.hear(s, n as usize, WAIT) < n as usize
                })
                .map(|s| s.local_addr())
                .collect();
            assert!(missing.is_empty(), "no answers for {missing:?}");
        });
    }

    /// Datagrams without an answer.
    pub fn missed(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) - self.answered.load(Ordering::Relaxed)
    }
}
