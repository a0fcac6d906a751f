//! Who seals and opens ESP packets, and the packets they get.
//!
//! Everyone gets the very same [`Work`]: whole ESP packets with their IVs, sealed
//! and opened in place, each for another SA than the one before. What they do is
//! [compared](Work::agree) byte for byte before anything is timed.

mod engine;
mod work;

pub use engine::EngineAt;
pub use work::{Turns, Work};

/// The four suites of TS 33.203 Annex H.
pub use gm_engines::Transform;

/// SAs, and packets of one [`Work`].
pub const SAS: usize = 1024;
/// Packets that are handed over at a time.
pub const BATCH: usize = 64;
/// Lengths of payload, padding and trailer that are compared.
pub const LENGTHS: [usize; 4] = [128, 384, 768, 1424];

/// The suites, in the order of the tables.
pub const SUITES: [Transform; 4] = [
    Transform::HmacSha1Null,
    Transform::HmacSha1AesCbc,
    Transform::NullAesGcm,
    Transform::AesGmacNull,
];

/// As the tables name it.
pub fn suite_name(suite: Transform) -> &'static str {
    match suite {
        Transform::HmacSha1Null => "hmac-sha-1-96",
        Transform::HmacSha1AesCbc => "hmac-sha-1-96 + aes-cbc",
        Transform::NullAesGcm => "aes-gcm",
        Transform::AesGmacNull => "aes-gmac",
        _ => "legacy",
    }
}

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Encrypts, and writes the ICV.
    Seal,
    /// Checks the ICV, and decrypts.
    Open,
}

impl Op {
    /// Both.
    pub const BOTH: [Op; 2] = [Op::Seal, Op::Open];

    /// `seal` or `open`.
    pub const fn name(self) -> &'static str {
        match self {
            Op::Seal => "seal",
            Op::Open => "open",
        }
    }
}

/// The key bytes of one SA; those that a suite does not use mean nothing.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Keys {
    /// Of HMAC-SHA-1; the first 16 of GMAC.
    pub integrity: [u8; 20],
    /// Of AES-CBC and AES-GCM.
    pub encryption: [u8; 16],
    /// Of GCM and GMAC.
    pub salt: [u8; 4],
}

/// A packet on its way through a contestant.
pub struct Packet<'a> {
    /// Which SA it belongs to: a place among the keys.
    pub sa: usize,
    /// From its SPI to the end of its ICV.
    pub esp: &'a mut [u8],
    /// Set by the contestant: sealed, or authentic and decrypted.
    pub ok: bool,
}

/// An implementation with the keys of all SAs of one suite set up.
pub trait Contestant {
    /// For tables and JSON.
    fn name(&self) -> &'static str;

    /// Ways among which the best is to be found; the first is in use.
    fn ways(&self) -> Vec<&'static str> {
        vec![self.name()]
    }

    /// Takes one of [`ways`](Self::ways) by its place.
    fn take(&mut self, _way: usize) {}

    /// Seals or opens at most [`BATCH`] packets.
    fn run(&mut self, op: Op, batch: &mut [Packet<'_>]);
}
