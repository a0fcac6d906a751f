//! Randomness as an argument.

use sha1::{Digest, Sha1};

/// A source of unpredictable bytes, given by the caller.
pub trait Randomness {
    /// Fills the whole slice.
    fn fill(&mut self, out: &mut [u8]);

    /// A random 32-bit number.
    fn u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_ne_bytes(bytes)
    }

    /// `bytes` random bytes as lower-case hex, for tags, branches and tokens.
    fn token(&mut self, bytes: usize) -> String {
        let mut buf = vec![0; bytes];
        self.fill(&mut buf);
        hex(&buf)
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    hex_behind("", bytes)
}

/// The same behind other text.
pub(crate) fn hex_behind(text: &str, bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    let mut out = String::with_capacity(text.len() + 2 * bytes.len());
    out.push_str(text);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out
}

/// A keyed hash of several parts, each with its length before it. SHA-1, which processors
/// have instructions for, between two copies of the secret: collisions that are found
/// without it help nobody.
pub(crate) fn keyed(secret: &[u8; 16], parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Keyed::new(secret);
    parts.iter().for_each(|part| hash.part(part));
    hash.done()
}

/// The same, part by part.
pub(crate) struct Keyed<'a> {
    secret: &'a [u8; 16],
    hash: Sha1,
}

impl<'a> Keyed<'a> {
    pub fn new(secret: &'a [u8; 16]) -> Keyed<'a> {
        let hash = Sha1::new_with_prefix(secret);
        Keyed { secret, hash }
    }

    pub fn part(&mut self, part: &[u8]) {
        self.hash.update((part.len() as u64).to_be_bytes());
        self.hash.update(part);
    }

    pub fn done(mut self) -> [u8; 16] {
        self.hash.update(self.secret);
        let all: [u8; 20] = self.hash.finalize().into();
        let mut out = [0; 16];
        out.copy_from_slice(&all[..16]);
        out
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// A counter that looks random enough for tests and repeats its run.
    pub struct Steps(pub u64);

    impl super::Randomness for Steps {
        fn fill(&mut self, out: &mut [u8]) {
            for byte in out {
                self.0 = self
                    .0
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                *byte = (self.0 >> 33) as u8;
            }
        }
    }
}
