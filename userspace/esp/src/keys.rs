//! Keys of an SA from IK and CK (TS 33.203 Annex I).

use gm_engines::{MAX_ENCRYPTION_KEY_LEN, MAX_INTEGRITY_KEY_LEN, SALT_LEN};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::suite::Suite;

/// Why text or bytes are no key. Names lengths and places, never content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// IK and CK have 32 hex digits.
    #[error("{digits} characters where 32 hex digits are needed")]
    HexLength {
        /// Characters given.
        digits: usize,
    },
    /// Something other than a hex digit.
    #[error("character {at} is not a hex digit")]
    HexDigit {
        /// Its place, from 0.
        at: usize,
    },
    /// The integrity key is not the suite's.
    #[error("{suite} takes an integrity key of {expected} bytes, {got} are given")]
    Integrity {
        /// The suite.
        suite: Suite,
        /// Bytes that it takes; 0: none.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The encryption key is not the suite's.
    #[error("{suite} takes an encryption key of {expected} bytes, {got} are given")]
    Encryption {
        /// The suite.
        suite: Suite,
        /// Bytes that it takes; 0: none.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// The salt is not the suite's.
    #[error("{suite} takes a salt of {expected} bytes, {got} are given")]
    Salt {
        /// The suite.
        suite: Suite,
        /// Bytes that it takes; 0: none.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

macro_rules! aka_key {
    ($(#[$doc:meta])+ $name:ident) => {
        $(#[$doc])+
        ///
        /// Zeroized on drop; `Debug` shows no content; compared in constant time.
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Takes the 16 bytes; the caller zeroizes its own copy.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Reads 32 hex digits of either case.
            ///
            /// # Errors
            /// [`KeysError::HexLength`] and [`KeysError::HexDigit`].
            pub fn from_hex(text: &str) -> Result<Self, KeysError> {
                hex16(text).map(|bytes| Self(*bytes))
            }

            /// The secret bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}
    };
}

aka_key! {
    /// IK_IM, the integrity key that AKA agreed on (TS 33.203 6.1).
    Ik
}
aka_key! {
    /// CK_IM, the cipher key that AKA agreed on (TS 33.203 6.1).
    Ck
}

fn hex16(text: &str) -> Result<Zeroizing<[u8; 16]>, KeysError> {
    let mut bytes = Zeroizing::new([0; 16]);
    let digits = text.chars().count();
    if digits != 32 {
        return Err(KeysError::HexLength { digits });
    }
    for (at, digit) in text.chars().enumerate() {
        let value = digit.to_digit(16).ok_or(KeysError::HexDigit { at })?;
        bytes[at / 2] = bytes[at / 2] << 4 | value as u8;
    }
    Ok(bytes)
}

/// The ESP keys of one SA set: IK_ESP, CK_ESP and the salt.
///
/// Zeroized on drop; `Debug` shows the suite only; compared in constant time.
#[derive(Clone)]
pub struct EspKeys {
    suite: Suite,
    integrity: [u8; MAX_INTEGRITY_KEY_LEN],
    encryption: [u8; MAX_ENCRYPTION_KEY_LEN],
    salt: [u8; SALT_LEN],
}

impl EspKeys {
    /// Expands IK and CK (TS 33.203 Annex I).
    ///
    /// HMAC-SHA-1: IK and 32 zero bits. GMAC: IK. AES-CBC and GCM: CK. The salts
    /// are the last four bytes of the KDF of TS 33.220 Annex B under CK || IK.
    ///
    /// Of older releases: HMAC-MD5: IK. 3DES: CK is the first two DES keys, its
    /// first half again the third. The parity bits stay CK's: DES does not look
    /// at them. Nor are weak keys refused, which phone and network would derive
    /// alike and neither could tell the other.
    pub fn expand(suite: Suite, ik: &Ik, ck: &Ck) -> EspKeys {
        let mut keys = EspKeys::empty(suite);
        let salt = |fc: u8, name: &[u8]| {
            let mut key = Zeroizing::new([0; 32]);
            key[..16].copy_from_slice(&ck.0);
            key[16..].copy_from_slice(&ik.0);
            let out = kdf(&key, fc, &[name]);
            [out[28], out[29], out[30], out[31]]
        };
        let t = suite.transform();
        if t.integrity_key_len() > 0 {
            keys.integrity[..16].copy_from_slice(&ik.0);
        }
        if t.encryption_key_len() > 0 {
            keys.encryption[..16].copy_from_slice(&ck.0);
        }
        match suite {
            Suite::AesGmacNull => keys.salt = salt(0x58, b"AES_GMAC_SALT"),
            Suite::NullAesGcm => keys.salt = salt(0x59, b"AES_GCM_SALT"),
            Suite::HmacMd5DesEde3Cbc | Suite::HmacSha1DesEde3Cbc => {
                keys.encryption[16..].copy_from_slice(&ck.0[..8]);
            }
            Suite::HmacSha1Null
            | Suite::HmacSha1AesCbc
            | Suite::HmacMd5Null
            | Suite::HmacMd5AesCbc => {}
        }
        keys
    }

    /// Takes keys as they are, for SAs that are set up by hand.
    ///
    /// What the suite has must be there in its length, and nothing else.
    ///
    /// # Errors
    /// [`KeysError`] names the part and its length.
    pub fn explicit(
        suite: Suite,
        integrity: Option<&[u8]>,
        encryption: Option<&[u8]>,
        salt: Option<&[u8]>,
    ) -> Result<EspKeys, KeysError> {
        let (integrity, encryption, salt) = (
            integrity.unwrap_or_default(),
            encryption.unwrap_or_default(),
            salt.unwrap_or_default(),
        );
        let transform = suite.transform();
        let expected = transform.integrity_key_len();
        if integrity.len() != expected {
            let got = integrity.len();
            return Err(KeysError::Integrity {
                suite,
                expected,
                got,
            });
        }
        let expected = transform.encryption_key_len();
        if encryption.len() != expected {
            let got = encryption.len();
            return Err(KeysError::Encryption {
                suite,
                expected,
                got,
            });
        }
        let expected = if transform.has_salt() { SALT_LEN } else { 0 };
        if salt.len() != expected {
            let got = salt.len();
            return Err(KeysError::Salt {
                suite,
                expected,
                got,
            });
        }
        let mut keys = EspKeys::empty(suite);
        keys.integrity[..integrity.len()].copy_from_slice(integrity);
        keys.encryption[..encryption.len()].copy_from_slice(encryption);
        keys.salt[..salt.len()].copy_from_slice(salt);
        Ok(keys)
    }

    fn empty(suite: Suite) -> EspKeys {
        EspKeys {
            suite,
            integrity: [0; MAX_INTEGRITY_KEY_LEN],
            encryption: [0; MAX_ENCRYPTION_KEY_LEN],
            salt: [0; SALT_LEN],
        }
    }

    /// The suite that the keys are for.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The integrity key (20 bytes for HMAC-SHA-1, 16 for HMAC-MD5 and GMAC), if
    /// the suite has one.
    pub fn integrity(&self) -> Option<&[u8]> {
        let len = self.suite.transform().integrity_key_len();
        (len > 0).then(|| &self.integrity[..len])
    }

    /// The encryption key (24 bytes for 3DES, else 16), if the suite has one.
    pub fn encryption(&self) -> Option<&[u8]> {
        let len = self.suite.transform().encryption_key_len();
        (len > 0).then(|| &self.encryption[..len])
    }

    /// The salt of GCM and GMAC, if the suite has one.
    pub fn salt(&self) -> Option<[u8; SALT_LEN]> {
        self.suite.transform().has_salt().then_some(self.salt)
    }
}

impl Drop for EspKeys {
    fn drop(&mut self) {
        self.integrity.zeroize();
        self.encryption.zeroize();
        self.salt.zeroize();
    }
}

impl core::fmt::Debug for EspKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "EspKeys({}, ..)", self.suite)
    }
}

impl PartialEq for EspKeys {
    fn eq(&self, other: &Self) -> bool {
        let same = self.integrity.ct_eq(&other.integrity)
            & self.encryption.ct_eq(&other.encryption)
            & self.salt.ct_eq(&other.salt);
        self.suite == other.suite && same.into()
    }
}

impl Eq for EspKeys {}

/// The KDF of TS 33.220 Annex B: HMAC-SHA-256 over FC || P0 || L0 || P1 || …,
/// each length in two bytes, high one first.
fn kdf(key: &[u8; 32], fc: u8, parameters: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    // HMAC pads a short key with zeros to the hash's block (RFC 2104 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..key.len()].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    mac.update(&[fc]);
    for parameter in parameters {
        mac.update(parameter);
        mac.update(&(parameter.len() as u16).to_be_bytes());
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// The hash zeroizes only with its `zeroize` feature: no build without it.
const _: () = {
    const fn zeroized<T: ZeroizeOnDrop>() {}
    zeroized::<Sha256>();
};

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
