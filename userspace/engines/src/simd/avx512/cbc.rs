//! AES-128-CBC (RFC 3602). Encrypting is a chain, so sixteen packets go side by
//! side, each with its own key; decrypting is not, so sixteen blocks of one do.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm_storeu_si128, _mm256_castsi128_si256,
    _mm256_inserti128_si256, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_alignr_epi64, _mm512_broadcast_i32x4, _mm512_castsi256_si512,
    _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_inserti32x4, _mm512_inserti64x4,
    _mm512_load_si512, _mm512_mask_storeu_epi64, _mm512_maskz_loadu_epi64, _mm512_setzero_si512,
    _mm512_store_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use crate::simd::{AES_BLOCK, CbcChains, LANES, RoundKeys};

/// Registers for one block of every lane.
const GROUPS: usize = LANES / 4;

/// Three inputs, added without carry.
const XOR3: i32 = 0x96;

/// Four blocks from four places.
///
/// # Safety
/// Sixteen bytes can be read at each.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(at: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller's.
    let [a, b, c, d] = at.map(|place| unsafe { _mm_loadu_si128(place.cast()) });
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Four blocks to four places.
///
/// # Safety
/// Sixteen bytes can be written at each.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scatter(at: [*mut u8; 4], blocks: __m512i) {
    let parts: [__m128i; 4] = [
        _mm512_castsi512_si128(blocks),
        _mm512_extracti32x4_epi32::<1>(blocks),
        _mm512_extracti32x4_epi32::<2>(blocks),
        _mm512_extracti32x4_epi32::<3>(blocks),
    ];
    for (place, part) in at.into_iter().zip(parts) {
        // SAFETY: the caller's.
        unsafe { _mm_storeu_si128(place.cast(), part) };
    }
}

/// # Safety
/// AVX-512F and VAES; each lane has `blocks` blocks, or is empty.
#[target_feature(enable = "avx512f,avx512vl,vaes")]
pub(super) unsafe fn encrypt(
    chains: &mut CbcChains,
    lanes: &mut [&mut [u8]; LANES],
    blocks: usize,
) {
    // A lane that rests works on this, again and again.
    let mut rest = [[0; AES_BLOCK]; LANES];
    let places: [(*mut u8, usize); LANES] = core::array::from_fn(|lane| match &mut *lanes[lane] {
        [] => (rest[lane].as_mut_ptr(), 0),
        bytes => (bytes.as_mut_ptr(), AES_BLOCK),
    });
    // SAFETY: of all loads and stores: keys and last blocks are 64 bytes for four
    // lanes, aligned to 64; block `block` of a lane is there, or its rest.
    unsafe {
        let keys: [[__m512i; GROUPS]; 11] = core::array::from_fn(|round| {
            core::array::from_fn(|group| {
                _mm512_load_si512(chains.keys[round][4 * group].as_ptr().cast())
            })
        });
        let mut last: [__m512i; GROUPS] =
            core::array::from_fn(|group| _mm512_load_si512(chains.last[4 * group].as_ptr().cast()));
        for block in 0..blocks {
            let at = |group: usize| -> [*mut u8; 4] {
                core::array::from_fn(|i| {
                    let (start, stride) = places[4 * group + i];
                    start.add(block * stride)
                })
            };
            for (group, last) in last.iter_mut().enumerate() {
                let plain = gather(at(group).map(|place| place.cast_const()));
                *last = _mm512_ternarylogic_epi64::<XOR3>(*last, plain, keys[0][group]);
            }
            for round in &keys[1..10] {
                for (last, key) in last.iter_mut().zip(round) {
                    *last = _mm512_aesenc_epi128(*last, *key);
                }
            }
            for (group, last) in last.iter_mut().enumerate() {
                *last = _mm512_aesenclast_epi128(*last, keys[10][group]);
                scatter(at(group), *last);
            }
        }
        for (group, last) in last.into_iter().enumerate() {
            _mm512_store_si512(chains.last[4 * group].as_mut_ptr().cast(), last);
        }
    }
}

/// # Safety
/// AVX-512F and VAES.
#[target_feature(enable = "avx512f,avx512vl,vaes")]
pub(super) unsafe fn decrypt(keys: &RoundKeys, iv: &[u8; AES_BLOCK], data: &mut [u8]) {
    // SAFETY: sixteen bytes each.
    let (keys, mut before): ([__m512i; 11], __m128i) = unsafe {
        let key = |round: usize| _mm_loadu_si128(keys.0[round].as_ptr().cast());
        (
            core::array::from_fn(|round| _mm512_broadcast_i32x4(key(round))),
            _mm_loadu_si128(iv.as_ptr().cast()),
        )
    };
    let (blocks, _) = data.as_chunks_mut::<AES_BLOCK>();
    for part in blocks.chunks_mut(4 * GROUPS) {
        let start: *mut u8 = part.as_mut_ptr().cast();
        // The 64-bit words that each register takes of this part.
        let masks: [u8; GROUPS] = core::array::from_fn(|group| {
            let blocks = part.len().saturating_sub(4 * group).min(4);
            ((1_u16 << (2 * blocks)) - 1) as u8
        });
        // SAFETY: the masks leave out what is behind the part.
        let cipher: [__m512i; GROUPS] = core::array::from_fn(|group| unsafe {
            _mm512_maskz_loadu_epi64(masks[group], start.wrapping_add(64 * group).cast())
        });
        let last = part.len() - 1;
        // SAFETY: the last block of the part.
        let after = unsafe { _mm_loadu_si128(part[last].as_ptr().cast()) };
        // What each block is added to: the one before it.
        let mut previous = [_mm512_setzero_si512(); GROUPS];
        previous[0] =
            _mm512_inserti32x4::<0>(_mm512_alignr_epi64::<6>(cipher[0], cipher[0]), before);
        for group in 1..GROUPS {
            previous[group] = _mm512_alignr_epi64::<6>(cipher[group], cipher[group - 1]);
        }
        let mut plain = cipher.map(|blocks| _mm512_xor_si512(blocks, keys[0]));
        for key in &keys[1..10] {
            plain = plain.map(|blocks| _mm512_aesdec_epi128(blocks, *key));
        }
        for group in 0..GROUPS {
            let blocks = _mm512_aesdeclast_epi128(plain[group], keys[10]);
            let blocks = _mm512_xor_si512(blocks, previous[group]);
            // SAFETY: as for the loads.
            unsafe {
                _mm512_mask_storeu_epi64(
                    start.wrapping_add(64 * group).cast(),
                    masks[group],
                    blocks,
                );
            }
        }
        before = after;
    }
}
