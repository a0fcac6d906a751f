//! SHA-1's compression, one computation in each of eight lanes of 32 bits.

use core::arch::asm;
use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castsi256_ps,
    _mm256_cmpeq_epi32, _mm256_loadu_si256, _mm256_movemask_ps, _mm256_or_si256,
    _mm256_permute2x128_si256, _mm256_set_epi8, _mm256_set1_epi32, _mm256_setr_epi32,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::simd::lanes::{At, Begin, begin, hmac};
use crate::simd::rounds::{compress, next, none, round, ten};
use crate::simd::{End, Message, Messages, OUTER, SHA1_BLOCK};

hmac!("avx2", 8);

/// The next block of every lane: word by word, lane by lane.
///
/// # Safety
/// A block can be read at each place with the offset.
// Not inlined: so they come in memory, where a round can use them from; registers
// are too few for them.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn words(at: &[*const u8; 8], offset: usize) -> [__m256i; 16] {
    let mut words = [_mm256_setzero_si256(); 16];
    for (half, words) in words.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut rows = [_mm256_setzero_si256(); 8];
        for (row, at) in rows.iter_mut().zip(at) {
            // SAFETY: the caller's.
            *row = unsafe { _mm256_loadu_si256(at.wrapping_add(offset + 32 * half).cast()) };
        }
        *words = transpose(rows);
    }
    words
}

/// Puts a value in a lane.
#[inline]
#[target_feature(enable = "avx2")]
fn put(word: &mut __m256i, lane: usize, value: u32) {
    *word = take(*word, 1 << lane, _mm256_set1_epi32(value as i32));
}

/// A bit for each lane that has this value.
#[inline]
#[target_feature(enable = "avx2")]
fn equal(word: __m256i, value: u32) -> u32 {
    let equal = _mm256_cmpeq_epi32(word, _mm256_set1_epi32(value as i32));
    _mm256_movemask_ps(_mm256_castsi256_ps(equal)) as u32
}

/// The lanes whose bit is set from `other`.
#[inline]
#[target_feature(enable = "avx2")]
fn take(word: __m256i, which: u32, other: __m256i) -> __m256i {
    let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    let which = _mm256_and_si256(_mm256_set1_epi32(which as i32), bit);
    _mm256_blendv_epi8(word, other, _mm256_cmpeq_epi32(which, bit))
}

fn end(message: &Message<'_>, end: &mut End) -> usize {
    message.end(end)
}

#[inline]
#[target_feature(enable = "avx2")]
fn zero() -> __m256i {
    _mm256_setzero_si256()
}

/// A word of every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn load(word: &[u32; 8]) -> __m256i {
    // SAFETY: reads the 32 bytes of the word.
    unsafe { _mm256_loadu_si256(word.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(word: &mut [u32; 8], value: __m256i) {
    // SAFETY: writes the 32 bytes of the word.
    unsafe { _mm256_storeu_si256(word.as_mut_ptr().cast(), value) };
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
    let mut rows = rows;
    for row in &mut rows {
        *row = _mm256_shuffle_epi8(*row, swap);
    }
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

/// The same, for sums of more than two: the compiler would put what is known last
/// at their beginning, and each round would wait for all of the one before.
#[inline]
#[target_feature(enable = "avx2")]
fn sum(a: __m256i, b: __m256i) -> __m256i {
    let sum;
    // SAFETY: an instruction of this level that only adds registers.
    unsafe {
        asm!(
            "vpaddd {sum}, {a}, {b}",
            a = in(ymm_reg) a,
            b = in(ymm_reg) b,
            sum = lateout(ymm_reg) sum,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
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
