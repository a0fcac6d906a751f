//! Ciphers and MACs for ESP, in batches.
//!
//! An [`Engine`] works on whole ESP packets, from the SPI to the end of the
//! ICV, in place and without allocating. It takes a batch: where the processor
//! has wide registers, HMAC-SHA-1 and AES-CBC are computed over several packets
//! side by side, and AES-GCM and GMAC over several blocks of one. [`best()`] is
//! the fastest that the machine can ([`Level`]); the [`reference()`] engine is
//! made of the RustCrypto crates and is what the others are tested against.
//!
//! ```text
//! | SPI 4 | number 4 | IV 0, 8 or 16 | payload, padding, trailer | ICV 12 or 16 |
//!  <------------------------- Job::esp ---------------------------------------->
//! ```
//!
//! This crate knows bytes and keys. What the bytes mean, numbers, windows and
//! selectors, is gm-esp's.
// Allowed in `simd` alone.
#![deny(unsafe_code)]

mod key;
mod level;
mod reference;
#[cfg(target_arch = "x86_64")]
mod simd;
mod transform;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(not(target_arch = "x86_64"))]
mod wide {
    //! There are no wide engines for this processor.

    /// So there is no key of theirs.
    pub(crate) enum WideKey {}
}

pub use key::{Key, KeyError};
pub use level::{Level, UnknownLevel, best, chosen, force};
pub use transform::{
    HEADER_LEN, MAX_ENCRYPTION_KEY_LEN, MAX_ICV_LEN, MAX_INTEGRITY_KEY_LEN, MAX_IV_LEN, SALT_LEN,
    Transform,
};

/// One packet of a batch.
///
/// No `Debug`: the bytes may be cleartext.
pub struct Job<'a> {
    /// The expanded key of the packet's SA; says the transform too.
    pub key: &'a Key,
    /// The packet from its SPI to the end of its ICV.
    pub esp: &'a mut [u8],
    /// High half of the extended sequence number (RFC 4303 2.2.1) when the SA
    /// has one, else `None`.
    pub seq_hi: Option<u32>,
    /// Set by the engine: sealed, or authentic and decrypted.
    pub ok: bool,
}

/// Seals and opens batches of ESP packets.
///
/// A job never influences another one of its batch, and a bad job is not an
/// error of the batch: it comes back with `ok` false.
pub trait Engine: Send + Sync {
    /// Name for people and benches, for instance `rustcrypto`.
    fn name(&self) -> &'static str;

    /// Encrypts and authenticates in place.
    ///
    /// SPI, number, IV, payload, padding and trailer are there; the engine
    /// encrypts what the transform encrypts and writes the ICV over the last
    /// [`Transform::icv_len`] bytes. `ok` turns false, and the bytes stay as
    /// they were, only when the packet has not [`Transform::fits`] length.
    fn seal(&self, batch: &mut [Job<'_>]);

    /// Verifies and decrypts in place.
    ///
    /// The ICV is compared in constant time; where it differs, `ok` turns false
    /// and the bytes are as they were. So they are when the packet has not
    /// [`Transform::fits`] length.
    fn open(&self, batch: &mut [Job<'_>]);
}

/// The engine made of the RustCrypto crates: right first, on every machine.
pub fn reference() -> &'static dyn Engine {
    &reference::Reference
}
