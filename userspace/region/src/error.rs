//! What can go wrong with shared memory.

use std::io;

/// Why a region cannot be made or adopted.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The kernel refused a call.
    #[error("{call}: {source}")]
    System {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The asked-for sizes are out of bounds.
    #[error(
        "a region has 1 to 2^20 slots, a power of two, and 1 to 128 window words; not {slots} and {window_words}"
    )]
    Sizes {
        /// Slots asked for.
        slots: u32,
        /// Window words asked for.
        window_words: u32,
    },
    /// What is to be adopted is no region of gmesp.
    #[error("this is no gmesp region")]
    Magic,
    /// What is to be adopted has another layout.
    #[error(
        "the region has layout {found}, this program knows {known}: drain it with the version that made it"
    )]
    Version {
        /// In the header.
        found: u32,
        /// Of this program.
        known: u32,
    },
    /// The header contradicts itself or the file.
    #[error("the region's header is damaged: {0}")]
    Damaged(&'static str),
    /// The file could still shrink under the mapping.
    #[error("the region's file is not sealed against changes of its size")]
    NotSealed,
}

/// Why the region's memory could not be locked. It works, but keys could reach
/// swap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot lock the {bytes} bytes of the SA region ({reason}): raise RLIMIT_MEMLOCK above that \
     (ulimit -l, or LimitMEMLOCK= in the unit), or give CAP_IPC_LOCK"
)]
pub struct LockProblem {
    /// Size of the region.
    pub bytes: usize,
    /// What the kernel said.
    pub reason: String,
}

/// Names the call that failed.
pub(crate) fn system(call: &'static str) -> impl FnOnce(rustix::io::Errno) -> RegionError {
    move |errno| RegionError::System {
        call,
        source: errno.into(),
    }
}
