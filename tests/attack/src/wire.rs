//! The generator: one thread that sends for the phones and for the attacker.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gm_xsk::{LinkSocket, Mode, RingSizes, Socket, Umem};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use crate::packet::Frames;

/// Frames that one system call takes.
const CHUNK: usize = 32;

/// Where frames go out.
pub enum Cable {
    /// A packet socket, `sendmmsg`.
    Packet(LinkSocket),
    /// An AF_XDP socket on queue 0, which costs less for each frame.
    Xdp(Box<Mutex<(Umem, Socket)>>),
}

impl Cable {
    /// A packet socket in the calling thread's namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn packet(name: &str) -> io::Result<Cable> {
        LinkSocket::bind(name).map(Cable::Packet)
    }

    /// An AF_XDP socket.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn xdp(name: &str) -> io::Result<Cable> {
        let sizes = RingSizes {
            rx: 64,
            tx: 2048,
            fill: 64,
            completion: 2048,
        };
        let mut umem = Umem::new(sizes.frames() + 2048)?;
        let index = gm_xsk::nic::index(name)?;
        let socket = Socket::bind(&mut umem, index, 0, sizes, Mode::Copy)?;
        Ok(Cable::Xdp(Box::new(Mutex::new((umem, socket)))))
    }

    /// Sends some frames from a place on; how many the device took.
    fn send(&self, frames: &Frames, at: usize, count: usize) -> usize {
        match self {
            Cable::Packet(link) => send_messages(link, frames, at, count),
            Cable::Xdp(both) => {
                let (umem, socket) = &mut *both.lock().unwrap_or_else(PoisonError::into_inner);
                send_descriptors(umem, socket, (frames, at, count))
            }
        }
    }
}

/// A flow of frames at a rate.
pub struct Flow<'a> {
    /// Where they go out.
    pub link: &'a Cable,
    /// What they are; begins again at the end.
    pub frames: &'a Frames,
    /// How many a second.
    pub rate: u64,
}

/// What was sent of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames that were to be sent.
    pub wanted: u64,
    /// Frames that the device took.
    pub sent: u64,
    /// Frames that it refused; each is tried once.
    pub refused: u64,
}

fn send_messages(link: &LinkSocket, frames: &Frames, at: usize, count: usize) -> usize {
    let slices: Vec<[IoSlice<'_>; 1]> = (at..at + count)
        .map(|i| [IoSlice::new(frames.get(i))])
        .collect();
    let mut no_control: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        (0..count).map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<MMsgHdr<'_>> = slices
        .iter()
        .zip(&mut no_control)
        .map(|(slice, control)| MMsgHdr::new(slice, control))
        .collect();
    sendmmsg(link.as_fd(), &mut messages, SendFlags::empty()).unwrap_or(0)
}

fn send_descriptors(
    umem: &mut Umem,
    socket: &mut Socket,
    (frames, at, count): (&Frames, usize, usize),
) -> usize {
    let mut queued = 0;
    for i in at..at + count {
        let Some(mut frame) = umem.alloc() else {
            break;
        };
        let refused = match frame.write(frames.get(i)) {
            true => socket.send(umem, frame).err(),
            false => Some(frame),
        };
        if let Some(frame) = refused {
            umem.free(frame);
            break;
        }
        queued += 1;
    }
    // What it does not take now, it takes with the next ones.
    let _ = socket.flush(umem);
    queued
}

/// Sends both flows for `time`, the phones' packets always first: what the
/// machine has no time for is the flood's loss.
pub fn run(phones: &Flow<'_>, flood: Option<&Flow<'_>>, time: Duration) -> (Sent, Sent) {
    let begin = Instant::now();
    let (mut p, mut f) = (Sent::default(), Sent::default());
    let due = |flow: &Flow<'_>, now: Duration| {
        (now.as_nanos() * u128::from(flow.rate) / 1_000_000_000) as u64
    };
    loop {
        let now = begin.elapsed().min(time);
        p.wanted = due(phones, now);
        let behind = (p.wanted - p.sent - p.refused) as usize;
        if behind > 0 {
            let count = behind.min(CHUNK);
            let sent = phones
                .link
                .send(phones.frames, (p.sent + p.refused) as usize, count);
            p.sent += sent as u64;
            if sent == 0 {
                // A full device: this one frame is lost.
                p.refused += 1;
            }
            continue;
        }
        if now == time {
            break;
        }
        let Some(flow) = flood else {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        };
        f.wanted = due(flow, now);
        if f.wanted > f.sent + f.refused {
            let count = ((f.wanted - f.sent - f.refused) as usize).min(CHUNK);
            let sent = flow
                .link
                .send(flow.frames, (f.sent + f.refused) as usize, count);
            f.sent += sent as u64;
            if sent == 0 {
                f.refused += 1;
            }
        } else {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
    if let Some(flow) = flood {
        f.wanted = due(flow, time);
    }
    (p, f)
}

/// Sends one frame, however often the device says that it is full.
///
/// # Errors
/// What else it says.
pub fn send_one(link: &Cable, frame: &[u8]) -> io::Result<()> {
    let Cable::Packet(link) = link else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    for _ in 0..1000 {
        match link.send(frame) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(105) => {
                std::thread::sleep(Duration::from_micros(100));
            }
            other => return other,
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
