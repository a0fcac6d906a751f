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

/// What is done with a packet: its data encrypted and the ICV written, ...
pub(crate) const SEAL: u8 = 0;
/// ... decrypted and the ICV compared, ...
pub(crate) const OPEN: u8 = 1;
/// ... only looked at, for there is additional data only, of which it is the rest,
/// and the ICV written, ...
pub(crate) const MAC: u8 = 2;
/// ... or compared.
pub(crate) const CHECK: u8 = 3;

/// There is additional data only.
pub(crate) const fn mac_only(way: u8) -> bool {
    way == MAC || way == CHECK
}

/// The ICV is written.
pub(super) const fn writes(way: u8) -> bool {
    way == SEAL || way == MAC
}

/// A packet. All `data` is behind the head and has the ICV's sixteen bytes at its
/// end, which are no data.
pub(crate) struct Work<'a, K> {
    pub(crate) key: &'a K,
    pub(crate) packet: Packet,
    pub(crate) data: &'a mut [u8],
}

/// Packets of one call.
pub(crate) const MOST: usize = 64;

/// A level's GCM.
pub(crate) trait Gcm: Copy + Send + Sync + 'static {
    /// Round keys and powers of the hash key.
    type Key: Zeroize + Send + Sync + 'static;

    /// Expands a key.
    fn gcm_key(self, key: &[u8; AES_BLOCK]) -> Self::Key;

    /// Does `WAY` with packets, of which no more than [`MOST`] are taken. Returns those whose
    /// ICV is not the right one, the first in the lowest bit.
    fn gcm<'a, const WAY: u8>(self, works: &mut impl Iterator<Item = Work<'a, Self::Key>>) -> u64;
}

/// Bytes of data before the ICV.
///
/// # Panics
/// When there is no ICV.
#[inline]
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
