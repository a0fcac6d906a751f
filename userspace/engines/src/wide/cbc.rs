//! AES-CBC over many packets.

use std::mem::take;

use super::BATCH;
use crate::simd::{AES_BLOCK, CbcChains, LANES, Level, RoundKeys};

/// A packet's blocks, to be encrypted.
pub(super) struct Chain<'a> {
    pub(super) keys: &'a RoundKeys,
    pub(super) iv: [u8; AES_BLOCK],
    pub(super) body: &'a mut [u8],
}

/// Encrypts all chains, each in a lane that the one before it has left. The
/// longest begin, so that the lanes end together.
pub(super) fn encrypt<L: Level>(level: L, work: &mut [Option<Chain<'_>>; BATCH]) {
    let length = |chain: &Option<Chain<'_>>| chain.as_ref().map_or(0, |chain| chain.body.len());
    if !work.is_sorted_by(|a, b| length(a) >= length(b)) {
        work.sort_unstable_by_key(|chain| std::cmp::Reverse(length(chain)));
    }
    let mut waiting = work.iter_mut().map_while(take);
    let mut chains = CbcChains::new();
    let mut lanes: [&mut [u8]; LANES] = Default::default();
    let mut begin = |chains: &mut CbcChains, lane: usize| match waiting.next() {
        Some(chain) => {
            chains.begin(lane, chain.keys, &chain.iv);
            chain.body
        }
        None => &mut [],
    };
    for (lane, body) in lanes.iter_mut().enumerate() {
        *body = begin(&mut chains, lane);
    }
    let busy = |lanes: &[&mut [u8]; LANES]| {
        let left = lanes.iter().map(|lane| lane.len() / AES_BLOCK);
        left.filter(|blocks| *blocks > 0).min()
    };
    while let Some(blocks) = busy(&lanes) {
        level.cbc_encrypt(&mut chains, &mut lanes, blocks);
        for (lane, body) in lanes.iter_mut().enumerate() {
            let (_, rest) = take(body)
                .split_at_mut_checked(blocks * AES_BLOCK)
                .unwrap_or_default();
            *body = if rest.is_empty() {
                begin(&mut chains, lane)
            } else {
                rest
            };
        }
    }
}
