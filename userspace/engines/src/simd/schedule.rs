//! AES-128's key schedule by the AES instructions (FIPS 197 5.2), which take the
//! same time for every key.

use core::arch::x86_64::{
    __m128i, _mm_aesimc_si128, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32,
    _mm_slli_si128, _mm_storeu_si128, _mm_xor_si128,
};

use super::{AES_BLOCK, RoundKeys};

/// One step: the word that the rotation, the S-box and the round constant gave,
/// is added to a running sum of the key before.
#[inline]
#[target_feature(enable = "aes")]
fn step(key: __m128i, assist: __m128i) -> __m128i {
    let mut sum = key;
    for _ in 0..3 {
        sum = _mm_xor_si128(key, _mm_slli_si128::<4>(sum));
    }
    _mm_xor_si128(sum, _mm_shuffle_epi32::<0xff>(assist))
}

#[target_feature(enable = "aes")]
pub(super) fn expand(key: &[u8; AES_BLOCK]) -> RoundKeys {
    let mut keys = RoundKeys([[0; AES_BLOCK]; 11]);
    // SAFETY: reads the sixteen bytes of `key`.
    let mut last = unsafe { _mm_loadu_si128(key.as_ptr().cast()) };
    keys.0[0] = *key;
    macro_rules! rounds {
        ($($round:literal $constant:literal),*) => {$(
            last = step(last, _mm_aeskeygenassist_si128::<$constant>(last));
            // SAFETY: writes the sixteen bytes of one round key.
            unsafe { _mm_storeu_si128(keys.0[$round].as_mut_ptr().cast(), last) };
        )*};
    }
    rounds!(1 0x01, 2 0x02, 3 0x04, 4 0x08, 5 0x10, 6 0x20, 7 0x40, 8 0x80, 9 0x1b, 10 0x36);
    keys
}

#[target_feature(enable = "aes")]
pub(super) fn inverse(keys: &RoundKeys) -> RoundKeys {
    let mut inverse = RoundKeys([[0; AES_BLOCK]; 11]);
    for (round, key) in inverse.0.iter_mut().enumerate() {
        let from = &keys.0[10 - round];
        if round == 0 || round == 10 {
            *key = *from;
            continue;
        }
        // SAFETY: reads and writes the sixteen bytes of one round key.
        unsafe {
            let mixed = _mm_aesimc_si128(_mm_loadu_si128(from.as_ptr().cast()));
            _mm_storeu_si128(key.as_mut_ptr().cast(), mixed);
        }
    }
    inverse
}
