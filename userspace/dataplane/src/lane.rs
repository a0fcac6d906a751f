//! A lane: queues of the uplink and one of gm0x over one piece of memory.
//! What comes in on a lane leaves on it, so no frame ever changes its memory,
//! and a lane goes from worker to worker as a whole.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use gm_abi::verdict::Reason;
use gm_xsk::{Frame, Mode, RingSizes, Socket, Umem};

use crate::Error;
use crate::process::{BATCH, Out};
use crate::routes::MAX_WORKERS;
use crate::stats::{Counters, SocketStats};

/// Queues of the uplink at most: places in the map XSK_UPLINK.
const MAX_QUEUES: u32 = 64;

/// An interface and its queues.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub index: u32,
    pub name: String,
    /// Receive queues.
    pub rx: u32,
    /// Transmit queues.
    pub tx: u32,
}

impl Place {
    /// Asks the kernel, in the calling thread's network namespace.
    pub(crate) fn of(index: u32, name: &str) -> Result<Place, Error> {
        let e = |e| Error::io(format!("count the queues of {name}"), e);
        Ok(Place {
            index,
            name: name.to_owned(),
            rx: gm_xsk::nic::rx_queues(name).map_err(e)?,
            tx: gm_xsk::nic::tx_queues(name).map_err(e)?,
        })
    }

    /// How many lanes an uplink makes: each has a queue to send on.
    ///
    /// # Errors
    /// More receive queues than there may be sockets.
    pub(crate) fn lanes(&self) -> Result<u32, Error> {
        if self.rx > MAX_QUEUES {
            return Err(Error::Config(format!(
                "{0} has {1} receive queues, gmesp takes {MAX_QUEUES}: lower them with `ethtool -L {0} combined N`",
                self.name, self.rx,
            )));
        }
        Ok(self.rx.min(self.tx).clamp(1, MAX_WORKERS as u32))
    }
}

/// A socket with the place that it is bound to.
pub(crate) struct Port {
    pub socket: Socket,
    interface: String,
    queue: u32,
    /// The device refuses to send; said once.
    down: bool,
}

impl Port {
    fn bind(umem: &mut Umem, place: &Place, queue: u32, sizes: RingSizes) -> Result<Port, Error> {
        let socket = Socket::bind(umem, place.index, queue, sizes, Mode::Copy)
            .map_err(|e| bind_error(&place.name, queue, e))?;
        Ok(Port {
            socket,
            interface: place.name.clone(),
            queue,
            down: false,
        })
    }

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

/// Memory, sockets, and what waits to be sent on them.
pub(crate) struct Lane {
    pub number: u32,
    pub umem: Umem,
    /// Queue `number` of the uplink, to send on as well, and the queues beyond
    /// the last lane that fall to this one. None while the uplink is gone.
    pub uplink: Vec<Port>,
    pub gm0x: Vec<Port>,
    /// Index of the uplink that it is bound to.
    pub uplink_index: u32,
    pub out: Out,
    sizes: RingSizes,
    /// The uplink's driver is made to look for packets.
    polls: bool,
}

/// Entries of each ring: many lanes share the memory, 170 MB in all at most.
fn entries(lanes: u32, ports: u32) -> u32 {
    match lanes.max(ports) {
        0..=2 => 1024,
        3..=8 => 512,
        9..=16 => 256,
        _ => 128,
    }
}

/// Queues of the uplink that a lane serves.
fn queues(lane: u32, lanes: u32, rx: u32) -> impl Iterator<Item = u32> {
    (lane..rx).step_by(lanes.max(1) as usize)
}

impl Lane {
    /// Binds lane `number` of `lanes`.
    ///
    /// # Errors
    /// What the kernel refuses, by interface and queue.
    pub(crate) fn bind(
        number: u32,
        lanes: u32,
        uplink: &Place,
        gm0x: &Place,
    ) -> Result<Lane, Error> {
        let most = uplink.rx.div_ceil(lanes.max(1)).max(1);
        let entries = entries(lanes, uplink.rx);
        let sizes = RingSizes {
            rx: entries,
            tx: entries,
            fill: entries,
            completion: entries,
        };
        let frames = sizes.frames() * (most as usize + 1) + 8 * BATCH;
        let mut umem = Umem::new(frames).map_err(|e| Error::io("map packet memory", e))?;
        // gm0x first: its socket registers the memory, and it stays when the
        // uplink goes.
        let gm0x = Port::bind(&mut umem, gm0x, number, sizes)?;
        let mut lane = Lane {
            number,
            umem,
            uplink: Vec::new(),
            gm0x: vec![gm0x],
            uplink_index: 0,
            out: Out::default(),
            sizes,
            polls: false,
        };
        lane.bind_uplink(lanes, uplink)?;
        Ok(lane)
    }

    /// Binds the lane to an uplink that has come back; what was bound to it
    /// before is closed.
    ///
    /// # Errors
    /// As [`Lane::bind`]; the lane has no uplink then.
    pub(crate) fn bind_uplink(&mut self, lanes: u32, uplink: &Place) -> Result<(), Error> {
        self.leave_uplink();
        self.uplink_index = uplink.index;
        for queue in queues(self.number, lanes, uplink.rx) {
            let port = Port::bind(&mut self.umem, uplink, queue, self.sizes)?;
            self.uplink.push(port);
        }
        Ok(())
    }

    /// Closes the sockets of an uplink that is gone.
    pub(crate) fn leave_uplink(&mut self) {
        self.uplink_index = 0;
        for port in self.uplink.drain(..) {
            port.socket.close(&mut self.umem);
        }
        for frame in self.out.wire.drain(..) {
            self.umem.free(frame);
        }
    }

    /// The sockets of the uplink's queues.
    pub(crate) fn uplink_fds(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.uplink.iter().map(|p| (p.queue, p.socket.as_fd()))
    }

    /// The socket of gm0x's queue.
    pub(crate) fn gm0x_fds(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.gm0x.iter().map(|p| (p.queue, p.socket.as_fd()))
    }

    /// Fetches a batch from queue `i` of the uplink, or behind them of gm0x.
    /// Whether it is the uplink's; `None`: nothing is there.
    pub(crate) fn recv(&mut self, i: usize, batch: &mut Vec<Frame>) -> Option<bool> {
        let is_uplink = i < self.uplink.len();
        let port = match is_uplink {
            true => self.uplink.get_mut(i),
            false => self.gm0x.get_mut(i - self.uplink.len()),
        }?;
        (port.socket.recv(&mut self.umem, batch, BATCH) > 0).then_some(is_uplink)
    }

    /// Sockets.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &Port> {
        self.uplink.iter().chain(&self.gm0x)
    }

    /// Prefers busy polling on the uplink, or no more on sockets to come (0).
    /// What a kernel refuses is said once; spinning without it is of use too.
    pub(crate) fn prefer_busy_poll(&mut self, us: u32) {
        self.polls = us > 0;
        let each = |p: &Port| p.socket.prefer_busy_poll(us, BATCH as u16);
        if self.polls
            && let Err(e) = self.uplink.iter().try_for_each(each)
        {
            self.polls = false;
            tracing::warn!(lane = self.number, "the driver is not polled: {e}");
        }
    }

    /// Lets the uplink's driver look for packets, where that is preferred.
    pub(crate) fn busy_poll(&self) {
        if self.polls {
            self.uplink.iter().for_each(|p| p.socket.poll_device());
        }
    }

    /// Whether a device refuses to send, so that something may wait on its ring.
    pub(crate) fn is_down(&self) -> bool {
        self.ports().any(|p| p.down)
    }

    /// Number of sockets.
    pub(crate) fn len(&self) -> usize {
        self.uplink.len() + self.gm0x.len()
    }

    /// Hands what was made to the kernel; says whether some of it waits there.
    /// With `hold` the kernel is not told (a test's fault).
    pub(crate) fn transmit(&mut self, counters: &Counters, hold: bool) -> bool {
        let Lane {
            umem,
            uplink,
            gm0x,
            out,
            ..
        } = self;
        let mut queued = false;
        for (ports, frames) in [(uplink, &mut out.wire), (gm0x, &mut out.stack)] {
            // One queue keeps the order.
            let Some(first) = ports.first_mut() else {
                for frame in frames.drain(..) {
                    counters.count(Reason::RingFull);
                    umem.free(frame);
                }
                continue;
            };
            for frame in frames.drain(..) {
                if let Err(frame) = first.socket.send(umem, frame) {
                    counters.count(Reason::RingFull);
                    umem.free(frame);
                }
            }
            queued |= hold || first.flush(umem);
        }
        queued
    }

    /// Takes back every frame that a worker had in hand when it died. False:
    /// some of them may still be somewhere, and the lane is not to be used.
    pub(crate) fn salvage(&mut self) -> bool {
        self.out = Out::default();
        self.umem.take_dropped()
    }

    /// Closes the sockets and says whether all frames have come back.
    pub(crate) fn close(self) {
        let Lane {
            mut umem,
            uplink,
            gm0x,
            out,
            number,
            ..
        } = self;
        for frame in out.wire.into_iter().chain(out.stack) {
            umem.free(frame);
        }
        for port in uplink.into_iter().chain(gm0x) {
            port.socket.close(&mut umem);
        }
        if umem.leaked() > 0 || umem.outstanding() > 0 {
            tracing::error!(
                lane = number,
                leaked = umem.leaked(),
                out = umem.outstanding(),
                "packet frames got lost"
            );
        }
    }

    /// How its sockets are.
    pub(crate) fn stats(&self) -> impl Iterator<Item = SocketStats> {
        self.ports().map(Port::stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rx: u32, tx: u32) -> Place {
        Place {
            index: 1,
            name: "eth9".into(),
            rx,
            tx,
        }
    }

    #[test]
    fn every_queue_has_one_lane_and_every_lane_a_queue_to_send_on() {
        for (rx, tx, want) in [(1, 1, 1), (4, 4, 4), (4, 1, 1), (2, 8, 2), (64, 64, 32)] {
            let lanes = place(rx, tx).lanes().unwrap();
            assert_eq!(lanes, want);
            let mut all: Vec<u32> = (0..lanes).flat_map(|l| queues(l, lanes, rx)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..rx).collect::<Vec<_>>());
            for lane in 0..lanes {
                assert_eq!(queues(lane, lanes, rx).next(), Some(lane));
                assert!(lane < tx);
            }
        }
        let refused = place(65, 65).lanes().unwrap_err().to_string();
        assert!(refused.contains("ethtool -L eth9"), "{refused}");
    }

    #[test]
    fn memory_is_bounded_whatever_the_queues() {
        for rx in 1..=MAX_QUEUES {
            for tx in [1, rx] {
                let lanes = place(rx, tx).lanes().unwrap();
                let per_socket = entries(lanes, rx) as usize * 3;
                let sockets = rx.div_ceil(lanes) as usize + 1;
                let frames = lanes as usize * (per_socket * sockets + 8 * BATCH);
                assert!(frames * gm_xsk::FRAME_SIZE <= 256 << 20, "{rx} {tx}");
            }
        }
    }
}
