//! SHA-1's compression (FIPS 180-4 6.1.2), one computation in each of sixteen
//! lanes of 32 bits.

use core::arch::asm;
use core::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_cmpeq_epi32_mask, _mm512_loadu_si512, _mm512_mask_mov_epi32,
    _mm512_mask_set1_epi8, _mm512_mask_set1_epi32, _mm512_maskz_loadu_epi8,
    _mm512_maskz_set1_epi64, _mm512_or_si512, _mm512_permutex2var_epi8, _mm512_rol_epi32,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_ternarylogic_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::simd::lanes::{At, Begin, begin, hmac};
use crate::simd::rounds::{compress, next, none, round, ten};
use crate::simd::{End, Message, Messages, OUTER, SHA1_BLOCK, SHA1_PADDING};

hmac!("avx512f,avx512bw,avx512vl,avx512vbmi", 16);

/// Which bytes of two rows make a register of two words each, turned around: the
/// first two of every four words, and the last two.
static LOW: [u32; 16] = bytes_from(0);
static HIGH: [u32; 16] = bytes_from(8);

const fn bytes_from(first: usize) -> [u32; 16] {
    let mut index = [0; 16];
    let mut word = 0;
    while word < 16 {
        // Bit 6 of a byte says from which row it is.
        let from = (64 * (word % 2) + word / 4 * 16 + first + word / 2 % 2 * 4) as u32;
        index[word] = from << 24 | (from + 1) << 16 | (from + 2) << 8 | (from + 3);
        word += 1;
    }
    index
}

/// The next block of every lane: word by word, lane by lane.
///
/// # Safety
/// A block can be read at each place with the offset.
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
unsafe fn words(at: &[*const u8; 16], offset: usize) -> [__m512i; 16] {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, at) in rows.iter_mut().zip(at) {
        // SAFETY: the caller's.
        *row = unsafe { _mm512_loadu_si512(at.wrapping_add(offset).cast()) };
    }
    transpose(rows)
}

/// Puts a value in a lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn put(word: &mut __m512i, lane: usize, value: u32) {
    *word = _mm512_mask_set1_epi32(*word, 1 << lane, value as i32);
}

/// A bit for each lane that has this value.
#[inline]
#[target_feature(enable = "avx512f")]
fn equal(word: __m512i, value: u32) -> u32 {
    u32::from(_mm512_cmpeq_epi32_mask(
        word,
        _mm512_set1_epi32(value as i32),
    ))
}

/// The lanes whose bit is set from `other`.
#[inline]
#[target_feature(enable = "avx512f")]
fn take(word: __m512i, which: u32, other: __m512i) -> __m512i {
    _mm512_mask_mov_epi32(word, which as u16, other)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn zero() -> __m512i {
    _mm512_setzero_si512()
}

/// A word of every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(word: &[u32; 16]) -> __m512i {
    // SAFETY: reads the 64 bytes of the word.
    unsafe { _mm512_loadu_si512(word.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(word: &mut [u32; 16], value: __m512i) {
    // SAFETY: writes the 64 bytes of the word.
    unsafe { _mm512_storeu_si512(word.as_mut_ptr().cast(), value) };
}

/// [`Message::end`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn end(message: &Message<'_>, end: &mut End) -> usize {
    let (_, rest) = message.parts();
    let place = 1_u64 << (rest.len() % SHA1_BLOCK);
    // SAFETY: the mask leaves out what is behind the rest.
    let bytes = unsafe { _mm512_maskz_loadu_epi8(place - 1, rest.as_ptr().cast()) };
    let to = end.as_mut_ptr();
    if let Some(hi) = message.seq_hi {
        let used = rest.len() % SHA1_BLOCK + 4;
        let len = (used + SHA1_PADDING).next_multiple_of(SHA1_BLOCK);
        // SAFETY: two blocks, each written whole; then within them, for `used` is at
        // most 67, and `len` one of 64 and 128.
        unsafe {
            _mm512_storeu_si512(to.cast(), bytes);
            _mm512_storeu_si512(to.add(SHA1_BLOCK).cast(), _mm512_setzero_si512());
            let hi = u64::from(hi.swap_bytes()) | 0x80 << 32;
            to.add(used - 4).cast::<u64>().write_unaligned(hi.to_le());
            to.add(len - 8)
                .cast::<u64>()
                .write_unaligned(message.bits().to_be());
        }
        return len;
    }
    let mut first = _mm512_mask_set1_epi8(bytes, place, 0x80_u8 as i8);
    // In the last eight bytes of a block.
    let bits = _mm512_maskz_set1_epi64(0x80, message.bits().swap_bytes() as i64);
    let fits = rest.len() + SHA1_PADDING <= SHA1_BLOCK;
    if fits {
        first = _mm512_or_si512(first, bits);
    }
    // SAFETY: two blocks, each written whole.
    unsafe {
        _mm512_storeu_si512(to.cast(), first);
        _mm512_storeu_si512(to.add(SHA1_BLOCK).cast(), bits);
    }
    if fits { SHA1_BLOCK } else { 2 * SHA1_BLOCK }
}

/// From a block a register to a word a register, lane by lane, in the processor's
/// byte order (FIPS 180-4 3.1: words are big-endian).
#[inline]
#[target_feature(enable = "avx512f,avx512vbmi")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let (low, high) = (load(&LOW), load(&HIGH));
    let mut pairs = rows;
    for k in 0..8 {
        pairs[2 * k] = _mm512_permutex2var_epi8(rows[2 * k], low, rows[2 * k + 1]);
        pairs[2 * k + 1] = _mm512_permutex2var_epi8(rows[2 * k], high, rows[2 * k + 1]);
    }
    let mut fours = pairs;
    for k in (0..16).step_by(4) {
        fours[k] = _mm512_unpacklo_epi64(pairs[k], pairs[k + 2]);
        fours[k + 1] = _mm512_unpackhi_epi64(pairs[k], pairs[k + 2]);
        fours[k + 2] = _mm512_unpacklo_epi64(pairs[k + 1], pairs[k + 3]);
        fours[k + 3] = _mm512_unpackhi_epi64(pairs[k + 1], pairs[k + 3]);
    }
    // Register 4k + j has in its part q the words 4q + j of the rows 4k to 4k + 3.
    let mut words = fours;
    for j in 0..4 {
        let even_low = _mm512_shuffle_i32x4::<0x88>(fours[j], fours[4 + j]);
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(fours[j], fours[4 + j]);
        let even_high = _mm512_shuffle_i32x4::<0x88>(fours[8 + j], fours[12 + j]);
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(fours[8 + j], fours[12 + j]);
        words[j] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
        words[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        words[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
        words[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
    words
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(a, b)
}

/// The same, for sums of more than two: the compiler would put what is known last
/// at their beginning, and each round would wait for all of the one before.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum(a: __m512i, b: __m512i) -> __m512i {
    let sum;
    // SAFETY: an instruction of this level that only adds registers.
    unsafe {
        asm!(
            "vpaddd {sum}, {a}, {b}",
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            sum = lateout(zmm_reg) sum,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i) -> __m512i {
    _mm512_xor_si512(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn rol<const BITS: i32>(a: __m512i) -> __m512i {
    _mm512_rol_epi32::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn choice(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xca>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn parity(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0x96>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn majority(b: __m512i, c: __m512i, d: __m512i) -> __m512i {
    _mm512_ternarylogic_epi32::<0xe8>(b, c, d)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn splat(word: u32) -> __m512i {
    _mm512_set1_epi32(word as i32)
}
