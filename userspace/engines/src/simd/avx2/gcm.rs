//! AES-128-GCM and GMAC (NIST SP 800-38D), one packet at a time, eight blocks in
//! flight.
//!
//! A packet is one row of blocks. The first one is what comes before the data,
//! its place in the row of counters being that of the block that masks the tag;
//! the last one has the lengths.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_and_si128, _mm_blendv_epi8,
    _mm_loadu_si128, _mm_set_epi8, _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128,
    _mm_shuffle_epi8, _mm_storeu_si128, _mm_xor_si128,
};

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Avx2;
use super::ghash::{Sums, reverse};
use crate::simd::gcm::{Gcm, MAC, MOST, OPEN, Packet, SEAL, Work, data_len, polyval_key, writes};
use crate::simd::{AES_BLOCK, RoundKeys, schedule};

/// Blocks that go through AES together, which hides its latency, and that are
/// reduced together.
const PART: usize = 8;
/// The last part may have its lengths behind eight blocks.
const POWERS: usize = PART + 1;

/// Round keys and powers of the hash key.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(C, align(16))]
pub(crate) struct GcmKey {
    keys: RoundKeys,
    /// From the ninth to the first.
    powers: [[u8; AES_BLOCK]; POWERS],
    /// The sum of the halves of each.
    folded: [u64; POWERS],
}

impl Gcm for Avx2 {
    type Key = GcmKey;

    fn gcm_key(self, key: &[u8; AES_BLOCK]) -> GcmKey {
        // SAFETY: the processor can (`self`).
        unsafe { expand(key) }
    }

    fn gcm<'a, const WAY: u8>(self, works: &mut impl Iterator<Item = Work<'a, GcmKey>>) -> u64 {
        let mut bad = 0;
        for (place, Work { key, packet, data }) in works.take(MOST).enumerate() {
            let (at, len) = (data.as_mut_ptr(), data_len(data));
            // SAFETY: the processor can (`self`); all of `data` may be read and
            // written, which is sixteen bytes more than `len`.
            let tag = unsafe {
                match WAY {
                    SEAL => row::<SEAL>(key, &packet, at, len),
                    OPEN => row::<OPEN>(key, &packet, at, len),
                    _ => row::<MAC>(key, &packet, at, len),
                }
            };
            let icv = &mut data[len..];
            if writes(WAY) {
                icv.copy_from_slice(&tag);
            } else {
                bad |= u64::from(icv.ct_ne(&tag).unwrap_u8()) << place;
            }
        }
        bad
    }
}

/// A block in a register and back.
#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &[u8; AES_BLOCK]) -> __m128i {
    // SAFETY: sixteen bytes are read.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(value: __m128i) -> [u8; AES_BLOCK] {
    let mut block = [0; AES_BLOCK];
    // SAFETY: sixteen bytes are written.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
    block
}

/// A number in a register.
#[inline]
#[target_feature(enable = "avx2")]
fn number(v: u128) -> __m128i {
    _mm_set_epi64x((v >> 64) as i64, v as i64)
}

/// Blocks through AES, side by side.
#[inline]
#[target_feature(enable = "avx2,aes")]
fn encrypt<const N: usize>(keys: &RoundKeys, blocks: &mut [__m128i; N], count: usize) {
    let blocks = &mut blocks[..count];
    let first = load(&keys.0[0]);
    for block in &mut *blocks {
        *block = _mm_xor_si128(*block, first);
    }
    for key in &keys.0[1..10] {
        let key = load(key);
        for block in &mut *blocks {
            *block = _mm_aesenc_si128(*block, key);
        }
    }
    let last = load(&keys.0[10]);
    for block in blocks {
        *block = _mm_aesenclast_si128(*block, last);
    }
}

#[target_feature(enable = "avx2,aes,pclmulqdq")]
fn expand(key: &[u8; AES_BLOCK]) -> GcmKey {
    let mut expanded = GcmKey {
        keys: schedule::expand(key),
        powers: [[0; AES_BLOCK]; POWERS],
        folded: [0; POWERS],
    };
    let mut hash = [_mm_setzero_si128()];
    encrypt(&expanded.keys, &mut hash, 1);
    let first = number(polyval_key(store(hash[0])));
    let halves = |v: u128| v as u64 ^ (v >> 64) as u64;
    let folded = number(halves(u128::from_le_bytes(store(first))).into());
    let mut power = first;
    let places = expanded.powers.iter_mut().zip(&mut expanded.folded);
    for (place, sum) in places.rev() {
        *place = store(power);
        *sum = halves(u128::from_le_bytes(*place));
        let mut sums = Sums::zero();
        sums.add_one(power, first, folded);
        power = sums.reduce();
    }
    expanded
}

/// The first `bytes` of a register, at most sixteen, all bits set.
#[inline]
#[target_feature(enable = "avx2")]
fn first_bytes(bytes: usize) -> __m128i {
    static ROW: [u8; 2 * AES_BLOCK] = {
        let mut row = [0; 2 * AES_BLOCK];
        let mut i = 0;
        while i < AES_BLOCK {
            row[i] = 0xff;
            i += 1;
        }
        row
    };
    let from = AES_BLOCK - bytes.min(AES_BLOCK);
    // SAFETY: `from` is at most sixteen; sixteen bytes are behind it.
    unsafe { _mm_loadu_si128(ROW.as_ptr().add(from).cast()) }
}

/// A packet on its way.
struct Row<'a> {
    key: &'a GcmKey,
    /// The nonce with room for the counter.
    nonce: __m128i,
    /// The counter of the next block, little-endian.
    counter: __m128i,
    /// Where the next block is.
    at: *mut u8,
    /// The bytes from there on.
    left: usize,
    /// The next block, where it is the packet's head.
    head: Option<__m128i>,
    lengths: __m128i,
    hash: __m128i,
    /// The first block of key stream.
    mask: __m128i,
}

impl Row<'_> {
    /// Encrypts or decrypts the next `N` blocks and adds them to the hash. The
    /// `LAST` ones are one less, and the lengths.
    ///
    /// # Safety
    /// AVX2, AES and the carry-less product as detected; the blocks but for the
    /// head may be read, and unless `WAY` is [`MAC`] written, and the last one of
    /// the row as a whole; there are so many.
    #[inline]
    #[target_feature(enable = "avx2,aes,pclmulqdq")]
    unsafe fn part<const N: usize, const LAST: bool, const WAY: u8>(&mut self) {
        let count = if LAST { N - 1 } else { N };
        let mut stream = [_mm_setzero_si128(); N];
        if WAY != MAC {
            let big_endian = _mm_set_epi8(
                12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
            );
            let one = _mm_set_epi32(1, 0, 0, 0);
            for block in &mut stream[..count] {
                let counter = _mm_shuffle_epi8(self.counter, big_endian);
                *block = _mm_xor_si128(self.nonce, counter);
                self.counter = _mm_add_epi32(self.counter, one);
            }
            encrypt(&self.key.keys, &mut stream, count);
        }
        let mut blocks = [self.lengths; N];
        for i in 0..count {
            if let (0, Some(head)) = (i, self.head) {
                blocks[0] = head;
                if WAY != MAC {
                    self.mask = stream[0];
                }
                self.head = None;
                continue;
            }
            let at: *mut __m128i = self.at.wrapping_add(i * AES_BLOCK).cast();
            // SAFETY: the caller's.
            let bytes = unsafe { _mm_loadu_si128(at) };
            let mut covered = bytes;
            if WAY != MAC {
                let mut crypted = _mm_xor_si128(bytes, stream[i]);
                if LAST && i + 1 == count {
                    let inside = first_bytes(self.left - i * AES_BLOCK);
                    crypted = _mm_blendv_epi8(bytes, crypted, inside);
                }
                // SAFETY: the caller's.
                unsafe { _mm_storeu_si128(at, crypted) };
                if WAY == SEAL {
                    covered = crypted;
                }
            }
            if LAST && i + 1 == count {
                covered = _mm_and_si128(covered, first_bytes(self.left - i * AES_BLOCK));
            }
            blocks[i] = reverse(covered);
        }
        blocks[0] = _mm_xor_si128(blocks[0], self.hash);
        let mut sums = Sums::zero();
        let mut place = POWERS - N;
        let (pairs, one) = blocks.as_chunks::<2>();
        let powers = &self.key.powers;
        let folded = &self.key.folded;
        for [a, b] in pairs {
            let both = u128::from(folded[place]) | u128::from(folded[place + 1]) << 64;
            let powers = [load(&powers[place]), load(&powers[place + 1])];
            sums.add_two(*a, *b, powers, number(both));
            place += 2;
        }
        if let [a] = one {
            sums.add_one(*a, load(&powers[place]), number(folded[place].into()));
        }
        self.hash = sums.reduce();
    }
}

/// A whole packet; `data` has `len` bytes and lies behind the head.
///
/// # Safety
/// AVX2, AES and the carry-less product as detected; `len` bytes and sixteen more
/// at `data` may be read, and unless `WAY` is [`MAC`] written.
#[target_feature(enable = "avx2,aes,pclmulqdq")]
unsafe fn row<const WAY: u8>(
    key: &GcmKey,
    packet: &Packet,
    data: *mut u8,
    len: usize,
) -> [u8; AES_BLOCK] {
    let nonce = number(packet.nonce);
    // The block that masks the tag has counter 1.
    let mut mask = [_mm_setzero_si128()];
    if WAY == MAC {
        mask = [_mm_xor_si128(nonce, _mm_set_epi32(0x0100_0000, 0, 0, 0))];
        encrypt(&key.keys, &mut mask, 1);
    }
    let mut row = Row {
        key,
        nonce,
        counter: _mm_set_epi32(1, 0, 0, 0),
        at: data.wrapping_sub(AES_BLOCK),
        left: AES_BLOCK + len,
        head: Some(number(packet.head.swap_bytes())),
        lengths: number(packet.last_block()),
        hash: _mm_setzero_si128(),
        mask: mask[0],
    };
    // SAFETY: of all: the caller's; parts that are not last have whole blocks.
    unsafe {
        while row.left >= PART * AES_BLOCK {
            row.part::<PART, false, WAY>();
            row.at = row.at.wrapping_add(PART * AES_BLOCK);
            row.left -= PART * AES_BLOCK;
        }
        match row.left.div_ceil(AES_BLOCK) {
            0 => row.part::<1, true, WAY>(),
            1 => row.part::<2, true, WAY>(),
            2 => row.part::<3, true, WAY>(),
            3 => row.part::<4, true, WAY>(),
            4 => row.part::<5, true, WAY>(),
            5 => row.part::<6, true, WAY>(),
            6 => row.part::<7, true, WAY>(),
            7 => row.part::<8, true, WAY>(),
            _ => row.part::<9, true, WAY>(),
        }
    }
    store(_mm_xor_si128(reverse(row.hash), row.mask))
}
