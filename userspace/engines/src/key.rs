//! Expanded keys.

use aes::Aes128;
use aes_gcm::{Aes128Gcm, KeyInit};
use des::TdesEde3;
use hmac::Hmac;
use md5::Md5;
use sha1::Sha1;
use zeroize::Zeroize;

use crate::level::{self, Level};
use crate::transform::{SALT_LEN, Transform};
use crate::wide::WideKey;

/// The key of one SA, expanded once so that a packet pays only for itself.
///
/// No `Debug`, no way back to the bytes; the key schedules are zeroized on
/// drop by the crates that own them, the salt here.
pub struct Key {
    transform: Transform,
    /// What [`Transform::fits`] judges by, looked up once.
    min_len: u16,
    block_mask: u16,
    pub(crate) form: Form,
}

/// What of a key an engine works with. Each engine can work with each form, for
/// it hands what is not its own to the engine whose it is; so a key should be
/// made for the engine that will have it.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every key is a wide one, and a box would be one more line to fetch for each packet"
)]
pub(crate) enum Form {
    /// RustCrypto's. Elsewhere, because they are twice as large as the others.
    Reference(Box<Inner>),
    /// Of the engines for several packets at once.
    Wide(WideKey),
}

/// What each transform needs.
pub(crate) enum Inner {
    Hmac { mac: HmacKey, cipher: Cipher },
    AesGmacNull { gcm: Aes128Gcm, salt: Salt },
    NullAesGcm { gcm: Aes128Gcm, salt: Salt },
}

/// Of the MACs that are cut to 96 bits.
pub(crate) enum HmacKey {
    Sha1(Hmac<Sha1>),
    Md5(Hmac<Md5>),
}

/// What goes with such a MAC.
pub(crate) enum Cipher {
    Null,
    AesCbc(Aes128),
    DesEde3Cbc(TdesEde3),
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
    /// `integrity` has 20 bytes for HMAC-SHA-1-96, 16 for HMAC-MD5-96 and GMAC,
    /// else none; `encryption` 16 for AES-CBC and GCM, 24 for 3DES, else none;
    /// `salt` counts for GCM and GMAC only. The caller keeps, and zeroizes, its
    /// own copies.
    ///
    /// 3DES takes every key: parity is not looked at, and keys that make it weak
    /// (RFC 2451 2.2) are not refused, for the other end, which has derived the
    /// same ones, would not know.
    ///
    /// The key is made for the engine that [`best`](crate::best) gives.
    ///
    /// # Errors
    /// [`KeyError`] when a length is not the transform's.
    pub fn new(
        transform: Transform,
        integrity: &[u8],
        encryption: &[u8],
        salt: [u8; SALT_LEN],
    ) -> Result<Key, KeyError> {
        Key::made_for(level::chosen(), transform, integrity, encryption, salt)
    }

    /// The same for the engine of a level.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn made_for(
        level: Level,
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
        if let Some(wide) = level.wide_key(transform, integrity, encryption, salt) {
            return Ok(Key::of(transform, Form::Wide(wide)));
        }
        let sha1 = || match Hmac::new_from_slice(integrity) {
            Ok(mac) => Ok(HmacKey::Sha1(mac)),
            Err(_) => Err(integrity_length),
        };
        let md5 = || match Hmac::new_from_slice(integrity) {
            Ok(mac) => Ok(HmacKey::Md5(mac)),
            Err(_) => Err(integrity_length),
        };
        let aes = || match Aes128::new_from_slice(encryption) {
            Ok(aes) => Ok(Cipher::AesCbc(aes)),
            Err(_) => Err(encryption_length),
        };
        let des = || match TdesEde3::new_from_slice(encryption) {
            Ok(des) => Ok(Cipher::DesEde3Cbc(des)),
            Err(_) => Err(encryption_length),
        };
        let hmac = |mac, cipher| Inner::Hmac { mac, cipher };
        let inner = match transform {
            Transform::HmacSha1Null => hmac(sha1()?, Cipher::Null),
            Transform::HmacSha1AesCbc => hmac(sha1()?, aes()?),
            Transform::HmacSha1DesEde3Cbc => hmac(sha1()?, des()?),
            Transform::HmacMd5Null => hmac(md5()?, Cipher::Null),
            Transform::HmacMd5AesCbc => hmac(md5()?, aes()?),
            Transform::HmacMd5DesEde3Cbc => hmac(md5()?, des()?),
            Transform::AesGmacNull => Inner::AesGmacNull {
                gcm: Aes128Gcm::new_from_slice(integrity).map_err(|_| integrity_length)?,
                salt: Salt(salt),
            },
            Transform::NullAesGcm => Inner::NullAesGcm {
                gcm: Aes128Gcm::new_from_slice(encryption).map_err(|_| encryption_length)?,
                salt: Salt(salt),
            },
        };
        Ok(Key::of(transform, Form::Reference(Box::new(inner))))
    }

    fn of(transform: Transform, form: Form) -> Key {
        Key {
            transform,
            min_len: transform.min_len() as u16,
            block_mask: transform.alignment() as u16 - 1,
            form,
        }
    }

    /// The transform that this key is for.
    pub fn transform(&self) -> Transform {
        self.transform
    }

    /// [`Transform::fits`].
    pub(crate) fn fits(&self, len: usize) -> bool {
        // What a wide form says by itself is not read from another cache line.
        #[cfg(target_arch = "x86_64")]
        if let Form::Wide(WideKey::Mac(key)) = &self.form {
            return match key.cbc {
                Some(_) => Transform::HmacSha1AesCbc.fits(len),
                None => Transform::HmacSha1Null.fits(len),
            };
        }
        match len.checked_sub(self.min_len.into()) {
            Some(more) => more & usize::from(self.block_mask) == 0,
            None => false,
        }
    }
}

/// The crates zeroize only with their `zeroize` feature: no build without it.
/// `Hmac` keeps nothing but two states of its hash.
const _: () = {
    const fn zeroized<T: zeroize::ZeroizeOnDrop>() {}
    zeroized::<Sha1>();
    zeroized::<Md5>();
    zeroized::<TdesEde3>();
    zeroized::<Aes128>();
    zeroized::<Aes128Gcm>();
};
