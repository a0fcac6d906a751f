//! RFC 4106 and RFC 4543 on top of the rows of a level.

use subtle::ConstantTimeEq;

use super::key::{GcmKey, GcmSide};
use crate::simd::gcm::{Gcm, Packet};
use crate::transform::HEADER_LEN;

const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;
/// Header and IV: what is before GCM's data, and as long as a block.
const FRONT: usize = HEADER_LEN + IV_LEN;

/// An ESP packet taken apart.
struct Parts<'a> {
    packet: Packet,
    /// What is behind the row's head, with the ICV.
    rest: &'a mut [u8],
}

impl GcmSide {
    /// Encrypts what the transform encrypts and writes the ICV.
    pub(super) fn seal(&self, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
        match self {
            GcmSide::Avx512(key) => key.seal(esp, seq_hi),
            GcmSide::Avx2(key) => key.seal(esp, seq_hi),
        }
    }

    /// Verifies and decrypts; what does not verify is as it was.
    pub(super) fn open(&self, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
        match self {
            GcmSide::Avx512(key) => key.open(esp, seq_hi),
            GcmSide::Avx2(key) => key.open(esp, seq_hi),
        }
    }
}

impl<L: Gcm> GcmKey<L> {
    /// `None` for a packet that is too short, which `fits` has ruled out.
    fn parts<'a>(&self, esp: &'a mut [u8], seq_hi: Option<u32>) -> Option<Parts<'a>> {
        let len = esp.len().checked_sub(ICV_LEN)?;
        let front = u128::from_le_bytes(*esp[..len].first_chunk::<FRONT>()?);
        // SPI, low half of the number and IV, as they are in memory.
        let (spi, low, iv) = (front as u32, (front >> 32) as u32, (front >> 64) as u64);
        let nonce = u128::from(u32::from_le_bytes(self.salt.0)) | u128::from(iv) << 32;
        let long = |hi: u32| u128::from(spi) | u128::from(hi.swap_bytes()) << 32;
        // Where the blocks behind the head begin.
        let mut behind = FRONT;
        let (head, lengths) = match (self.mac_only, seq_hi) {
            // SPI and number, 32 or 64 bits of it (RFC 4106 5).
            (false, None) => (front as u64 as u128, (8, len - FRONT)),
            (false, Some(hi)) => (long(hi) | u128::from(low) << 64, (12, len - FRONT)),
            (true, None) => (front, (len, 0)),
            // The high half goes in between (RFC 4543 3.3), so all blocks begin
            // four bytes earlier.
            (true, Some(hi)) => {
                behind -= 4;
                let rest = u128::from(low) << 64 | u128::from(iv as u32) << 96;
                (long(hi) | rest, (len + 4, 0))
            }
        };
        Some(Parts {
            packet: Packet {
                nonce,
                head,
                lengths,
            },
            rest: esp.get_mut(behind..)?,
        })
    }

    fn seal(&self, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
        let Some(Parts { packet, rest }) = self.parts(esp, seq_hi) else {
            return false;
        };
        let tag = if self.mac_only {
            self.level.gmac(&self.key, packet, rest)
        } else {
            self.level.gcm_seal(&self.key, packet, rest)
        };
        if let Some(icv) = rest.last_chunk_mut::<ICV_LEN>() {
            *icv = tag;
        }
        true
    }

    fn open(&self, esp: &mut [u8], seq_hi: Option<u32>) -> bool {
        let Some(Parts { packet, rest }) = self.parts(esp, seq_hi) else {
            return false;
        };
        if self.mac_only {
            return same(&self.level.gmac(&self.key, packet, rest), rest);
        }
        let tag = self.level.gcm_open(&self.key, packet, rest);
        let ok = same(&tag, rest);
        if !ok {
            // Once more with the same stream of keys is as it was.
            self.level.gcm_open(&self.key, packet, rest);
        }
        ok
    }
}

/// Compares with the ICV at the end in one step, which tells nothing of where
/// they differ.
fn same(tag: &[u8; ICV_LEN], rest: &[u8]) -> bool {
    match rest.last_chunk::<ICV_LEN>() {
        Some(icv) => u128::from_ne_bytes(*tag)
            .ct_eq(&u128::from_ne_bytes(*icv))
            .into(),
        None => false,
    }
}
