//! AES-128-GCM and GMAC (NIST SP 800-38D), one packet at a time, four blocks in
//! a register and sixteen in flight.
//!
//! A packet is one row of blocks, and its first one is what comes before the
//! data: the additional data of GCM, which has less than a block, or the first
//! bytes of what GMAC covers. Its place in the row of counters is that of the
//! block that masks the tag.

use core::arch::x86_64::{
    __m128i, __m512i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_loadu_si128, _mm_set_epi8,
    _mm_set_epi32, _mm_set_epi64x, _mm_setzero_si128, _mm_shuffle_epi8, _mm_storeu_si128,
    _mm_xor_si128, _mm512_add_epi32, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_broadcast_i32x4, _mm512_castsi512_si128, _mm512_inserti32x4, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_maskz_mov_epi8, _mm512_set_epi32,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_ternarylogic_epi64, _mm512_xor_si512,
    _mm512_zextsi128_si512,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Avx512;
use super::ghash::{Wide, add_product, product, reduce, reverse, sum};
use crate::simd::{AES_BLOCK, RoundKeys, schedule};

/// Blocks of a full part: four registers.
const PART: usize = 16;
/// Powers of the hash key: one for each block of a part, one for the lengths.
const POWERS: usize = PART + 1;
/// A register may begin at any power and is read whole.
const TABLE: usize = POWERS + 3;
const XOR3: i32 = 0x96;

const SEAL: u8 = 0;
const OPEN: u8 = 1;
const MAC: u8 = 2;

/// Round keys and powers of the hash key, of which the last comes first.
#[derive(Zeroize, ZeroizeOnDrop)]
#[repr(align(64))]
pub(crate) struct GcmKey {
    keys: RoundKeys,
    powers: [[u8; AES_BLOCK]; TABLE],
}

/// What one packet adds to its key.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Salt and IV, 96 bits, the first byte lowest. Numbers, and by value, so that
    /// they stay in registers: what is put together in memory has to be waited for.
    pub(crate) nonce: u128,
    /// The row's first block, the first byte lowest.
    pub(crate) head: u128,
    /// Bytes of additional data and of data, for the hash's last block.
    pub(crate) lengths: (usize, usize),
}

impl Avx512 {
    /// Expands a key.
    pub(crate) fn gcm_key(self, key: &[u8; AES_BLOCK]) -> GcmKey {
        // SAFETY: the processor can (`self`).
        unsafe { expand(key) }
    }

    /// Encrypts the data behind the head and returns the tag.
    pub(crate) fn gcm_seal(self, key: &GcmKey, packet: Packet, data: &mut [u8]) -> [u8; 16] {
        // SAFETY: the processor can (`self`); all of `data` may be read and written.
        unsafe {
            row::<SEAL>(
                key,
                packet.nonce,
                packet.head,
                packet.lengths,
                data.as_mut_ptr(),
                data.len(),
            )
        }
    }

    /// Decrypts the data behind the head and returns the tag that it should have.
    pub(crate) fn gcm_open(self, key: &GcmKey, packet: Packet, data: &mut [u8]) -> [u8; 16] {
        // SAFETY: as above.
        unsafe {
            row::<OPEN>(
                key,
                packet.nonce,
                packet.head,
                packet.lengths,
                data.as_mut_ptr(),
                data.len(),
            )
        }
    }

    /// The tag of additional data only, of which `data` is what is behind the head.
    pub(crate) fn gmac(self, key: &GcmKey, packet: Packet, data: &[u8]) -> [u8; 16] {
        // SAFETY: as above; nothing is written.
        unsafe {
            row::<MAC>(
                key,
                packet.nonce,
                packet.head,
                packet.lengths,
                data.as_ptr().cast_mut(),
                data.len(),
            )
        }
    }
}

/// A block in a register and back.
#[inline]
#[target_feature(enable = "sse2")]
fn load(block: &[u8; AES_BLOCK]) -> __m128i {
    // SAFETY: sixteen bytes are read.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn store(value: __m128i) -> [u8; AES_BLOCK] {
    let mut block = [0; AES_BLOCK];
    // SAFETY: sixteen bytes are written.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) };
    block
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
fn expand(key: &[u8; AES_BLOCK]) -> GcmKey {
    let keys = schedule::expand(key);
    let mut block = load(&keys.0[0]);
    for key in &keys.0[1..10] {
        block = _mm_aesenc_si128(block, load(key));
    }
    // From GHASH's key to POLYVAL's: bytes reversed, times x.
    let hash = u128::from_be_bytes(store(_mm_aesenclast_si128(block, load(&keys.0[10]))));
    let carry = (hash >> 127) * 0xc200_0000_0000_0000_0000_0000_0000_0001;
    let first = load(&((hash << 1) ^ carry).to_le_bytes());
    let mut powers = [[0; AES_BLOCK]; TABLE];
    let mut power = first;
    for place in powers[..POWERS].iter_mut().rev() {
        *place = store(power);
        power = reduce(product(power, first));
    }
    GcmKey { keys, powers }
}

/// What is the same for all parts of a packet.
struct Row<'a> {
    key: &'a GcmKey,
    keys: [__m512i; 11],
    /// The nonce, four times, with room for the counter.
    nonce: __m512i,
    /// The hash's last block.
    lengths: __m128i,
}

/// Where a part is in the row.
struct Place {
    /// The part's first block.
    start: *mut u8,
    bytes: usize,
    /// The counters of the first register, little-endian.
    counters: __m512i,
    /// The first block where it is the packet's head.
    head: Option<__m128i>,
    last: bool,
}

/// A part of at most `4 * REGISTERS` blocks: encrypts or decrypts it and adds it
/// to the hash. Returns the hash and the part's first block of key stream.
///
/// # Safety
/// AVX-512 as detected; the part's bytes, but for a head's, may be read, and
/// unless `WAY` is [`MAC`] written; `REGISTERS` is what `bytes` needs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
unsafe fn part<const REGISTERS: usize, const WAY: u8>(
    row: &Row<'_>,
    hash: __m128i,
    place: &Place,
) -> (__m128i, __m128i) {
    let zero = _mm512_setzero_si512();
    let mut stream = [zero; REGISTERS];
    if WAY != MAC {
        let big_endian = _mm512_broadcast_i32x4(_mm_set_epi8(
            12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
        ));
        for (i, block) in stream.iter_mut().enumerate() {
            let step = _mm512_broadcast_i32x4(_mm_set_epi32(4 * i as i32, 0, 0, 0));
            let counters = _mm512_add_epi32(place.counters, step);
            let counters = _mm512_shuffle_epi8(counters, big_endian);
            *block = _mm512_ternarylogic_epi64::<XOR3>(row.nonce, counters, row.keys[0]);
        }
        for key in &row.keys[1..10] {
            for block in &mut stream {
                *block = _mm512_aesenc_epi128(*block, *key);
            }
        }
        for block in &mut stream {
            *block = _mm512_aesenclast_epi128(*block, row.keys[10]);
        }
    }
    let first_stream = _mm512_castsi512_si128(stream[0]);
    // The hash so far goes in with the first block.
    let powers = place.bytes.div_ceil(AES_BLOCK) + usize::from(place.last);
    let mut sums = Wide {
        low: zero,
        middle: zero,
        high: zero,
    };
    for (i, stream) in stream.iter().enumerate() {
        let (at, left) = (place.start.wrapping_add(64 * i), place.bytes - 64 * i);
        let mut mask = if left >= 64 { !0 } else { (1_u64 << left) - 1 };
        if let (0, Some(_)) = (i, place.head) {
            mask &= !0xffff;
        }
        // SAFETY: the mask leaves out the head and what is behind the part.
        let bytes = unsafe { _mm512_maskz_loadu_epi8(mask, at.cast()) };
        let mut covered = bytes;
        if WAY != MAC {
            let crypted = _mm512_maskz_mov_epi8(mask, _mm512_xor_si512(bytes, *stream));
            // SAFETY: as above.
            unsafe { _mm512_mask_storeu_epi8(at.cast(), mask, crypted) };
            if WAY == SEAL {
                covered = crypted;
            }
        }
        if let (0, Some(head)) = (i, place.head) {
            covered = _mm512_inserti32x4::<0>(covered, head);
        }
        let mut blocks = _mm512_shuffle_epi8(covered, reverse());
        if i == 0 {
            blocks = _mm512_xor_si512(blocks, _mm512_zextsi128_si512(hash));
        }
        // SAFETY: `powers` is at least 4 i + 1, at most POWERS; the table has three more.
        let power = unsafe {
            let place = row.key.powers.as_ptr().add(POWERS - powers + 4 * i);
            _mm512_loadu_si512(place.cast())
        };
        add_product(&mut sums, blocks, power);
    }
    let mut sums = Wide {
        low: sum(sums.low),
        middle: sum(sums.middle),
        high: sum(sums.high),
    };
    if place.last {
        let lengths = product(row.lengths, load(&row.key.powers[POWERS - 1]));
        sums.low = _mm_xor_si128(sums.low, lengths.low);
        sums.middle = _mm_xor_si128(sums.middle, lengths.middle);
        sums.high = _mm_xor_si128(sums.high, lengths.high);
    }
    (reduce(sums), first_stream)
}

/// A whole packet; `data` has `len` bytes and lies behind the head.
///
/// # Safety
/// AVX-512 as detected; `len` bytes at `data` may be read, and unless `WAY` is
/// [`MAC`] written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq")]
unsafe fn row<const WAY: u8>(
    key: &GcmKey,
    nonce: u128,
    head: u128,
    lengths: (usize, usize),
    data: *mut u8,
    len: usize,
) -> [u8; AES_BLOCK] {
    let register = |v: u128| _mm_set_epi64x((v >> 64) as i64, v as i64);
    let bits = |bytes: usize| (bytes as u64 * 8) as i64;
    let nonce = register(nonce);
    let mut keys = [_mm512_setzero_si512(); 11];
    for (wide, key) in keys.iter_mut().zip(&key.keys.0) {
        *wide = _mm512_broadcast_i32x4(load(key));
    }
    let row = Row {
        key,
        keys,
        nonce: _mm512_broadcast_i32x4(nonce),
        lengths: _mm_set_epi64x(bits(lengths.0), bits(lengths.1)),
    };
    let mut place = Place {
        start: data.wrapping_sub(AES_BLOCK),
        bytes: AES_BLOCK + len,
        counters: _mm512_set_epi32(4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0),
        head: Some(register(head)),
        last: false,
    };
    let mut hash = _mm_setzero_si128();
    // The block that masks the tag has counter 1.
    let mut mask = _mm_setzero_si128();
    if WAY == MAC {
        let mut block = _mm_xor_si128(
            _mm_xor_si128(nonce, _mm_set_epi32(0x0100_0000, 0, 0, 0)),
            _mm512_castsi512_si128(row.keys[0]),
        );
        for key in &row.keys[1..10] {
            block = _mm_aesenc_si128(block, _mm512_castsi512_si128(*key));
        }
        mask = _mm_aesenclast_si128(block, _mm512_castsi512_si128(row.keys[10]));
    }
    let mut left = place.bytes;
    loop {
        place.bytes = left.min(PART * AES_BLOCK);
        place.last = place.bytes == left;
        // SAFETY: the caller's, for this part, which has 1 to 256 bytes.
        let (next, stream) = unsafe {
            match place.bytes.div_ceil(64) {
                1 => part::<1, WAY>(&row, hash, &place),
                2 => part::<2, WAY>(&row, hash, &place),
                3 => part::<3, WAY>(&row, hash, &place),
                _ => part::<4, WAY>(&row, hash, &place),
            }
        };
        hash = next;
        if place.head.take().is_some() && WAY != MAC {
            mask = stream;
        }
        if place.last {
            break;
        }
        left -= place.bytes;
        place.start = place.start.wrapping_add(place.bytes);
        place.counters = _mm512_add_epi32(
            place.counters,
            _mm512_broadcast_i32x4(_mm_set_epi32(PART as i32, 0, 0, 0)),
        );
    }
    let hash = _mm_shuffle_epi8(hash, _mm512_castsi512_si128(reverse()));
    let tag = _mm_xor_si128(hash, mask);
    store(tag)
}
