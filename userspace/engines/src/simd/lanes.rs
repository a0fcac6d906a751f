//! HMAC-SHA-1 (RFC 2104) of many messages in the lanes of registers of any width.
//!
//! A message has a lane from its first block to the outer hash, and the next
//! message takes the lane that it leaves; lanes do not wait for each other. What
//! a lane does changes between steps only: a step hashes one block of each lane,
//! and the states stay in registers over all of them.

use super::{MacStates, SHA1_BLOCK, SHA1_PADDING};

/// What is hashed of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    /// Of the packet's key.
    pub(crate) key: &'a MacStates,
    /// The packet without its ICV.
    pub(crate) covered: &'a [u8],
    /// Follows what is covered (RFC 4303 2.2.1).
    pub(crate) seq_hi: Option<u32>,
}

impl<'a> Message<'a> {
    /// The whole blocks, which are hashed where they are, and the rest.
    pub(crate) fn parts(&self) -> (&'a [u8], &'a [u8]) {
        self.covered
            .split_at(self.covered.len() & !(SHA1_BLOCK - 1))
    }

    fn more(&self) -> usize {
        if self.seq_hi.is_some() { 4 } else { 0 }
    }

    /// The bits that are hashed; the key's block counts, too.
    pub(crate) fn bits(&self) -> u64 {
        ((SHA1_BLOCK + self.covered.len() + self.more()) as u64) * 8
    }

    /// Writes the end of the message: the rest, what follows it, and the padding
    /// (FIPS 180-4 5.1.1). Returns the bytes that count, one block or two.
    pub(crate) fn end(&self, end: &mut End) -> usize {
        let (_, rest) = self.parts();
        *end = [0; 2 * SHA1_BLOCK];
        end[..rest.len()].copy_from_slice(rest);
        let mut used = rest.len();
        if let Some(hi) = self.seq_hi {
            end[used..used + 4].copy_from_slice(&hi.to_be_bytes());
            used += 4;
        }
        end[used] = 0x80;
        let len = (used + SHA1_PADDING).next_multiple_of(SHA1_BLOCK);
        end[len - 8..len].copy_from_slice(&self.bits().to_be_bytes());
        len
    }
}

/// The end of a message.
pub(crate) type End = [u8; 2 * SHA1_BLOCK];

/// What is sent of a digest (RFC 2404).
pub(crate) type Tag = [u8; 12];

/// What stands behind the digest in the outer hash's block: the padding, and the
/// length with the key's block.
pub(crate) static OUTER: [u8; SHA1_BLOCK] = {
    let mut block = [0; SHA1_BLOCK];
    block[20] = 0x80;
    let bits = ((SHA1_BLOCK + 20) as u64 * 8).to_be_bytes();
    let mut i = 0;
    while i < 8 {
        block[SHA1_BLOCK - 8 + i] = bits[i];
        i += 1;
    }
    block
};

/// Where each lane's next block is, as if from step 0 on.
#[repr(align(64))]
pub(super) struct At<const WIDTH: usize>(pub(super) [*const u8; WIDTH]);

/// Defines `hmac` for registers of `$width` lanes. Who uses it has what
/// [`compress`](super::rounds) needs, and `zero`, `words`, `end`, `put`, `take`,
/// `equal`, `turn` and `store`.
///
/// What a step needs is never read wider than it was written: the processor would
/// wait until everything before has retired.
macro_rules! hmac {
    ($features:literal, $width:literal) => {
        /// The tags of messages, each asked for once, in their order.
        #[target_feature(enable = $features)]
        pub(super) fn hmac<'a>(message: &impl Fn(usize) -> Message<'a>, tags: &mut [Tag]) {
            const WIDTH: usize = $width;
            const ALL: u32 = (1 << WIDTH) - 1;
            let mut waiting = 0..tags.len();
            let mut state = [zero(); 5];
            let mut keys = [&NO_KEY; WIDTH];
            let mut places = [0; WIDTH];
            let mut scratch: [End; WIDTH] = [[0; 2 * SHA1_BLOCK]; WIDTH];
            let ends = scratch.as_mut_ptr();
            let outers = At([OUTER.as_ptr(); WIDTH]);
            let own: At<WIDTH> = At(core::array::from_fn(|lane| ends.wrapping_add(lane).cast_const().cast()));
            // The step's number; where each lane's block would have been in step 0;
            // the step before which its part is over.
            let mut now = 0_u32;
            let mut at = At([OUTER.as_ptr(); WIDTH]);
            let mut due = zero();
            // A bit per lane. A message has three parts: its whole blocks, its end, one
            // block or two, and the outer hash.
            let mut free = ALL;
            let (mut at_end, mut at_outer, mut long) = (0_u32, 0_u32, 0_u32);
            let mut closing = 0_u32;
            loop {
                let back = now as usize * SHA1_BLOCK;
                while free != 0
                    && let Some(place) = waiting.next()
                {
                    let lane = free.trailing_zeros() as usize;
                    let bit = 1 << lane;
                    free &= !bit;
                    let message = message(place);
                    places[lane] = place;
                    keys[lane] = message.key;
                    for (word, inner) in state.iter_mut().zip(message.key.inner()) {
                        put(word, lane, *inner);
                    }
                    // SAFETY: `lane` is less than WIDTH; nobody else has a reference.
                    let ending = end(&message, unsafe { &mut *ends.add(lane) });
                    let two = ending > SHA1_BLOCK;
                    long = long & !bit | u32::from(two) << lane;
                    let (whole, _) = message.parts();
                    let short = whole.is_empty();
                    at_end |= u32::from(short) << lane;
                    let (first, bytes) = if short {
                        (own.0[lane], ending)
                    } else {
                        (whole.as_ptr(), whole.len())
                    };
                    at.0[lane] = first.wrapping_sub(back);
                    put(&mut due, lane, now + (bytes / SHA1_BLOCK) as u32);
                }
                if free != 0 {
                    if free == ALL {
                        return;
                    }
                    // Lanes without message do again what another one does.
                    let busy = at.0[(!free).trailing_zeros() as usize];
                    let mut resting = free;
                    while resting != 0 {
                        at.0[resting.trailing_zeros() as usize] = busy;
                        resting &= resting - 1;
                    }
                    due = take(due, free, splat(u32::MAX));
                }
                let done = loop {
                    // SAFETY: each lane has a block left.
                    let mut words = unsafe { words(&at.0, now as usize * SHA1_BLOCK) };
                    if closing != 0 {
                        // The digest so far is what is hashed now.
                        let mut outside = [zero(); 5];
                        let mut left = closing;
                        while left != 0 {
                            let lane = left.trailing_zeros() as usize;
                            left &= left - 1;
                            for (word, outer) in outside.iter_mut().zip(keys[lane].outer()) {
                                put(word, lane, *outer);
                            }
                        }
                        for (i, outside) in outside.into_iter().enumerate() {
                            words[i] = take(words[i], closing, state[i]);
                            state[i] = take(state[i], closing, outside);
                        }
                        closing = 0;
                    }
                    compress!(&mut state, words);
                    now += 1;
                    let done = equal(due, now);
                    if done != 0 {
                        break done;
                    }
                };
                let back = now as usize * SHA1_BLOCK;
                let finished = done & at_outer;
                closing = done & at_end;
                let ending = done & !(at_end | at_outer);
                turn(&mut at, ending, &own, back);
                turn(&mut at, closing, &outers, back);
                due = take(due, ending | closing, splat(now + 1));
                due = take(due, ending & long, splat(now + 2));
                at_end = at_end & !closing | ending;
                at_outer = at_outer & !finished | closing;
                if finished != 0 {
                    let mut digests = [[0; WIDTH]; 3];
                    for (digest, state) in digests.iter_mut().zip(state) {
                        store(digest, state);
                    }
                    free |= finished;
                    let mut left = finished;
                    while left != 0 {
                        let lane = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let tag = tags[places[lane]].as_chunks_mut().0;
                        for (bytes, word) in tag.iter_mut().zip(&digests) {
                            *bytes = word[lane].to_be_bytes();
                        }
                    }
                }
            }
        }
    };
}

pub(super) use hmac;
