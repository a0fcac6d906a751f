//! AES-128-CBC (RFC 3602) by the AES instructions: eight packets' chains, or
//! eight blocks of one packet, in flight.

use core::arch::x86_64::{
    __m128i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_load_si128, _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
};

use crate::simd::{AES_BLOCK, CbcChains, LANES, RoundKeys};

/// Blocks in flight: as many as hide the latency of a round.
const WIDTH: usize = 8;

/// # Safety
/// The AES instructions; each lane has `blocks` blocks, or is empty.
#[target_feature(enable = "aes,avx2")]
pub(super) unsafe fn encrypt(
    chains: &mut CbcChains,
    lanes: &mut [&mut [u8]; LANES],
    blocks: usize,
) {
    for turn in (0..LANES).step_by(WIDTH) {
        let lanes = &mut lanes[turn..turn + WIDTH];
        if lanes.iter().all(|lane| lane.is_empty()) {
            continue;
        }
        // A lane that rests works on this, again and again.
        let mut rest = [[0; AES_BLOCK]; WIDTH];
        let places: [(*mut u8, usize); WIDTH] =
            core::array::from_fn(|lane| match &mut *lanes[lane] {
                [] => (rest[lane].as_mut_ptr(), 0),
                bytes => (bytes.as_mut_ptr(), AES_BLOCK),
            });
        // SAFETY: of all loads and stores: keys and last blocks are sixteen bytes,
        // aligned to sixteen; block `block` of a lane is there, or its rest.
        unsafe {
            let key = |round: usize, lane: usize| {
                _mm_load_si128(chains.keys[round][turn + lane].as_ptr().cast())
            };
            let mut last: [__m128i; WIDTH] = core::array::from_fn(|lane| {
                _mm_load_si128(chains.last[turn + lane].as_ptr().cast())
            });
            for block in 0..blocks {
                let at = |lane: usize| -> *mut u8 {
                    let (start, stride) = places[lane];
                    start.add(block * stride)
                };
                for (lane, last) in last.iter_mut().enumerate() {
                    let plain = _mm_loadu_si128(at(lane).cast());
                    *last = _mm_xor_si128(*last, _mm_xor_si128(plain, key(0, lane)));
                }
                for round in 1..10 {
                    for (lane, last) in last.iter_mut().enumerate() {
                        *last = _mm_aesenc_si128(*last, key(round, lane));
                    }
                }
                for (lane, last) in last.iter_mut().enumerate() {
                    *last = _mm_aesenclast_si128(*last, key(10, lane));
                    _mm_storeu_si128(at(lane).cast(), *last);
                }
            }
            for (lane, last) in last.into_iter().enumerate() {
                _mm_storeu_si128(chains.last[turn + lane].as_mut_ptr().cast(), last);
            }
        }
    }
}

/// # Safety
/// The AES instructions.
#[target_feature(enable = "aes,avx2")]
pub(super) unsafe fn decrypt(keys: &RoundKeys, iv: &[u8; AES_BLOCK], data: &mut [u8]) {
    // SAFETY: sixteen bytes each, here and below.
    let load = |bytes: &[u8; AES_BLOCK]| unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    let keys: [__m128i; 11] = core::array::from_fn(|round| load(&keys.0[round]));
    let mut before = load(iv);
    let (blocks, _) = data.as_chunks_mut::<AES_BLOCK>();
    for part in blocks.chunks_mut(WIDTH) {
        let mut cipher = [_mm_setzero_si128(); WIDTH];
        for (register, block) in cipher.iter_mut().zip(&*part) {
            *register = load(block);
        }
        let mut plain = cipher.map(|block| _mm_xor_si128(block, keys[0]));
        for key in &keys[1..10] {
            plain = plain.map(|block| _mm_aesdec_si128(block, *key));
        }
        for ((block, plain), cipher) in part.iter_mut().zip(plain).zip(cipher) {
            let block_key = _mm_xor_si128(keys[10], before);
            // SAFETY: sixteen bytes.
            unsafe {
                _mm_storeu_si128(
                    block.as_mut_ptr().cast(),
                    _mm_aesdeclast_si128(plain, block_key),
                );
            }
            before = cipher;
        }
    }
}
