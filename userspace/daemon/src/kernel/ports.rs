//! Protected ports in the form that nftables and the kernel's policies take.

use std::ops::RangeInclusive;

/// The same ports as ranges in order that neither overlap nor touch.
pub fn merged(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Vec<RangeInclusive<u16>> {
    let mut all: Vec<RangeInclusive<u16>> = ranges.into_iter().filter(|r| !r.is_empty()).collect();
    all.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                *last = *last.start()..=*range.end().max(last.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(
            merged([5065..=5072, 5064..=5064, 6000..=6001, 5070..=5080]),
            [5064..=5080, 6000..=6001]
        );
        assert_eq!(merged([1..=65535, 65535..=65535]), [1..=65535]);
        assert_eq!(merged([1..=1, 3..=3]), [1..=1, 3..=3]);
        assert_eq!(merged([]), []);
    }
}
