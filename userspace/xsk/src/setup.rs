//! How a socket comes about: sizes, mode, registration of the memory, binding.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{self, sockopt};

use crate::frame::FRAME_SIZE;
use crate::umem::Umem;

/// How often and after which pauses a busy queue is tried again: a second in
/// all.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// How packets get between the device and the frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies. Works with every device.
    #[default]
    Copy,
    /// The device reads and writes the frames where its driver can, else as
    /// [`Mode::Copy`].
    Auto,
}

/// Entries of the four rings, each a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingSizes {
    /// Received packets not yet fetched.
    pub rx: u32,
    /// Packets to be sent that the kernel has not yet taken.
    pub tx: u32,
    /// Empty frames for packets to come.
    pub fill: u32,
    /// Sent frames not yet fetched. At least `tx`.
    pub completion: u32,
}

impl Default for RingSizes {
    fn default() -> Self {
        RingSizes {
            rx: 2048,
            tx: 2048,
            fill: 2048,
            completion: 2048,
        }
    }
}

impl RingSizes {
    /// The most frames that a socket with these rings can have with the kernel;
    /// a [`Umem`] wants this for each socket and some for the program on top.
    pub fn frames(&self) -> usize {
        self.rx as usize + self.fill as usize + self.completion as usize
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        let sizes = [self.rx, self.tx, self.fill, self.completion];
        let good = sizes.iter().all(|n| n.is_power_of_two() && *n <= 1 << 20)
            && self.completion >= self.tx;
        let what = "ring sizes are powers of two up to 2^20, completion not below tx";
        if good {
            Ok(())
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    }
}

/// Tells the kernel of the umem's memory. No headroom of ours: the kernel
/// leaves XDP_PACKET_HEADROOM, 256 bytes, in front by itself.
pub(crate) fn register(fd: &OwnedFd, umem: &Umem) -> io::Result<()> {
    let (addr, len) = umem.area();
    let reg = XdpUmemReg {
        addr: addr as u64,
        len: len as u64,
        chunk_size: FRAME_SIZE as u32,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(fd, reg)?;
    Ok(())
}

/// Copies that the kernel makes for sending are charged to the socket; with the
/// default limit it takes some hundred packets and then says "not now". Best
/// effort: beyond the system's limit it needs CAP_NET_ADMIN.
pub(crate) fn allow_in_flight(fd: &OwnedFd, packets: u32) {
    let bytes = packets as usize * 2 * FRAME_SIZE;
    let _ = sockopt::set_socket_send_buffer_size_force(fd, bytes)
        .or_else(|_| sockopt::set_socket_send_buffer_size(fd, bytes));
}

/// Packets that the kernel is asked to take at a kick in copy mode.
const TX_BUDGET: u32 = 256;

/// A whole burst at one kick. Best effort: before Linux 6.17 the kernel takes
/// 32, and several kicks do the same.
pub(crate) fn allow_bursts(fd: &OwnedFd, tx: u32) {
    let _ = crate::sockopt::set_tx_budget(fd.as_fd(), TX_BUDGET.min(tx));
}

pub(crate) fn flags(mode: Mode, shared: bool) -> SocketAddrXdpFlags {
    match mode {
        // Mode and wake-up flag are those of the registration; saying them
        // again is an error.
        _ if shared => SocketAddrXdpFlags::XDP_SHARED_UMEM,
        Mode::Copy => SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP,
        Mode::Auto => SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP,
    }
}

/// The kernel lets go of a closed socket's queue a little later; until then the
/// queue is busy.
pub(crate) fn bind_patiently(
    fd: &OwnedFd,
    addr: SocketAddrXdp,
    anchor: Option<&OwnedFd>,
) -> io::Result<()> {
    let once = || match anchor {
        Some(anchor) => {
            let (addr, shared_umem_fd) = (addr.clone(), anchor.as_fd());
            net::bind(
                fd,
                &SocketAddrXdpWithSharedUmem {
                    addr,
                    shared_umem_fd,
                },
            )
        }
        None => net::bind(fd, &addr),
    };
    for _ in 0..BUSY_TRIES {
        match once() {
            Err(Errno::BUSY) => std::thread::sleep(BUSY_PAUSE),
            other => return Ok(other?),
        }
    }
    Ok(once()?)
}
