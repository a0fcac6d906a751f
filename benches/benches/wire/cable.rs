//! An AF_XDP socket that sends faster than a worker takes, and one that counts
//! what comes.

use std::io;

use gm_tests::netns::NetNs;
use gm_xsk::{Frame, Mode, RingSizes, Socket, Umem, nic};

/// One end of a cable, queue 0.
pub struct Cable {
    umem: Umem,
    pub socket: Socket,
    came: Vec<Frame>,
}

const RINGS: RingSizes = RingSizes {
    rx: 1024,
    tx: 1024,
    fill: 1024,
    completion: 1024,
};

impl Cable {
    /// Binds to a device of a namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bind(ns: &NetNs, device: &str) -> io::Result<Cable> {
        ns.run(|| {
            let mut umem = Umem::new(RINGS.frames() + 1024)?;
            let socket = Socket::bind(&mut umem, nic::index(device)?, 0, RINGS, Mode::Copy)?;
            Ok(Cable {
                umem,
                socket,
                came: Vec::with_capacity(RINGS.rx as usize),
            })
        })
    }

    /// Sends frames; how many of them the kernel was given.
    ///
    /// # Errors
    /// A device that is down or gone.
    pub fn send<'f>(&mut self, frames: impl Iterator<Item = &'f [u8]>) -> io::Result<usize> {
        let Cable { umem, socket, .. } = self;
        let mut queued = 0;
        for bytes in frames {
            let Some(mut frame) = umem.alloc() else { break };
            let refused = match frame.write(bytes) {
                true => socket.send(umem, frame).err(),
                false => Some(frame),
            };
            if let Some(frame) = refused {
                umem.free(frame);
                break;
            }
            queued += 1;
        }
        socket.flush(umem)?;
        Ok(queued)
    }

    /// Takes what has come; how many frames.
    pub fn take(&mut self) -> usize {
        let Cable { umem, socket, came } = self;
        let count = socket.recv(umem, came, RINGS.rx as usize);
        came.drain(..).for_each(|frame| umem.free(frame));
        count
    }
}
