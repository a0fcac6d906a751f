//! Finds slots by what their SAs are: numbers of slots in a table, nothing else.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

/// Slots by hash, for keys that can be read from the slot: four bytes a place,
/// two places a slot. Never grows, so nothing stops for that; memory that was
/// never used takes none.
///
/// Open addressing with linear probing; what leaves lets others move up, so no
/// graves are left. Several slots may have one key ([`Finder::all`]). The hash
/// has a random secret: who chooses keys cannot choose places.
pub struct Finder {
    /// In the low bits slot and 1, 0: nobody; above them some of the hash, so
    /// that a look at a stranger is rare.
    places: Box<[u32]>,
    secret: [u64; 2],
}

/// Bits of slot and 1: there are at most 2^20 slots.
const SLOT_BITS: u32 = 21;
const SLOT: u32 = (1 << SLOT_BITS) - 1;

/// Multiplies and folds; the state is secret from the start.
struct Fold {
    state: u64,
    factor: u64,
}

impl Fold {
    fn word(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (product as u64 ^ (product >> 64) as u64).wrapping_add(word.rotate_left(32));
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_ne_bytes(*word));
        }
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_ne_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.word(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.word(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.word(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.word(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.word(n as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}

impl Finder {
    /// Room for `slots` entries, whichever slots they are.
    pub fn new(slots: u32) -> Finder {
        let places = (slots.max(1) as usize).next_power_of_two() * 2;
        // The standard library draws the secret.
        let draw = || RandomState::new().hash_one(0);
        Finder {
            places: vec![0; places].into_boxed_slice(),
            secret: [draw(), draw() | 1],
        }
    }

    /// Where a key begins to look, and its tag.
    fn home(&self, key: &impl Hash) -> (usize, u32) {
        let [state, factor] = self.secret;
        let mut fold = Fold { state, factor };
        key.hash(&mut fold);
        let hash = fold.finish();
        let home = hash as usize & (self.places.len() - 1);
        (home, (hash >> 32) as u32 & !SLOT)
    }

    /// Enters a slot under its key. It must not be there already, and there are
    /// no more entries than slots.
    pub fn insert(&mut self, key: &impl Hash, slot: u32) {
        debug_assert!(slot < SLOT - 1);
        let (mut at, tag) = self.home(key);
        for _ in 0..self.places.len() {
            if self.places[at] == 0 {
                self.places[at] = tag | (slot + 1);
                return;
            }
            at = (at + 1) & (self.places.len() - 1);
        }
        unreachable!("twice as many places as slots");
    }

    /// Takes a slot out; one that is not there changes nothing. `key_of` says
    /// the keys of slots that are in.
    pub fn remove<K: Hash>(&mut self, key: &K, slot: u32, key_of: impl Fn(u32) -> K) {
        let mask = self.places.len() - 1;
        let (mut hole, tag) = self.home(key);
        while self.places[hole] != tag | (slot + 1) {
            if self.places[hole] == 0 {
                return;
            }
            hole = (hole + 1) & mask;
        }
        // Whoever stands behind and may stand here moves up.
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let next = self.places[at];
            if next == 0 {
                break;
            }
            let (home, _) = self.home(&key_of((next & SLOT) - 1));
            let from_home = at.wrapping_sub(home) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.places[hole] = next;
                hole = at;
            }
        }
        self.places[hole] = 0;
    }

    /// The slots that may have this key: all that do, and seldom another one.
    /// Whoever asks compares.
    pub fn all<'a, K: Hash>(&'a self, key: &K) -> impl Iterator<Item = u32> + use<'a, K> {
        let (mask, (mut at, tag)) = (self.places.len() - 1, self.home(key));
        std::iter::from_fn(move || {
            loop {
                let place = self.places[at];
                let slot = (place & SLOT).checked_sub(1)?;
                at = (at + 1) & mask;
                if place & !SLOT == tag {
                    return Some(slot);
                }
            }
        })
    }

    /// The slot with this key; `is` says of a slot whether it is the one.
    pub fn find(&self, key: &impl Hash, is: impl Fn(u32) -> bool) -> Option<u32> {
        self.all(key).find(|slot| is(*slot))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.iter().all(|place| *place == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Slots come and go under few keys: found under theirs, and nowhere else.
        #[test]
        fn finds_what_is_in(steps in prop::collection::vec((0..16u32, 0..6u8), 0..200)) {
            let mut finder = Finder::new(16);
            let mut keys = [None::<u8>; 16];
            for (slot, key) in steps {
                let at = slot as usize;
                let key_of = |slot: u32| keys[slot as usize].unwrap();
                if let Some(old) = keys[at] {
                    finder.remove(&old, slot, key_of);
                    keys[at] = None;
                } else {
                    finder.remove(&key, slot, key_of);
                    finder.insert(&key, slot);
                    keys[at] = Some(key);
                }
                for key in 0..6u8 {
                    let mut found: Vec<u32> =
                        finder.all(&key).filter(|s| keys[*s as usize] == Some(key)).collect();
                    found.sort_unstable();
                    let there = (0..16u32).filter(|s| keys[*s as usize] == Some(key));
                    prop_assert_eq!(&found, &there.collect::<Vec<_>>());
                    let one = finder.find(&key, |s| keys[s as usize] == Some(key));
                    prop_assert_eq!(one.is_some(), !found.is_empty());
                }
            }
            prop_assert_eq!(finder.is_empty(), keys.iter().all(Option::is_none));
        }
    }

    #[test]
    fn a_full_table_still_ends_a_search() {
        let mut finder = Finder::new(4);
        for slot in 0..4 {
            finder.insert(&7u8, slot);
        }
        assert_eq!(finder.all(&7u8).count(), 4);
        assert_eq!(finder.find(&7u8, |slot| slot == 9), None);
        for slot in [2, 0, 3, 1] {
            finder.remove(&7u8, slot, |_| 7u8);
        }
        assert!(finder.is_empty());
    }
}
