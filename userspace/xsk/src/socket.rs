//! One AF_XDP socket on one queue of one device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, XDP_PGOFF_RX_RING, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING,
    XDP_UMEM_PGOFF_FILL_RING,
};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::frame::{Frame, Shared};
use crate::patience::Patience;
use crate::ring::{Consumer, Desc, Producer};
use crate::setup::{
    Mode, RingSizes, allow_bursts, allow_in_flight, bind_patiently, flags, register,
};
use crate::umem::Umem;

/// What a [`Socket`] has counted, the kernel's part from XDP_STATISTICS.
///
/// AF_XDP drops in silence: an XDP program's redirect has long said success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for other reasons than a full ring; an empty fill ring
    /// and a packet larger than a frame count here.
    pub rx_dropped: u64,
    /// Packets dropped because the receive ring was full.
    pub rx_ring_full: u64,
    /// Times that the kernel found no empty frame.
    pub rx_fill_ring_empty: u64,
    /// Descriptors on the fill ring that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Descriptors on the transmit ring that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Descriptors from the kernel that named no frame it had, and were not
    /// used. Not zero: a bug, or memory that others write.
    pub bad_from_kernel: u64,
    /// Kicks that the kernel answered with "not now".
    pub kicks_refused: u64,
}

/// What a [`Socket::flush`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Frames that came back to the [`Umem`], sent.
    pub completed: usize,
    /// Packets that the kernel has not yet taken from the ring; the next flush
    /// goes on with them.
    pub queued: usize,
}

/// An AF_XDP socket bound to one queue of one device, over the frames of one
/// [`Umem`].
///
/// Every method wants the `Umem` that the socket was bound with; another one
/// is a mistake of the program and panics. [`Socket::close`] gives the frames
/// on its rings back; a socket that is merely dropped keeps them from the
/// `Umem`.
pub struct Socket {
    fill: Producer<u64>,
    completion: Consumer<u64>,
    rx: Consumer<Desc>,
    tx: Producer<Desc>,
    fd: Arc<OwnedFd>,
    umem: NonNull<Shared>,
    number: u16,
    /// Frames on the transmit or completion ring; not above `completion_size`,
    /// so that the kernel never lacks a place for a completion.
    in_flight: u32,
    completion_size: u32,
    bad_from_kernel: u64,
    kicks_refused: u64,
}

// SAFETY: `umem` is only compared, never followed; the rest is Send.
unsafe impl Send for Socket {}

impl Socket {
    /// Binds a socket to `queue` of the device `ifindex` and puts empty frames
    /// on its fill ring, as many as fit or are free.
    ///
    /// Sockets in [`Mode::Copy`] share one registration of the umem; in
    /// [`Mode::Auto`] each has its own, because a shared one has one mode for
    /// all.
    ///
    /// # Errors
    ///
    /// What the kernel said: `ENODEV` no such device, `EINVAL` no such queue or
    /// this umem has a socket there, `EBUSY` another umem has (after a second of
    /// trying: a closed socket's queue is free a little later), `EPERM` needs
    /// CAP_NET_RAW, `ENOBUFS` or `ENOMEM` RLIMIT_MEMLOCK. Nothing is left
    /// behind.
    pub fn bind(
        umem: &mut Umem,
        ifindex: u32,
        queue: u32,
        sizes: RingSizes,
        mode: Mode,
    ) -> io::Result<Socket> {
        sizes.check()?;
        let number = umem
            .next_socket()
            .ok_or_else(|| io::Error::other("too many sockets on one umem"))?;
        let fd = net::socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let anchor = if mode == Mode::Copy {
            umem.anchor.upgrade()
        } else {
            None
        };
        if anchor.is_none() {
            register(&fd, umem)?;
        }
        sockopt::set_xdp_umem_fill_ring_size(&fd, sizes.fill)?;
        sockopt::set_xdp_umem_completion_ring_size(&fd, sizes.completion)?;
        sockopt::set_xdp_rx_ring_size(&fd, sizes.rx)?;
        sockopt::set_xdp_tx_ring_size(&fd, sizes.tx)?;
        allow_in_flight(&fd, sizes.tx);
        allow_bursts(&fd, sizes.tx);
        let at = sockopt::xdp_mmap_offsets(&fd)?;
        let fd = Arc::new(fd);
        let mut socket = Socket {
            fill: Producer::map(fd.as_fd(), XDP_UMEM_PGOFF_FILL_RING, &at.fr, sizes.fill)?,
            completion: Consumer::map(
                fd.as_fd(),
                XDP_UMEM_PGOFF_COMPLETION_RING,
                &at.cr,
                sizes.completion,
            )?,
            rx: Consumer::map(fd.as_fd(), XDP_PGOFF_RX_RING, &at.rx, sizes.rx)?,
            tx: Producer::map(fd.as_fd(), XDP_PGOFF_TX_RING, &at.tx, sizes.tx)?,
            umem: umem.id(),
            number,
            in_flight: 0,
            completion_size: sizes.completion,
            bad_from_kernel: 0,
            kicks_refused: 0,
            fd,
        };
        // Before binding, so that no packet meets an empty ring.
        socket.refill(umem);
        let address = SocketAddrXdp::new(flags(mode, anchor.is_some()), ifindex, queue);
        if let Err(error) = bind_patiently(&socket.fd, address, anchor.as_deref()) {
            socket.close(umem);
            return Err(error);
        }
        if anchor.is_none() && mode == Mode::Copy {
            umem.anchor = Arc::downgrade(&socket.fd);
        }
        Ok(socket)
    }

    /// Puts empty frames on the fill ring until it is full or none is free, and
    /// wakes a driver that waits for them.
    pub fn refill(&mut self, umem: &mut Umem) {
        self.check(umem);
        let mut any = false;
        while self.fill.has_room() {
            let Some(addr) = umem.lend_to_fill(self.number) else {
                break;
            };
            self.fill.push(addr);
            any = true;
        }
        if !any {
            return;
        }
        self.fill.submit();
        if self.fill.needs_wakeup() {
            // Only zero-copy drivers ask for this; a failure shows as an empty
            // fill ring in the statistics.
            let _ = net::recv(&*self.fd, &mut [0u8; 0], RecvFlags::DONTWAIT);
        }
    }

    /// Fetches up to `max` received packets, appends them to `out`, and tops up
    /// the fill ring. The number fetched.
    pub fn recv(&mut self, umem: &mut Umem, out: &mut Vec<Frame>, max: usize) -> usize {
        self.check(umem);
        let before = out.len();
        let (number, bad) = (self.number, &mut self.bad_from_kernel);
        self.rx.drain(max, |desc| {
            match umem.take_received(number, desc.addr, desc.len) {
                Some(frame) => {
                    frame.prefetch();
                    out.push(frame);
                }
                None => *bad += 1,
            }
        });
        self.refill(umem);
        out.len() - before
    }

    /// Queues a packet for sending; [`Socket::flush`] makes the kernel send it.
    ///
    /// # Errors
    ///
    /// The frame comes back when the ring is full, the packet empty, or the
    /// frame another umem's.
    pub fn send(&mut self, umem: &mut Umem, frame: Frame) -> Result<(), Frame> {
        self.check(umem);
        // The kernel never completes a packet without bytes.
        if frame.is_empty() || !umem.owns(&frame) {
            return Err(frame);
        }
        if self.in_flight >= self.completion_size {
            self.complete(umem);
        }
        if self.in_flight >= self.completion_size || !self.tx.has_room() {
            return Err(frame);
        }
        let (addr, len) = umem.lend_to_tx(self.number, frame);
        self.tx.push(Desc {
            addr,
            len,
            options: 0,
        });
        self.in_flight += 1;
        Ok(())
    }

    /// Makes the kernel send what is queued and fetches sent frames back into
    /// the umem. In copy mode the kernel takes a few packets at a time and then
    /// answers "not now"; this kicks until it has taken all or takes no more.
    ///
    /// # Errors
    ///
    /// `ENETDOWN` the device is down, `ENXIO` or `ENODEV` it is gone; what is
    /// queued stays queued. "Not now" in all its forms is no error.
    pub fn flush(&mut self, umem: &mut Umem) -> io::Result<Flushed> {
        self.check(umem);
        self.tx.submit();
        let mut completed = self.complete(umem);
        let mut patience = Patience::new(self.tx.pending());
        while patience.lasts() {
            if self.tx.needs_wakeup() {
                match net::send(&*self.fd, &[], SendFlags::DONTWAIT) {
                    Ok(_) => {}
                    Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => {
                        self.kicks_refused += 1
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            let back = self.complete(umem);
            completed += back;
            patience.kicked(self.tx.pending(), back);
        }
        Ok(Flushed {
            completed,
            queued: patience.left() as usize,
        })
    }

    /// Prefers busy polling for the queue that the socket is bound to: the system
    /// calls on the socket, [`Socket::poll_device`] above all, run the driver's
    /// receive path for up to `us` microseconds and `budget` packets, and the
    /// device's interrupts wait meanwhile where its `napi_defer_hard_irqs` and
    /// `gro_flush_timeout` say so (SO_PREFER_BUSY_POLL, SO_BUSY_POLL,
    /// SO_BUSY_POLL_BUDGET; Linux 5.11).
    ///
    /// # Errors
    ///
    /// `EPERM` without CAP_NET_ADMIN, `ENOPROTOOPT` from a kernel without it.
    pub fn prefer_busy_poll(&self, us: u32, budget: u16) -> io::Result<()> {
        crate::sockopt::prefer_busy_poll(self.fd.as_fd(), us, budget)
    }

    /// Lets the driver look for packets now, where busy polling is preferred;
    /// else it changes nothing.
    pub fn poll_device(&self) {
        let _ = net::recv(&*self.fd, &mut [0u8; 0], RecvFlags::DONTWAIT);
    }

    /// Fetches sent frames back into the umem without a system call.
    pub fn complete(&mut self, umem: &mut Umem) -> usize {
        self.check(umem);
        let (number, bad) = (self.number, &mut self.bad_from_kernel);
        let mut good = 0;
        self.completion
            .drain(usize::MAX, |addr| match umem.take_sent(number, addr) {
                true => good += 1,
                false => *bad += 1,
            });
        self.in_flight -= good;
        good as usize
    }

    /// What was dropped or went wrong so far.
    ///
    /// # Errors
    ///
    /// What `getsockopt` said.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let kernel = sockopt::xdp_statistics(&*self.fd)?;
        Ok(Statistics {
            rx_dropped: kernel.rx_dropped,
            rx_ring_full: kernel.rx_ring_full.unwrap_or(0),
            rx_fill_ring_empty: kernel.rx_fill_ring_empty_descs.unwrap_or(0),
            rx_invalid_descs: kernel.rx_invalid_descs,
            tx_invalid_descs: kernel.tx_invalid_descs,
            bad_from_kernel: self.bad_from_kernel,
            kicks_refused: self.kicks_refused,
        })
    }

    /// Whether the device works on the frames without copying.
    pub fn is_zero_copy(&self) -> bool {
        sockopt::xdp_options(&*self.fd).is_ok_and(|options| !options.is_empty())
    }

    /// Closes the socket and takes all frames on its rings back. Packets not
    /// yet sent are lost.
    pub fn close(self, umem: &mut Umem) {
        self.check(umem);
        let number = self.number;
        // The last owner of the fd: the umem's anchor is weak. With it closed
        // the kernel has let go of the rings.
        drop(self);
        umem.reclaim(number);
    }

    fn check(&self, umem: &Umem) {
        assert!(
            self.umem == umem.id(),
            "a socket was used with another umem than its own"
        );
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.fd)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}
