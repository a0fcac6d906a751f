//! The SAs that a worker has, by slot, by (destination, SPI) and by flow.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;
use std::sync::Arc;

use gm_esp::{InnerFlow, Sa, SaSpec};
use gm_sadb::{Dir, Finder, SetId, SlotList};

use crate::config::map_addr;
use crate::flows::{Flows, Sas, outside};
use crate::limit::OfSa;
use crate::process::Path;

/// An SA in the hands of its one worker: one cache line, so that a packet that
/// nothing is wrong with needs no other of it.
#[repr(align(64))]
pub(crate) struct Entry {
    /// What it is, with its expanded key.
    pub sa: Arc<Sa>,
    /// The set that it belongs to.
    pub set: SetId,
    /// The outbound slots of the set, which send to the port that this SA's
    /// packets come from (inbound, UDP-enc-tun).
    pub partners: SlotList<2>,
    /// When it was activated (outbound); zero: it is not active.
    since: Cell<u64>,
    rare: OnceCell<Box<Rare>>,
    /// Slot in the region and, inbound, in the map `SLOTS`.
    pub slot: u32,
    /// The tag of its phone; 0: not known.
    phone: Cell<u16>,
    /// Which way it carries packets.
    pub dir: Dir,
    flags: Cell<u8>,
}

const _: () = assert!(size_of::<Option<Entry>>() == 64);

/// What few SAs ever need.
#[derive(Default)]
struct Rare {
    limit: Cell<OfSa>,
    path: Cell<Path>,
}

/// The end of its numbers was announced.
const LOW_TOLD: u8 = 1;
/// That the numbers are used up was announced.
const END_TOLD: u8 = 2;
/// XDP knows the tag of its phone.
const SHOWN: u8 = 4;
/// It is limited.
const LIMITED: u8 = 8;

impl Entry {
    /// An SA about which nothing was announced yet.
    pub(crate) fn new(
        slot: u32,
        set: SetId,
        dir: Dir,
        sa: Arc<Sa>,
        partners: SlotList<2>,
    ) -> Entry {
        Entry {
            sa,
            set,
            partners,
            since: Cell::new(0),
            rare: OnceCell::new(),
            slot,
            phone: Cell::new(0),
            dir,
            flags: Cell::new(0),
        }
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    fn mark(&self, flag: u8, on: bool) {
        let others = self.flags.get() & !flag;
        self.flags.set(others | if on { flag } else { 0 });
    }

    /// Notes that the end of its numbers was announced; whether it was before.
    pub(crate) fn tell_low(&self) -> bool {
        let told = self.has(LOW_TOLD);
        self.mark(LOW_TOLD, true);
        told
    }

    /// Notes that it was announced that its numbers are used up; whether it was
    /// before.
    pub(crate) fn tell_end(&self) -> bool {
        let told = self.has(END_TOLD);
        self.mark(END_TOLD, true);
        told
    }

    /// Whether ICVs of it keep failing.
    pub(crate) fn is_limited(&self) -> bool {
        self.has(LIMITED)
    }

    /// What the limiter of ICV failures knows of it.
    pub(crate) fn limit(&self) -> OfSa {
        let rare = self.rare.get();
        let kept = rare.map_or_else(OfSa::default, |rare| rare.limit.get());
        kept.with_phone(self.phone.get(), self.has(SHOWN))
    }

    /// The same from now on. Takes memory the first time that an ICV fails.
    pub(crate) fn set_limit(&self, limit: OfSa) {
        let (phone, shown) = limit.phone();
        self.phone.set(phone);
        self.mark(SHOWN, shown);
        self.mark(LIMITED, limit.limited());
        if self.rare.get().is_some() || !limit.is_idle() {
            self.rare().limit.set(limit);
        }
    }

    /// What routers on the way to the peer have said (outbound).
    pub(crate) fn path(&self) -> Path {
        let rare = self.rare.get();
        rare.map_or_else(Path::default, |rare| rare.path.get())
    }

    /// The same from now on.
    pub(crate) fn set_path(&self, path: Path) {
        self.rare().path.set(path);
    }

    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }
}

/// SAs by slot, up to the highest that there was.
struct Entries(Vec<Option<Entry>>);

impl Entries {
    fn get(&self, slot: u32) -> Option<&Entry> {
        self.0.get(slot as usize)?.as_ref()
    }
}

impl Sas for Entries {
    fn spec(&self, slot: u32) -> Option<&SaSpec> {
        self.get(slot).map(|entry| &entry.sa.spec)
    }

    fn since(&self, slot: u32) -> u64 {
        self.get(slot).map_or(0, |entry| entry.since.get())
    }
}

/// A worker's SAs.
pub(crate) struct Table {
    entries: Entries,
    /// Slots that there are.
    slots: u32,
    inbound: Finder,
    flows: Flows,
}

impl Table {
    /// Room for `slots` SAs. Memory is taken as they come.
    pub(crate) fn new(slots: u32) -> Table {
        Table {
            entries: Entries(Vec::with_capacity(slots as usize)),
            slots,
            inbound: Finder::new(slots),
            flows: Flows::new(slots),
        }
    }

    /// Takes an SA: inbound it is found at once, outbound after
    /// [`Table::activate`]. What the slot held before goes.
    pub(crate) fn load(&mut self, entry: Entry) {
        let slot = entry.slot;
        self.unload(slot);
        if slot >= self.slots {
            return;
        }
        if entry.dir == Dir::In {
            self.inbound.insert(&Some(outside(&entry.sa.spec)), slot);
        }
        let Entries(entries) = &mut self.entries;
        while entries.len() <= slot as usize {
            entries.push(None);
        }
        entries[slot as usize] = Some(entry);
    }

    /// Lets outbound packets find the SA.
    pub(crate) fn activate(&mut self, slot: u32) {
        let entry = self.entries.get(slot);
        if let Some(entry) = entry.filter(|e| e.dir == Dir::Out) {
            entry.since.set(self.flows.add(&self.entries, slot));
        }
    }

    /// Takes an SA out of outbound packets' sight; inbound it goes on.
    pub(crate) fn deactivate(&mut self, slot: u32) {
        let entry = self.entries.get(slot);
        if let Some(entry) = entry.filter(|e| e.since.get() != 0) {
            self.flows.remove(&self.entries, slot);
            entry.since.set(0);
        }
    }

    /// Lets go of an SA. Its key is wiped with the last reference.
    pub(crate) fn unload(&mut self, slot: u32) {
        self.deactivate(slot);
        let entries = &self.entries;
        if let Some(old) = entries.get(slot).filter(|e| e.dir == Dir::In) {
            let name = |s: u32| entries.spec(s).map(outside);
            let own = outside(&old.sa.spec);
            self.inbound.remove(&Some(own), slot, name);
        }
        if let Some(place) = self.entries.0.get_mut(slot as usize) {
            *place = None;
        }
    }

    /// The SA in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot)
    }

    /// The inbound SA with this destination and SPI.
    pub(crate) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<&Entry> {
        let is = |slot| {
            let sa = self.entries.spec(slot);
            sa.is_some_and(|sa| sa.spi == spi && sa.destination() == dst)
        };
        self.get(self.inbound.find(&Some((map_addr(dst), spi)), is)?)
    }

    /// The active outbound SA whose packets go to `dst` with this SPI.
    pub(crate) fn by_peer(&self, dst: IpAddr, spi: u32) -> Option<&Entry> {
        self.get(self.flows.by_spi(&self.entries, dst, spi)?)
    }

    /// The active outbound SA for a packet.
    pub(crate) fn by_flow(&self, flow: &InnerFlow) -> Option<&Entry> {
        self.get(self.flows.find(&self.entries, flow)?)
    }
}
