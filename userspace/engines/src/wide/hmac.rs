//! HMAC-SHA-1 (RFC 2104) over many packets.

use zeroize::Zeroize;

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

/// The tags of messages, which begin with the longest, and are as many.
pub(super) fn tags<L: Level>(level: L, messages: &[Message<'_>], tags: &mut [Tag]) {
    // What would fill a few lanes only.
    let over = messages.len() % L::MACS;
    let few = if over <= FEW { over } else { 0 };
    let (many, few) = messages.split_at(messages.len() - few);
    let (tags, rest) = tags.split_at_mut(many.len());
    if !many.is_empty() {
        level.hmac(many, tags);
    }
    for (message, tag) in few.iter().zip(rest) {
        *tag = alone(message);
    }
}

/// The tag of one message.
fn alone(message: &Message<'_>) -> Tag {
    let mut end = [0; 2 * SHA1_BLOCK];
    let len = message.end(&mut end);
    let [inner, outer] = *message.key.states();
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
    let inside = digest(inner, &[message.parts().0, &end[..len]]);
    let mut block = OUTER;
    block[..20].copy_from_slice(&inside);
    let outside = digest(outer, &[&block]);
    std::array::from_fn(|i| outside[i])
}
