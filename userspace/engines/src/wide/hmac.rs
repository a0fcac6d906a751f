//! HMAC-SHA-1 (RFC 2104) over many packets.

use zeroize::{Zeroize, Zeroizing};

use crate::simd::{Level, MacStates, Message, Messages, OUTER, SHA1_BLOCK, Tag};

/// FIPS 180-4 5.3.1.
const INITIAL: [u32; 5] = [
    0x6745_2301,
    0xefcd_ab89,
    0x98ba_dcfe,
    0x1032_5476,
    0xc3d2_e1f0,
];

/// Of no packet.
pub(super) static NO_KEY: MacStates = MacStates::new([0; 5], [0; 5]);

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

/// The tags of `count` messages, which begin with the longest.
pub(super) fn tags<'a, L: Level>(level: L, messages: &mut impl Messages<'a>, count: usize) {
    // What would fill a few lanes only.
    let over = count % L::MACS;
    let few = if over <= FEW { over } else { 0 };
    let many = count - few;
    if many > 0 {
        level.hmac(messages, many);
    }
    for place in many..count {
        let tag = alone(&messages.message(place));
        messages.tagged(place, tag);
    }
}

/// The tag of one message.
fn alone(message: &Message<'_>) -> Tag {
    let mut end = [0; 2 * SHA1_BLOCK];
    let len = message.end(&mut end);
    let [inner, outer] = message.key.states();
    let digest = |from: &[u32; 5], blocks: &[&[u8]]| {
        let mut state = Zeroizing::new(*from);
        for blocks in blocks {
            sha1::block_api::compress(&mut state, blocks.as_chunks().0);
        }
        let mut bytes = [0; 20];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(*state) {
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
