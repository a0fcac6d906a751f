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
            let mut order = Order::new();
            order.sort_out(batch, reference::seal, |side, job| {
                side.seal(job.esp, job.seq_hi)
            });
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            if order.chained {
                cbc::encrypt(self.level, batch, places);
            }
            let mut tags = [[0; ICV_LEN]; BATCH];
            self.tags(batch, places, &mut tags);
            for (place, tag) in places.iter().zip(&tags) {
                let job = &mut batch[usize::from(*place)];
                if let Some(icv) = job.esp.last_chunk_mut::<ICV_LEN>() {
                    *icv = *tag;
                }
            }
        }
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        for batch in batch.chunks_mut(BATCH) {
            let mut order = Order::new();
            order.sort_out(batch, reference::open, |side, job| {
                side.open(job.esp, job.seq_hi)
            });
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            let mut tags = [[0; ICV_LEN]; BATCH];
            self.tags(batch, places, &mut tags);
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
    fn tags(&self, batch: &[Job<'_>], places: &[u8], tags: &mut [Tag; BATCH]) {
        let messages: [Message<'_>; BATCH] = std::array::from_fn(|i| {
            let job = places
                .get(i)
                .and_then(|place| batch.get(usize::from(*place)));
            match job.map(|job| (job, &job.key.form)) {
                Some((job, Form::Wide(WideKey::Mac { mac, .. }))) => Message {
                    key: mac,
                    covered: &job.esp[..job.esp.len().saturating_sub(ICV_LEN)],
                    seq_hi: job.seq_hi,
                },
                _ => Message::NONE,
            }
        });
        hmac::tags(self.level, &messages[..places.len()], tags);
    }
}

/// The good jobs of a batch that have an HMAC, the longest first.
struct Order {
    places: [u8; BATCH],
    count: usize,
    /// Some are encrypted.
    chained: bool,
}

/// Numbers of blocks that [`Order::sort`] tells apart.
const LENGTHS: usize = 32;

impl Order {
    fn new() -> Order {
        Order {
            places: [0; BATCH],
            count: 0,
            chained: false,
        }
    }

    fn places(&self) -> &[u8] {
        &self.places[..self.count]
    }

    /// Does what no lane is for, and finds the jobs that lanes are for.
    #[inline]
    fn sort_out(
        &mut self,
        batch: &mut [Job<'_>],
        reference: impl Fn(&mut Job<'_>),
        gcm: impl Fn(&GcmSide, &mut Job<'_>) -> bool,
    ) {
        // Keys and packets of a thousand SAs come from far away.
        for job in &*batch {
            prefetch(job.key, 0);
            prefetch(job.key, 64);
            prefetch(job.esp, 0);
            prefetch(job.esp, 64);
        }
        let mut blocks = [0; BATCH];
        let (mut count, mut chained, mut different) = (0, false, 0);
        for (place, job) in batch.iter_mut().enumerate().take(BATCH) {
            let key = job.key;
            let len = job.esp.len();
            let good = key.fits(len);
            job.ok = good;
            match &key.form {
                _ if !good => {}
                Form::Wide(WideKey::Mac { cbc, .. }) => {
                    let long = (len / SHA1_BLOCK).min(LENGTHS - 1) as u8;
                    blocks[count] = long;
                    self.places[count] = place as u8;
                    chained |= cbc.is_some();
                    different |= long ^ blocks[0];
                    count += 1;
                }
                Form::Wide(WideKey::Gcm(side)) => job.ok = gcm(side, job),
                Form::Reference(_) => reference(job),
            }
        }
        self.count = count;
        self.chained = chained;
        if different != 0 {
            self.sort(&blocks);
        }
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
