//! AES-128-CBC (RFC 3602). Encrypting is a chain, so sixteen packets go side by
//! side, each with its own key; decrypting is not, so many blocks of one do.

use core::arch::x86_64::{
    __m128i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_setzero_si128,
    _mm_storeu_si128, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128, _mm512_aesenc_epi128,
    _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_castsi128_si512,
    _mm512_castsi512_si128, _mm512_cmpeq_epi32_mask, _mm512_extracti32x4_epi32, _mm512_loadu_si512,
    _mm512_mask_broadcast_i32x4, _mm512_mask_set1_epi32, _mm512_mask_storeu_epi64,
    _mm512_maskz_loadu_epi64, _mm512_reduce_min_epu32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use crate::simd::{AES_BLOCK, Chain, RoundKeys};

/// Chains side by side at most.
const LANES: usize = 16;

/// Three inputs, added without carry.
const XOR3: i32 = 0x96;

/// Blocks of four lanes from `lane` on, at an offset.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather(at: &[*const u8; LANES], lane: usize, offset: usize) -> __m512i {
    // SAFETY: the caller's.
    let block = |i: usize| unsafe { _mm_loadu_si128(at[lane + i].wrapping_add(offset).cast()) };
    let first = _mm512_castsi128_si512(block(0));
    let two = _mm512_mask_broadcast_i32x4(first, 0x00f0, block(1));
    let three = _mm512_mask_broadcast_i32x4(two, 0x0f00, block(2));
    _mm512_mask_broadcast_i32x4(three, 0xf000, block(3))
}

/// The same the other way.
///
/// # Safety
/// They can be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scatter(at: &[*const u8; LANES], lane: usize, offset: usize, blocks: __m512i) {
    let parts: [__m128i; 4] = [
        _mm512_castsi512_si128(blocks),
        _mm512_extracti32x4_epi32::<1>(blocks),
        _mm512_extracti32x4_epi32::<2>(blocks),
        _mm512_extracti32x4_epi32::<3>(blocks),
    ];
    for (i, part) in parts.into_iter().enumerate() {
        let to = at[lane + i].wrapping_add(offset).cast_mut();
        // SAFETY: the caller's.
        unsafe { _mm_storeu_si128(to.cast(), part) };
    }
}

/// Rounds whose keys stay in registers. The compiler, which would like to keep more
/// than there are, and to move sixteen places on, is told that what it reads is new
/// at each step.
const NEAR: usize = 5;

/// Bytes that a lane's next lines are asked for before they are needed: sixteen
/// streams are too many for the processor to follow.
const AHEAD: usize = 128;

/// The keys of the other rounds, four lanes a register.
struct Far<const GROUPS: usize>([[__m512i; GROUPS]; 11 - NEAR]);

impl<const GROUPS: usize> Drop for Far<GROUPS> {
    fn drop(&mut self) {
        let at = (&raw mut self.0).cast::<__m128i>();
        for i in 0..size_of_val(&self.0) / size_of::<__m128i>() {
            // SAFETY: within the keys, which are aligned to more; SSE is always there.
            unsafe { at.add(i).write_volatile(_mm_setzero_si128()) };
        }
    }
}

/// Encrypts packets side by side in as many registers as they need. A lane that has
/// come to its packet's end takes the next one.
#[target_feature(enable = "avx512f,avx512vl,vaes")]
pub(super) fn encrypt(chains: &mut [Chain<'_>]) {
    match chains.len() {
        0..=4 => run::<1>(chains),
        5..=8 => run::<2>(chains),
        _ => run::<{ LANES / 4 }>(chains),
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,vaes")]
fn run<const GROUPS: usize>(chains: &mut [Chain<'_>]) {
    let all = u16::MAX >> (LANES - 4 * GROUPS);
    let mut waiting = chains.iter_mut().filter_map(Chain::parts);
    // Where each lane's block would have been in step 0; its round keys; the step
    // before which it is over.
    let mut at = [core::ptr::null::<u8>(); LANES];
    let mut keys = [core::ptr::null::<u8>(); LANES];
    let mut due = _mm512_set1_epi32(-1);
    let mut now = 0_u32;
    // Lanes without a packet, and those that have another one than before.
    let (mut vacant, mut changed) = (all, 0_u16);
    let mut near = [[_mm512_setzero_si512(); GROUPS]; NEAR];
    let mut far = Far([[_mm512_setzero_si512(); GROUPS]; 11 - NEAR]);
    let mut last = [_mm512_setzero_si512(); GROUPS];
    loop {
        let passed = now as usize * AES_BLOCK;
        while vacant != 0
            && let Some((round_keys, first, blocks)) = waiting.next()
        {
            let lane = vacant.trailing_zeros() as usize;
            let bit = 1 << lane;
            vacant &= !bit;
            changed |= bit;
            at[lane] = first.cast_const().wrapping_sub(passed);
            keys[lane] = round_keys.0.as_ptr().cast();
            due = _mm512_mask_set1_epi32(due, bit, (now + blocks) as i32);
        }
        if vacant != 0 {
            if vacant == all {
                return;
            }
            // Lanes without a packet do what another one does: of a step's blocks all
            // are read before the first is written.
            let busy = (!vacant).trailing_zeros() as usize;
            let mut left = vacant;
            while left != 0 {
                let lane = left.trailing_zeros() as usize;
                left &= left - 1;
                (at[lane], keys[lane]) = (at[busy], keys[busy]);
            }
            changed |= vacant;
            due = _mm512_mask_set1_epi32(due, vacant, -1);
        }
        // SAFETY: of all loads and stores: a key's eleven rounds; the block before a
        // lane's next one, for the IV is before the first; its blocks until it is due.
        unsafe {
            // Not a loop: which registers are meant has to be known.
            macro_rules! refresh {
                ($($group:literal)*) => {$(
                    if $group < GROUPS && changed >> (4 * $group) & 0xf != 0 {
                        for (round, near) in near.iter_mut().enumerate() {
                            near[$group] = gather(&keys, 4 * $group, round * AES_BLOCK);
                        }
                        for (round, far) in far.0.iter_mut().enumerate() {
                            far[$group] = gather(&keys, 4 * $group, (NEAR + round) * AES_BLOCK);
                        }
                        last[$group] = gather(&at, 4 * $group, passed.wrapping_sub(AES_BLOCK));
                    }
                )*};
            }
            refresh!(0 1 2 3);
            changed = 0;
            let until = _mm512_reduce_min_epu32(due);
            while now < until {
                let offset = now as usize * AES_BLOCK;
                let (at, far) = core::hint::black_box((&at, &far.0));
                for (group, last) in last.iter_mut().enumerate() {
                    let plain = gather(at, 4 * group, offset);
                    *last = _mm512_ternarylogic_epi64::<XOR3>(*last, plain, near[0][group]);
                }
                for round in &near[1..] {
                    for (last, key) in last.iter_mut().zip(round) {
                        *last = _mm512_aesenc_epi128(*last, *key);
                    }
                }
                for round in &far[..10 - NEAR] {
                    for (last, key) in last.iter_mut().zip(round) {
                        *last = _mm512_aesenc_epi128(*last, *key);
                    }
                }
                for (group, last) in last.iter_mut().enumerate() {
                    *last = _mm512_aesenclast_epi128(*last, far[10 - NEAR][group]);
                    scatter(at, 4 * group, offset, *last);
                }
                for at in &at[now as usize % GROUPS * 4..][..4] {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(offset + AHEAD).cast());
                }
                now += 1;
            }
        }
        vacant |= _mm512_cmpeq_epi32_mask(due, _mm512_set1_epi32(now as i32)) & all;
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
