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

/// Messages whose HMACs are asked for, by their places. Whoever implements it says
/// `#[inline(always)]`: both are called where a call would empty all registers.
pub(crate) trait Messages<'a> {
    /// What is hashed of one.
    fn message(&self, place: usize) -> Message<'a>;

    /// Takes its tag.
    fn tagged(&mut self, place: usize, tag: Tag);
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
pub(super) type At<const WIDTH: usize> = [*const u8; WIDTH];

/// The states with which lanes begin, inner and outer hash, word by word, lane by
/// lane. As good as keys, so wiped.
#[repr(align(64))]
pub(super) struct Begin<const WIDTH: usize>(pub(super) [[[u32; WIDTH]; 5]; 2]);

impl<const WIDTH: usize> Drop for Begin<WIDTH> {
    fn drop(&mut self) {
        use core::arch::x86_64::{__m128i, _mm_setzero_si128};
        let at = self.0.as_mut_ptr().cast::<__m128i>();
        for i in 0..size_of_val(&self.0) / size_of::<__m128i>() {
            // SAFETY: within the words, which are aligned to more; SSE is always there.
            unsafe { at.add(i).write_volatile(_mm_setzero_si128()) };
        }
    }
}

/// Prepares lanes, of `$vacant` at most so many, for the messages that are next:
/// they begin at step `$next`.
macro_rules! begin {
    (
        $most:expr, $vacant:ident, $fresh:ident, $short:ident, $long:ident, $next:ident, $due:ident, $at:ident,
        $coming:ident, $keys:ident, $ends:ident, $waiting:ident, $messages:ident
    ) => {
        for _ in 0..$most {
            if $vacant == 0 {
                break;
            }
            let Some(place) = $waiting.next() else {
                break;
            };
            let message = $messages.message(place);
            let lane = $vacant.trailing_zeros() as usize;
            let bit = 1 << lane;
            $vacant &= !bit;
            $fresh |= bit;
            $coming[lane] = place;
            let states = message.key.states();
            for (states, key) in $keys.0.iter_mut().zip(states) {
                for (word, key) in states.iter_mut().zip(key) {
                    word[lane] = *key;
                }
            }
            // SAFETY: `lane` is less than the lanes; nobody else has a reference.
            let ending = unsafe { &mut *$ends.add(lane) };
            let end = end(&message, ending) / SHA1_BLOCK;
            $long = $long & !bit | (end as u32 - 1) << lane;
            let (whole, _) = message.parts();
            let (first, blocks) = match whole.len() / SHA1_BLOCK {
                0 => {
                    $short |= bit;
                    ($ends.wrapping_add(lane).cast_const().cast(), end)
                }
                blocks => (whole.as_ptr(), blocks),
            };
            $at[lane] = first.wrapping_sub($next as usize * SHA1_BLOCK);
            put(&mut $due, lane, $next + blocks as u32);
        }
    };
}

/// Defines `hmac` for registers of `$width` lanes. Who uses it has what
/// [`compress`](super::rounds) needs, and `zero`, `words`, `end`, `put`, `take`,
/// `equal`, `load` and `store`.
///
/// What a step needs is never read wider than it was written shortly before: the
/// processor would wait until everything before has retired.
macro_rules! hmac {
    ($features:literal, $width:literal) => {
        /// The tags of so many messages.
        #[target_feature(enable = $features)]
        pub(super) fn hmac<'a>(messages: &mut impl Messages<'a>, count: usize) {
            const WIDTH: usize = $width;
            const ALL: u32 = (1 << WIDTH) - 1;
            let mut waiting = 0..count;
            let mut scratch: [End; WIDTH] = [[0; 2 * SHA1_BLOCK]; WIDTH];
            let ends = scratch.as_mut_ptr();
            let mut keys = Begin([[[0; WIDTH]; 5]; 2]);
            // Which message will be a lane's next.
            let mut coming = [0; WIDTH];
            // The step that is prepared; where each lane's block would have been in
            // step 0; the step before which its part is over.
            let mut next = 0_u32;
            let mut at: At<WIDTH> = [OUTER.as_ptr(); WIDTH];
            let mut due = zero();
            // A bit per lane. A message has three parts: its whole blocks, its end of one
            // block or two, and the outer hash, one. These say which lanes have nothing
            // to do; which have a new message from the next step on, without whole
            // blocks; whose end is long; who is at the end, and at the outer hash.
            let mut vacant = ALL;
            let (mut fresh, mut short, mut long) = (0_u32, 0_u32, 0_u32);
            begin!(
                WIDTH, vacant, fresh, short, long, next, due, at, coming, keys, ends, waiting,
                messages
            );
            let (mut at_end, mut at_outer) = (short, 0_u32);
            let mut idle = !fresh & ALL;
            let (mut fresh, mut short) = (0_u32, 0_u32);
            let mut state: [_; 5] = core::array::from_fn(|word| load(&keys.0[0][word]));
            // Which one it has.
            let mut places = coming;
            if idle == ALL {
                return;
            }
            loop {
                // SAFETY: each lane has a block left.
                let mut words = unsafe { words(&at, next as usize * SHA1_BLOCK) };
                if at_outer != 0 {
                    // The digest so far is what is hashed now.
                    for (i, outer) in keys.0[1].iter().enumerate() {
                        words[i] = take(words[i], at_outer, state[i]);
                        state[i] = take(state[i], at_outer, load(outer));
                    }
                }
                next += 1;
                let done = equal(due, next);
                let finished = at_outer;
                vacant = finished;
                compress!(
                    &mut state,
                    words,
                    {
                        begin!(
                            WIDTH / 4,
                            vacant,
                            fresh,
                            short,
                            long,
                            next,
                            due,
                            at,
                            coming,
                            keys,
                            ends,
                            waiting,
                            messages
                        )
                    },
                    {
                        let back = next as usize * SHA1_BLOCK;
                        idle |= finished & !fresh;
                        if done | idle != 0 {
                            let closing = done & at_end;
                            let ending = done & !(at_end | at_outer);
                            let mut left = ending;
                            while left != 0 {
                                let lane = left.trailing_zeros() as usize;
                                left &= left - 1;
                                at[lane] = ends
                                    .wrapping_add(lane)
                                    .cast_const()
                                    .cast::<u8>()
                                    .wrapping_sub(back);
                            }
                            // Lanes with nothing to do hash something, too.
                            let mut left = closing | idle;
                            while left != 0 {
                                let lane = left.trailing_zeros() as usize;
                                left &= left - 1;
                                at[lane] = OUTER.as_ptr().wrapping_sub(back);
                            }
                            due = take(due, ending | closing, splat(next + 1));
                            due = take(due, ending & long, splat(next + 2));
                            at_end = at_end & !closing | ending | short;
                            at_outer = closing;
                            short = 0;
                        }
                    }
                );
                if finished != 0 {
                    let mut digests = [[0; WIDTH]; 3];
                    for (digest, state) in digests.iter_mut().zip(state) {
                        store(digest, state);
                    }
                    for (word, inner) in state.iter_mut().zip(&keys.0[0]) {
                        *word = take(*word, fresh, load(inner));
                    }
                    fresh = 0;
                    let mut left = finished;
                    while left != 0 {
                        let lane = left.trailing_zeros() as usize;
                        left &= left - 1;
                        let mut tag = [0; 12];
                        for (bytes, word) in tag.as_chunks_mut().0.iter_mut().zip(&digests) {
                            *bytes = word[lane].to_be_bytes();
                        }
                        messages.tagged(places[lane], tag);
                        places[lane] = coming[lane];
                    }
                    if idle == ALL {
                        return;
                    }
                }
            }
        }
    };
}

pub(super) use {begin, hmac};
