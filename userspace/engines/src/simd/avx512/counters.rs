//! GCM's counter blocks, without their nonce.

use core::arch::asm;
use core::arch::x86_64::{__m128i, __m512i, _mm_set_epi32, _mm512_loadu_si512};

use crate::simd::AES_BLOCK;

/// Counters in [`TABLE`]: more than a packet of 4 KiB needs.
const COUNTERS: usize = 264;
/// What comes before counter 0 for the lanes that are left over.
pub(super) const BELOW: usize = 2;

/// Counter blocks without their nonce. To read them is one instruction, to count and to
/// turn their bytes round would be three, for which GCM's loop has no room.
static TABLE: [[u8; AES_BLOCK]; COUNTERS] = {
    let mut table = [[0; AES_BLOCK]; COUNTERS];
    let mut place = BELOW;
    while place < COUNTERS {
        let [a, b, c, d] = ((place - BELOW) as u32).to_be_bytes();
        table[place] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d];
        place += 1;
    }
    table
};

/// Four counter blocks from a place of [`TABLE`] on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn counters(place: usize) -> __m512i {
    match TABLE.get(place..place + 4) {
        // SAFETY: four blocks are read.
        Some(four) => unsafe { _mm512_loadu_si512(four.as_ptr().cast()) },
        None => count((place - BELOW) as u32),
    }
}

/// The counter of the block that masks the tag.
#[inline]
#[target_feature(enable = "sse2")]
pub(super) fn counter_one() -> __m128i {
    _mm_set_epi32(0x0100_0000, 0, 0, 0)
}

/// Four counter blocks without their nonce, the first one's counter being `first`. Rare,
/// and written so that nothing of it is kept in registers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn count(first: u32) -> __m512i {
    // Two registers: what is added, and where the bytes go.
    #[repr(align(64))]
    struct Constants([[u8; 4 * AES_BLOCK]; 2]);
    static CONSTANTS: Constants = {
        let mut registers = [[0; 4 * AES_BLOCK], [0x80; 4 * AES_BLOCK]];
        let mut lane = 0;
        while lane < 4 {
            let end = AES_BLOCK * (lane + 1);
            registers[0][end - 4] = lane as u8;
            let mut byte = 1;
            while byte <= 4 {
                registers[1][end - byte] = 11 + byte as u8;
                byte += 1;
            }
            lane += 1;
        }
        Constants(registers)
    };
    let out;
    // SAFETY: reads two registers of constants, aligned, and computes from registers.
    unsafe {
        asm!(
            "vpbroadcastd {0}, {1:e}",
            "vpaddd {0}, {0}, zmmword ptr [{2}]",
            "vpshufb {0}, {0}, zmmword ptr [{2} + 64]",
            out(zmm_reg) out, in(reg) first, in(reg) &CONSTANTS.0,
            options(readonly, nostack, preserves_flags)
        );
    }
    out
}
