//! The engines that work on several packets at once.
//!
//! A batch is taken apart by what its keys are: GCM and GMAC are computed packet
//! by packet in wide registers, CBC is encrypted and HMAC computed over many
//! packets side by side, and what no lane is for goes to the reference engine.

mod cbc;
mod gcm;
mod hmac;
mod key;
#[cfg(test)]
mod vectors;

use subtle::ConstantTimeEq;

pub(crate) use key::{GcmSide, WideKey};

use crate::key::Form;
use crate::reference;
use crate::simd::{AES_BLOCK, Level, Message, SHA1_BLOCK, Tag, prefetch};
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
            let order = sort_out(batch, reference::seal, |side, job| {
                side.seal(job.esp, job.seq_hi)
            });
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            if order.chained {
                cbc::encrypt(self.level, batch, places);
            }
            let tags = self.tags(batch, places);
            for (place, tag) in places.iter().zip(tags) {
                let job = &mut batch[usize::from(*place)];
                if let Some(icv) = job.esp.last_chunk_mut::<ICV_LEN>() {
                    *icv = tag;
                }
            }
        }
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        for batch in batch.chunks_mut(BATCH) {
            let order = sort_out(batch, reference::open, |side, job| {
                side.open(job.esp, job.seq_hi)
            });
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            let tags = self.tags(batch, places);
            for (place, tag) in places.iter().zip(&tags) {
                let job = &mut batch[usize::from(*place)];
                job.ok = job.esp.last_chunk().is_some_and(|icv| same(tag, icv));
                if let Form::Wide(WideKey::Mac { cbc, .. }) = &job.key.form
                    && let (true, Some(keys)) = (job.ok, cbc)
                {
                    let end = job.esp.len() - ICV_LEN;
                    self.level
                        .cbc_decrypt(&keys.decrypt, &mut job.esp[HEADER_LEN..end]);
                }
            }
        }
    }
}

impl<L: Level> Wide<L> {
    /// The HMACs of the jobs at these places.
    fn tags(&self, batch: &[Job<'_>], places: &[u8]) -> [Tag; BATCH] {
        hmac::tags(self.level, places.len(), |i| {
            let job = &batch[usize::from(places[i])];
            Message {
                key: match &job.key.form {
                    Form::Wide(WideKey::Mac { mac, .. }) => mac,
                    _ => hmac::no_key(),
                },
                covered: &job.esp[..job.esp.len().saturating_sub(ICV_LEN)],
                seq_hi: job.seq_hi,
            }
        })
    }
}

/// The good jobs of a batch that have an HMAC, the longest first.
struct Order {
    places: [u8; BATCH],
    count: usize,
    /// Some are encrypted.
    chained: bool,
}

impl Order {
    fn places(&self) -> &[u8] {
        &self.places[..self.count]
    }

    /// Sorts by counting; packets with more than [`LENGTHS`] blocks are rare and
    /// count as alike.
    fn sort(&mut self, blocks: &[u8; BATCH]) {
        let mut starts = [0_u8; LENGTHS];
        for blocks in &blocks[..self.count] {
            starts[usize::from(*blocks)] += 1;
        }
        let mut sum = 0;
        for start in starts.iter_mut().rev() {
            sum += std::mem::replace(start, sum);
        }
        let places = self.places;
        for (place, blocks) in places.iter().zip(&blocks[..self.count]) {
            let start = &mut starts[usize::from(*blocks)];
            self.places[usize::from(*start)] = *place;
            *start += 1;
        }
    }
}

/// Numbers of blocks that [`Order::sort`] tells apart.
const LENGTHS: usize = 32;

/// Does what no lane is for, and finds the jobs that lanes are for.
fn sort_out(
    batch: &mut [Job<'_>],
    reference: impl Fn(&mut Job<'_>),
    gcm: impl Fn(&GcmSide, &mut Job<'_>) -> bool,
) -> Order {
    // Keys and packets of a thousand SAs come from far away.
    for job in &*batch {
        prefetch(job.key, 0);
        prefetch(job.key, 64);
        prefetch(job.esp, 0);
        prefetch(job.esp, 64);
    }
    let mut order = Order {
        places: [0; BATCH],
        count: 0,
        chained: false,
    };
    let mut blocks = [0; BATCH];
    let mut mixed = false;
    for (place, job) in batch.iter_mut().enumerate() {
        job.ok = job.key.fits(job.esp.len());
        let key = job.key;
        match &key.form {
            _ if !job.ok => {}
            Form::Reference(_) => reference(job),
            Form::Wide(WideKey::Gcm(side)) => job.ok = gcm(side, job),
            Form::Wide(WideKey::Mac { cbc, .. }) => {
                order.chained |= cbc.is_some();
                let long = job.esp.len() / SHA1_BLOCK;
                let long = long.min(LENGTHS - 1) as u8;
                blocks[order.count] = long;
                mixed |= long != blocks[0];
                order.places[order.count] = place as u8;
                order.count += 1;
            }
        }
    }
    if mixed {
        order.sort(&blocks);
    }
    order
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

/// Compared in one step, which tells nothing of where they differ.
fn same(tag: &[u8; ICV_LEN], icv: &[u8; ICV_LEN]) -> bool {
    let number = |bytes: &[u8; ICV_LEN]| {
        let mut wide = [0; 16];
        wide[..ICV_LEN].copy_from_slice(bytes);
        u128::from_ne_bytes(wide)
    };
    number(tag).ct_eq(&number(icv)).into()
}
