//! Randomness as an argument.

use md5::{Digest, Md5};

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
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A keyed hash of several parts, each with its length before it.
pub(crate) fn keyed(secret: &[u8; 16], parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(secret);
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(secret);
    hash.finalize().into()
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
