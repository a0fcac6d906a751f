//! What there is, for people.

use std::sync::atomic::Ordering::Relaxed;

use gm_abi::verdict::Reason;
use gm_esp::SaSpec;
use gm_region::{DROP_REASONS, SlotState};

use crate::sadb::{Entry, Sadb};
use crate::types::{Dir, SetId};

/// One SA as it is now; no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its set.
    pub set: SetId,
    /// Its slot.
    pub slot: u32,
    /// Its direction.
    pub dir: Dir,
    /// What it is: SPI, mode, selector, suite, outer header.
    pub spec: SaSpec,
    /// Where in its life it is.
    pub state: SlotState,
    /// Outbound: last sequence number used.
    pub seq: u64,
    /// Inbound: highest sequence number accepted.
    pub top: u64,
    /// Packets opened or sealed.
    pub packets: u64,
    /// Bytes of these as plain IP packets.
    pub bytes: u64,
    /// When the last of them was, milliseconds of the workers' clock; 0: never.
    pub last_used: u64,
    /// The phone's port behind its NAT as known by now.
    pub encap_port: Option<u16>,
    /// Packets that the workers dropped, by reason. What XDP shed comes on top
    /// (the map SLOT_DROPS).
    pub drops: [(Reason, u64); DROP_REASONS.len()],
}

impl Sadb {
    /// All SAs, by set.
    pub fn list(&self) -> impl Iterator<Item = Row> {
        self.list_from(SetId(0))
    }

    /// The SAs of the sets from this number on, by set: for who looks at many in
    /// pieces.
    pub fn list_from(&self, first: SetId) -> impl Iterator<Item = Row> {
        let sets = self.sets.range(first..);
        sets.flat_map(|(set, slots)| self.index.all(slots).map(|e| self.row(*set, e)))
    }

    /// The SAs of one set; none when there is no such set.
    pub fn list_set(&self, set: SetId) -> impl Iterator<Item = Row> {
        let slots = self.sets.get(&set).map(|slots| &**slots);
        let entries = self.index.all(slots.unwrap_or_default());
        entries.map(move |e| self.row(set, e))
    }

    /// How many sets there are, and how many SAs are in use or set aside.
    pub fn count(&self) -> (usize, usize) {
        let used = self.region().slots() as usize - self.slots.len();
        (self.sets.len(), used - self.reserved.len())
    }

    /// The set of the SA with this SPI and destination.
    pub fn find(&self, spi: u32, dst: std::net::IpAddr) -> Option<SetId> {
        let is = |e: &Entry| e.sa.spi() == spi && e.sa.destination() == dst;
        self.sets
            .iter()
            .find(|(_, slots)| self.index.all(slots).any(is))
            .map(|(set, _)| *set)
    }

    fn row(&self, set: SetId, entry: &Entry) -> Row {
        let at = self.at(entry.slot);
        let (hot, mut drops) = (at.hot(), at.drops().into_iter());
        let port = u16::try_from(hot.encap_port.load(Relaxed)).unwrap_or(0);
        Row {
            set,
            slot: entry.slot,
            dir: entry.dir,
            spec: entry.sa.spec(),
            state: hot.state(),
            seq: hot.seq.load(Relaxed),
            top: hot.top.load(Relaxed),
            packets: hot.packets.load(Relaxed),
            bytes: hot.bytes.load(Relaxed),
            last_used: hot.last_used.load(Relaxed),
            encap_port: (port != 0).then_some(port),
            drops: DROP_REASONS.map(|reason| (reason, drops.next().unwrap_or(0))),
        }
    }
}
