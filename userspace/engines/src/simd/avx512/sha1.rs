//! SHA-1's compression (FIPS 180-4 6.1.2), one computation in each of sixteen
//! lanes of 32 bits.

use core::arch::x86_64::{
    __m512i, _mm_set_epi8, _mm512_add_epi32, _mm512_broadcast_i32x4, _mm512_load_si512,
    _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_rol_epi32, _mm512_set1_epi32,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_store_si512,
    _mm512_storeu_si512, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::simd::rounds::{compress, round, twenty, word};
use crate::simd::{LANES, SHA1_BLOCK, Sha1States};

/// What a lane reads that has nothing to do.
static REST: [u8; SHA1_BLOCK] = [0; SHA1_BLOCK];

/// # Safety
/// AVX-512F, BW and VL; each lane has `blocks` blocks, or is empty.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) unsafe fn blocks(states: &mut Sha1States, lanes: &[&[u8]; LANES], blocks: usize) {
    let mut places = [(REST.as_ptr(), 0); LANES];
    for (place, lane) in places.iter_mut().zip(lanes) {
        if !lane.is_empty() {
            *place = (lane.as_ptr(), SHA1_BLOCK);
        }
    }
    // Words are big-endian (FIPS 180-4 3.1).
    let swap = _mm512_broadcast_i32x4(_mm_set_epi8(
        12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3,
    ));
    let mut state = [_mm512_setzero_si512(); 5];
    for (value, word) in state.iter_mut().zip(&states.0) {
        // SAFETY: the states are 64 bytes a word, aligned to 64.
        *value = unsafe { _mm512_load_si512(word.as_ptr().cast()) };
    }
    for block in 0..blocks {
        let mut words = [_mm512_setzero_si512(); 16];
        for (word, (start, stride)) in words.iter_mut().zip(places) {
            // SAFETY: block `block` of the lane, or REST again and again.
            let bytes = unsafe { _mm512_loadu_si512(start.add(block * stride).cast()) };
            *word = _mm512_shuffle_epi8(bytes, swap);
        }
        compress!(&mut state, transpose(words));
    }
    for (word, value) in states.0.iter_mut().zip(state) {
        // SAFETY: as above.
        unsafe { _mm512_store_si512(word.as_mut_ptr().cast(), value) };
    }
}

/// # Safety
/// AVX-512F and BW; the rest has less than 64 bytes.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn copy_rest(rest: &[u8], block: &mut [u8; SHA1_BLOCK]) {
    let mask = (1_u64 << rest.len()) - 1;
    // SAFETY: the mask leaves out what is behind the rest; a block is written whole.
    unsafe {
        let bytes = _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast());
        _mm512_storeu_si512(block.as_mut_ptr().cast(), bytes);
    }
}

/// From a block a register to a word a register, lane by lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = rows;
    for k in 0..8 {
        pairs[2 * k] = _mm512_unpacklo_epi32(rows[2 * k], rows[2 * k + 1]);
        pairs[2 * k + 1] = _mm512_unpackhi_epi32(rows[2 * k], rows[2 * k + 1]);
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
