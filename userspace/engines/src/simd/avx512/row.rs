//! AES-128-GCM and GMAC (NIST SP 800-38D), packet after packet, four blocks in a
//! register, four registers in flight.
//!
//! A packet is one row of blocks: what comes before the data, the data, and the
//! lengths, which are in the last lane of the last register; the key stream's block
//! in that place masks the tag. Each lane of the registers is a hash of its own
//! over every fourth block, by powers of the hash key's fourth power, and the
//! last register brings the lanes together. So a lane needs few powers for a
//! long row, and they are read in place by broadcasts.
//!
//! What waits for AES and what waits for the hash has to be near each other in the
//! program, for the processor looks some sixty instructions ahead. So while the
//! key stream of one group is made, the group before it is multiplied, which may
//! be the end of the packet before, and four packets' tags are made
//! [together](super::quad).

use core::arch::x86_64::{
    __m128i, __m512i, _mm_xor_si128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4,
    _mm512_mask_mov_epi32, _mm512_mask_storeu_epi8, _mm512_maskz_broadcast_i32x4,
    _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_xor_si512,
};

use super::counters::{BELOW, counter_one, counters};
use super::gcm::{GcmKey, NO_KEY, load, number};
use super::ghash::{Sums, reverse};
use super::order::aes;
use super::pipe::{GROUP, Pipe, first_power};
use super::quad::Quad;
use crate::simd::AES_BLOCK;
use crate::simd::gcm::{MOST, SEAL, Work, data_len, mac_only};

/// Bytes of a register.
const REGISTER: usize = 64;
/// The lane of a row's last block, as a mask of 32 bits each.
const LAST_LANE: u16 = 0xf000;

/// Does `WAY` with packets; see [`Gcm::gcm`](crate::simd::gcm::Gcm::gcm).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
pub(super) fn rows<'a, const WAY: u8>(works: &mut impl Iterator<Item = Work<'a, GcmKey>>) -> u64 {
    let mut pipe = Pipe::new();
    let mut quad = Quad::new(&NO_KEY);
    for _ in 0..MOST {
        let Some(work) = works.next() else { break };
        let row = Row::new::<WAY>(work);
        // SAFETY: the row is the packet's data, which was borrowed to be written.
        unsafe {
            if mac_only(WAY) {
                row.mac::<WAY>(&mut pipe, &mut quad);
            } else {
                row.crypt::<WAY>(&mut pipe, &mut quad);
            }
        }
    }
    pipe.end::<WAY>(&mut quad);
    quad.bad::<WAY>()
}

/// How a row begins that has so many lanes left over.
struct Begin {
    /// The bytes of the first register that are data.
    first: u64,
    /// The lane of the head.
    head: u16,
}

static BEGIN: [Begin; 4] = {
    let mut begin = [const { Begin { first: 0, head: 0 } }; 4];
    let mut before = 0;
    while before < 4 {
        // In two steps, for it may be all of them.
        begin[before].first = (!0 << (before * AES_BLOCK)) << AES_BLOCK;
        begin[before].head = 0xf << (4 * before);
        before += 1;
    }
    begin
};

/// A packet on its way.
struct Row<'a> {
    key: &'a GcmKey,
    /// The round keys, the first one with the nonce.
    keys: [__m512i; 11],
    /// The place of the next register's first counter in [`TABLE`].
    counter: usize,
    nonce: __m128i,
    /// Where the next register is read and written, and how many there are.
    at: *mut u8,
    registers: usize,
    icv: *mut u8,
    /// The bytes that are the data's, of the first register when it is whole and of
    /// the last one.
    first: u64,
    last: u64,
    /// Added to the next register: the row's head, or the hash as it is.
    hash: __m512i,
    lengths: __m512i,
}

impl<'a> Row<'a> {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,bmi2")]
    fn new<const WAY: u8>(work: Work<'a, GcmKey>) -> Row<'a> {
        let Work { key, packet, data } = work;
        let nonce = number(packet.nonce);
        let mut keys = [_mm512_setzero_si512(); 11];
        if !mac_only(WAY) {
            for (wide, key) in keys.iter_mut().zip(&key.keys.0) {
                *wide = _mm512_broadcast_i32x4(load(key));
            }
            keys[0] = _mm512_xor_si512(keys[0], _mm512_broadcast_i32x4(nonce));
        }
        let len = data_len(data);
        // With head and lengths. Lanes that are left over come before them.
        let rounded = len + (REGISTER - 1) + 2 * AES_BLOCK;
        let before = 3 - rounded / AES_BLOCK % 4;
        let begin = &BEGIN[before];
        let at = data.as_mut_ptr();
        Row {
            key,
            keys,
            counter: BELOW + 1 - before,
            nonce,
            at: at.wrapping_sub((before + 1) * AES_BLOCK),
            icv: at.wrapping_add(len),
            registers: rounded / REGISTER,
            first: begin.first,
            // The last register has room for three blocks of data.
            last: (!0 >> AES_BLOCK) >> (len.wrapping_neg() % AES_BLOCK),
            hash: _mm512_maskz_broadcast_i32x4(begin.head, number(packet.head.swap_bytes())),
            lengths: _mm512_maskz_broadcast_i32x4(LAST_LANE, number(packet.last_block())),
        }
    }

    /// Encrypts or decrypts a packet.
    ///
    /// # Safety
    /// As [`group`](Self::group).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    unsafe fn crypt<const WAY: u8>(mut self, pipe: &mut Pipe<'a>, quad: &mut Quad<'a>) {
        // SAFETY: the caller's.
        unsafe {
            match self.registers {
                1 => return self.group::<1, WAY, true, true>(pipe, quad),
                2 => return self.group::<2, WAY, true, true>(pipe, quad),
                3 => return self.group::<3, WAY, true, true>(pipe, quad),
                4 => return self.group::<4, WAY, true, true>(pipe, quad),
                5 => return self.group::<5, WAY, true, true>(pipe, quad),
                _ => self.group::<4, WAY, true, false>(pipe, quad),
            }
            while self.registers > GROUP + 1 {
                self.group::<4, WAY, false, false>(pipe, quad);
            }
            match self.registers {
                2 => self.group::<2, WAY, false, true>(pipe, quad),
                3 => self.group::<3, WAY, false, true>(pipe, quad),
                4 => self.group::<4, WAY, false, true>(pipe, quad),
                _ => self.group::<5, WAY, false, true>(pipe, quad),
            }
        }
    }

    /// The next registers, of which the first one is the packet's first, or the last
    /// one its last.
    ///
    /// # Safety
    /// There are so many, and their bytes that are the data's may be read and written.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    unsafe fn group<const N: usize, const WAY: u8, const FIRST: bool, const LAST: bool>(
        &mut self,
        pipe: &mut Pipe<'a>,
        quad: &mut Quad<'a>,
    ) {
        let stream = self.stream::<N, WAY, FIRST, LAST>(pipe);
        if FIRST {
            if let Some(last) = pipe.last.take() {
                pipe.finish::<WAY>(last, quad);
            }
            pipe.key = self.key;
            pipe.power = first_power(self.registers);
        } else {
            self.hash = pipe.turn(self.registers);
        }
        let mut blocks = [_mm512_setzero_si512(); N];
        for (i, (block, stream)) in blocks.iter_mut().zip(stream).enumerate() {
            let first = if FIRST && i == 0 { self.first } else { !0 };
            let last = if LAST && i + 1 == N { self.last } else { !0 };
            let at = self.at.wrapping_add(i * REGISTER);
            // SAFETY: the caller's.
            unsafe {
                let bytes = _mm512_maskz_loadu_epi8(first & last, at.cast());
                let crypted = _mm512_xor_si512(bytes, stream);
                _mm512_mask_storeu_epi8(at.cast(), first & last, crypted);
                let covered = match WAY {
                    SEAL => _mm512_maskz_mov_epi8(first & last, crypted),
                    _ => bytes,
                };
                *block = _mm512_shuffle_epi8(covered, reverse());
            }
        }
        blocks[0] = _mm512_xor_si512(blocks[0], self.hash);
        self.at = self.at.wrapping_add(N * REGISTER);
        self.registers -= N;
        let mut rest = N;
        if LAST {
            rest -= 1;
            pipe.last = Some(_mm512_xor_si512(blocks[rest], self.lengths));
            // SAFETY: the caller's.
            unsafe { quad.mask(self.key, stream[rest], self.icv) };
        }
        let (pairs, one) = blocks[..rest].as_chunks::<2>();
        for (place, pair) in pipe.waits.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *place = *pair;
        }
        if let [one] = one {
            pipe.waits[2] = *one;
        }
        pipe.count = rest;
    }

    /// The key stream of the next registers, and what waits for the hash times its
    /// powers meanwhile. The `LAST` ones end with what masks the tag, the block of
    /// counter 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes,vpclmulqdq")]
    fn stream<const N: usize, const WAY: u8, const FIRST: bool, const LAST: bool>(
        &mut self,
        pipe: &mut Pipe<'a>,
    ) -> [__m512i; N] {
        let mut blocks = self.counters::<N, WAY, FIRST, LAST>();
        let keys = self.keys;
        macro_rules! rounds {
            ($($round:literal)*) => {$(
                let key = keys[$round];
                for block in &mut blocks {
                    *block = aes(*block, key);
                }
            )*};
        }
        let [a, b, c, d] = pipe.waits;
        if FIRST {
            rounds!(1 2);
            if pipe.count >= 2 {
                pipe.multiply(a, b);
            }
            rounds!(3 4 5);
            if pipe.count == GROUP {
                pipe.multiply(c, d);
            }
            rounds!(6 7);
            if pipe.count % 2 == 1 {
                pipe.multiply_one(c);
            }
            rounds!(8 9);
        } else {
            let (first, second) = (pipe.powers(), pipe.powers());
            rounds!(1);
            let products = Sums::low(a, b, first);
            rounds!(2);
            let products = products.high(a, b, first);
            rounds!(3);
            let products = products.middle(a, b, first);
            rounds!(4);
            pipe.sums.add(products);
            rounds!(5);
            let products = Sums::low(c, d, second);
            rounds!(6);
            let products = products.high(c, d, second);
            rounds!(7);
            let products = products.middle(c, d, second);
            rounds!(8);
            pipe.sums.add(products);
            rounds!(9);
        }
        let key = keys[10];
        for block in &mut blocks {
            *block = _mm512_aesenclast_epi128(*block, key);
        }
        blocks
    }

    /// The counter blocks of the next registers, plus the first round key.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vaes")]
    fn counters<const N: usize, const WAY: u8, const FIRST: bool, const LAST: bool>(
        &mut self,
    ) -> [__m512i; N] {
        let mut blocks = [_mm512_setzero_si512(); N];
        for (i, block) in blocks.iter_mut().enumerate() {
            let mut counters = counters(self.counter + 4 * i);
            if LAST && i + 1 == N {
                let one = _mm512_broadcast_i32x4(counter_one());
                counters = _mm512_mask_mov_epi32(counters, LAST_LANE, one);
            }
            // The nonce is in there.
            *block = _mm512_xor_si512(counters, self.keys[0]);
        }
        self.counter += 4 * N;
        blocks
    }

    /// Hashes a packet that is additional data only.
    ///
    /// # Safety
    /// The bytes that are the data's may be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    unsafe fn mac<const WAY: u8>(mut self, pipe: &mut Pipe<'a>, quad: &mut Quad<'a>) {
        pipe.key = self.key;
        pipe.power = first_power(self.registers);
        while self.registers > GROUP {
            // SAFETY: the caller's.
            let [a, b, c, d] = unsafe { self.blocks::<4, false>() };
            pipe.multiply(a, b);
            pipe.multiply(c, d);
            self.hash = pipe.turn(self.registers);
        }
        // SAFETY: the caller's.
        let last = unsafe {
            match self.registers {
                1 => {
                    let [last] = self.blocks::<1, true>();
                    last
                }
                2 => {
                    let [a, last] = self.blocks::<2, true>();
                    pipe.multiply_one(a);
                    last
                }
                3 => {
                    let [a, b, last] = self.blocks::<3, true>();
                    pipe.multiply(a, b);
                    last
                }
                _ => {
                    let [a, b, c, last] = self.blocks::<4, true>();
                    pipe.multiply(a, b);
                    pipe.multiply_one(c);
                    last
                }
            }
        };
        let counter = _mm_xor_si128(self.nonce, counter_one());
        // SAFETY: the caller's.
        unsafe { quad.counter(self.key, counter, self.icv) };
        pipe.finish::<WAY>(last, quad);
    }

    /// The next registers as the hash has them.
    ///
    /// # Safety
    /// There are so many, and their bytes that are the data's may be read.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn blocks<const N: usize, const LAST: bool>(&mut self) -> [__m512i; N] {
        let mut blocks = [_mm512_setzero_si512(); N];
        for (i, block) in blocks.iter_mut().enumerate() {
            let first = if i == 0 { self.first } else { !0 };
            let last = if LAST && i + 1 == N { self.last } else { !0 };
            let at = self.at.wrapping_add(i * REGISTER);
            // SAFETY: the caller's.
            let bytes = unsafe { _mm512_maskz_loadu_epi8(first & last, at.cast()) };
            *block = _mm512_shuffle_epi8(bytes, reverse());
        }
        blocks[0] = _mm512_xor_si512(blocks[0], self.hash);
        if LAST {
            blocks[N - 1] = _mm512_xor_si512(blocks[N - 1], self.lengths);
        }
        self.first = !0;
        self.at = self.at.wrapping_add(N * REGISTER);
        self.registers -= N;
        blocks
    }
}
