//! What several SAs have in common, once: as a rule addresses and keys of the
//! four of a set.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys::{KEY_WORDS, KeyMaterial};
use crate::layout::{COMMON_BYTES, COMMON_WORDS};
use crate::region::Region;

/// One place for what SAs have in common ([`Region::common`]).
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub(crate) region: &'a Region,
    pub(crate) index: usize,
}

impl<'a> Common<'a> {
    /// The parameters, as written by [`Common::set_record`].
    pub fn record(&self) -> [u8; COMMON_BYTES] {
        bytes_of(self.record_words())
    }

    /// Writes the parameters; before a slot refers to this place.
    pub fn set_record(&self, record: &[u8; COMMON_BYTES]) {
        set_words(self.record_words(), record);
    }

    /// One 64-bit word of them, counted from 0, where little is wanted; 0
    /// behind the last one.
    pub fn word(&self, at: usize) -> u64 {
        let word = self.record_words().get(at);
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Reads the key material. The only way to it.
    pub fn key_material(&self) -> KeyMaterial {
        let mut words = zeroize::Zeroizing::new([0; KEY_WORDS]);
        for (to, from) in words.iter_mut().zip(self.key_words()) {
            *to = from.load(Ordering::Relaxed);
        }
        KeyMaterial::from_words(&words)
    }

    /// Writes the key material; before a slot refers to this place.
    pub fn set_key_material(&self, material: &KeyMaterial) {
        for (to, from) in self.key_words().iter().zip(material.to_words().iter()) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    /// Wipes keys and parameters.
    pub fn wipe(&self) {
        for word in self.key_words().iter().chain(self.record_words()) {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn record_words(&self) -> &'a [AtomicU64] {
        let at = self.region.layout.commons + self.index * COMMON_BYTES;
        self.region.mapping.slice(at, COMMON_WORDS)
    }

    fn key_words(&self) -> &'a [AtomicU64] {
        let at = self.region.layout.keys + self.index * KEY_WORDS * 8;
        self.region.mapping.slice(at, KEY_WORDS)
    }
}

/// Without the key material.
impl fmt::Debug for Common<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Common");
        shown.field("index", &self.index).finish_non_exhaustive()
    }
}

/// Words as the bytes that were written.
pub(crate) fn bytes_of<const N: usize>(words: &[AtomicU64]) -> [u8; N] {
    let mut bytes = [0; N];
    for (to, from) in bytes.chunks_exact_mut(8).zip(words) {
        to.copy_from_slice(&from.load(Ordering::Relaxed).to_ne_bytes());
    }
    bytes
}

/// Writes bytes word by word.
pub(crate) fn set_words<const N: usize>(words: &[AtomicU64], bytes: &[u8; N]) {
    for (to, from) in words.iter().zip(bytes.as_chunks().0) {
        to.store(u64::from_ne_bytes(*from), Ordering::Relaxed);
    }
}
