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
        self.sets
            .iter()
            .flat_map(|(set, entries)| entries.iter().map(|e| self.row(*set, e)))
    }

    /// The SAs of one set; none when there is no such set.
    pub fn list_set(&self, set: SetId) -> impl Iterator<Item = Row> {
        let entries = self.sets.get(&set).map(Vec::as_slice).unwrap_or_default();
        entries.iter().map(move |e| self.row(set, e))
    }

    /// The set of the SA with this SPI and destination.
    pub fn find(&self, spi: u32, dst: std::net::IpAddr) -> Option<SetId> {
        let is = |e: &Entry| e.sa.spec.spi == spi && e.sa.destination() == dst;
        self.sets
            .iter()
            .find(|(_, entries)| entries.iter().any(is))
            .map(|(set, _)| *set)
    }

    fn row(&self, set: SetId, entry: &Entry) -> Row {
        let hot = self.at(entry.slot).hot();
        let port = u16::try_from(hot.encap_port.load(Relaxed)).unwrap_or(0);
        Row {
            set,
            slot: entry.slot,
            dir: entry.dir,
            spec: entry.sa.spec,
            state: hot.state(),
            seq: hot.seq.load(Relaxed),
            top: hot.top.load(Relaxed),
            packets: hot.packets.load(Relaxed),
            bytes: hot.bytes.load(Relaxed),
            last_used: hot.last_used.load(Relaxed),
            encap_port: (port != 0).then_some(port),
            drops: DROP_REASONS.map(|reason| (reason, hot.drops(reason))),
        }
    }
}
