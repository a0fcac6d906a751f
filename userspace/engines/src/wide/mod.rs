//! The engines that work on several packets at once.
//!
//! A batch is taken apart by what its keys are: GCM and GMAC are computed packet
//! by packet in wide registers, CBC is encrypted and HMAC computed over many
//! packets side by side, and what no lane is for goes to the reference engine.

mod cbc;
mod gcm;
mod hmac;
mod key;

use subtle::ConstantTimeEq;

pub(crate) use key::{GcmSide, WideKey};

use crate::key::Form;
use crate::reference;
use crate::simd::{AES_BLOCK, Level};
use crate::transform::HEADER_LEN;
use crate::{Engine, Job};

/// Packets that are looked at together.
const BATCH: usize = 64;

/// Of HMAC-SHA-1-96.
const ICV_LEN: usize = 12;
/// Header and IV of a CBC packet.
const CBC_FRONT: usize = HEADER_LEN + AES_BLOCK;

/// The engine of a level.
pub(crate) struct Wide<L> {
    pub(crate) level: L,
    pub(crate) name: &'static str,
}

impl<L: Level> Engine for Wide<L> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn seal(&self, batch: &mut [Job<'_>]) {
        for batch in batch.chunks_mut(BATCH) {
            let mut macs = 0;
            let mut chains: [Option<cbc::Chain<'_>>; BATCH] = [const { None }; BATCH];
            let mut chained = chains.iter_mut();
            for job in &mut *batch {
                job.ok = job.key.fits(job.esp.len());
                match &job.key.form {
                    _ if !job.ok => {}
                    Form::Reference(_) => reference::seal(job),
                    Form::Wide(WideKey::Gcm(side)) => job.ok = side.seal(job.esp, job.seq_hi),
                    Form::Wide(WideKey::Mac { cbc, .. }) => {
                        macs += 1;
                        if let Some(keys) = cbc
                            && let Some(place) = chained.next()
                        {
                            let (iv, body) = cbc_parts(job.esp);
                            *place = Some(cbc::Chain {
                                keys: &keys.encrypt,
                                iv,
                                body,
                            });
                        }
                    }
                }
            }
            if macs == 0 {
                continue;
            }
            if chains[0].is_some() {
                cbc::encrypt(self.level, &mut chains);
            }
            let tags = self.tags(batch);
            let mut tags = tags.iter();
            for job in batch.iter_mut().filter(|job| is_mac(job)) {
                if let (Some(icv), Some(tag)) = (job.esp.last_chunk_mut::<ICV_LEN>(), tags.next()) {
                    *icv = first_96(tag);
                }
            }
        }
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        for batch in batch.chunks_mut(BATCH) {
            let mut macs = 0;
            for job in &mut *batch {
                job.ok = job.key.fits(job.esp.len());
                match &job.key.form {
                    _ if !job.ok => {}
                    Form::Reference(_) => reference::open(job),
                    Form::Wide(WideKey::Gcm(side)) => job.ok = side.open(job.esp, job.seq_hi),
                    Form::Wide(WideKey::Mac { .. }) => macs += 1,
                }
            }
            if macs == 0 {
                continue;
            }
            let tags = self.tags(batch);
            let mut tags = tags.iter();
            for job in batch.iter_mut().filter(|job| is_mac(job)) {
                let icv = job.esp.last_chunk::<ICV_LEN>();
                job.ok = match (icv, tags.next()) {
                    (Some(icv), Some(tag)) => same(&first_96(tag), icv),
                    _ => false,
                };
                if let (
                    true,
                    Form::Wide(WideKey::Mac {
                        cbc: Some(keys), ..
                    }),
                ) = (job.ok, &job.key.form)
                {
                    let (iv, body) = cbc_parts(job.esp);
                    self.level.cbc_decrypt(&keys.decrypt, &iv, body);
                }
            }
        }
    }
}

impl<L: Level> Wide<L> {
    /// The HMACs of those jobs that have one, in their order.
    fn tags(&self, batch: &[Job<'_>]) -> [[u32; 5]; BATCH] {
        let mut messages = [hmac::Message::NONE; BATCH];
        let mut count = 0;
        for job in batch.iter().filter(|job| is_mac(job)) {
            let Form::Wide(WideKey::Mac { mac, .. }) = &job.key.form else {
                continue;
            };
            let covered = &job.esp[..job.esp.len().saturating_sub(ICV_LEN)];
            if let Some(place) = messages.get_mut(count) {
                *place = hmac::Message {
                    states: mac,
                    covered,
                    seq_hi: job.seq_hi,
                };
                count += 1;
            }
        }
        hmac::tags(self.level, &messages[..count])
    }
}

/// A good job, so far, that is among [`Wide::tags`].
fn is_mac(job: &Job<'_>) -> bool {
    job.ok && matches!(job.key.form, Form::Wide(WideKey::Mac { .. }))
}

/// IV and blocks of a packet that `fits`.
fn cbc_parts(esp: &mut [u8]) -> ([u8; AES_BLOCK], &mut [u8]) {
    let mut iv = [0; AES_BLOCK];
    let end = esp.len().saturating_sub(ICV_LEN);
    match esp[..end].split_at_mut_checked(CBC_FRONT) {
        Some((front, body)) => {
            iv.copy_from_slice(&front[HEADER_LEN..]);
            (iv, body)
        }
        None => (iv, &mut []),
    }
}

/// The part of a tag that is sent (RFC 2404).
fn first_96(tag: &[u32; 5]) -> [u8; ICV_LEN] {
    let mut icv = [0; ICV_LEN];
    for (bytes, word) in icv.chunks_exact_mut(4).zip(tag) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    icv
}

/// Compared in one step, which tells nothing of where they differ.
fn same(tag: &[u8; ICV_LEN], icv: &[u8; ICV_LEN]) -> bool {
    let number = |bytes: &[u8; ICV_LEN]| {
        let mut wide = [0; 16];
        wide[..ICV_LEN].copy_from_slice(bytes);
        u128::from_ne_bytes(wide)
    };
    number(tag).ct_eq(&number(icv)).into()
}
