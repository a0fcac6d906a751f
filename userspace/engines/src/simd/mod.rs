//! The fence: everything that needs `unsafe` or the instructions of one kind of
//! processor. What is above hands in slices and gets results; every length is
//! checked here before a pointer is made of it.
//!
//! A level is a value that only [`detect`](avx512::Avx512::detect) makes, after
//! it has asked the processor. So who holds one may call what it offers: that is
//! the reason for every call of a `target_feature` function below.
#![allow(unsafe_code)]

mod rounds;

pub(crate) mod avx2;
pub(crate) mod avx512;
pub(crate) mod gcm;
mod schedule;

/// Packets that a level works on side by side.
pub(crate) const LANES: usize = 16;

/// Bytes that SHA-1 takes at once.
pub(crate) const SHA1_BLOCK: usize = 64;

/// Bytes that AES takes at once.
pub(crate) const AES_BLOCK: usize = 16;

/// States of [`LANES`] SHA-1 computations: word by word, lane by lane. They begin
/// as secrets, but are digests when a lane has run, so that nothing is wiped.
#[repr(align(64))]
pub(crate) struct Sha1States([[u32; LANES]; 5]);

impl Sha1States {
    /// Nothing in any lane.
    pub(crate) fn new() -> Sha1States {
        Sha1States([[0; LANES]; 5])
    }

    /// Begins with a state in a lane.
    pub(crate) fn set(&mut self, lane: usize, state: [u32; 5]) {
        for (word, value) in self.0.iter_mut().zip(state) {
            word[lane] = value;
        }
    }

    /// The state of a lane.
    pub(crate) fn get(&self, lane: usize) -> [u32; 5] {
        std::array::from_fn(|word| self.0[word][lane])
    }
}

/// AES-128's round keys, in the order of encryption.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[repr(align(16))]
pub(crate) struct RoundKeys(pub(crate) [[u8; AES_BLOCK]; 11]);

/// The round keys of [`LANES`] CBC chains, round by round, lane by lane, and the
/// last ciphertext block of each (the IV at first). In halves of a block, which
/// are wiped faster than bytes.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[repr(align(64))]
pub(crate) struct CbcChains {
    keys: [[[u64; 2]; LANES]; 11],
    last: [[u64; 2]; LANES],
}

impl CbcChains {
    /// No chain in any lane.
    pub(crate) fn new() -> CbcChains {
        CbcChains {
            keys: [[[0; 2]; LANES]; 11],
            last: [[0; 2]; LANES],
        }
    }

    /// Begins a chain in a lane.
    pub(crate) fn begin(&mut self, lane: usize, keys: &RoundKeys, iv: &[u8; AES_BLOCK]) {
        for (round, key) in self.keys.iter_mut().zip(&keys.0) {
            round[lane] = halves(key);
        }
        self.last[lane] = halves(iv);
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
    /// Runs SHA-1 over the first `blocks` blocks of each lane's bytes. A lane
    /// with no bytes at all rests: its state is undefined afterwards.
    ///
    /// # Panics
    /// When a lane has bytes, but fewer.
    fn sha1(self, states: &mut Sha1States, lanes: &[&[u8]; LANES], blocks: usize);

    /// Copies what is left of a message, less than a block, and zeros behind it.
    fn copy_rest(self, rest: &[u8], block: &mut [u8; SHA1_BLOCK]) {
        *block = [0; SHA1_BLOCK];
        block[..rest.len()].copy_from_slice(rest);
    }

    /// Encrypts the first `blocks` blocks of each lane in place. A lane with no
    /// bytes at all rests.
    ///
    /// # Panics
    /// When a lane has bytes, but fewer.
    fn cbc_encrypt(self, chains: &mut CbcChains, lanes: &mut [&mut [u8]; LANES], blocks: usize);

    /// Decrypts one packet's blocks in place; `keys` are those of
    /// [`Level::inverse`]. Bytes behind the last whole block stay.
    fn cbc_decrypt(self, keys: &RoundKeys, iv: &[u8; AES_BLOCK], data: &mut [u8]);

    /// Expands a key for encryption.
    fn expand(self, key: &[u8; AES_BLOCK]) -> RoundKeys;

    /// The round keys of the equivalent inverse cipher, in its order.
    fn inverse(self, keys: &RoundKeys) -> RoundKeys;
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
