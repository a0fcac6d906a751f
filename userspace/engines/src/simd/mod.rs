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

use lanes::End;
pub(crate) use lanes::{Message, Messages, OUTER, Tag};

/// Bytes that SHA-1 takes at once.
pub(crate) const SHA1_BLOCK: usize = 64;

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

impl RoundKeys {
    /// Of no key.
    pub(crate) const NONE: RoundKeys = RoundKeys([[0; AES_BLOCK]; 11]);
}

/// A packet that CBC encrypts in place.
pub(crate) struct Chain<'a> {
    pub(crate) keys: &'a RoundKeys,
    /// Its IV and its blocks.
    pub(crate) data: &'a mut [u8],
}

impl Chain<'_> {
    /// The keys, where the first block is, behind the IV, and how many there are:
    /// `None` where there are none.
    fn parts(&mut self) -> Option<(&RoundKeys, *mut u8, u32)> {
        let blocks = (self.data.len() / AES_BLOCK).checked_sub(1)?;
        let first = self.data.get_mut(AES_BLOCK..)?.as_mut_ptr();
        let blocks = u32::try_from(blocks).ok().filter(|blocks| *blocks > 0)?;
        Some((self.keys, first, blocks))
    }
}

/// What a level does for HMAC-SHA-1 and AES-CBC.
pub(crate) trait Level: Copy + Send + Sync + 'static {
    /// Packets of HMAC-SHA-1 side by side.
    const MACS: usize;

    /// The tags of so many messages, the first ones.
    fn hmac<'a>(self, messages: &mut impl Messages<'a>, count: usize);

    /// Encrypts packets in place; those that begin should be the longest.
    fn cbc_encrypt(self, chains: &mut [Chain<'_>]);

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
