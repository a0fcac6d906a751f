//! The ring loop: one pinned thread, one umem, one AF_XDP socket for each
//! queue of the uplink and of gm0x. What happens to packets is in `process`.
//!
//! A worker serves all queues of the uplink, so whatever queue a NIC chooses
//! for a packet, the owner of its SA gets it. (With more workers an SA would
//! keep one owner, and packets that land elsewhere would be handed over:
//! ARCHITECTURE, rule 3.)

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use gm_abi::verdict::Reason;
use gm_xsk::{Frame, Mode, RingSizes, Socket, Umem};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handoff::{Command, Inbox, Order, Report};
use crate::process::{BATCH, Out, Process};
use crate::stats::SocketStats;
use crate::{Error, Event};

/// Milliseconds between looks at old fragments; also the longest sleep.
const TICK: u64 = 1000;

/// Nanoseconds of a sleep while the kernel has not taken all there is to send.
const SHORT: i64 = 1_000_000;

/// Sockets of one worker at most; the socket maps have as many places.
const MAX_SOCKETS: u32 = 64;

/// A socket with the place that it is bound to.
struct Port {
    socket: Socket,
    interface: String,
    queue: u32,
    /// The device refuses to send; said once.
    down: bool,
}

/// The memory and sockets of one worker.
pub(crate) struct Rings {
    umem: Umem,
    uplink: Vec<Port>,
    gm0x: Vec<Port>,
}

/// Where a worker's sockets are.
pub(crate) struct Place {
    pub index: u32,
    pub name: String,
    pub queues: u32,
}

impl Rings {
    /// Binds a socket to each queue.
    pub(crate) fn bind(uplink: Place, gm0x: Place) -> Result<Rings, Error> {
        let sockets = uplink.queues + gm0x.queues;
        if sockets > MAX_SOCKETS {
            return Err(Error::Config(format!(
                "{} has {} receive queues, gmesp takes {}: lower them with `ethtool -L {} combined N`",
                uplink.name,
                uplink.queues,
                MAX_SOCKETS - gm0x.queues,
                uplink.name,
            )));
        }
        // Many queues share the load, and the memory.
        let entries = if sockets > 4 { 512 } else { 1024 };
        let sizes = RingSizes {
            rx: entries,
            tx: entries,
            fill: entries,
            completion: entries,
        };
        let frames = sizes.frames() * sockets as usize + 8 * BATCH;
        let mut umem = Umem::new(frames).map_err(|e| Error::io("map packet memory", e))?;
        let mut ports = |place: &Place| {
            (0..place.queues)
                .map(|queue| {
                    let socket = Socket::bind(&mut umem, place.index, queue, sizes, Mode::Copy)
                        .map_err(|e| bind_error(&place.name, queue, e))?;
                    Ok(Port {
                        socket,
                        interface: place.name.clone(),
                        queue,
                        down: false,
                    })
                })
                .collect::<Result<Vec<_>, Error>>()
        };
        let (uplink, gm0x) = (ports(&uplink)?, ports(&gm0x)?);
        Ok(Rings { umem, uplink, gm0x })
    }

    /// The sockets of the uplink's queues, in order.
    pub(crate) fn uplink_fds(&self) -> impl Iterator<Item = (u32, std::os::fd::BorrowedFd<'_>)> {
        self.uplink.iter().map(|p| (p.queue, p.socket.as_fd()))
    }

    /// The sockets of gm0x's queues, in order.
    pub(crate) fn gm0x_fds(&self) -> impl Iterator<Item = (u32, std::os::fd::BorrowedFd<'_>)> {
        self.gm0x.iter().map(|p| (p.queue, p.socket.as_fd()))
    }
}

fn bind_error(name: &str, queue: u32, e: io::Error) -> Error {
    let what = format!("bind an AF_XDP socket to queue {queue} of {name}");
    match e.raw_os_error() {
        Some(nix::libc::EAFNOSUPPORT) => Error::Kernel {
            what,
            detail: e.to_string(),
        },
        _ => Error::io(what, e),
    }
}

/// Starts a worker. A panic in it ends it, not the process: its sockets close,
/// and XDP drops what it would have steered there.
pub(crate) fn start(
    number: u32,
    cpu: Option<usize>,
    rings: Rings,
    process: Process,
    inbox: Inbox,
) -> Result<JoinHandle<()>, Error> {
    let run = move || {
        if let Some(cpu) = cpu
            && let Err(e) = pin(cpu)
        {
            tracing::warn!(worker = number, cpu, "cannot pin to the CPU: {e}");
        }
        let events = process.ctx.events.clone();
        let worker = Worker {
            rings,
            process,
            inbox,
            out: Out::default(),
            batches: 0,
            packets: 0,
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.run())) {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("panic");
            tracing::error!(
                worker = number,
                "stopped: {text}; protected traffic is dropped from now on"
            );
            let _ = events.try_send(Event::WorkerStopped {
                worker: number,
                why: text.to_owned(),
            });
        }
    };
    std::thread::Builder::new()
        .name(format!("gm-worker-{number}"))
        .spawn(run)
        .map_err(|e| Error::io("start a worker thread", e))
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

struct Worker {
    rings: Rings,
    process: Process,
    inbox: Inbox,
    out: Out,
    batches: u64,
    packets: u64,
}

impl Worker {
    fn run(mut self) {
        let begin = self.process.ctx.begin;
        let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
        let mut looked = 0;
        loop {
            let now = begin.elapsed().as_millis() as u64;
            let packets = self.packets;
            for i in 0..self.rings.uplink.len() {
                let Rings { umem, uplink, .. } = &mut self.rings;
                if uplink[i].socket.recv(umem, &mut batch, BATCH) > 0 {
                    self.seen(batch.len());
                    self.process
                        .inbound(&mut self.rings.umem, &mut batch, &mut self.out, now);
                }
            }
            for i in 0..self.rings.gm0x.len() {
                let Rings { umem, gm0x, .. } = &mut self.rings;
                if gm0x[i].socket.recv(umem, &mut batch, BATCH) > 0 {
                    self.seen(batch.len());
                    self.process
                        .outbound(&mut self.rings.umem, &mut batch, &mut self.out, now);
                }
            }
            let queued = self.transmit();
            if now.saturating_sub(looked) >= TICK {
                looked = now;
                self.process.expire(now);
            }
            while let Ok(order) = self.inbox.orders.try_recv() {
                if self.obey(order) {
                    return self.close();
                }
            }
            if self.packets == packets {
                self.sleep(queued);
            }
        }
    }

    fn seen(&mut self, packets: usize) {
        self.batches += 1;
        self.packets += packets as u64;
    }

    /// Hands what the batch made to the kernel; says whether some of it waits.
    fn transmit(&mut self) -> bool {
        let Rings { umem, uplink, gm0x } = &mut self.rings;
        let counters = &self.process.ctx.counters;
        let mut queued = false;
        for (ports, frames) in [(uplink, &mut self.out.wire), (gm0x, &mut self.out.stack)] {
            // One queue keeps the order; which one is the same to the device.
            let Some(first) = ports.first_mut() else {
                continue;
            };
            for frame in frames.drain(..) {
                if let Err(frame) = first.socket.send(umem, frame) {
                    counters.count(Reason::RingFull);
                    umem.free(frame);
                }
            }
            queued |= first.flush(umem);
        }
        queued
    }

    fn obey(&mut self, order: Order) -> bool {
        let table = &mut self.process.ctx.table;
        let (mut report, mut stop) = (Report::default(), false);
        match order.command {
            Command::Load(entry) => self.process.ctx.load(*entry),
            Command::Activate(slot) => table.activate(slot),
            Command::Deactivate(slot) => table.deactivate(slot),
            Command::Unload(slot) => self.process.ctx.unload(slot),
            Command::Tap(to) => self.process.tap.set(to),
            Command::Report => report = self.report(),
            Command::Stop => stop = true,
        }
        // Whoever asked may have given up.
        let _ = order.done.send(report);
        stop
    }

    fn report(&self) -> Report {
        let Rings { umem, uplink, gm0x } = &self.rings;
        Report {
            sockets: uplink.iter().chain(gm0x).map(Port::stats).collect(),
            frames: umem.frames() as u64,
            frames_free: umem.free_count() as u64,
            frames_leaked: umem.leaked(),
            tap_missed: self.process.tap.missed(),
            batches: self.batches,
            packets: self.packets,
        }
    }

    fn sleep(&self, queued: bool) {
        let timeout = match queued {
            true => Timespec {
                tv_sec: 0,
                tv_nsec: SHORT,
            },
            false => Timespec {
                tv_sec: (TICK / 1000) as i64,
                tv_nsec: 0,
            },
        };
        let ports = self.rings.uplink.iter().chain(&self.rings.gm0x);
        let mut fds: Vec<PollFd<'_>> = ports
            .map(|p| PollFd::new(&p.socket, PollFlags::IN))
            .collect();
        fds.push(PollFd::new(&self.inbox.wake, PollFlags::IN));
        // An interrupted poll is a short one.
        let _ = poll(&mut fds, Some(&timeout));
        if fds.last().is_some_and(|f| !f.revents().is_empty()) {
            self.inbox.quiet();
        }
    }

    fn close(self) {
        let Rings {
            mut umem,
            uplink,
            gm0x,
        } = self.rings;
        for port in uplink.into_iter().chain(gm0x) {
            port.socket.close(&mut umem);
        }
        if umem.leaked() > 0 || umem.outstanding() > 0 {
            tracing::error!(
                leaked = umem.leaked(),
                out = umem.outstanding(),
                "packet frames got lost"
            );
        }
    }
}

impl Port {
    /// Flushes; says whether something waits. A device that is down or gone is
    /// said once; what is queued for it fills the ring and is counted there.
    fn flush(&mut self, umem: &mut Umem) -> bool {
        match self.socket.flush(umem) {
            Ok(flushed) => {
                self.down = false;
                flushed.queued > 0
            }
            Err(e) => {
                if !std::mem::replace(&mut self.down, true) {
                    tracing::warn!(interface = self.interface, "cannot send: {e}");
                }
                false
            }
        }
    }

    fn stats(&self) -> SocketStats {
        let s = self.socket.statistics().unwrap_or_default();
        SocketStats {
            interface: self.interface.clone(),
            queue: self.queue,
            rx_dropped: s.rx_dropped,
            rx_ring_full: s.rx_ring_full,
            fill_ring_empty: s.rx_fill_ring_empty,
            tx_invalid: s.tx_invalid_descs,
        }
    }
}
