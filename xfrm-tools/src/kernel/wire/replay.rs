//! Sequence numbers and window in the kernel's two forms.
//!
//! The old one, `xfrm_replay_state`, has 32 numbers, the newest in bit 0. The
//! new one, `xfrm_replay_state_esn`, is a ring: number `top` has bit
//! `(top - 1) mod window`, in 32 bits, and number `top - k` the bit `k` places
//! before, around the ring's end.

use super::Damaged;
use super::attrs::u32_at;
use crate::kernel::numbers::{LEGACY_WINDOW, MAX_WINDOW, Numbers, words};

/// Bytes of `xfrm_replay_state_esn` before the ring.
const HEAD: usize = 24;

/// `xfrm_replay_state_esn` (XFRMA_REPLAY_ESN_VAL).
pub(crate) fn esn_out(numbers: &Numbers) -> Vec<u8> {
    let ring_words = numbers.window.div_ceil(32);
    let mut ring = vec![0u32; ring_words as usize];
    for back in (0..numbers.window).filter(|back| numbers.bit(*back)) {
        let place = place(numbers.top, numbers.window, back);
        if let Some(word) = ring.get_mut((place / 32) as usize) {
            *word |= 1 << (place % 32);
        }
    }
    let (seq_hi, top_hi) = match numbers.esn {
        true => ((numbers.seq >> 32) as u32, (numbers.top >> 32) as u32),
        false => (0, 0),
    };
    [
        ring_words,
        numbers.seq as u32,
        numbers.top as u32,
        seq_hi,
        top_hi,
        numbers.window,
    ]
    .into_iter()
    .chain(ring)
    .flat_map(u32::to_ne_bytes)
    .collect()
}

/// Reads `xfrm_replay_state_esn`.
pub(crate) fn esn_in(value: &[u8], esn: bool) -> Result<Numbers, Damaged> {
    let short = Damaged("half a replay window");
    let field = |n: usize| u32_at(value, 4 * n).ok_or(short);
    let (ring_words, window) = (field(0)?, field(5)?);
    let high = |n: usize| Ok(if esn { u64::from(field(n)?) << 32 } else { 0 });
    if window > MAX_WINDOW || window.div_ceil(32) > ring_words {
        return Err(Damaged("a replay window larger than its bits"));
    }
    if value.len() < HEAD + 4 * window.div_ceil(32) as usize {
        return Err(short);
    }
    let mut numbers = Numbers {
        seq: high(3)? | u64::from(field(1)?),
        top: high(4)? | u64::from(field(2)?),
        seen: vec![0; words(window)],
        window,
        esn,
        legacy: false,
    };
    for back in 0..window {
        let place = place(numbers.top, window, back);
        let word = u32_at(value, HEAD + 4 * (place / 32) as usize).ok_or(short)?;
        if word >> (place % 32) & 1 == 1 && u64::from(back) < numbers.top {
            numbers.mark(back);
        }
    }
    Ok(numbers)
}

/// The bit of number `top - back` in a ring of `window` bits.
fn place(top: u64, window: u32, back: u32) -> u32 {
    // The kernel counts in 32 bits, also where there are 64.
    let newest = (top as u32).wrapping_sub(1) % window;
    if newest >= back {
        newest - back
    } else {
        window - (back - newest)
    }
}

/// `xfrm_replay_state` (XFRMA_REPLAY_VAL).
pub(crate) fn legacy_out(numbers: &Numbers) -> [u8; 12] {
    let seen = numbers.seen.first().copied().unwrap_or(0) as u32;
    let mut value = [0; 12];
    let fields = [numbers.seq as u32, numbers.top as u32, seen];
    for (room, field) in value.chunks_exact_mut(4).zip(fields) {
        room.copy_from_slice(&field.to_ne_bytes());
    }
    value
}

/// Reads `xfrm_replay_state` of a state whose window has `window` numbers.
pub(crate) fn legacy_in(value: &[u8], window: u8) -> Result<Numbers, Damaged> {
    let field = |n: usize| u32_at(value, 4 * n).ok_or(Damaged("half a replay state"));
    let window = u32::from(window).min(LEGACY_WINDOW);
    let mut numbers = Numbers {
        seq: field(0)?.into(),
        top: field(1)?.into(),
        seen: vec![0; words(window)],
        window,
        esn: false,
        legacy: true,
    };
    let bits = field(2)?;
    for back in (0..window).filter(|back| bits >> back & 1 == 1) {
        if u64::from(back) < numbers.top {
            numbers.mark(back);
        }
    }
    Ok(numbers)
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
