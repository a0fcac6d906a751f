//! GHASH's arithmetic (NIST SP 800-38D 6.3), computed as POLYVAL over reversed
//! bytes (RFC 8452 appendix A), which is the way round that the carry-less
//! product of the processor has. One block in a register.

use core::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_set_epi8, _mm_set_epi64x, _mm_setzero_si128,
    _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_slli_si128, _mm_srli_si128, _mm_unpackhi_epi64,
    _mm_unpacklo_epi64, _mm_xor_si128,
};

/// A block turned round.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn reverse(block: __m128i) -> __m128i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm_shuffle_epi8(block, order)
}

/// A sum of products that are not reduced yet. Karatsuba's: what is in the middle
/// has the low and the high part in it, too.
pub(super) struct Sums {
    low: __m128i,
    middle: __m128i,
    high: __m128i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn zero() -> Sums {
        let zero = _mm_setzero_si128();
        Sums {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn add(&mut self, low: __m128i, middle: __m128i, high: __m128i) {
        self.low = _mm_xor_si128(self.low, low);
        self.middle = _mm_xor_si128(self.middle, middle);
        self.high = _mm_xor_si128(self.high, high);
    }

    /// Adds `a` times `powers[0]` and `b` times `powers[1]`; `folded` has the
    /// sum of the halves of each power.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    pub(super) fn add_two(
        &mut self,
        a: __m128i,
        b: __m128i,
        powers: [__m128i; 2],
        folded: __m128i,
    ) {
        let [p, q] = powers;
        let halves = _mm_xor_si128(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
        self.add(
            _mm_clmulepi64_si128::<0x00>(a, p),
            _mm_clmulepi64_si128::<0x00>(halves, folded),
            _mm_clmulepi64_si128::<0x11>(a, p),
        );
        self.add(
            _mm_clmulepi64_si128::<0x00>(b, q),
            _mm_clmulepi64_si128::<0x11>(halves, folded),
            _mm_clmulepi64_si128::<0x11>(b, q),
        );
    }

    /// Adds `a` times `power`; the low half of `folded` has the sum of its halves.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    pub(super) fn add_one(&mut self, a: __m128i, power: __m128i, folded: __m128i) {
        let halves = _mm_xor_si128(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
        self.add(
            _mm_clmulepi64_si128::<0x00>(a, power),
            _mm_clmulepi64_si128::<0x00>(halves, folded),
            _mm_clmulepi64_si128::<0x11>(a, power),
        );
    }

    /// Reduces by POLYVAL's polynomial, 64 bits at a time from below; so the
    /// result is divided by x^128 (RFC 8452 3).
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    pub(super) fn reduce(self) -> __m128i {
        let polynomial = _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1);
        let middle = _mm_xor_si128(self.middle, _mm_xor_si128(self.low, self.high));
        let low = _mm_xor_si128(self.low, _mm_slli_si128::<8>(middle));
        let high = _mm_xor_si128(self.high, _mm_srli_si128::<8>(middle));
        let fold = |v| {
            let swapped = _mm_shuffle_epi32::<0b01_00_11_10>(v);
            _mm_xor_si128(swapped, _mm_clmulepi64_si128::<0x10>(v, polynomial))
        };
        _mm_xor_si128(high, fold(fold(low)))
    }
}
