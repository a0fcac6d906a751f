//! AES-128-CBC (RFC 3602) by the AES instructions: eight packets' chains, or
//! eight blocks of one packet, in flight.

use core::arch::x86_64::{
    __m128i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128, _mm_xor_si128,
};

use crate::simd::{AES_BLOCK, Chain, RoundKeys};

/// Blocks in flight: as many as hide the latency of a round.
const WIDTH: usize = 8;

/// The round keys of the chains, round by round, lane by lane.
struct Keys<const BUSY: usize>([[__m128i; BUSY]; 11]);

impl<const BUSY: usize> Drop for Keys<BUSY> {
    fn drop(&mut self) {
        for key in self.0.as_flattened_mut() {
            // SAFETY: a key of ours; SSE is always there.
            unsafe { core::ptr::from_mut(key).write_volatile(_mm_setzero_si128()) };
        }
    }
}

/// Encrypts packets side by side. A lane that has come to its packet's end takes the
/// next one.
#[target_feature(enable = "aes,avx2")]
pub(super) fn encrypt(chains: &mut [Chain<'_>]) {
    match chains.len() {
        0..=2 => run::<2>(chains),
        3..=4 => run::<4>(chains),
        _ => run::<WIDTH>(chains),
    }
}

/// Encrypts in `BUSY` lanes.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn run<const BUSY: usize>(chains: &mut [Chain<'_>]) {
    let mut waiting = chains.iter_mut().filter_map(Chain::parts);
    let mut keys = Keys([[_mm_setzero_si128(); BUSY]; 11]);
    // Where each lane's next block is, and how many are left; a lane with none does
    // what another one does.
    let mut at = [core::ptr::null_mut::<u8>(); BUSY];
    let mut left = [0_u32; BUSY];
    loop {
        for lane in 0..BUSY {
            if left[lane] == 0
                && let Some((round_keys, first, blocks)) = waiting.next()
            {
                (at[lane], left[lane]) = (first, blocks);
                for (keys, key) in keys.0.iter_mut().zip(&round_keys.0) {
                    keys[lane] = load(key);
                }
            }
        }
        let Some(busy) = left.iter().position(|left| *left != 0) else {
            return;
        };
        let mut blocks = u32::MAX;
        for lane in 0..BUSY {
            if left[lane] != 0 {
                blocks = blocks.min(left[lane]);
                continue;
            }
            at[lane] = at[busy];
            for keys in &mut keys.0 {
                keys[lane] = keys[busy];
            }
        }
        let key = |round: usize, lane: usize| keys.0[round][lane];
        // SAFETY: of all loads and stores: the block before a lane's next one, for the
        // IV is before the first, and then its blocks. Of lanes that do the same, each
        // reads a block before one of them writes it.
        unsafe {
            let mut last: [__m128i; BUSY] = core::array::from_fn(|lane| {
                _mm_loadu_si128(at[lane].wrapping_sub(AES_BLOCK).cast())
            });
            for block in 0..blocks as usize {
                let at = |lane: usize| at[lane].wrapping_add(block * AES_BLOCK);
                for (lane, last) in last.iter_mut().enumerate() {
                    let plain = _mm_loadu_si128(at(lane).cast());
                    *last = _mm_xor_si128(*last, _mm_xor_si128(plain, key(0, lane)));
                }
                for round in 1..10 {
                    for (lane, last) in last.iter_mut().enumerate() {
                        *last = _mm_aesenc_si128(*last, key(round, lane));
                    }
                }
                for (lane, last) in last.iter_mut().enumerate() {
                    *last = _mm_aesenclast_si128(*last, key(10, lane));
                }
                for (lane, last) in last.iter().enumerate() {
                    _mm_storeu_si128(at(lane).cast(), *last);
                }
            }
        }
        for lane in 0..BUSY {
            at[lane] = at[lane].wrapping_add(blocks as usize * AES_BLOCK);
            left[lane] = left[lane].saturating_sub(blocks);
        }
    }
}

/// Decrypts what is behind the IV, from the end, so that the block before a block
/// is always as it was.
#[target_feature(enable = "aes,avx2")]
pub(super) fn decrypt(keys: &RoundKeys, data: &mut [u8]) {
    let mut wide = [_mm_setzero_si128(); 11];
    for (wide, key) in wide.iter_mut().zip(&keys.0) {
        *wide = load(key);
    }
    let (blocks, _) = data.as_chunks_mut::<AES_BLOCK>();
    let mut left = blocks.len();
    while left > WIDTH {
        left -= WIDTH;
        if let Some(part) = blocks[left - 1..].first_chunk_mut::<{ WIDTH + 1 }>() {
            together(&wide, part);
        }
    }
    for at in (1..left).rev() {
        if let [before, block] = &mut blocks[at - 1..=at] {
            let mut plain = _mm_xor_si128(load(block), wide[0]);
            for key in &wide[1..10] {
                plain = _mm_aesdec_si128(plain, *key);
            }
            let last = _mm_xor_si128(wide[10], load(before));
            store(block, _mm_aesdeclast_si128(plain, last));
        }
    }
}

/// Decrypts the blocks behind the first one.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn together(keys: &[__m128i; 11], part: &mut [[u8; AES_BLOCK]; WIDTH + 1]) {
    let mut plain = [_mm_setzero_si128(); WIDTH];
    for (plain, block) in plain.iter_mut().zip(&part[1..]) {
        *plain = _mm_xor_si128(load(block), keys[0]);
    }
    for key in &keys[1..10] {
        for plain in &mut plain {
            *plain = _mm_aesdec_si128(*plain, *key);
        }
    }
    for (plain, before) in plain.iter_mut().zip(&*part) {
        *plain = _mm_aesdeclast_si128(*plain, _mm_xor_si128(keys[10], load(before)));
    }
    for (block, plain) in part[1..].iter_mut().zip(plain) {
        store(block, plain);
    }
}

#[inline]
#[target_feature(enable = "aes,avx2")]
fn load(block: &[u8; AES_BLOCK]) -> __m128i {
    // SAFETY: reads the sixteen bytes of the block.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "aes,avx2")]
fn store(block: &mut [u8; AES_BLOCK], value: __m128i) {
    // SAFETY: writes the sixteen bytes of the block.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
}
