//! The SAs that a worker has, by slot, by (destination, SPI) and by flow.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use gm_esp::{InnerFlow, Sa};
use gm_sadb::{Dir, SetId};

use crate::flows::Flows;
use crate::limit::OfSa;
use crate::process::Path;

/// An SA in the hands of its one worker.
pub(crate) struct Entry {
    /// Slot in the region and, inbound, in the map `SLOTS`.
    pub slot: u32,
    /// The set that it belongs to.
    pub set: SetId,
    /// Which way it carries packets.
    pub dir: Dir,
    /// What it is, with its expanded key.
    pub sa: Arc<Sa>,
    /// The outbound slots of the set, which send to the port that this SA's
    /// packets come from (inbound, UDP-enc-tun).
    pub partners: Vec<u32>,
    /// The end of its numbers was announced.
    pub low_told: Cell<bool>,
    /// That the numbers are used up was announced.
    pub end_told: Cell<bool>,
    /// What the limiter of ICV failures knows of it.
    pub limit: Cell<OfSa>,
    /// What routers on the way to the peer have said (outbound).
    pub path: Cell<Path>,
}

impl Entry {
    /// An SA about which nothing was announced yet.
    pub(crate) fn new(slot: u32, set: SetId, dir: Dir, sa: Arc<Sa>, partners: Vec<u32>) -> Entry {
        Entry {
            slot,
            set,
            dir,
            sa,
            partners,
            low_told: Cell::new(false),
            end_told: Cell::new(false),
            limit: Cell::default(),
            path: Cell::default(),
        }
    }
}

/// A worker's SAs.
#[derive(Default)]
pub(crate) struct Table {
    slots: Vec<Option<Entry>>,
    inbound: HashMap<(IpAddr, u32), u32>,
    flows: Flows,
}

impl Table {
    /// Room for `slots` SAs.
    pub(crate) fn new(slots: u32) -> Table {
        Table {
            slots: (0..slots).map(|_| None).collect(),
            ..Table::default()
        }
    }

    /// Takes an SA: inbound it is found at once, outbound after
    /// [`Table::activate`]. What the slot held before goes.
    pub(crate) fn load(&mut self, entry: Entry) {
        self.unload(entry.slot);
        if entry.dir == Dir::In {
            self.inbound
                .insert((entry.sa.destination(), entry.sa.spec.spi), entry.slot);
        }
        if let Some(place) = self.slots.get_mut(entry.slot as usize) {
            *place = Some(entry);
        }
    }

    /// Lets outbound packets find the SA.
    pub(crate) fn activate(&mut self, slot: u32) {
        if let Some(Some(e)) = self.slots.get(slot as usize)
            && e.dir == Dir::Out
        {
            self.flows.add(&e.sa.spec, slot);
        }
    }

    /// Takes an SA out of outbound packets' sight; inbound it goes on.
    pub(crate) fn deactivate(&mut self, slot: u32) {
        if let Some(Some(e)) = self.slots.get(slot as usize) {
            self.flows.remove(&e.sa.spec, slot);
        }
    }

    /// Lets go of an SA. Its key is wiped with the last reference.
    pub(crate) fn unload(&mut self, slot: u32) {
        self.deactivate(slot);
        if let Some(old) = self.slots.get_mut(slot as usize).and_then(Option::take)
            && old.dir == Dir::In
        {
            let key = (old.sa.destination(), old.sa.spec.spi);
            if self.inbound.get(&key) == Some(&slot) {
                self.inbound.remove(&key);
            }
        }
    }

    /// The SA in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The inbound SA with this destination and SPI.
    pub(crate) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<&Entry> {
        self.get(*self.inbound.get(&(dst, spi))?)
    }

    /// The active outbound SA whose packets go to `dst` with this SPI.
    pub(crate) fn by_peer(&self, dst: IpAddr, spi: u32) -> Option<&Entry> {
        self.get(self.flows.by_spi(dst, spi)?)
    }

    /// The active outbound SA for a packet.
    pub(crate) fn by_flow(&self, flow: &InnerFlow) -> Option<&Entry> {
        self.get(self.flows.find(flow)?)
    }
}
