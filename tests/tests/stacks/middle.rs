//! A box in the middle of the wire: frames that go in may come out in another order, twice, as
//! others, or not at all.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use gm_abi::wire::{self, IpPacket, L3};
use gm_tests::netns::NetNs;
use gm_xsk::LinkSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The leg of the P-CSCF.
pub const P: usize = 0;
/// The leg of the UE.
pub const U: usize = 1;

/// Frames with the legs that they leave by.
pub type Out = Vec<(usize, Vec<u8>)>;
/// What becomes of a frame that has come in on a leg.
pub type Rule = Box<dyn FnMut(usize, Vec<u8>) -> Out + Send>;

/// A running box. It is gone with this value.
pub struct Middle {
    rule: Arc<Mutex<Rule>>,
    legs: Arc<Vec<LinkSocket>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _ns: NetNs,
}

/// A wire between two legs: what comes in on one goes out on the other.
pub fn wire() -> Rule {
    Box::new(|leg, frame| vec![(1 - leg, frame)])
}

impl Middle {
    /// Between the interfaces of these names in `ns`, as a plain wire.
    pub fn new(ns: NetNs, names: &[&str]) -> Middle {
        let bind = |name: &&str| {
            let leg = LinkSocket::bind(name).unwrap();
            leg.set_receive_buffer(8 << 20).unwrap();
            leg
        };
        let legs: Arc<Vec<_>> = Arc::new(ns.run(|| names.iter().map(bind).collect()));
        let rule = Arc::new(Mutex::new(wire()));
        let stop = Arc::new(AtomicBool::new(false));
        let (legs2, rule2, stop2) = (legs.clone(), rule.clone(), stop.clone());
        let thread = std::thread::spawn(move || run(&legs2, &rule2, &stop2));
        Middle {
            rule,
            legs,
            stop,
            thread: Some(thread),
            _ns: ns,
        }
    }

    /// From now on this.
    pub fn set(&self, rule: impl FnMut(usize, Vec<u8>) -> Out + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// A wire again.
    pub fn clear(&self) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = wire();
    }

    /// Sends a frame of the box's own.
    pub fn inject(&self, leg: usize, frame: &[u8]) {
        send(&self.legs[leg], frame);
    }
}

impl Drop for Middle {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(legs: &[LinkSocket], rule: &Mutex<Rule>, stop: &AtomicBool) {
    let mut buffer = vec![0; 70_000];
    while !stop.load(Ordering::Relaxed) {
        let mut fds: Vec<PollFd<'_>> = legs
            .iter()
            .map(|leg| PollFd::new(leg.as_fd(), PollFlags::POLLIN))
            .collect();
        let _ = poll(&mut fds, PollTimeout::from(20u8));
        for (n, leg) in legs.iter().enumerate() {
            while let Ok(len) = leg.recv(&mut buffer) {
                let mut rule = rule.lock().unwrap_or_else(PoisonError::into_inner);
                for (to, frame) in rule(n, buffer[..len].to_vec()) {
                    send(&legs[to], &frame);
                }
            }
        }
    }
}

/// Like a wire: what does not fit just now waits; what never will is gone.
fn send(leg: &LinkSocket, frame: &[u8]) {
    for _ in 0..1000 {
        match leg.send(frame) {
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(nix::libc::EAGAIN | nix::libc::ENOBUFS)
                ) =>
            {
                std::thread::yield_now();
            }
            _ => return,
        }
    }
}

/// What the parser says of a frame.
pub fn ip_of(frame: &[u8]) -> Option<IpPacket> {
    match wire::parse_frame(frame) {
        L3::Ip(ip) => Some(ip),
        _ => None,
    }
}

/// Whether a frame is a fragment, and then whether it is its datagram's last.
pub fn fragment(frame: &[u8]) -> Option<bool> {
    Some(!ip_of(frame)?.frag?.more)
}

/// Whether a frame carries ESP, raw or in UDP, whole or its first fragment.
pub fn is_esp(frame: &[u8]) -> bool {
    ip_of(frame).is_some_and(|ip| {
        !ip.is_later_fragment()
            && (ip.proto == wire::ESP || ip.ports.is_some_and(|(s, d)| s == 4500 || d == 4500))
    })
}

/// Numbers that look random and are the same each time.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        // Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i + 1);
            items.swap(i, j);
        }
    }
}
