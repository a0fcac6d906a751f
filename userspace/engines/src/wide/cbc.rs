//! AES-CBC over many packets.

use std::mem::take;

use super::{BATCH, WideKey, cbc_parts};
use crate::Job;
use crate::key::Form;
use crate::simd::{AES_BLOCK, CbcChains, LANES, Level, RoundKeys};

/// A packet's blocks, to be encrypted.
struct Chain<'a> {
    keys: &'a RoundKeys,
    iv: [u8; AES_BLOCK],
    body: &'a mut [u8],
}

/// Encrypts those of the jobs whose transform encrypts, each in a lane that the
/// one before it has left. The longest begin, so that the lanes end together.
pub(super) fn encrypt<L: Level>(level: L, batch: &mut [Job<'_>], places: &[u8]) {
    let mut jobs: [Option<&mut Job<'_>>; BATCH] = [const { None }; BATCH];
    for (place, job) in jobs.iter_mut().zip(batch) {
        *place = Some(job);
    }
    let mut waiting = places.iter().filter_map(|place| {
        let job = take(&mut jobs[usize::from(*place)])?;
        let Form::Wide(WideKey::Mac { cbc, .. }) = &job.key.form else {
            return None;
        };
        let keys = &cbc.as_ref()?.encrypt;
        let (iv, body) = cbc_parts(job.esp);
        Some(Chain { keys, iv, body })
    });
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
