//! Expanded keys.

use aes::Aes128;
use aes_gcm::{Aes128Gcm, KeyInit};
use hmac::Hmac;
use sha1::Sha1;
use zeroize::Zeroize;

use crate::transform::{SALT_LEN, Transform};

/// The key of one SA, expanded once so that a packet pays only for itself.
///
/// No `Debug`, no way back to the bytes; the key schedules are zeroized on
/// drop by the crates that own them, the salt here.
pub struct Key {
    pub(crate) inner: Inner,
}

/// What each transform needs.
pub(crate) enum Inner {
    HmacSha1Null { mac: Hmac<Sha1> },
    HmacSha1AesCbc { mac: Hmac<Sha1>, aes: Aes128 },
    AesGmacNull { gcm: Aes128Gcm, salt: Salt },
    NullAesGcm { gcm: Aes128Gcm, salt: Salt },
}

/// The first four bytes of the nonce of GCM and GMAC, secret as the key is.
pub(crate) struct Salt(pub(crate) [u8; SALT_LEN]);

impl Drop for Salt {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Why key bytes do not fit a transform. Names lengths, never bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The integrity key is too short or too long.
    #[error("the integrity key has {got} bytes, {expected} are needed")]
    IntegrityLength {
        /// Bytes that the transform needs.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The encryption key is too short or too long.
    #[error("the encryption key has {got} bytes, {expected} are needed")]
    EncryptionLength {
        /// Bytes that the transform needs.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

impl Key {
    /// Expands key bytes for a transform.
    ///
    /// `integrity` has 20 bytes for HMAC-SHA-1-96, 16 for GMAC, else none;
    /// `encryption` 16 for CBC and GCM, else none; `salt` counts for GCM and
    /// GMAC only. The caller keeps, and zeroizes, its own copies.
    ///
    /// # Errors
    /// [`KeyError`] when a length is not the transform's.
    pub fn new(
        transform: Transform,
        integrity: &[u8],
        encryption: &[u8],
        salt: [u8; SALT_LEN],
    ) -> Result<Key, KeyError> {
        let expected = transform.integrity_key_len();
        let integrity_length = KeyError::IntegrityLength {
            expected,
            got: integrity.len(),
        };
        if integrity.len() != expected {
            return Err(integrity_length);
        }
        let expected = transform.encryption_key_len();
        let encryption_length = KeyError::EncryptionLength {
            expected,
            got: encryption.len(),
        };
        if encryption.len() != expected {
            return Err(encryption_length);
        }
        let hmac = || Hmac::<Sha1>::new_from_slice(integrity).map_err(|_| integrity_length);
        let inner = match transform {
            Transform::HmacSha1Null => Inner::HmacSha1Null { mac: hmac()? },
            Transform::HmacSha1AesCbc => Inner::HmacSha1AesCbc {
                mac: hmac()?,
                aes: Aes128::new_from_slice(encryption).map_err(|_| encryption_length)?,
            },
            Transform::AesGmacNull => Inner::AesGmacNull {
                gcm: Aes128Gcm::new_from_slice(integrity).map_err(|_| integrity_length)?,
                salt: Salt(salt),
            },
            Transform::NullAesGcm => Inner::NullAesGcm {
                gcm: Aes128Gcm::new_from_slice(encryption).map_err(|_| encryption_length)?,
                salt: Salt(salt),
            },
        };
        Ok(Key { inner })
    }

    /// The transform that this key is for.
    pub fn transform(&self) -> Transform {
        match self.inner {
            Inner::HmacSha1Null { .. } => Transform::HmacSha1Null,
            Inner::HmacSha1AesCbc { .. } => Transform::HmacSha1AesCbc,
            Inner::AesGmacNull { .. } => Transform::AesGmacNull,
            Inner::NullAesGcm { .. } => Transform::NullAesGcm,
        }
    }
}

/// The crates zeroize only with their `zeroize` feature: no build without it.
/// `Hmac` keeps nothing but two states of its hash.
const _: () = {
    const fn zeroized<T: zeroize::ZeroizeOnDrop>() {}
    zeroized::<Sha1>();
    zeroized::<Aes128>();
    zeroized::<Aes128Gcm>();
};
