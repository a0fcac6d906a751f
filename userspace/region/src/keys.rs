//! Key material of a slot.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 64-bit words of a slot's key material: 48 bytes.
pub(crate) const KEY_WORDS: usize = 6;

/// What a successor needs to build the SA's keys anew. Unused parts are zero;
/// which ones are used the suite in the record says. Wiped when dropped, shows
/// nothing in `Debug`.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct KeyMaterial {
    /// The integrity key, up to 20 bytes from the left.
    pub integrity: [u8; 20],
    /// The encryption key, up to 24 bytes from the left.
    pub encryption: [u8; 24],
    /// The salt of GCM and GMAC.
    pub salt: [u8; 4],
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(..)")
    }
}

impl KeyMaterial {
    pub(crate) fn to_words(&self) -> Zeroizing<[u64; KEY_WORDS]> {
        let parts = self
            .integrity
            .iter()
            .chain(&self.encryption)
            .chain(&self.salt);
        let mut words = Zeroizing::new([0; KEY_WORDS]);
        for (i, byte) in parts.enumerate() {
            words[i / 8] |= u64::from(*byte) << (8 * (i % 8));
        }
        words
    }

    pub(crate) fn from_words(words: &[u64; KEY_WORDS]) -> KeyMaterial {
        let mut material = KeyMaterial::default();
        let KeyMaterial {
            integrity,
            encryption,
            salt,
        } = &mut material;
        for (i, byte) in integrity
            .iter_mut()
            .chain(encryption)
            .chain(salt)
            .enumerate()
        {
            *byte = (words[i / 8] >> (8 * (i % 8))) as u8;
        }
        material
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_every_byte_once() {
        let mut n = 0;
        let mut next = || {
            n += 1;
            n
        };
        let material = KeyMaterial {
            integrity: std::array::from_fn(|_| next()),
            encryption: std::array::from_fn(|_| next()),
            salt: std::array::from_fn(|_| next()),
        };
        let words = material.to_words();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        assert_eq!(bytes, (1..=48).collect::<Vec<u8>>());
        let back = KeyMaterial::from_words(&words);
        assert_eq!(back.integrity, material.integrity);
        assert_eq!(
            (back.encryption, back.salt),
            (material.encryption, material.salt)
        );
    }
}
