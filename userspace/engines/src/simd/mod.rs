//! The fence: everything that needs `unsafe` or the instructions of one kind of
//! processor. What is above hands in slices and gets results; every length is
//! checked here before a pointer is made of it.
//!
//! A level is a value that only [`detect`](avx512::Avx512::detect) makes, after
//! it has asked the processor. So who holds one may call what it offers: that is
//! the reason for every call of a `target_feature` function below.
#![allow(unsafe_code)]

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod gcm;
mod lanes;
mod rounds;
mod schedule;

pub(crate) use lanes::{End, Message, OUTER, Tag};

/// Chains of CBC that a level works on side by side.
pub(crate) const LANES: usize = 16;

/// Bytes that SHA-1 takes at once.
pub(crate) const SHA1_BLOCK: usize = 64;

/// Blocks that are encrypted before a lane that rests begins anew.
const RUN: usize = 8;

/// Fewest bytes that SHA-1's padding adds (FIPS 180-4 5.1.1).
pub(crate) const SHA1_PADDING: usize = 9;

/// Bytes that AES takes at once.
pub(crate) const AES_BLOCK: usize = 16;

/// HMAC-SHA-1's key as the hash has left it: the state behind the key's block,
/// inside and outside.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub(crate) struct MacStates([[u32; 5]; 2]);

impl MacStates {
    pub(crate) const fn new(inner: [u32; 5], outer: [u32; 5]) -> MacStates {
        MacStates([inner, outer])
    }

    /// Inside and outside.
    pub(crate) fn states(&self) -> &[[u32; 5]; 2] {
        &self.0
    }
}

/// AES-128's round keys, in the order of encryption.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[repr(align(16))]
pub(crate) struct RoundKeys(pub(crate) [[u8; AES_BLOCK]; 11]);

/// The round keys of [`LANES`] CBC chains, round by round, lane by lane, and the
/// last ciphertext block of each (the IV at first). In halves of a block, which
/// are wiped faster than bytes.
#[repr(align(64))]
pub(crate) struct CbcChains {
    keys: [[[u64; 2]; LANES]; 11],
    last: [[u64; 2]; LANES],
    /// What a lane works on that rests.
    rest: [[u8; RUN * AES_BLOCK]; LANES],
    /// Lanes that have had a key: the others have nothing to wipe.
    used: usize,
}

impl Drop for CbcChains {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        for lanes in self.keys.iter_mut().chain([&mut self.last]) {
            lanes[..self.used].as_flattened_mut().zeroize();
        }
    }
}

impl CbcChains {
    /// No chain in any lane.
    pub(crate) fn new() -> CbcChains {
        CbcChains {
            keys: [[[0; 2]; LANES]; 11],
            last: [[0; 2]; LANES],
            rest: [[0; RUN * AES_BLOCK]; LANES],
            used: 0,
        }
    }

    /// Begins a chain in a lane.
    pub(crate) fn begin(&mut self, lane: usize, keys: &RoundKeys, iv: &[u8; AES_BLOCK]) {
        for (round, key) in self.keys.iter_mut().zip(&keys.0) {
            round[lane] = halves(key);
        }
        self.last[lane] = halves(iv);
        self.used = self.used.max(lane + 1);
    }
}

fn halves(block: &[u8; AES_BLOCK]) -> [u64; 2] {
    let both = u128::from_ne_bytes(*block);
    let (low, high) = (both as u64, (both >> 64) as u64);
    if cfg!(target_endian = "little") {
        [low, high]
    } else {
        [high, low]
    }
}

/// What a level does for HMAC-SHA-1 and AES-CBC.
pub(crate) trait Level: Copy + Send + Sync + 'static {
    /// Packets of HMAC-SHA-1 side by side.
    const MACS: usize;

    /// The tags of messages, of which there are as many.
    fn hmac(self, messages: &[Message<'_>], tags: &mut [Tag]);

    /// Encrypts the first `blocks` blocks of each lane in place. A lane with no
    /// bytes at all rests.
    ///
    /// # Panics
    /// When a lane has bytes, but fewer.
    fn cbc_encrypt(self, chains: &mut CbcChains, lanes: &mut [&mut [u8]; LANES], blocks: usize);

    /// Decrypts one packet in place: the IV and its blocks behind it; `keys` are
    /// those of [`Level::inverse`]. Bytes behind the last whole block stay.
    fn cbc_decrypt(self, keys: &RoundKeys, data: &mut [u8]);

    /// Expands a key for encryption.
    fn expand(self, key: &[u8; AES_BLOCK]) -> RoundKeys;

    /// The round keys of the equivalent inverse cipher, in its order.
    fn inverse(self, keys: &RoundKeys) -> RoundKeys;
}

/// Asks for a cache line before it is needed.
pub(crate) fn prefetch<T: ?Sized>(what: &T, offset: usize) {
    let at = core::ptr::from_ref(what).cast::<i8>().wrapping_add(offset);
    // SAFETY: a prefetch reads nothing and faults nowhere; SSE is always there.
    unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at) };
}

/// Refuses lanes that are shorter than what is to be read of them.
fn check_lanes<'a>(lengths: impl Iterator<Item = &'a [u8]>, bytes: usize) {
    for lane in lengths {
        assert!(
            lane.is_empty() || lane.len() >= bytes,
            "a lane is too short"
        );
    }
}
