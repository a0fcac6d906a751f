//! HMAC-SHA-1 (RFC 2104) over many packets.

use zeroize::Zeroize;

use super::{BATCH, ICV_LEN};
use crate::simd::{Level, MacStates, Message, OUTER, SHA1_BLOCK, Tag};

/// FIPS 180-4 5.3.1.
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// Up to so many packets are hashed one after the other: lanes would be empty.
const FEW: usize = 4;

impl MacStates {
    /// Of a key that is not longer than a block.
    pub(super) fn of(key: &[u8]) -> MacStates {
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
        let (mut inner, mut outer) = (state(0x36), state(0x5c));
        let states = MacStates::new(inner, outer);
        inner.zeroize();
        outer.zeroize();
        states
    }
}

static NO_KEY: MacStates = MacStates::new([0; 5], [0; 5]);

/// Of no key.
pub(super) fn no_key() -> &'static MacStates {
    &NO_KEY
}

/// The tags of `count` messages, at most [`BATCH`], which begin with the longest.
pub(super) fn tags<'a, L: Level>(
    level: L,
    count: usize,
    message: impl Fn(usize) -> Message<'a>,
) -> [Tag; BATCH] {
    let mut tags = [[0; ICV_LEN]; BATCH];
    // What would fill a few lanes only.
    let over = count % L::MACS;
    let few = if over <= FEW { over } else { 0 };
    let (many, few) = tags[..count].split_at_mut(count - few);
    if !many.is_empty() {
        level.hmac(&message, many);
    }
    for (i, tag) in few.iter_mut().enumerate() {
        *tag = alone(&message(many.len() + i));
    }
    tags
}

/// The tag of one message.
fn alone(message: &Message<'_>) -> Tag {
    let mut end = [0; 2 * SHA1_BLOCK];
    let len = message.end(&mut end);
    let digest = |mut state: [u32; 5], blocks: &[&[u8]]| {
        for blocks in blocks {
            sha1::block_api::compress(&mut state, blocks.as_chunks().0);
        }
        let mut bytes = [0; 20];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    };
    let inside = digest(message.key.inner(), &[message.parts().0, &end[..len]]);
    let mut block = OUTER;
    block[..20].copy_from_slice(&inside);
    let outside = digest(message.key.outer(), &[&block]);
    std::array::from_fn(|i| outside[i])
}
