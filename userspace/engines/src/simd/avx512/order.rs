//! The instructions that GCM is made of, where they are written: left to itself the
//! compiler puts all AES before all products, and the processor does not look far
//! enough ahead to mend it.

use core::arch::asm;
use core::arch::x86_64::{__m128i, __m512i};

use crate::simd::AES_BLOCK;

/// A round of AES.
#[inline]
#[target_feature(enable = "avx512f,vaes")]
pub(super) fn aes(blocks: __m512i, key: __m512i) -> __m512i {
    let out;
    // SAFETY: computes from registers to a register; not `pure`, so that it stays.
    unsafe {
        asm!(
            "vaesenc {}, {}, {}",
            lateout(zmm_reg) out, in(zmm_reg) blocks, in(zmm_reg) key,
            options(nomem, nostack, preserves_flags)
        );
    }
    out
}

/// The same with one block.
#[inline]
#[target_feature(enable = "avx512f,vaes,aes")]
pub(super) fn aes_one(block: __m128i, key: &[u8; AES_BLOCK]) -> __m128i {
    let out;
    // SAFETY: reads a block that there is; else as above.
    unsafe {
        asm!(
            "vaesenc {}, {}, xmmword ptr [{}]",
            lateout(xmm_reg) out, in(xmm_reg) block, in(reg) key,
            options(readonly, nostack, preserves_flags)
        );
    }
    out
}

/// The carry-less products of two words of each lane; `WORDS` says which, as the
/// instruction does: bit 0 the one of `a`, bit 4 that of `b`.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn product<const WORDS: i32>(a: __m512i, b: __m512i) -> __m512i {
    core::arch::x86_64::_mm512_clmulepi64_epi128::<WORDS>(a, b)
}

/// The products of a word of each lane, as [`product`] chooses it, and of `word`. The
/// broadcast is one of integers, which is twice as fast as that of the floating-point
/// numbers that the compiler would take.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
pub(super) fn product_all<const WORDS: i32>(a: __m512i, word: &u64) -> __m512i {
    let out;
    // SAFETY: reads a word that there is; else as above.
    unsafe {
        asm!(
            "vpbroadcastq {0}, qword ptr [{2}]",
            "vpclmulqdq {0}, {1}, {0}, {3}",
            out(zmm_reg) out, in(zmm_reg) a, in(reg) word, const WORDS,
            options(readonly, nostack, preserves_flags)
        );
    }
    out
}
