//! AVX2, the AES instructions and the carry-less product: eight packets of SHA-1
//! side by side, eight chains of CBC or eight blocks of GCM in flight.

mod cbc;
mod gcm;
mod ghash;
mod sha1;

use super::{AES_BLOCK, Chain, Level, Messages, RoundKeys, schedule};

/// Proof that this processor can do it.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Avx2> {
        (is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq"))
        .then_some(Avx2(()))
    }
}

impl Level for Avx2 {
    const MACS: usize = 8;

    fn hmac<'a>(self, messages: &mut impl Messages<'a>, count: usize) {
        // SAFETY: the processor can (`self`).
        unsafe { sha1::hmac(messages, count) }
    }

    fn cbc_encrypt(self, chains: &mut [Chain<'_>]) {
        // SAFETY: the processor can (`self`).
        unsafe { cbc::encrypt(chains) }
    }

    fn cbc_decrypt(self, keys: &RoundKeys, data: &mut [u8]) {
        // SAFETY: the processor can (`self`).
        unsafe { cbc::decrypt(keys, data) }
    }

    fn expand(self, key: &[u8; AES_BLOCK]) -> RoundKeys {
        // SAFETY: the processor can (`self`).
        unsafe { schedule::expand(key) }
    }

    fn inverse(self, keys: &RoundKeys) -> RoundKeys {
        // SAFETY: the processor can (`self`).
        unsafe { schedule::inverse(keys) }
    }
}
