//! The few slots of one set.

use std::fmt;
use std::ops::Deref;

/// Slots, up to `N` of them in place.
#[derive(Clone)]
pub struct SlotList<const N: usize>(List<N>);

#[derive(Clone)]
enum List<const N: usize> {
    /// Filled up with [`NONE`].
    Few([u32; N]),
    Many(Box<[u32]>),
}

/// No slot: there are at most 2^20.
const NONE: u32 = u32::MAX;

impl<const N: usize> FromIterator<u32> for SlotList<N> {
    fn from_iter<T: IntoIterator<Item = u32>>(iter: T) -> Self {
        let (mut few, mut len) = ([NONE; N], 0);
        let mut iter = iter.into_iter();
        while let Some(slot) = iter.next() {
            if let Some(place) = few.get_mut(len) {
                *place = slot;
                len += 1;
                continue;
            }
            let all = few.into_iter().chain([slot]).chain(iter);
            return SlotList(List::Many(all.collect()));
        }
        SlotList(List::Few(few))
    }
}

impl<const N: usize> Deref for SlotList<N> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        match &self.0 {
            List::Few(few) => {
                let len = few.iter().position(|slot| *slot == NONE);
                &few[..len.unwrap_or(N)]
            }
            List::Many(many) => many,
        }
    }
}

impl<const N: usize> fmt::Debug for SlotList<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

impl<const N: usize> PartialEq for SlotList<N> {
    fn eq(&self, other: &Self) -> bool {
        self.deref() == other.deref()
    }
}

const _: () = assert!(size_of::<SlotList<2>>() == 16 && size_of::<SlotList<4>>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_what_it_was_made_of() {
        for n in 0..9 {
            let list: SlotList<4> = (0..n).collect();
            assert_eq!(*list, (0..n).collect::<Vec<_>>());
            let list: SlotList<2> = (5..5 + n).collect();
            assert_eq!(list.len(), n as usize);
            assert_eq!(list.last().copied(), n.checked_sub(1).map(|n| 5 + n));
        }
    }
}
