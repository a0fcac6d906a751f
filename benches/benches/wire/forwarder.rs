//! A raw AF_XDP forwarder on gmesp's devices and rings: every frame goes from
//! the uplink to gm0x or back, and nothing is done to it but that it changes
//! its length as ESP would have changed it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use gm_tests::netns::NetNs;
use gm_xsk::{Frame, Mode, RingSizes, Socket, Umem, nic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::WORKER_CPU;
use crate::programs::{Around, Redirect};
use crate::world::{GM0, UPLINK};

/// Name of its thread.
pub const THREAD: &str = "raw-forwarder";

/// As in a lane of gmesp's.
const BATCH: usize = 64;
const RINGS: RingSizes = RingSizes {
    rx: 1024,
    tx: 1024,
    fill: 1024,
    completion: 1024,
};

/// gm0's MTU as gmesp sets it.
const MTU: usize = 4096 - 256 - 320 - 14;

/// Ends with this value.
pub struct Forwarder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    _programs: (Around, Redirect, Redirect),
}

/// What the thread is told.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Bytes that frames lose on the way in and gain on the way out.
    esp: AtomicUsize,
}

impl Forwarder {
    /// Makes gm0 and gm0x in a namespace, attaches the programs, and starts the
    /// thread on [`WORKER_CPU`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn start(ns: &NetNs) -> Result<Forwarder> {
        let gm0x = format!("{GM0}x");
        ns.ip(&format!("link add {GM0} type veth peer name {gm0x}"));
        for name in [GM0, &gm0x] {
            ns.ip(&format!(
                "link set {name} mtu {MTU} arp off multicast off up"
            ));
        }
        ns.run(|| {
            nic::set_tx_checksum(GM0, false)?;
            let mut umem = Umem::new(RINGS.frames() * 2 + 8 * BATCH)?;
            let mut bind = |name: &str| {
                let index = nic::index(name)?;
                Socket::bind(&mut umem, index, 0, RINGS, Mode::Copy)
            };
            let (inside, uplink) = (bind(&gm0x)?, bind(UPLINK)?);
            let programs = (
                Around::attach()?,
                Redirect::attach(&gm0x, inside.as_fd())?,
                Redirect::attach(UPLINK, uplink.as_fd())?,
            );
            let shared = Arc::<Shared>::default();
            let told = shared.clone();
            let run = move || {
                let pinned = gm_xsk::sys::pin_thread(WORKER_CPU);
                Run {
                    umem,
                    uplink,
                    inside,
                    told,
                }
                .run(pinned.is_ok());
            };
            let thread = std::thread::Builder::new().name(THREAD.into()).spawn(run)?;
            Ok(Forwarder {
                shared,
                thread: Some(thread),
                _programs: programs,
            })
        })
        .map_err(|e: anyhow::Error| anyhow!("{e:#}"))
        .context("start the raw forwarder")
    }

    /// Says how many bytes ESP would add to a packet.
    pub fn set_esp(&self, bytes: usize) {
        self.shared.esp.store(bytes, Ordering::Relaxed);
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Run {
    umem: Umem,
    uplink: Socket,
    inside: Socket,
    told: Arc<Shared>,
}

impl Run {
    /// As a worker of gmesp: both queues in turn, then both transmit rings, and
    /// a sleep when there was nothing.
    fn run(mut self, pinned: bool) {
        let mut batch = Vec::with_capacity(BATCH);
        while pinned && !self.told.stop.load(Ordering::Relaxed) {
            let esp = self.told.esp.load(Ordering::Relaxed);
            let Run {
                umem,
                uplink,
                inside,
                ..
            } = &mut self;
            let inward = uplink.recv(umem, &mut batch, BATCH);
            pass(umem, &mut batch, inside, |frame| frame.end() - esp);
            let outward = inside.recv(umem, &mut batch, BATCH);
            pass(umem, &mut batch, uplink, |frame| frame.end() + esp);
            let mut queued = false;
            for socket in [uplink, inside] {
                queued |= socket.flush(umem).is_ok_and(|f| f.queued > 0);
            }
            if inward + outward == 0 {
                self.sleep(queued);
            }
        }
        let Run {
            mut umem,
            uplink,
            inside,
            ..
        } = self;
        uplink.close(&mut umem);
        inside.close(&mut umem);
    }

    fn sleep(&self, queued: bool) {
        // Not longer than until it is to stop.
        let nanos = if queued { 1_000_000 } else { 100_000_000 };
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: nanos,
        };
        let mut fds = [&self.uplink, &self.inside].map(|s| PollFd::new(s, PollFlags::IN));
        let _ = poll(&mut fds, Some(&timeout));
    }
}

fn pass(umem: &mut Umem, batch: &mut Vec<Frame>, to: &mut Socket, end: impl Fn(&Frame) -> usize) {
    for mut frame in batch.drain(..) {
        let (start, end) = (frame.start(), end(&frame));
        if !frame.set_range(start, end) {
            umem.free(frame);
        } else if let Err(frame) = to.send(umem, frame) {
            umem.free(frame);
        }
    }
}
