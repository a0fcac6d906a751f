//! gm-supervisor: hears that a worker has died or that the uplink has gone or
//! come back, and puts it right. It lives in the network namespace of the
//! start, where sockets are bound.

use std::sync::Weak;
use std::time::Duration;

use crossbeam::channel::Receiver;

use crate::Error;
use crate::lane::Lane;
use crate::plane::Inner;

/// What there is to put right.
pub(crate) enum Notice {
    /// A worker has panicked.
    Died {
        worker: u8,
        /// What it said.
        why: String,
        /// Its lanes, with what waits on their rings; not those that it was
        /// in the middle of.
        lanes: Vec<Lane>,
    },
    /// The uplink is gone.
    UplinkGone,
    /// It is back as another device, and XDP is attached to it.
    UplinkBack {
        /// Its index.
        index: u32,
    },
}

/// Something that tests break, by worker.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics at its next batch.
    Panic(u32),
    /// It panics at its next look at the rings, which are lost with it.
    PanicInRings(u32),
    /// It does not tell the kernel of what is to be sent, or does again.
    HoldSends(u32, bool),
    /// All its free frames are taken.
    HoldFrames(u32),
    /// They are given back.
    FreeFrames(u32),
    /// It lies still for so long when its next order comes.
    Hang(u32, Duration),
    /// The map FOREIGN is filled up.
    FillForeign,
    /// What filled it is taken out.
    EmptyForeign,
}

impl Fault {
    /// The worker that it is for.
    pub(crate) fn worker(self) -> Option<u8> {
        match self {
            Fault::Panic(n)
            | Fault::PanicInRings(n)
            | Fault::HoldSends(n, _)
            | Fault::HoldFrames(n)
            | Fault::FreeFrames(n)
            | Fault::Hang(n, _) => u8::try_from(n).ok(),
            Fault::FillForeign | Fault::EmptyForeign => None,
        }
    }
}

/// Starts the thread. It ends with the data plane: when nobody can send it
/// anything any more, or nobody holds the plane.
pub(crate) fn start(notices: Receiver<Notice>, plane: Weak<Inner>) -> Result<(), Error> {
    let run = move || {
        for notice in notices {
            let Some(inner) = plane.upgrade() else { return };
            // Shut down meanwhile: nothing is left to put right.
            let _ = inner.with(|control| {
                control.heard(notice);
                Ok(())
            });
        }
    };
    std::thread::Builder::new()
        .name("gm-supervisor".into())
        .spawn(run)
        .map(drop)
        .map_err(|e| Error::io("start the supervisor thread", e))
}
