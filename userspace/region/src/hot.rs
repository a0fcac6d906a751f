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

/// One slot's counters and numbers: three cache lines, of which the worker
/// writes the first two and the control plane the third.
///
/// One thread writes each line, so an addition is a load and a store
/// ([`Hot::count`]), not a locked instruction.
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
    /// UDP-enc-tun: the phone's port as last learnt from a packet that
    /// verified, host byte order; zero: not known.
    pub encap_port: AtomicU32,
    reserved: [AtomicU32; 5],

    drops: [AtomicU64; DROP_REASONS.len()],

    /// The state word, a [`SlotState`].
    state: AtomicU32,
    /// The SA's SPI, host byte order; zero: none.
    pub spi: AtomicU32,
    /// How often the slot was taken; the next SPI is made from it.
    pub generation: AtomicU32,
    /// Size of the replay window in sequence numbers.
    pub window: AtomicU32,
    /// The set that the SA belongs to; zero: none.
    pub set: AtomicU64,
    /// Outbound: when the SA last became the one for its selectors, a stamp
    /// ([`crate::Region::next_stamp`]); the latest counts. Zero: never.
    pub activated: AtomicU64,
    reserved_control: [AtomicU64; 4],
}

const _: () = assert!(size_of::<Hot>() == 192);

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

    /// Counts a dropped packet of this SA; a reason that is not one of
    /// [`DROP_REASONS`] is not counted here.
    pub fn count_drop(&self, reason: Reason) {
        if let Some(i) = DROP_REASONS.iter().position(|r| *r == reason) {
            Self::count(&self.drops[i], 1);
        }
    }

    /// Packets dropped for a reason; zero for one that is not counted here.
    pub fn drops(&self, reason: Reason) -> u64 {
        let place = DROP_REASONS.iter().position(|r| *r == reason);
        place.map_or(0, |i| self.drops[i].load(Ordering::Relaxed))
    }

    /// Zeroes everything but the state word and the generation.
    pub fn clear(&self) {
        let words = [
            &self.seq,
            &self.top,
            &self.packets,
            &self.bytes,
            &self.last_used,
            &self.set,
            &self.activated,
        ];
        for word in words.into_iter().chain(&self.drops) {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.encap_port, &self.spi, &self.window] {
            word.store(0, Ordering::Relaxed);
        }
    }
}
