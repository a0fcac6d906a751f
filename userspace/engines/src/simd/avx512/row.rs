//! AES-128-GCM and GMAC (NIST SP 800-38D), one packet at a time, four blocks in a
//! register, four registers in flight.
//!
//! A packet is one row of blocks: what comes before the data, the data, and the
//! lengths, which are in the last lane of the last register; the key stream's block
//! in that place masks the tag. Each lane of the registers is a hash of its own
//! over every fourth block, by powers of the hash key's fourth power, and the
//! last register brings the lanes together. So a lane needs few powers for a
//! long row, and they are read in place by broadcasts.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_set_epi8, _mm_set_epi32, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_xor_si128, _mm512_add_epi32, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_loadu_si512,
    _mm512_mask_mov_epi32, _mm512_mask_storeu_epi8, _mm512_maskz_broadcast_i32x4,
    _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_set_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_xor_si512,
};

use super::gcm::{GcmKey, STRIDE, encrypt, load, number, store};
use super::ghash::{Power, Sums, multiply_lanes, reverse};
use crate::simd::AES_BLOCK;
use crate::simd::gcm::{MAC, SEAL};

/// Bytes of a register.
const REGISTER: usize = 64;
/// Registers that go through AES together, which hides its latency.
const GROUP: usize = 4;
/// The lane of a row's last block, as a mask of 32 bits each.
const LAST_LANE: u16 = 0xf000;

/// A packet on its way.
struct Row<'a> {
    key: &'a GcmKey,
    keys: [__m512i; 11],
    /// The counters of the next register, little-endian.
    counters: __m512i,
    /// Where the next register is read and written.
    at: *mut u8,
    /// The bytes of it that are the packet's, when it is whole.
    mask: u64,
    /// The hash of each lane, reduced: added to the next block.
    hash: __m512i,
    /// What has been multiplied since.
    sums: Sums,
    /// The next register's place in the table of powers.
    power: usize,
}

impl<'a> Row<'a> {
    /// The counter blocks of the next registers. The `LAST` ones end with what masks
    /// the tag, the block of counter 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes")]
    fn counters<const N: usize, const LAST: bool>(&mut self) -> [__m512i; N] {
        let big_endian = _mm512_broadcast_i32x4(_mm_set_epi8(
            12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        ));
        let step = _mm512_broadcast_i32x4(_mm_set_epi32(4, 0, 0, 0));
        let one = _mm512_broadcast_i32x4(_mm_set_epi32(0x0100_0000, 0, 0, 0));
        let mut blocks = [_mm512_setzero_si512(); N];
        for (i, block) in blocks.iter_mut().enumerate() {
            let mut counters = _mm512_shuffle_epi8(self.counters, big_endian);
            if LAST && i + 1 == N {
                counters = _mm512_mask_mov_epi32(counters, LAST_LANE, one);
            }
            // The nonce is in there.
            *block = _mm512_xor_si512(counters, self.keys[0]);
            self.counters = _mm512_add_epi32(self.counters, step);
        }
        blocks
    }

    /// The counter blocks through AES, and what `waits` for the hash times its powers
    /// meanwhile: both at once is what keeps the processor busy.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
    fn stream<const N: usize, const LAST: bool, const WAITS: bool>(
        &mut self,
        waits: [__m512i; GROUP],
    ) -> [__m512i; N] {
        let mut blocks = self.counters::<N, LAST>();
        let keys = self.keys;
        macro_rules! rounds {
            ($($round:literal)*) => {$(
                for block in &mut blocks {
                    *block = _mm512_aesenc_epi128(*block, keys[$round]);
                }
            )*};
        }
        if WAITS {
            let [a, b, c, d] = waits;
            let (first, second) = (self.powers(), self.powers());
            rounds!(1);
            let products = Sums::low(a, b, first);
            rounds!(2);
            let products = products.high(a, b, first);
            rounds!(3);
            let products = products.middle(a, b, first);
            rounds!(4);
            self.sums.add(products);
            rounds!(5);
            let products = Sums::low(c, d, second);
            rounds!(6);
            let products = products.high(c, d, second);
            rounds!(7);
            let products = products.middle(c, d, second);
            rounds!(8);
            self.sums.add(products);
            rounds!(9);
        } else {
            rounds!(1 2 3 4 5 6 7 8 9);
        }
        for block in &mut blocks {
            *block = _mm512_aesenclast_epi128(*block, keys[10]);
        }
        blocks
    }

    /// The next two powers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn powers(&mut self) -> [&'a Power; 2] {
        let (key, place) = (self.key, self.power.min(STRIDE - 2));
        self.power += 2;
        [&key.powers[place], &key.powers[place + 1]]
    }

    /// Multiplies registers by the next powers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    fn multiply<const N: usize, const SITE: usize, const WAY: u8>(
        &mut self,
        blocks: &[__m512i; N],
        count: usize,
    ) {
        let (pairs, one) = blocks[..count].as_chunks::<2>();
        for [a, b] in pairs {
            let powers = self.powers();
            self.sums.add(
                Sums::low(*a, *b, powers)
                    .high(*a, *b, powers)
                    .middle(*a, *b, powers),
            );
        }
        if let [a] = one {
            let place = self.power.min(STRIDE - 1);
            self.sums.add_one(*a, &self.key.powers[place]);
            self.power += 1;
        }
    }

    /// A group of whole registers, and the group before it, which `waits`, into the
    /// hash. Returns the one that waits next. There are `registers` from this group
    /// on.
    ///
    /// # Safety
    /// As [`crypt`], for so many registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
    unsafe fn group<const WAY: u8, const WAITS: bool>(
        &mut self,
        waits: [__m512i; GROUP],
        registers: usize,
    ) -> [__m512i; GROUP] {
        let mut stream = [_mm512_setzero_si512(); GROUP];
        if WAY != MAC {
            stream = self.stream::<GROUP, false, WAITS>(waits);
        } else if WAITS {
            self.multiply::<GROUP, 0, WAY>(&waits, GROUP);
        }
        self.step(registers);
        let mut blocks = [_mm512_setzero_si512(); GROUP];
        for (i, (block, stream)) in blocks.iter_mut().zip(stream).enumerate() {
            let mask = if i == 0 { self.mask } else { !0 };
            let at = self.at.wrapping_add(i * REGISTER);
            // SAFETY: the caller's.
            *block = unsafe { crypt::<WAY>(at, mask, stream) };
        }
        blocks[0] = _mm512_xor_si512(blocks[0], self.hash);
        self.hash = _mm512_setzero_si512();
        self.at = self.at.wrapping_add(GROUP * REGISTER);
        self.mask = !0;
        blocks
    }

    /// Reduces at the end of the table of powers and begins it again, for so many
    /// `registers`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    fn step(&mut self, registers: usize) {
        if self.power == STRIDE {
            self.hash = self.sums.reduce();
            self.sums = Sums::zero();
            self.power = STRIDE - (registers - 1).min(STRIDE);
        }
    }

    /// The row's last registers, of which `mask` is the data in the very last.
    /// Returns the hash and what masks the tag.
    ///
    /// # Safety
    /// As [`crypt`], for `N` registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
    unsafe fn end<const N: usize, const WAY: u8, const WAITS: bool>(
        &mut self,
        waits: [__m512i; GROUP],
        mask: u64,
        lengths: __m128i,
    ) -> (__m128i, __m128i) {
        let mut stream = [_mm512_setzero_si512(); N];
        if WAY != MAC {
            stream = self.stream::<N, true, WAITS>(waits);
        } else if WAITS {
            self.multiply::<GROUP, N, WAY>(&waits, GROUP);
        }
        if WAITS && N > 1 {
            self.step(N);
        }
        let mut blocks = [_mm512_setzero_si512(); N];
        for (i, (block, stream)) in blocks.iter_mut().zip(stream).enumerate() {
            let first = if i == 0 { self.mask } else { !0 };
            let last = if i + 1 == N { mask } else { !0 };
            let at = self.at.wrapping_add(i * REGISTER);
            // SAFETY: the caller's.
            *block = unsafe { crypt::<WAY>(at, first & last, stream) };
        }
        blocks[0] = _mm512_xor_si512(blocks[0], self.hash);
        let lengths = _mm512_maskz_broadcast_i32x4(LAST_LANE, lengths);
        let mut hash = _mm512_xor_si512(blocks[N - 1], lengths);
        if WAITS {
            self.multiply::<N, 8, WAY>(&blocks, N - 1);
        } else {
            self.multiply::<N, 9, WAY>(&blocks, N - 1);
        };
        if N > 1 || WAITS {
            hash = _mm512_xor_si512(hash, self.sums.reduce());
        }
        // SAFETY: a register is read, which `last` is.
        let last = unsafe { _mm512_loadu_si512(self.key.last.as_ptr().cast()) };
        (
            multiply_lanes(hash, last),
            _mm512_extracti32x4_epi32::<3>(stream[N - 1]),
        )
    }
}

/// Encrypts or decrypts a register in place; returns its blocks for the hash.
///
/// # Safety
/// The bytes at `at` that are in the mask may be read, and unless `WAY` is [`MAC`]
/// written.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn crypt<const WAY: u8>(at: *mut u8, mask: u64, stream: __m512i) -> __m512i {
    // SAFETY: the caller's.
    let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) };
    if WAY == MAC {
        return _mm512_shuffle_epi8(bytes, reverse());
    }
    let crypted = _mm512_xor_si512(bytes, stream);
    // SAFETY: the caller's.
    unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, crypted) };
    let covered = match WAY {
        SEAL => _mm512_maskz_mov_epi8(mask, crypted),
        _ => bytes,
    };
    _mm512_shuffle_epi8(covered, reverse())
}

/// A whole packet; `data` has `len` bytes and lies behind the head.
///
/// # Safety
/// AVX-512 as detected; `len` bytes at `data` may be read, and unless `WAY` is
/// [`MAC`] written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
pub(super) unsafe fn row<const WAY: u8>(
    key: &GcmKey,
    nonce: u128,
    head: u128,
    lengths: u128,
    data: *mut u8,
    len: usize,
) -> [u8; AES_BLOCK] {
    let nonce = number(nonce);
    let first = _mm_set_epi32(0x0100_0000, 0, 0, 0);
    let mut keys = [_mm512_setzero_si512(); 11];
    let mut mask = _mm_setzero_si128();
    if WAY == MAC {
        mask = encrypt(&key.keys, _mm_xor_si128(nonce, first));
    } else {
        for (wide, key) in keys.iter_mut().zip(&key.keys.0) {
            *wide = _mm512_broadcast_i32x4(load(key));
        }
        keys[0] = _mm512_xor_si512(keys[0], _mm512_broadcast_i32x4(nonce));
    }
    let lengths = number(lengths);
    // With head and lengths. Lanes that are left over come before them.
    let blocks = len.div_ceil(AES_BLOCK) + 2;
    let mut registers = blocks.div_ceil(4);
    let before = registers * 4 - blocks;
    let counters = _mm512_set_epi32(3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0);
    let begin = _mm_set_epi32(1 - before as i32, 0, 0, 0);
    let mut row = Row {
        key,
        keys,
        counters: _mm512_add_epi32(counters, _mm512_broadcast_i32x4(begin)),
        at: data.wrapping_sub((before + 1) * AES_BLOCK),
        // In two steps, for it may be all of them.
        mask: (!0 << (before * AES_BLOCK)) << AES_BLOCK,
        hash: _mm512_maskz_broadcast_i32x4(0xf << (4 * before), number(head.swap_bytes())),
        sums: Sums::zero(),
        power: STRIDE - (registers - 1).min(STRIDE),
    };
    // The last register has room for three blocks of data.
    let last = (1 << (3 * AES_BLOCK - (len.wrapping_neg() % AES_BLOCK))) - 1;
    let mut waits = [_mm512_setzero_si512(); GROUP];
    // SAFETY: of all: the caller's; all but the first register and the last are
    // whole.
    let (hash, stream) = unsafe {
        if registers <= GROUP {
            match registers {
                1 => row.end::<1, WAY, false>(waits, last, lengths),
                2 => row.end::<2, WAY, false>(waits, last, lengths),
                3 => row.end::<3, WAY, false>(waits, last, lengths),
                _ => row.end::<4, WAY, false>(waits, last, lengths),
            }
        } else {
            waits = row.group::<WAY, false>(waits, registers);
            registers -= GROUP;
            while registers > GROUP {
                waits = row.group::<WAY, true>(waits, registers);
                registers -= GROUP;
            }
            match registers {
                1 => row.end::<1, WAY, true>(waits, last, lengths),
                2 => row.end::<2, WAY, true>(waits, last, lengths),
                3 => row.end::<3, WAY, true>(waits, last, lengths),
                _ => row.end::<4, WAY, true>(waits, last, lengths),
            }
        }
    };
    if WAY != MAC {
        mask = stream;
    }
    let hash = _mm_shuffle_epi8(hash, _mm512_castsi512_si128(reverse()));
    store(_mm_xor_si128(hash, mask))
}
