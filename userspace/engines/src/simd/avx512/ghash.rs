//! GHASH's arithmetic (NIST SP 800-38D 6.3), computed as POLYVAL over reversed
//! bytes (RFC 8452 appendix A), which is the way round that the carry-less
//! product of the processor has.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_set_epi8, _mm_set_epi64x, _mm_shuffle_epi32,
    _mm_slli_si128, _mm_srli_si128, _mm_xor_si128, _mm256_castsi256_si128,
    _mm256_extracti128_si256, _mm256_xor_si256, _mm512_broadcast_i32x4, _mm512_castsi512_si256,
    _mm512_clmulepi64_epi128, _mm512_extracti64x4_epi64, _mm512_ternarylogic_epi64,
    _mm512_xor_si512,
};

/// Three inputs, added without carry.
const XOR3: i32 = 0x96;

/// The order of bytes that turns a block round.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn reverse() -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ))
}

/// A product in parts that are not yet reduced: 256 bits, the middle ones apart.
#[derive(Clone, Copy)]
pub(super) struct Wide<T> {
    pub(super) low: T,
    pub(super) middle: T,
    pub(super) high: T,
}

/// Reduces by POLYVAL's polynomial, 64 bits at a time from below; so the result
/// is divided by x^128 (RFC 8452 3).
#[inline]
#[target_feature(enable = "pclmulqdq,sse2")]
pub(super) fn reduce(product: Wide<__m128i>) -> __m128i {
    let polynomial = _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1);
    let low = _mm_xor_si128(product.low, _mm_slli_si128::<8>(product.middle));
    let high = _mm_xor_si128(product.high, _mm_srli_si128::<8>(product.middle));
    let fold = |v| {
        let swapped = _mm_shuffle_epi32::<0b01_00_11_10>(v);
        _mm_xor_si128(swapped, _mm_clmulepi64_si128::<0x10>(v, polynomial))
    };
    _mm_xor_si128(high, fold(fold(low)))
}

#[inline]
#[target_feature(enable = "pclmulqdq,sse2")]
pub(super) fn product(a: __m128i, b: __m128i) -> Wide<__m128i> {
    Wide {
        low: _mm_clmulepi64_si128::<0x00>(a, b),
        middle: _mm_xor_si128(
            _mm_clmulepi64_si128::<0x01>(a, b),
            _mm_clmulepi64_si128::<0x10>(a, b),
        ),
        high: _mm_clmulepi64_si128::<0x11>(a, b),
    }
}

#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn add_product(sum: &mut Wide<__m512i>, a: __m512i, b: __m512i) {
    sum.low = _mm512_xor_si512(sum.low, _mm512_clmulepi64_epi128::<0x00>(a, b));
    sum.high = _mm512_xor_si512(sum.high, _mm512_clmulepi64_epi128::<0x11>(a, b));
    sum.middle = _mm512_ternarylogic_epi64::<XOR3>(
        sum.middle,
        _mm512_clmulepi64_epi128::<0x01>(a, b),
        _mm512_clmulepi64_epi128::<0x10>(a, b),
    );
}

/// The sum of a register's four parts.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
pub(super) fn sum(v: __m512i) -> __m128i {
    let two = _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v));
    _mm_xor_si128(
        _mm256_castsi256_si128(two),
        _mm256_extracti128_si256::<1>(two),
    )
}
