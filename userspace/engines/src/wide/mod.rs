//! The engines that work on several packets at once.
//!
//! A batch is taken apart by what its keys are: GCM and GMAC are computed packet
//! after packet in wide registers, CBC is encrypted and HMAC computed over many
//! packets side by side, and what no lane is for goes to the reference engine.

mod cbc;
mod gcm;
mod hmac;
mod key;
#[cfg(test)]
mod vectors;

use subtle::ConstantTimeEq;

use key::CbcKeys;
pub(crate) use key::{GcmSide, WideKey};

use crate::key::Form;
use crate::reference;
use crate::simd::{Level, Message, Messages, RoundKeys, SHA1_BLOCK, Tag, prefetch};
use crate::transform::HEADER_LEN;
use crate::{Engine, Job};

/// Packets that are looked at together.
const BATCH: usize = 64;

/// Of HMAC-SHA-1-96.
const ICV_LEN: usize = 12;

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
            // Nearly always all jobs are like the first one.
            let done = gcm::Rows::of(&batch[0]).seal(batch, 0);
            if done.count_ones() as usize == batch.len() {
                continue;
            }
            let mut order = Order::new();
            order.sort_out(batch, done, |keys| &keys.encrypt, reference::seal);
            order.rows.seal(batch, done);
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            if order.chained {
                cbc::encrypt(self.level, batch, places);
            }
            let tags = [[0; ICV_LEN]; BATCH];
            let mut sealing = Sealing(Macs { batch, places }, tags);
            hmac::tags(self.level, &mut sealing, places.len());
            let Sealing(_, tags) = sealing;
            for (place, tag) in places.iter().zip(&tags) {
                let job = &mut batch[usize::from(*place)];
                if let Some(icv) = job.esp.last_chunk_mut() {
                    *icv = *tag;
                }
            }
        }
    }

    fn open(&self, batch: &mut [Job<'_>]) {
        for batch in batch.chunks_mut(BATCH) {
            // Nearly always all jobs are like the first one.
            let done = gcm::Rows::of(&batch[0]).open(batch, 0);
            if done.count_ones() as usize == batch.len() {
                continue;
            }
            let mut order = Order::new();
            order.sort_out(batch, done, |keys| &keys.decrypt, reference::open);
            order.rows.open(batch, done);
            let places = order.places();
            if places.is_empty() {
                continue;
            }
            let mut opening = Opening(Macs { batch, places }, [false; BATCH]);
            hmac::tags(self.level, &mut opening, places.len());
            let Opening(_, good) = opening;
            for (place, good) in places.iter().zip(good) {
                let job = &mut batch[usize::from(*place)];
                job.ok = good;
                if let Form::Wide(WideKey::Mac(key)) = &job.key.form
                    && let (true, Some(keys)) = (job.ok, &key.cbc)
                {
                    self.level.cbc_decrypt(&keys.decrypt, cbc_data(job.esp));
                }
            }
        }
    }
}

/// The jobs of a batch whose HMACs are computed, by their order.
struct Macs<'a, 'b> {
    batch: &'a [Job<'b>],
    places: &'a [u8],
}

impl<'a> Macs<'a, '_> {
    #[inline(always)]
    fn job(&self, place: usize) -> &'a Job<'a> {
        &self.batch[usize::from(self.places[place])]
    }

    #[inline(always)]
    fn message(&self, place: usize) -> Message<'a> {
        let job = self.job(place);
        Message {
            key: match &job.key.form {
                Form::Wide(WideKey::Mac(key)) => &key.mac,
                _ => &hmac::NO_KEY,
            },
            covered: &job.esp[..job.esp.len().saturating_sub(ICV_LEN)],
            seq_hi: job.seq_hi,
        }
    }
}

/// Their tags will be their ICVs.
struct Sealing<'a, 'b>(Macs<'a, 'b>, [Tag; BATCH]);

impl<'a> Messages<'a> for Sealing<'a, '_> {
    #[inline(always)]
    fn message(&self, place: usize) -> Message<'a> {
        self.0.message(place)
    }

    #[inline(always)]
    fn tagged(&mut self, place: usize, tag: Tag) {
        self.1[place] = tag;
    }
}

/// Whether their tags are their ICVs.
struct Opening<'a, 'b>(Macs<'a, 'b>, [bool; BATCH]);

impl<'a> Messages<'a> for Opening<'a, '_> {
    #[inline(always)]
    fn message(&self, place: usize) -> Message<'a> {
        self.0.message(place)
    }

    #[inline(always)]
    fn tagged(&mut self, place: usize, tag: Tag) {
        let icv = self.0.job(place).esp.last_chunk();
        self.1[place] = icv.is_some_and(|icv| same(&tag, icv));
    }
}

/// The good jobs of a batch that have an HMAC, the longest first.
struct Order {
    places: [u8; BATCH],
    count: usize,
    /// Some are encrypted.
    chained: bool,
    /// The others.
    rows: gcm::Rows,
}

/// Numbers of blocks that [`Order::sort`] tells apart.
const LENGTHS: usize = 32;

impl Order {
    fn new() -> Order {
        Order {
            places: [0; BATCH],
            count: 0,
            chained: false,
            rows: gcm::Rows::default(),
        }
    }

    fn places(&self) -> &[u8] {
        &self.places[..self.count]
    }

    /// Does what no lane is for, and finds the jobs that lanes are for, and the keys of
    /// GCM, but not those of jobs that are `done`.
    #[inline]
    fn sort_out(
        &mut self,
        batch: &mut [Job<'_>],
        done: gcm::Places,
        round_keys: impl Fn(&CbcKeys) -> &RoundKeys,
        reference: impl Fn(&mut Job<'_>),
    ) {
        // Keys and packets of a thousand SAs come from far away.
        for job in &*batch {
            prefetch(job.key, 0);
            prefetch(job.key, 64);
            prefetch(job.esp, 0);
            prefetch(job.esp, 64);
        }
        let mut blocks = [0; BATCH];
        let (mut count, mut first) = (0, None);
        let (mut chained, mut different) = (false, false);
        for (place, job) in batch.iter_mut().enumerate().take(BATCH) {
            if done >> place & 1 == 1 {
                continue;
            }
            let key = job.key;
            let len = job.esp.len();
            let good = key.fits(len);
            job.ok = good;
            match &key.form {
                _ if !good => {}
                Form::Wide(WideKey::Mac(key)) => {
                    if let Some(cbc) = &key.cbc {
                        chained = true;
                        let keys = round_keys(cbc);
                        prefetch(keys, 0);
                        prefetch(keys, 64);
                        prefetch(keys, 128);
                    }
                    let long = (len / SHA1_BLOCK).min(LENGTHS - 1) as u8;
                    first.get_or_insert(long);
                    blocks[count] = long;
                    self.places[count] = place as u8;
                    different |= Some(long) != first;
                    count += 1;
                }
                Form::Wide(WideKey::Gcm(side)) => self.rows.see(side),
                Form::Reference(_) => reference(job),
            }
        }
        self.count = count;
        self.chained = chained;
        if different {
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
fn cbc_data(esp: &mut [u8]) -> &mut [u8] {
    let end = esp.len().saturating_sub(ICV_LEN);
    esp.get_mut(HEADER_LEN..end).unwrap_or_default()
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
