//! SHA-1's compression, one computation in each of eight lanes of 32 bits; the
//! sixteen lanes of a level take two turns.

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_loadu_si256,
    _mm256_or_si256, _mm256_permute2x128_si256, _mm256_set_epi8, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_store_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::simd::rounds::{compress, round, twenty, word};
use crate::simd::{LANES, SHA1_BLOCK, Sha1States};

/// Lanes of one turn.
const WIDTH: usize = 8;

/// What a lane reads that has nothing to do.
static REST: [u8; SHA1_BLOCK] = [0; SHA1_BLOCK];

/// # Safety
/// AVX2; each lane has `blocks` blocks, or is empty.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn blocks(states: &mut Sha1States, lanes: &[&[u8]; LANES], blocks: usize) {
    for turn in (0..LANES).step_by(WIDTH) {
        if lanes[turn..turn + WIDTH].iter().all(|lane| lane.is_empty()) {
            continue;
        }
        let places: [(*const u8, usize); WIDTH] =
            core::array::from_fn(|lane| match lanes[turn + lane] {
                [] => (REST.as_ptr(), 0),
                bytes => (bytes.as_ptr(), SHA1_BLOCK),
            });
        let mut state = [_mm256_setzero_si256(); 5];
        for (value, word) in state.iter_mut().zip(&states.0) {
            // SAFETY: the states of eight lanes are 32 bytes a word, aligned to 32.
            *value = unsafe { _mm256_load_si256(word[turn..].as_ptr().cast()) };
        }
        for block in 0..blocks {
            // SAFETY: block `block` of the lane, or REST again and again.
            let half = |offset: usize| unsafe {
                transpose(core::array::from_fn(|lane| {
                    let (start, stride) = places[lane];
                    _mm256_loadu_si256(start.add(block * stride + offset).cast())
                }))
            };
            let mut words = [_mm256_setzero_si256(); 16];
            words[..8].copy_from_slice(&half(0));
            words[8..].copy_from_slice(&half(32));
            compress!(&mut state, words);
        }
        for (word, value) in states.0.iter_mut().zip(state) {
            // SAFETY: as above.
            unsafe { _mm256_store_si256(word[turn..].as_mut_ptr().cast(), value) };
        }
    }
}

/// From half a block a register to a word a register, lane by lane, in the
/// processor's byte order (FIPS 180-4 3.1: words are big-endian).
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let swap = _mm256_set_epi8(
        12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11, 4, 5,
        6, 7, 0, 1, 2, 3,
    );
    let rows = rows.map(|row| _mm256_shuffle_epi8(row, swap));
    let mut pairs = rows;
    for k in 0..4 {
        pairs[2 * k] = _mm256_unpacklo_epi32(rows[2 * k], rows[2 * k + 1]);
        pairs[2 * k + 1] = _mm256_unpackhi_epi32(rows[2 * k], rows[2 * k + 1]);
    }
    let mut fours = pairs;
    for k in [0, 4] {
        fours[k] = _mm256_unpacklo_epi64(pairs[k], pairs[k + 2]);
        fours[k + 1] = _mm256_unpackhi_epi64(pairs[k], pairs[k + 2]);
        fours[k + 2] = _mm256_unpacklo_epi64(pairs[k + 1], pairs[k + 3]);
        fours[k + 3] = _mm256_unpackhi_epi64(pairs[k + 1], pairs[k + 3]);
    }
    // Register k + j has in its part q the words 4q + j of the rows k to k + 3.
    let mut words = fours;
    for j in 0..4 {
        words[j] = _mm256_permute2x128_si256::<0x20>(fours[j], fours[4 + j]);
        words[4 + j] = _mm256_permute2x128_si256::<0x31>(fours[j], fours[4 + j]);
    }
    words
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn xor(a: __m256i, b: __m256i) -> __m256i {
    _mm256_xor_si256(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn rol<const BITS: i32>(a: __m256i) -> __m256i {
    match BITS {
        1 => _mm256_or_si256(_mm256_add_epi32(a, a), _mm256_srli_epi32::<31>(a)),
        5 => _mm256_or_si256(_mm256_slli_epi32::<5>(a), _mm256_srli_epi32::<27>(a)),
        _ => _mm256_or_si256(_mm256_slli_epi32::<30>(a), _mm256_srli_epi32::<2>(a)),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn choice(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(d, _mm256_and_si256(b, xor(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn parity(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(xor(b, c), d)
}

#[inline]
#[target_feature(enable = "avx2")]
fn majority(b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    xor(c, _mm256_and_si256(xor(b, c), xor(c, d)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(word: u32) -> __m256i {
    _mm256_set1_epi32(word as i32)
}
