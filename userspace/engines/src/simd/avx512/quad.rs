//! The end of four packets: their hashes and what masks them become tags together,
//! each packet in a lane, so that what each step waits for is waited for once.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_aesenclast_si128, _mm_loadu_si128, _mm_setzero_si128, _mm_storeu_si128,
    _mm_testz_si128, _mm_xor_si128, _mm512_bslli_epi128, _mm512_bsrli_epi128,
    _mm512_castsi128_si512, _mm512_castsi512_si128, _mm512_extracti32x4_epi32, _mm512_inserti32x4,
    _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_shuffle_i32x4,
    _mm512_xor_si512,
};

use super::gcm::{GcmKey, load};
use super::ghash::{reduce, reverse};
use super::order::{aes_one, product};
use crate::simd::gcm::{mac_only, writes};

/// Packets that end together.
const QUAD: usize = 4;

/// Packets that wait for their tags.
pub(super) struct Quad<'a> {
    keys: [&'a GcmKey; QUAD],
    /// The hash of each lane, before the powers that bring the lanes together.
    hashes: [__m512i; QUAD],
    /// The last register of the key stream, whose last lane masks the tag.
    streams: [__m512i; QUAD],
    /// For GMAC the counter block that does.
    counters: [__m128i; QUAD],
    /// The packets' ICVs.
    icvs: [*mut u8; QUAD],
    count: usize,
    /// Packets before these, and those of them whose ICV was wrong.
    before: usize,
    bad: u64,
}

impl<'a> Quad<'a> {
    /// No packet. Places that stay empty have some key.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(key: &'a GcmKey) -> Quad<'a> {
        Quad {
            keys: [key; QUAD],
            hashes: [_mm512_setzero_si512(); QUAD],
            streams: [_mm512_setzero_si512(); QUAD],
            counters: [_mm_setzero_si128(); QUAD],
            icvs: [core::ptr::null_mut(); QUAD],
            count: 0,
            before: 0,
            bad: 0,
        }
    }

    /// What the next packet's tag is masked with.
    ///
    /// # Safety
    /// Sixteen bytes at `icv` may be read and written until the packet's tag has been made.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn mask(&mut self, key: &'a GcmKey, stream: __m512i, icv: *mut u8) {
        let place = self.count % QUAD;
        self.keys[place] = key;
        self.streams[place] = stream;
        self.icvs[place] = icv;
    }

    /// The same for GMAC, by its counter block.
    ///
    /// # Safety
    /// As [`mask`](Self::mask).
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn counter(&mut self, key: &'a GcmKey, counter: __m128i, icv: *mut u8) {
        let place = self.count % QUAD;
        self.keys[place] = key;
        self.counters[place] = counter;
        self.icvs[place] = icv;
    }

    /// The next packet's hash, behind [`mask`](Self::mask). Returns whether there are four.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn hash(&mut self, hash: __m512i) -> bool {
        self.hashes[self.count % QUAD] = hash;
        self.count += 1;
        self.count == QUAD
    }

    /// Makes the tags; no packet waits afterwards.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,sse4.1")]
    pub(super) fn end<const WAY: u8>(&mut self) {
        let mut blocks = self.counters;
        let keys = self.keys.map(|key| &key.keys.0);
        if mac_only(WAY) {
            for (block, keys) in blocks.iter_mut().zip(keys) {
                *block = _mm_xor_si128(*block, load(&keys[0]));
            }
        }
        let zero = [_mm512_setzero_si512(); QUAD];
        let (mut low, mut middle, mut high) = (zero, zero, zero);
        for i in 0..QUAD {
            if mac_only(WAY) {
                // Here, so that neither waits for the other.
                for (block, keys) in blocks.iter_mut().zip(keys) {
                    *block = aes_one(*block, &keys[2 * i + 1]);
                }
                for (block, keys) in blocks.iter_mut().zip(keys) {
                    *block = aes_one(*block, &keys[2 * i + 2]);
                }
            }
            let hash = self.hashes[i];
            // SAFETY: a register is read, which `last` is.
            let powers = unsafe { _mm512_loadu_si512(self.keys[i].last.as_ptr().cast()) };
            low[i] = product::<0x00>(hash, powers);
            high[i] = product::<0x11>(hash, powers);
            middle[i] =
                _mm512_xor_si512(product::<0x01>(hash, powers), product::<0x10>(hash, powers));
        }
        let masks = if mac_only(WAY) {
            for (block, keys) in blocks.iter_mut().zip(keys) {
                *block = aes_one(*block, &keys[9]);
            }
            for (block, keys) in blocks.iter_mut().zip(keys) {
                *block = _mm_aesenclast_si128(*block, load(&keys[10]));
            }
            let [a, b, c, d] = blocks;
            let all = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(a), b);
            _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(all, c), d)
        } else {
            last_lanes(self.streams)
        };
        let middle = sums(middle);
        let hash = reduce(
            _mm512_xor_si512(sums(low), _mm512_bslli_epi128::<8>(middle)),
            _mm512_xor_si512(sums(high), _mm512_bsrli_epi128::<8>(middle)),
        );
        let tags = _mm512_xor_si512(_mm512_shuffle_epi8(hash, reverse()), masks);
        let count = core::mem::take(&mut self.count);
        // SAFETY: as `mask` was told for each of these packets.
        unsafe {
            let tag = _mm512_castsi512_si128(tags);
            self.icv::<WAY>(0, tag, count);
            self.icv::<WAY>(1, _mm512_extracti32x4_epi32::<1>(tags), count);
            self.icv::<WAY>(2, _mm512_extracti32x4_epi32::<2>(tags), count);
            self.icv::<WAY>(3, _mm512_extracti32x4_epi32::<3>(tags), count);
        }
        self.before += QUAD;
    }

    /// Writes or compares the tag of one of `count` packets. The comparison tells
    /// nothing of where they differ.
    ///
    /// # Safety
    /// The packet's ICV may be read and written.
    #[inline]
    #[target_feature(enable = "avx512f,sse4.1")]
    unsafe fn icv<const WAY: u8>(&mut self, place: usize, tag: __m128i, count: usize) {
        if place >= count {
            return;
        }
        let at = self.icvs[place].cast();
        // SAFETY: the caller's.
        unsafe {
            if writes(WAY) {
                _mm_storeu_si128(at, tag);
            } else {
                let differ = _mm_xor_si128(tag, _mm_loadu_si128(at));
                let same = _mm_testz_si128(differ, differ);
                self.bad |= ((1 - same) as u64) << (self.before + place);
            }
        }
    }

    /// The packets whose ICV was wrong, when none waits any more.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,sse4.1")]
    pub(super) fn bad<const WAY: u8>(mut self) -> u64 {
        if self.count > 0 {
            self.end::<WAY>();
        }
        self.bad
    }
}

/// The last lane of each, in its lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn last_lanes([a, b, c, d]: [__m512i; QUAD]) -> __m512i {
    let two = _mm512_shuffle_i32x4::<0b11_11_11_11>(a, b);
    let more = _mm512_shuffle_i32x4::<0b11_11_11_11>(c, d);
    _mm512_shuffle_i32x4::<0b10_00_10_00>(two, more)
}

/// The sum over the lanes of each, in its lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn sums([a, b, c, d]: [__m512i; QUAD]) -> __m512i {
    let halves = |a, b| {
        _mm512_xor_si512(
            _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
            _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
        )
    };
    let (two, more) = (halves(a, b), halves(c, d));
    _mm512_xor_si512(
        _mm512_shuffle_i32x4::<0b10_00_10_00>(two, more),
        _mm512_shuffle_i32x4::<0b11_01_11_01>(two, more),
    )
}
