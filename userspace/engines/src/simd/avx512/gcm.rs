//! AES-128-GCM and GMAC (NIST SP 800-38D): the key, and the way to a packet's
//! [row](super::row).

use core::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_loadu_si128, _mm_set_epi64x,
    _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Avx512;
use super::ghash::{Power, multiply};
use super::row::rows;
use crate::simd::gcm::{Gcm, Work, polyval_key};
use crate::simd::{AES_BLOCK, RoundKeys, schedule};

/// Registers between two reductions; a multiple of those that go through AES
/// together.
pub(super) const STRIDE: usize = 8;

/// Round keys and powers of the hash key. Not at the beginning of a cache line:
/// nearly all of it is read in pieces that lie within one anyway, and an
/// allocator takes much more for what has to begin there.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct GcmKey {
    pub(super) keys: RoundKeys,
    /// For the last register: the fourth, third, second and first power.
    pub(super) last: [[u8; AES_BLOCK]; 4],
    /// For the registers before it, the last one's comes last: 32nd, 28th, ... 4th.
    pub(super) powers: [Power; STRIDE],
}

const _: () = assert!(size_of::<GcmKey>() == 27 * 16);

impl Gcm for Avx512 {
    type Key = GcmKey;

    fn gcm_key(self, key: &[u8; AES_BLOCK]) -> GcmKey {
        // SAFETY: the processor can (`self`).
        unsafe { expand(key) }
    }

    fn gcm<'a, const WAY: u8>(self, works: &mut impl Iterator<Item = Work<'a, GcmKey>>) -> u64 {
        // SAFETY: the processor can (`self`).
        unsafe { rows::<WAY>(works) }
    }
}

/// A block in a register and back.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn load(block: &[u8; AES_BLOCK]) -> __m128i {
    // SAFETY: sixteen bytes are read.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn store(value: __m128i) -> [u8; AES_BLOCK] {
    let mut block = [0; AES_BLOCK];
    // SAFETY: sixteen bytes are written.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
    block
}

/// A number in a register.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn number(v: u128) -> __m128i {
    _mm_set_epi64x((v >> 64) as i64, v as i64)
}

/// One block through AES.
#[inline]
#[target_feature(enable = "aes,sse2")]
pub(super) fn encrypt(keys: &RoundKeys, block: __m128i) -> __m128i {
    let mut block = _mm_xor_si128(block, load(&keys.0[0]));
    for key in &keys.0[1..10] {
        block = _mm_aesenc_si128(block, load(key));
    }
    _mm_aesenclast_si128(block, load(&keys.0[10]))
}

/// In the place of a key where there is none.
pub(super) static NO_KEY: GcmKey = GcmKey {
    keys: RoundKeys([[0; AES_BLOCK]; 11]),
    last: [[0; AES_BLOCK]; 4],
    powers: [Power::ZERO; STRIDE],
};

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
fn expand(key: &[u8; AES_BLOCK]) -> GcmKey {
    let mut expanded = GcmKey {
        keys: schedule::expand(key),
        last: [[0; AES_BLOCK]; 4],
        powers: [Power::ZERO; STRIDE],
    };
    let first = number(polyval_key(store(encrypt(
        &expanded.keys,
        _mm_setzero_si128(),
    ))));
    let mut power = first;
    for place in expanded.last.iter_mut().rev() {
        *place = store(power);
        power = multiply(power, first);
    }
    let fourth = load(&expanded.last[0]);
    power = fourth;
    for place in expanded.powers.iter_mut().rev() {
        *place = Power::of(u128::from_le_bytes(store(power)));
        power = multiply(power, fourth);
    }
    expanded
}
