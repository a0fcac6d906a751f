//! RFC 4106 and RFC 4543 on top of the rows of a level.

use std::marker::PhantomData;
use std::slice;

use super::BATCH;
use super::key::{GcmKey, GcmSide, WideKey};
use crate::key::Form;
use crate::simd::avx2::Avx2;
use crate::simd::avx512::Avx512;
use crate::simd::gcm::{CHECK, Gcm, MAC, MOST, OPEN, Packet, SEAL, Work, mac_only};
use crate::simd::prefetch;
use crate::transform::HEADER_LEN;
use crate::{Job, Key};

const IV_LEN: usize = 8;
const ICV_LEN: usize = 16;
/// Header and IV: what is before GCM's data, and as long as a block.
const FRONT: usize = HEADER_LEN + IV_LEN;

/// Jobs of a batch, by their places.
pub(super) type Places = u64;

const _: () = assert!(BATCH <= MOST && MOST <= Places::BITS as usize);

/// What GCM and GMAC keys of a batch there are.
#[derive(Default)]
pub(super) struct Rows {
    avx512: Option<Avx512>,
    avx2: Option<Avx2>,
    gcm: bool,
    gmac: bool,
}

impl Rows {
    /// There is one of this key.
    pub(super) fn see(&mut self, side: &GcmSide) {
        let mac_only = match side {
            GcmSide::Avx512(key) => {
                self.avx512 = Some(key.level);
                key.mac_only
            }
            GcmSide::Avx2(key) => {
                self.avx2 = Some(key.level);
                key.mac_only
            }
        };
        self.gmac |= mac_only;
        self.gcm |= !mac_only;
    }

    /// Those of a job.
    pub(super) fn of(job: &Job<'_>) -> Rows {
        let mut rows = Rows::default();
        if let Form::Wide(WideKey::Gcm(side)) = &job.key.form {
            rows.see(side);
        }
        rows
    }

    /// Encrypts what the transforms encrypt and writes the ICVs, but of those that are
    /// `done`. Returns all that are.
    pub(super) fn seal(&self, batch: &mut [Job<'_>], done: Places) -> Places {
        self.each::<SEAL, MAC>(batch, done)
    }

    /// Verifies and decrypts; what does not verify is as it was. Else as
    /// [`seal`](Self::seal).
    pub(super) fn open(&self, batch: &mut [Job<'_>], done: Places) -> Places {
        self.each::<OPEN, CHECK>(batch, done)
    }

    fn each<const GCM: u8, const GMAC: u8>(
        &self,
        batch: &mut [Job<'_>],
        mut done: Places,
    ) -> Places {
        if let Some(level) = self.avx512 {
            if self.gcm {
                done |= run::<_, GCM>(level, batch, done);
            }
            if self.gmac {
                done |= run::<_, GMAC>(level, batch, done);
            }
        }
        if let Some(level) = self.avx2 {
            if self.gcm {
                done |= run::<_, GCM>(level, batch, done);
            }
            if self.gmac {
                done |= run::<_, GMAC>(level, batch, done);
            }
        }
        done
    }
}

/// A level whose keys can be told from those of others.
trait Side: Gcm {
    fn key(side: &GcmSide) -> Option<&GcmKey<Self>>;
}

impl Side for Avx512 {
    fn key(side: &GcmSide) -> Option<&GcmKey<Avx512>> {
        match side {
            GcmSide::Avx512(key) => Some(key),
            GcmSide::Avx2(_) => None,
        }
    }
}

impl Side for Avx2 {
    fn key(side: &GcmSide) -> Option<&GcmKey<Avx2>> {
        match side {
            GcmSide::Avx2(key) => Some(key),
            GcmSide::Avx512(_) => None,
        }
    }
}

/// Does `WAY` with the jobs of a batch that it is for, but with those that are `done`.
/// Returns which these were.
#[inline]
fn run<L: Side, const WAY: u8>(level: L, batch: &mut [Job<'_>], done: Places) -> Places {
    let (taken, bad) = all::<L, WAY>(level, batch, done);
    if bad != 0 {
        refuse::<L, WAY>(level, batch, taken, bad);
    }
    taken
}

/// The same, with those whose ICV is wrong: the lowest bit is for the first of them
/// that were taken.
fn all<L: Side, const WAY: u8>(level: L, batch: &mut [Job<'_>], done: Places) -> (Places, u64) {
    let mut works = Works::<L, WAY> {
        jobs: batch.iter_mut(),
        done,
        place: 1,
        taken: 0,
        level: PhantomData,
    };
    let bad = level.gcm::<WAY>(&mut works);
    (works.taken, bad)
}

/// Of a key the lines that are asked for: the first round keys, and what says what it is.
const ASKED: [usize; 4] = [0, 64, size_of::<Key>() - 128, size_of::<Key>() - 64];

/// So many jobs ahead keys and packets are asked for.
const AHEAD: usize = 3;

/// The jobs of a batch that are for a level and a way. No chain of adapters, for it must
/// become a part of the level's loop: what goes through memory on its way there, the
/// processor would wait for.
struct Works<'b, 'j, L, const WAY: u8> {
    jobs: slice::IterMut<'b, Job<'j>>,
    /// Not these.
    done: Places,
    /// The next one, and those that have been taken.
    place: Places,
    taken: Places,
    level: PhantomData<L>,
}

impl<'b, L: Side, const WAY: u8> Iterator for Works<'b, '_, L, WAY> {
    type Item = Work<'b, L::Key>;

    #[inline(always)]
    fn next(&mut self) -> Option<Work<'b, L::Key>> {
        loop {
            let job = self.jobs.next()?;
            if let Some(ahead) = self.jobs.as_slice().get(AHEAD) {
                for offset in ASKED {
                    prefetch(ahead.key, offset);
                }
                prefetch(ahead.esp, 0);
                prefetch(ahead.esp, 64);
            }
            let here = self.place & !self.done;
            self.place <<= 1;
            if here != 0
                && let Some(work) = work::<L, WAY>(job)
            {
                self.taken |= here;
                return Some(work);
            }
        }
    }
}

/// Leaves as they were the jobs, among those `taken`, that have a wrong ICV.
#[cold]
fn refuse<L: Side, const WAY: u8>(level: L, batch: &mut [Job<'_>], taken: Places, bad: u64) {
    let jobs = batch.iter_mut().enumerate();
    let taken = jobs.filter(|(place, _)| taken >> place & 1 == 1);
    for (nth, (_, job)) in taken.enumerate() {
        if bad >> nth & 1 == 1 {
            if WAY == OPEN {
                // Once more with the same stream of keys is as it was.
                all::<L, WAY>(level, slice::from_mut(job), 0);
            }
            job.ok = false;
        }
    }
}

/// A job as the level has it, when it is one for `WAY` and has a length that can be.
#[inline(always)]
fn work<'a, L: Side, const WAY: u8>(job: &'a mut Job<'_>) -> Option<Work<'a, L::Key>> {
    let Form::Wide(WideKey::Gcm(side)) = &job.key.form else {
        return None;
    };
    let key = L::key(side).filter(|key| key.mac_only == mac_only(WAY))?;
    if !job.key.fits(job.esp.len()) {
        return None;
    }
    let work = key.work(job.esp, job.seq_hi)?;
    job.ok = true;
    Some(work)
}

impl<L: Gcm> GcmKey<L> {
    /// `None` for a packet that is too short, which `fits` has ruled out.
    #[inline(always)]
    fn work<'a>(&'a self, esp: &'a mut [u8], seq_hi: Option<u32>) -> Option<Work<'a, L::Key>> {
        let len = esp.len().checked_sub(ICV_LEN)?;
        let front = u128::from_le_bytes(*esp[..len].first_chunk::<FRONT>()?);
        // SPI, low half of the number and IV, as they are in memory.
        let (spi, low, iv) = (front as u32, (front >> 32) as u32, (front >> 64) as u64);
        let nonce = u128::from(u32::from_le_bytes(self.salt.0)) | u128::from(iv) << 32;
        let long = |hi: u32| u128::from(spi) | u128::from(hi.swap_bytes()) << 32;
        // Where the blocks behind the head begin.
        let mut behind = FRONT;
        let (head, lengths) = match (self.mac_only, seq_hi) {
            // SPI and number, 32 or 64 bits of it (RFC 4106 5).
            (false, None) => (front as u64 as u128, (8, len - FRONT)),
            (false, Some(hi)) => (long(hi) | u128::from(low) << 64, (12, len - FRONT)),
            (true, None) => (front, (len, 0)),
            // The high half goes in between (RFC 4543 3.3), so all blocks begin
            // four bytes earlier.
            (true, Some(hi)) => {
                behind -= 4;
                let rest = u128::from(low) << 64 | u128::from(iv as u32) << 96;
                (long(hi) | rest, (len + 4, 0))
            }
        };
        Some(Work {
            key: &self.key,
            packet: Packet {
                nonce,
                head,
                lengths,
            },
            data: esp.get_mut(behind..)?,
        })
    }
}
