//! Tables by numbers of our own, which count up: nobody else chooses where an entry lands.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by such a number.
pub(crate) type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<ByNumber>>;

/// Neighbours stay neighbours: what is new is near to what was just used, however large the
/// table has become. The upper bits, by which a table tells the entries of one place apart,
/// are mixed.
#[derive(Debug, Default, Clone)]
pub(crate) struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        let mixed = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed & !(u64::MAX >> 8)) | (self.0 & (u64::MAX >> 8))
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) ^ u64::from(*byte) ^ (self.0 >> 56);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_apart_and_find_their_own() {
        let mut table: Numbered<u64, u64> = Numbered::default();
        for n in 0..100_000 {
            table.insert(n, n);
            if n >= 1000 {
                assert_eq!(table.remove(&(n - 1000)), Some(n - 1000));
            }
        }
        let mut left: Vec<_> = table.into_values().collect();
        left.sort_unstable();
        assert!(left.into_iter().eq(99_000..100_000));
    }
}
