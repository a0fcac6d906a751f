//! AES-128-CBC (RFC 3602). Encrypting is a chain, so sixteen packets go side by
//! side, each with its own key; decrypting is not, so many blocks of one do.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm256_castsi128_si256,
    _mm256_inserti128_si256, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_castsi256_si512,
    _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_inserti64x4, _mm512_load_si512,
    _mm512_loadu_si512, _mm512_mask_storeu_epi64, _mm512_maskz_loadu_epi64, _mm512_setzero_si512,
    _mm512_store_si512, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use crate::simd::{AES_BLOCK, CbcChains, LANES, RUN, RoundKeys};

/// Three inputs, added without carry.
const XOR3: i32 = 0x96;

/// A block of four lanes from `lane` on, at an offset.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(at: &[*mut u8; LANES], lane: usize, offset: usize) -> __m512i {
    // SAFETY: the caller's.
    let (a, b, c, d) = unsafe {
        (
            _mm_loadu_si128(at[lane].add(offset).cast()),
            _mm_loadu_si128(at[lane + 1].add(offset).cast()),
            _mm_loadu_si128(at[lane + 2].add(offset).cast()),
            _mm_loadu_si128(at[lane + 3].add(offset).cast()),
        )
    };
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The same the other way.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scatter(at: &[*mut u8; LANES], lane: usize, offset: usize, blocks: __m512i) {
    let parts: [__m128i; 4] = [
        _mm512_castsi512_si128(blocks),
        _mm512_extracti32x4_epi32::<1>(blocks),
        _mm512_extracti32x4_epi32::<2>(blocks),
        _mm512_extracti32x4_epi32::<3>(blocks),
    ];
    for (i, part) in parts.into_iter().enumerate() {
        // SAFETY: the caller's.
        unsafe { _mm_storeu_si128(at[lane + i].add(offset).cast(), part) };
    }
}

/// Rounds whose keys stay in registers; the compiler, which would like to keep more
/// than there are, and move them about, is told that the others are new each time.
const NEAR: usize = 5;

/// # Safety
/// AVX-512F and VAES; each lane has `blocks` blocks, or is empty.
#[target_feature(enable = "avx512f,avx512vl,vaes")]
pub(super) unsafe fn encrypt(
    chains: &mut CbcChains,
    lanes: &mut [&mut [u8]; LANES],
    blocks: usize,
) {
    let busy = lanes.iter().rposition(|lane| !lane.is_empty());
    // SAFETY: the caller's.
    unsafe {
        match busy {
            None => {}
            Some(0..4) => run::<1>(chains, lanes, blocks),
            Some(4..8) => run::<2>(chains, lanes, blocks),
            Some(_) => run::<{ LANES / 4 }>(chains, lanes, blocks),
        }
    }
}

/// Encrypts in as many registers as lanes are busy.
///
/// # Safety
/// As for [`encrypt`]; the lanes behind these are empty.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,vaes")]
unsafe fn run<const GROUPS: usize>(
    chains: &mut CbcChains,
    lanes: &mut [&mut [u8]; LANES],
    blocks: usize,
) {
    // A lane that rests works on this, again and again.
    let rest = &mut chains.rest;
    let mut at = [core::ptr::null_mut::<u8>(); LANES];
    let mut moves = [0; LANES];
    for (lane, bytes) in lanes.iter_mut().enumerate() {
        (at[lane], moves[lane]) = match &mut **bytes {
            [] => (rest[lane].as_mut_ptr(), 0),
            bytes => (bytes.as_mut_ptr(), RUN * AES_BLOCK),
        };
    }
    let mut near = [[_mm512_setzero_si512(); GROUPS]; NEAR];
    let mut last = [_mm512_setzero_si512(); GROUPS];
    // SAFETY: of all loads and stores: keys and last blocks are 64 bytes for four
    // lanes, aligned to 64; block `block` of a lane is there, or its rest.
    unsafe {
        for (keys, from) in near.iter_mut().zip(&chains.keys) {
            for (group, key) in keys.iter_mut().enumerate() {
                *key = _mm512_load_si512(from[4 * group..].as_ptr().cast());
            }
        }
        for (group, last) in last.iter_mut().enumerate() {
            *last = _mm512_load_si512(chains.last[4 * group..].as_ptr().cast());
        }
        for run in (0..blocks).step_by(RUN) {
            for block in 0..RUN.min(blocks - run) {
                let offset = block * AES_BLOCK;
                let far = core::hint::black_box(&chains.keys);
                for (group, last) in last.iter_mut().enumerate() {
                    let plain = gather(&at, 4 * group, offset);
                    *last = _mm512_ternarylogic_epi64::<XOR3>(*last, plain, near[0][group]);
                }
                for round in &near[1..] {
                    for (last, key) in last.iter_mut().zip(round) {
                        *last = _mm512_aesenc_epi128(*last, *key);
                    }
                }
                for round in &far[NEAR..10] {
                    for (group, last) in last.iter_mut().enumerate() {
                        let key = _mm512_load_si512(round[4 * group..].as_ptr().cast());
                        *last = _mm512_aesenc_epi128(*last, key);
                    }
                }
                for (group, last) in last.iter_mut().enumerate() {
                    let key = _mm512_load_si512(far[10][4 * group..].as_ptr().cast());
                    *last = _mm512_aesenclast_epi128(*last, key);
                    scatter(&at, 4 * group, offset, *last);
                }
            }
            for (at, moves) in at.iter_mut().zip(moves) {
                *at = at.wrapping_add(moves);
            }
        }
        for (group, last) in last.into_iter().enumerate() {
            _mm512_store_si512(chains.last[4 * group..].as_mut_ptr().cast(), last);
        }
    }
}

/// Registers of blocks that are decrypted together.
const WIDE: usize = 8;

/// Decrypts what is behind the IV, from the end, so that the block before a block
/// is always as it was.
///
/// # Safety
/// AVX-512F and VAES.
#[target_feature(enable = "avx512f,avx512vl,vaes")]
pub(super) unsafe fn decrypt(keys: &RoundKeys, data: &mut [u8]) {
    let mut wide = [_mm512_setzero_si512(); 11];
    for (wide, key) in wide.iter_mut().zip(&keys.0) {
        // SAFETY: the sixteen bytes of a key.
        *wide = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(key.as_ptr().cast()) });
    }
    let (blocks, _) = data.as_chunks_mut::<AES_BLOCK>();
    let Some(count) = blocks.len().checked_sub(1) else {
        return;
    };
    // SAFETY: the IV is followed by `count` blocks; `whole` of them are left when
    // those behind are done.
    unsafe {
        let first = blocks.as_mut_ptr().add(1);
        let mut whole = count / (4 * WIDE) * (4 * WIDE);
        let (rest, over) = (first.add(whole), count - whole);
        match over.div_ceil(4) {
            0 => {}
            1 => part::<1>(&wide, rest, over),
            2 => part::<2>(&wide, rest, over),
            3 => part::<3>(&wide, rest, over),
            4 => part::<4>(&wide, rest, over),
            5 => part::<5>(&wide, rest, over),
            6 => part::<6>(&wide, rest, over),
            7 => part::<7>(&wide, rest, over),
            _ => part::<8>(&wide, rest, over),
        }
        while whole > 0 {
            whole -= 4 * WIDE;
            part::<WIDE>(&wide, first.add(whole), 4 * WIDE);
        }
    }
}

/// Decrypts `blocks` blocks that need `N` registers.
///
/// # Safety
/// They are there, and one before them.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,vaes")]
unsafe fn part<const N: usize>(keys: &[__m512i; 11], at: *mut [u8; AES_BLOCK], blocks: usize) {
    // The 64-bit words that the last register takes.
    let mask = (0xff_u16 >> (2 * (4 * N - blocks))) as u8;
    let last = 4 * (N - 1);
    let mut plain = [_mm512_setzero_si512(); N];
    // SAFETY: of all loads and stores: four blocks each, but for the last register,
    // where the mask leaves out what is behind.
    unsafe {
        for (group, plain) in plain[..N - 1].iter_mut().enumerate() {
            *plain = _mm512_xor_si512(_mm512_loadu_si512(at.add(4 * group).cast()), keys[0]);
        }
        let cipher = _mm512_maskz_loadu_epi64(mask, at.add(last).cast());
        plain[N - 1] = _mm512_xor_si512(cipher, keys[0]);
        for key in &keys[1..10] {
            for plain in &mut plain {
                *plain = _mm512_aesdec_epi128(*plain, *key);
            }
        }
        // The last key and the block before are added at once.
        for (group, plain) in plain[..N - 1].iter_mut().enumerate() {
            let before = _mm512_loadu_si512(at.sub(1).add(4 * group).cast());
            *plain = _mm512_aesdeclast_epi128(*plain, _mm512_xor_si512(before, keys[10]));
        }
        let before = _mm512_maskz_loadu_epi64(mask, at.sub(1).add(last).cast());
        plain[N - 1] = _mm512_aesdeclast_epi128(plain[N - 1], _mm512_xor_si512(before, keys[10]));
        for (group, plain) in plain[..N - 1].iter().enumerate() {
            _mm512_storeu_si512(at.add(4 * group).cast(), *plain);
        }
        _mm512_mask_storeu_epi64(at.add(last).cast(), mask, plain[N - 1]);
    }
}
