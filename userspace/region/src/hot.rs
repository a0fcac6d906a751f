//! The hot half of an SA: what is touched for every packet.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use gm_abi::verdict::Reason;

/// The reasons that are counted for each SA, in the order of their counters.
pub const DROP_REASONS: [Reason; 8] = [
    Reason::Replay,
    Reason::Stale,
    Reason::BadIcv,
    Reason::Malformed,
    Reason::ModeMismatch,
    Reason::Dummy,
    Reason::SelectorMismatch,
    Reason::IcvLimited,
];

/// Where in its life a slot is; the slot's state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SlotState {
    /// Holds nothing.
    Free = 0,
    /// Reserved or being written; a successor rolls it back.
    Installing = 1,
    /// In use.
    Live = 2,
    /// An outbound SA that waits for its set to be activated.
    Standby = 3,
    /// Inbound: still accepts while its set retires. Outbound: off.
    Retiring = 4,
    /// Being taken back; a successor finishes that.
    Removing = 5,
}

impl SlotState {
    /// The state of a state word; `None` for a word that is none.
    pub fn from_word(word: u32) -> Option<SlotState> {
        use SlotState::*;
        [Free, Installing, Live, Standby, Retiring, Removing]
            .into_iter()
            .find(|s| *s as u32 == word)
    }
}

/// One slot's numbers and counters: one cache line.
///
/// The SA's one worker writes numbers, counters and port, the control plane the
/// rest, and the first ones while no worker has the SA. Nobody else writes a
/// word, so an addition is a load and a store ([`Hot::count`]), not a locked
/// instruction.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Hot {
    /// Outbound: the last sequence number used; zero: none yet.
    pub seq: AtomicU64,
    /// Inbound: the highest sequence number accepted; zero: none yet.
    pub top: AtomicU64,
    /// Packets opened or sealed.
    pub packets: AtomicU64,
    /// Bytes of these packets as plain IP packets.
    pub bytes: AtomicU64,
    /// When the last of them was, in milliseconds of a clock that the users
    /// agree on.
    pub last_used: AtomicU64,
    /// Outbound: when the SA last became the one for its selectors, a stamp
    /// ([`crate::Region::next_stamp`]); the latest counts. Zero: never.
    pub activated: AtomicU64,
    /// UDP-enc-tun: the phone's port as last learnt from a packet that
    /// verified, host byte order; zero: not known.
    pub encap_port: AtomicU32,
    /// The state word, a [`SlotState`].
    state: AtomicU32,
    /// From which the slot's next SPI is made; zero: it has had none.
    pub generation: AtomicU32,
    /// Not zero: packets were dropped, so the slot's counters of that mean
    /// something. They lie elsewhere, for few SAs need them.
    pub(crate) dropped: AtomicU32,
}

const _: () = assert!(size_of::<Hot>() == 64);

impl Hot {
    /// The state; a damaged word reads as [`SlotState::Removing`], so that
    /// whoever cleans up takes the slot back.
    pub fn state(&self) -> SlotState {
        // Acquire: who sees a slot live sees what was written before.
        SlotState::from_word(self.state.load(Ordering::Acquire)).unwrap_or(SlotState::Removing)
    }

    /// Changes the state; everything written before is seen by who sees it.
    pub fn set_state(&self, state: SlotState) {
        self.state.store(state as u32, Ordering::Release);
    }

    /// Adds to one of this value's counters; only for the thread that owns it.
    pub fn count(counter: &AtomicU64, n: u64) {
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Zeroes everything but the state word and the generation.
    pub fn clear(&self) {
        let words = [
            &self.seq,
            &self.top,
            &self.packets,
            &self.bytes,
            &self.last_used,
            &self.activated,
        ];
        for word in words {
            word.store(0, Ordering::Relaxed);
        }
        self.encap_port.store(0, Ordering::Relaxed);
        self.dropped.store(0, Ordering::Relaxed);
    }
}
