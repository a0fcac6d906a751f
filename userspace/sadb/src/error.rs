//! Why a command is refused. Nothing has changed then.

use std::net::IpAddr;

use gm_esp::{SaError, Suite};

use crate::types::SetId;

/// Why a command is refused. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SadbError {
    /// No free slot.
    #[error("no slot is free for {wanted} more of {slots} SAs: raise max_sas")]
    Full {
        /// SAs wanted.
        wanted: usize,
        /// Slots in all.
        slots: u32,
    },
    /// There is no such set.
    #[error("there is no SA set {0}")]
    UnknownSet(SetId),
    /// The number is taken by a set of other SAs.
    #[error("SA set {0} exists with other SAs; remove it first or choose another number")]
    SetExists(SetId),
    /// Zero is no set.
    #[error("an SA set is numbered from 1 on")]
    SetZero,
    /// A set of nothing.
    #[error("SA set {0} has no SAs, or more than 255")]
    Count(SetId),
    /// The set no longer sends.
    #[error("SA set {0} is retired; install a new one")]
    Retired(SetId),
    /// The set still works.
    #[error("SA set {0} is not removed yet; remove it before its slots are released")]
    NotRemoved(SetId),
    /// One of the SAs is none.
    #[error("the SA with SPI {spi}: {reason}")]
    Sa {
        /// Its SPI.
        spi: u32,
        /// What is wrong.
        reason: SaError,
    },
    /// The window does not fit.
    #[error("the SA with SPI {spi} has a replay window of {size}; this region was made for {max}")]
    Window {
        /// Its SPI.
        spi: u32,
        /// Its window.
        size: u32,
        /// The largest window that fits.
        max: u32,
    },
    /// A number that cannot be the first.
    #[error("the SA with SPI {spi} cannot begin with sequence number {first}")]
    FirstSeq {
        /// Its SPI.
        spi: u32,
        /// The number.
        first: u64,
    },
    /// Two SAs of one direction would be found by the same destination and SPI.
    #[error("there is already an SA with SPI {spi} to {dst}")]
    Duplicate {
        /// The SPI.
        spi: u32,
        /// The destination.
        dst: IpAddr,
    },
    /// The SPI is in use as key and nonce go together.
    #[error(
        "SPI {spi} is there twice with one key; {suite} would repeat its nonces: all SPIs of a set \
         must differ"
    )]
    KeyInUse {
        /// The SPI.
        spi: u32,
        /// The suite.
        suite: Suite,
    },
    /// Numbers that were used here before would come again.
    #[error(
        "the SA with SPI {spi} is said to have used fewer sequence numbers than it has used here before: \
         they would repeat, new keys are needed"
    )]
    NumbersBack {
        /// The SPI.
        spi: u32,
    },
    /// What these key and SPI have used leaves no number.
    #[error("key and SPI {spi} have used up their sequence numbers before: new keys are needed")]
    UsedUp {
        /// The SPI.
        spi: u32,
    },
}
