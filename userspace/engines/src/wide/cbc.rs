//! AES-CBC over many packets.

use std::mem::take;

use super::{BATCH, WideKey, cbc_data};
use crate::Job;
use crate::key::Form;
use crate::simd::{Chain, Level, RoundKeys};

/// Of no packet.
static NO_KEYS: RoundKeys = RoundKeys::NONE;

/// Encrypts those of the jobs whose transform encrypts, in the order of their
/// places.
pub(super) fn encrypt<L: Level>(level: L, batch: &mut [Job<'_>], places: &[u8]) {
    let mut jobs: [Option<&mut Job<'_>>; BATCH] = [const { None }; BATCH];
    for (place, job) in jobs.iter_mut().zip(batch) {
        *place = Some(job);
    }
    let mut found = places.iter().filter_map(|place| {
        let job = take(&mut jobs[usize::from(*place)])?;
        let Form::Wide(WideKey::Mac(key)) = &job.key.form else {
            return None;
        };
        let keys = &key.cbc.as_ref()?.encrypt;
        let data = cbc_data(job.esp);
        Some(Chain { keys, data })
    });
    let mut count = 0;
    let mut chains: [Chain<'_>; BATCH] = std::array::from_fn(|_| match found.next() {
        Some(chain) => {
            count += 1;
            chain
        }
        None => Chain {
            keys: &NO_KEYS,
            data: &mut [],
        },
    });
    level.cbc_encrypt(&mut chains[..count]);
}
