//! GHASH's arithmetic (NIST SP 800-38D 6.3), computed as POLYVAL over reversed
//! bytes (RFC 8452 appendix A), which is the way round that the carry-less
//! product of the processor has. Four blocks in a register, each in its lane.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_clmulepi64_si128, _mm_set_epi8, _mm_set_epi64x, _mm_shuffle_epi32,
    _mm_slli_si128, _mm_srli_si128, _mm_xor_si128, _mm512_broadcast_i32x4, _mm512_bslli_epi128,
    _mm512_bsrli_epi128, _mm512_setzero_si512, _mm512_shuffle_epi32, _mm512_ternarylogic_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use zeroize::Zeroize;

use super::order::{product, product_all};

/// The order of bytes that turns a block round.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn reverse() -> __m512i {
    _mm512_broadcast_i32x4(_mm_set_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    ))
}

/// Three inputs, added without carry.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// What reduction multiplies with: POLYVAL's polynomial without its ends.
#[inline]
#[target_feature(enable = "sse2")]
fn polynomial() -> __m128i {
    _mm_set_epi64x(0xc200_0000_0000_0000_u64 as i64, 1)
}

/// The product of two blocks, divided by x^128 as POLYVAL has it.
#[inline]
#[target_feature(enable = "pclmulqdq,sse2")]
pub(super) fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let middle = _mm_xor_si128(
        _mm_clmulepi64_si128::<0x01>(a, b),
        _mm_clmulepi64_si128::<0x10>(a, b),
    );
    let low = _mm_clmulepi64_si128::<0x00>(a, b);
    let high = _mm_clmulepi64_si128::<0x11>(a, b);
    reduce_one(
        _mm_xor_si128(low, _mm_slli_si128::<8>(middle)),
        _mm_xor_si128(high, _mm_srli_si128::<8>(middle)),
    )
}

/// Reduces 256 bits, 64 at a time from below; so the result is divided by x^128
/// (RFC 8452 3).
#[inline]
#[target_feature(enable = "pclmulqdq,sse2")]
fn reduce_one(low: __m128i, high: __m128i) -> __m128i {
    let fold = |v| {
        let swapped = _mm_shuffle_epi32::<0b01_00_11_10>(v);
        _mm_xor_si128(swapped, _mm_clmulepi64_si128::<0x10>(v, polynomial()))
    };
    _mm_xor_si128(high, fold(fold(low)))
}

/// A power of the hash key as Karatsuba's products want it. In words, because the
/// broadcast of a word costs a load and nothing else, that of a block a shuffle too.
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Power {
    low: u64,
    high: u64,
    folded: u64,
}

impl Power {
    pub(super) const ZERO: Power = Power {
        low: 0,
        high: 0,
        folded: 0,
    };

    pub(super) fn of(power: u128) -> Power {
        let (low, high) = (power as u64, (power >> 64) as u64);
        Power {
            low,
            high,
            folded: low ^ high,
        }
    }
}

/// The products of two registers, as [`Sums`] has them.
pub(super) struct Products {
    low: [__m512i; 2],
    middle: [__m512i; 2],
    high: [__m512i; 2],
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero() -> Products {
        let zero = [_mm512_setzero_si512(); 2];
        Products {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// The second step.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn high(mut self, a: __m512i, b: __m512i, [p, q]: [&Power; 2]) -> Products {
        self.high = [
            product_all::<0x01>(a, &p.high),
            product_all::<0x01>(b, &q.high),
        ];
        self
    }

    /// The third one.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn middle(mut self, a: __m512i, b: __m512i, [p, q]: [&Power; 2]) -> Products {
        let halves = _mm512_xor_si512(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        self.middle = [
            product_all::<0x00>(halves, &p.folded),
            product_all::<0x01>(halves, &q.folded),
        ];
        self
    }
}

/// A sum of products that are not reduced yet, lane by lane. Karatsuba's: what
/// is in the middle has the low and the high part in it, too.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn zero() -> Sums {
        let zero = _mm512_setzero_si512();
        Sums {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// `a` and `b` times their powers, in three steps; this is the first one.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn low(a: __m512i, b: __m512i, [p, q]: [&Power; 2]) -> Products {
        Products {
            low: [
                product_all::<0x00>(a, &p.low),
                product_all::<0x00>(b, &q.low),
            ],
            ..Products::zero()
        }
    }

    /// Adds products.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(&mut self, products: Products) {
        let Products { low, middle, high } = products;
        self.low = xor3(self.low, low[0], low[1]);
        self.middle = xor3(self.middle, middle[0], middle[1]);
        self.high = xor3(self.high, high[0], high[1]);
    }

    /// Adds `a` times `power`.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn add_one(&mut self, a: __m512i, power: &Power) {
        let halves = _mm512_xor_si512(a, _mm512_shuffle_epi32::<0b01_00_11_10>(a));
        let low = product_all::<0x00>(a, &power.low);
        let middle = product_all::<0x00>(halves, &power.folded);
        let high = product_all::<0x01>(a, &power.high);
        self.low = _mm512_xor_si512(self.low, low);
        self.middle = _mm512_xor_si512(self.middle, middle);
        self.high = _mm512_xor_si512(self.high, high);
    }

    /// Reduces each lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub(super) fn reduce(self) -> __m512i {
        let middle = xor3(self.middle, self.low, self.high);
        reduce(
            _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(middle)),
            _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(middle)),
        )
    }
}

/// As [`reduce_one`], each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
pub(super) fn reduce(low: __m512i, high: __m512i) -> __m512i {
    let polynomial = _mm512_broadcast_i32x4(polynomial());
    let once = _mm512_xor_si512(
        _mm512_shuffle_epi32::<0b01_00_11_10>(low),
        product::<0x10>(low, polynomial),
    );
    xor3(
        high,
        _mm512_shuffle_epi32::<0b01_00_11_10>(once),
        product::<0x10>(once, polynomial),
    )
}
