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
        let busy = lanes[turn..turn + WIDTH]
            .iter()
            .rposition(|lane| !lane.is_empty());
        // SAFETY: the caller's.
        unsafe {
            match busy {
                None => {}
                Some(0..2) => run::<2>(chains, lanes, turn, blocks),
                Some(2..4) => run::<4>(chains, lanes, turn, blocks),
                Some(_) => run::<WIDTH>(chains, lanes, turn, blocks),
            }
        }
    }
}

/// Encrypts in `BUSY` lanes from `turn` on.
///
/// # Safety
/// As for [`encrypt`].
#[inline]
#[target_feature(enable = "aes,avx2")]
unsafe fn run<const BUSY: usize>(
    chains: &mut CbcChains,
    lanes: &mut [&mut [u8]; LANES],
    turn: usize,
    blocks: usize,
) {
    // A lane that rests works on this, again and again.
    let mut rest = [[0; AES_BLOCK]; BUSY];
    let places: [(*mut u8, usize); BUSY] =
        core::array::from_fn(|lane| match &mut *lanes[turn + lane] {
            [] => (rest[lane].as_mut_ptr(), 0),
            bytes => (bytes.as_mut_ptr(), AES_BLOCK),
        });
    // SAFETY: of all loads and stores: keys and last blocks are sixteen bytes,
    // aligned to sixteen; block `block` of a lane is there, or its rest.
    unsafe {
        let key = |round: usize, lane: usize| {
            _mm_load_si128(chains.keys[round][turn + lane].as_ptr().cast())
        };
        let mut last: [__m128i; BUSY] =
            core::array::from_fn(|lane| _mm_load_si128(chains.last[turn + lane].as_ptr().cast()));
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

/// Decrypts what is behind the IV, from the end, so that the block before a block
/// is always as it was.
#[target_feature(enable = "aes,avx2")]
pub(super) fn decrypt(keys: &RoundKeys, data: &mut [u8]) {
    let mut wide = [_mm_setzero_si128(); 11];
    for (wide, key) in wide.iter_mut().zip(&keys.0) {
        *wide = load(key);
    }
    let (blocks, _) = data.as_chunks_mut::<AES_BLOCK>();
    let mut left = blocks.len();
    while left > WIDTH {
        left -= WIDTH;
        if let Some(part) = blocks[left - 1..].first_chunk_mut::<{ WIDTH + 1 }>() {
            together(&wide, part);
        }
    }
    for at in (1..left).rev() {
        if let [before, block] = &mut blocks[at - 1..=at] {
            let mut plain = _mm_xor_si128(load(block), wide[0]);
            for key in &wide[1..10] {
                plain = _mm_aesdec_si128(plain, *key);
            }
            let last = _mm_xor_si128(wide[10], load(before));
            store(block, _mm_aesdeclast_si128(plain, last));
        }
    }
}

/// Decrypts the blocks behind the first one.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn together(keys: &[__m128i; 11], part: &mut [[u8; AES_BLOCK]; WIDTH + 1]) {
    let mut plain = [_mm_setzero_si128(); WIDTH];
    for (plain, block) in plain.iter_mut().zip(&part[1..]) {
        *plain = _mm_xor_si128(load(block), keys[0]);
    }
    for key in &keys[1..10] {
        for plain in &mut plain {
            *plain = _mm_aesdec_si128(*plain, *key);
        }
    }
    for (plain, before) in plain.iter_mut().zip(&*part) {
        *plain = _mm_aesdeclast_si128(*plain, _mm_xor_si128(keys[10], load(before)));
    }
    for (block, plain) in part[1..].iter_mut().zip(plain) {
        store(block, plain);
    }
}

#[inline]
#[target_feature(enable = "aes,avx2")]
fn load(block: &[u8; AES_BLOCK]) -> __m128i {
    // SAFETY: reads the sixteen bytes of the block.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "aes,avx2")]
fn store(block: &mut [u8; AES_BLOCK], value: __m128i) {
    // SAFETY: writes the sixteen bytes of the block.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
}
