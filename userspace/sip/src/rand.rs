//! Randomness as an argument.

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
