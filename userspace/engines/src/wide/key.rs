//! Expanded keys of the levels.

use crate::key::Salt;
use crate::simd::avx2::Avx2;
use crate::simd::avx512::Avx512;
use crate::simd::gcm::Gcm;
use crate::simd::{AES_BLOCK, Level, MacStates, RoundKeys};
use crate::transform::{SALT_LEN, Transform};

/// What a level needs of one SA.
pub(crate) enum WideKey {
    /// HMAC-SHA-1-96, alone or over AES-CBC.
    Mac(MacKey),
    /// AES-GCM or AES-GMAC.
    Gcm(GcmSide),
}

/// What HMAC-SHA-1-96 needs, in the order in which it is read: a packet that is not
/// encrypted reads no more than the first cache line of its key.
#[repr(C)]
pub(crate) struct MacKey {
    /// The states behind the key.
    pub(super) mac: MacStates,
    /// For [`Transform::HmacSha1AesCbc`].
    pub(crate) cbc: Option<CbcKeys>,
}

/// AES-CBC's round keys both ways.
pub(crate) struct CbcKeys {
    pub(super) encrypt: RoundKeys,
    pub(super) decrypt: RoundKeys,
}

/// AES-GCM's or AES-GMAC's key. It can be used where it was made only, and has
/// its level with it.
pub(crate) enum GcmSide {
    Avx512(GcmKey<Avx512>),
    Avx2(GcmKey<Avx2>),
}

/// The same of one level.
pub(crate) struct GcmKey<L: Gcm> {
    pub(super) key: L::Key,
    pub(super) salt: Salt,
    /// Everything is additional data (RFC 4543).
    pub(super) mac_only: bool,
    pub(super) level: L,
}

impl WideKey {
    /// Of HMAC-SHA-1; `None` for what a level has no lanes for. Lengths have
    /// been checked.
    pub(crate) fn mac<L: Level>(
        level: L,
        transform: Transform,
        integrity: &[u8],
        encryption: &[u8],
    ) -> Option<WideKey> {
        let cbc = match transform {
            Transform::HmacSha1Null => None,
            Transform::HmacSha1AesCbc => {
                let key: &[u8; AES_BLOCK] = encryption.try_into().ok()?;
                let encrypt = level.expand(key);
                let decrypt = level.inverse(&encrypt);
                Some(CbcKeys { encrypt, decrypt })
            }
            _ => return None,
        };
        let mac = MacStates::of(integrity);
        Some(WideKey::Mac(MacKey { mac, cbc }))
    }

    /// Of GCM and GMAC; `None` for another transform.
    pub(crate) fn gcm<L: Gcm>(
        level: L,
        side: fn(GcmKey<L>) -> GcmSide,
        transform: Transform,
        integrity: &[u8],
        encryption: &[u8],
        salt: [u8; SALT_LEN],
    ) -> Option<WideKey> {
        let (key, mac_only) = match transform {
            Transform::NullAesGcm => (encryption, false),
            Transform::AesGmacNull => (integrity, true),
            _ => return None,
        };
        Some(WideKey::Gcm(side(GcmKey {
            key: level.gcm_key(key.try_into().ok()?),
            salt: Salt(salt),
            mac_only,
            level,
        })))
    }
}
