//! What the levels have in common for AES-128-GCM and GMAC (NIST SP 800-38D).

use zeroize::Zeroize;

use super::AES_BLOCK;

/// What one packet adds to its key.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Salt and IV, 96 bits, the first byte lowest. Numbers, and by value, so that
    /// they stay in registers: what is put together in memory has to be waited for.
    pub(crate) nonce: u128,
    /// The first block of the hash's row, the first byte lowest: the additional
    /// data of GCM, which has less than a block, or the first bytes of what GMAC
    /// covers.
    pub(crate) head: u128,
    /// Bytes of additional data and of data, for the hash's last block.
    pub(crate) lengths: (usize, usize),
}

impl Packet {
    /// The hash's last block, as a number.
    pub(super) fn last_block(&self) -> u128 {
        let bits = |bytes: usize| u128::from(bytes as u64 * 8);
        bits(self.lengths.0) << 64 | bits(self.lengths.1)
    }
}

/// Of GCM and GMAC in ESP.
const ICV_LEN: usize = 16;

/// What is done with the data.
pub(super) const SEAL: u8 = 0;
pub(super) const OPEN: u8 = 1;
/// The data is hashed and nothing else.
pub(super) const MAC: u8 = 2;

/// A level's GCM. All `data` is behind the head and has the ICV's sixteen bytes
/// at its end, which are no data, and stay.
pub(crate) trait Gcm: Copy + Send + Sync + 'static {
    /// Round keys and powers of the hash key.
    type Key: Zeroize + Send + Sync;

    /// Expands a key.
    fn gcm_key(self, key: &[u8; AES_BLOCK]) -> Self::Key;

    /// Encrypts the data and returns the tag.
    fn gcm_seal(self, key: &Self::Key, packet: Packet, data: &mut [u8]) -> [u8; 16];

    /// Decrypts the data and returns the tag that it should have.
    fn gcm_open(self, key: &Self::Key, packet: Packet, data: &mut [u8]) -> [u8; 16];

    /// The tag where there is additional data only, of which `data` is the rest.
    fn gmac(self, key: &Self::Key, packet: Packet, data: &[u8]) -> [u8; 16];
}

/// Bytes of data before the ICV.
///
/// # Panics
/// When there is no ICV.
pub(super) fn data_len(data: &[u8]) -> usize {
    assert!(data.len() >= ICV_LEN, "there is no room for an ICV");
    data.len() - ICV_LEN
}

/// From GHASH's key, which is the zero block encrypted, to POLYVAL's: bytes
/// reversed, times x (RFC 8452 appendix A). In the same time for every key.
pub(super) fn polyval_key(hash: [u8; AES_BLOCK]) -> u128 {
    let hash = u128::from_be_bytes(hash);
    let carry = (hash >> 127) * 0xc200_0000_0000_0000_0000_0000_0000_0001;
    (hash << 1) ^ carry
}
