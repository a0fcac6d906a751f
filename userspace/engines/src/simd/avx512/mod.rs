//! AVX-512 with the vector forms of AES and of the carry-less product: sixteen
//! packets of SHA-1 or CBC side by side, four AES blocks in a register.

mod cbc;
mod counters;
mod gcm;
mod ghash;
mod order;
mod pipe;
mod quad;
mod row;
mod sha1;

use super::{AES_BLOCK, Chain, Level, Messages, RoundKeys, schedule};

/// Proof that this processor can do it.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// Asks the processor.
    pub(crate) fn detect() -> Option<Avx512> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq"))
        .then_some(Avx512(()))
    }
}

impl Level for Avx512 {
    const MACS: usize = 16;

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
