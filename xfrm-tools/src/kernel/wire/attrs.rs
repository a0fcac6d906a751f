//! Attributes: length, kind, value, padding to four bytes.

use super::Damaged;

/// Bytes in front of a value.
const HEAD: usize = 4;
/// The bits of a kind that are flags.
const FLAGS: u16 = 0xc000;

pub(crate) const fn align(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Adds an attribute.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(HEAD + value.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(align(bytes.len()), 0);
}

/// The attributes of a message, one after the other.
pub(crate) struct Attrs<'a> {
    rest: &'a [u8],
}

impl<'a> Attrs<'a> {
    /// Those behind a fixed part of `fixed` bytes.
    pub(crate) fn after(payload: &'a [u8], fixed: usize) -> Attrs<'a> {
        Attrs {
            rest: payload.get(align(fixed)..).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<(u16, &'a [u8]), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        let (Some(len), Some(kind)) = (u16_at(whole, 0), u16_at(whole, 2)) else {
            return Some(Err(Damaged("half an attribute")));
        };
        let len = usize::from(len);
        let Some(value) = whole.get(HEAD..len) else {
            return Some(Err(Damaged("an attribute that is longer than its message")));
        };
        // The last one may lack its padding.
        self.rest = whole.get(align(len)..).unwrap_or_default();
        Some(Ok((kind & !FLAGS, value)))
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let value = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(value.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let value = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(value.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let value = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_ne_bytes(value.try_into().ok()?))
}
