//! HMAC-SHA-1 (RFC 2104) over many packets.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::BATCH;
use crate::simd::{LANES, Level, SHA1_BLOCK, Sha1States};

/// FIPS 180-4 5.3.1.
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// Up to so many packets are hashed one after the other: lanes would be empty.
const FEW: usize = 3;

/// The states of the hash behind the key's block, inside and outside.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct MacStates {
    inner: [u32; 5],
    outer: [u32; 5],
}

static NO_KEY: MacStates = MacStates {
    inner: [0; 5],
    outer: [0; 5],
};

impl MacStates {
    /// Of a key that is not longer than a block.
    pub(crate) fn of(key: &[u8]) -> MacStates {
        let state = |pad: u8| {
            let mut block = [pad; SHA1_BLOCK];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            let mut state = INITIAL;
            sha1::block_api::compress(&mut state, &[block]);
            block.zeroize();
            state
        };
        MacStates {
            inner: state(0x36),
            outer: state(0x5c),
        }
    }
}

/// What is hashed of a packet.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    /// Of the packet's key.
    pub(super) states: &'a MacStates,
    /// The packet without its ICV.
    pub(super) covered: &'a [u8],
    /// With ESN, the high half of its number (RFC 4303 2.2.1).
    pub(super) seq_hi: Option<u32>,
}

impl<'a> Message<'a> {
    /// None, for the places of an array.
    pub(super) const NONE: Message<'static> = Message {
        states: &NO_KEY,
        covered: &[],
        seq_hi: None,
    };

    /// The whole blocks, which are hashed where they are, and the rest.
    fn parts(&self) -> (&'a [u8], &'a [u8]) {
        self.covered
            .split_at(self.covered.len() & !(SHA1_BLOCK - 1))
    }

    fn blocks(&self) -> usize {
        let more = if self.seq_hi.is_some() { 4 } else { 0 };
        (self.covered.len() + more + PADDING).div_ceil(SHA1_BLOCK)
    }
}

/// Fewest bytes that padding adds (FIPS 180-4 5.1.1).
const PADDING: usize = 9;

/// The end of a message: the rest, what follows it, and the padding.
struct End {
    bytes: [u8; 2 * SHA1_BLOCK],
    len: usize,
}

impl End {
    const NONE: End = End {
        bytes: [0; 2 * SHA1_BLOCK],
        len: 0,
    };

    fn fill<L: Level>(&mut self, level: L, message: &Message<'_>) {
        let (_, rest) = message.parts();
        let ([first, second], _) = self.bytes.as_chunks_mut() else {
            return;
        };
        level.copy_rest(rest, first);
        *second = [0; SHA1_BLOCK];
        let mut used = rest.len();
        if let Some(hi) = message.seq_hi {
            self.bytes[used..used + 4].copy_from_slice(&hi.to_be_bytes());
            used += 4;
        }
        self.bytes[used] = 0x80;
        self.len = (used + PADDING).next_multiple_of(SHA1_BLOCK);
        // The key's block counts, too.
        let bits = ((SHA1_BLOCK + message.covered.len() - rest.len() + used) as u64) * 8;
        self.bytes[self.len - 8..self.len].copy_from_slice(&bits.to_be_bytes());
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Fills the outer hash's block: a digest, padded.
fn outer_block(block: &mut [u8; SHA1_BLOCK], digest: [u32; 5]) {
    for (bytes, word) in block.chunks_exact_mut(4).zip(digest) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    block[20] = 0x80;
    let bits = ((SHA1_BLOCK + 20) as u64) * 8;
    block[SHA1_BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
}

/// The HMACs of all messages, at most [`BATCH`], in words.
pub(super) fn tags<L: Level>(level: L, messages: &[Message<'_>]) -> [[u32; 5]; BATCH] {
    let mut digests = [[0; 5]; BATCH];
    if messages.len() <= FEW {
        for (message, digest) in messages.iter().zip(&mut digests) {
            *digest = alone(level, message);
        }
        return digests;
    }
    inner(level, messages, &mut digests);
    let mut blocks = [[0; SHA1_BLOCK]; LANES];
    let mut states = Sha1States::new();
    for (messages, digests) in messages.chunks(LANES).zip(digests.chunks_mut(LANES)) {
        for (lane, (message, digest)) in messages.iter().zip(&*digests).enumerate() {
            outer_block(&mut blocks[lane], *digest);
            states.set(lane, message.states.outer);
        }
        let mut lanes: [&[u8]; LANES] = [&[]; LANES];
        for (lane, block) in lanes.iter_mut().zip(&blocks).take(messages.len()) {
            *lane = block;
        }
        level.sha1(&mut states, &lanes, 1);
        for (lane, digest) in digests.iter_mut().enumerate() {
            *digest = states.get(lane);
        }
    }
    digests
}

/// The HMAC of one message.
fn alone<L: Level>(level: L, message: &Message<'_>) -> [u32; 5] {
    let mut end = End::NONE;
    end.fill(level, message);
    let (whole, _) = message.parts();
    let mut state = message.states.inner;
    sha1::block_api::compress(&mut state, whole.as_chunks().0);
    sha1::block_api::compress(&mut state, end.bytes().as_chunks().0);
    let mut block = [0; SHA1_BLOCK];
    outer_block(&mut block, state);
    let mut tag = message.states.outer;
    sha1::block_api::compress(&mut tag, &[block]);
    tag
}

/// What a lane has still to hash of its message.
#[derive(Clone, Copy)]
enum Left<'a> {
    /// These whole blocks, and then the end.
    Whole(&'a [u8]),
    /// The end, from this byte on.
    End(usize),
    /// There is no message.
    Nothing,
}

/// The inner hashes, each message in a lane that the one before it has left. The
/// longest begin, so that the lanes end together.
fn inner<L: Level>(level: L, messages: &[Message<'_>], digests: &mut [[u32; 5]; BATCH]) {
    let mut order: [u8; BATCH] = std::array::from_fn(|i| i as u8);
    let order = &mut order[..messages.len()];
    let blocks = |place: &u8| messages[usize::from(*place)].blocks();
    if !order.is_sorted_by(|a, b| blocks(a) >= blocks(b)) {
        order.sort_unstable_by_key(|place| std::cmp::Reverse(blocks(place)));
    }
    let mut waiting = order.iter().map(|place| usize::from(*place));
    let mut states = Sha1States::new();
    let mut ends = [End::NONE; LANES];
    let mut lanes = [(0, Left::Nothing); LANES];
    let mut begin = |states: &mut Sha1States, end: &mut End, lane: usize| {
        let Some(place) = waiting.next() else {
            return (0, Left::Nothing);
        };
        let message = &messages[place];
        states.set(lane, message.states.inner);
        end.fill(level, message);
        match message.parts() {
            ([], _) => (place, Left::End(0)),
            (whole, _) => (place, Left::Whole(whole)),
        }
    };
    for (lane, (at, end)) in lanes.iter_mut().zip(&mut ends).enumerate() {
        *at = begin(&mut states, end, lane);
    }
    loop {
        let mut blocks = usize::MAX;
        let bytes: [&[u8]; LANES] = std::array::from_fn(|lane| {
            let bytes = match lanes[lane].1 {
                Left::Whole(bytes) => bytes,
                Left::End(from) => &ends[lane].bytes()[from..],
                Left::Nothing => return &[][..],
            };
            blocks = blocks.min(bytes.len() / SHA1_BLOCK);
            bytes
        });
        if blocks == usize::MAX {
            return;
        }
        level.sha1(&mut states, &bytes, blocks);
        let done = blocks * SHA1_BLOCK;
        for (lane, ((place, left), end)) in lanes.iter_mut().zip(&mut ends).enumerate() {
            *left = match *left {
                Left::Whole(bytes) if bytes.len() > done => Left::Whole(&bytes[done..]),
                Left::Whole(_) => Left::End(0),
                Left::End(from) if end.len > from + done => Left::End(from + done),
                Left::End(_) => {
                    digests[*place] = states.get(lane);
                    (*place, *left) = begin(&mut states, end, lane);
                    continue;
                }
                Left::Nothing => Left::Nothing,
            };
        }
    }
}
