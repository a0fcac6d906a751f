//! The SAs that a worker has, by slot, by (destination, SPI) and by flow.

use std::cell::{Cell, OnceCell};
use std::net::IpAddr;

use gm_esp::{InnerFlow, Sa, Selector};
use gm_region::place;
use gm_sadb::{Dir, Finder, SetId, SlotList, inbound};

use crate::config::map_addr;
use crate::flows::{Flows, Outside, Sas, outside};
use crate::limit::OfSa;
use crate::process::Path;

/// An SA in the hands of its one worker: one cache line, so that a packet that
/// nothing is wrong with needs no other of it.
#[repr(align(64))]
pub(crate) struct Entry {
    /// What it is, with its expanded key.
    pub sa: Sa,
    /// The set that it belongs to.
    pub set: SetId,
    /// [`Entry::partners`], if there are not more than two; [`NONE`], or [`MANY`]
    /// and then they are rare.
    partners: [u32; 2],
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

/// No slot.
const NONE: u32 = u32::MAX;
/// More slots than there is room for.
const MANY: u32 = u32::MAX - 1;

/// What few SAs ever need.
#[derive(Default)]
struct Rare {
    partners: Box<[u32]>,
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
    pub(crate) fn new(slot: u32, set: SetId, dir: Dir, sa: Sa, partners: SlotList<2>) -> Entry {
        let rare = OnceCell::new();
        let partners = match *partners {
            [] => [NONE, NONE],
            [one] => [one, NONE],
            [one, other] => [one, other],
            ref more => {
                let partners = more.into();
                let more = Rare {
                    partners,
                    ..Rare::default()
                };
                let _ = rare.set(Box::new(more));
                [MANY, NONE]
            }
        };
        Entry {
            sa,
            set,
            partners,
            since: Cell::new(0),
            rare,
            slot,
            phone: Cell::new(0),
            dir,
            flags: Cell::new(0),
        }
    }

    /// The outbound slots of the set, which send to the port that this SA's
    /// packets come from (inbound, UDP-enc-tun).
    pub(crate) fn partners(&self) -> &[u32] {
        match &self.partners {
            [MANY, _] => self.rare.get().map_or(&[], |rare| &rare.partners),
            [NONE, _] => &[],
            [one, NONE] => std::slice::from_ref(one),
            both => both,
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

/// SAs by slot ([`place`]), up to the last that there was.
struct Entries {
    all: Vec<Option<Entry>>,
    /// Slots that there are.
    slots: u32,
}

impl Entries {
    fn get(&self, slot: u32) -> Option<&Entry> {
        self.all.get(place(self.slots, slot))?.as_ref()
    }
}

impl Sas for Entries {
    fn selector(&self, slot: u32) -> Option<Selector> {
        self.get(slot).map(|entry| entry.sa.selector())
    }

    fn outside(&self, slot: u32) -> Option<Outside> {
        self.get(slot).map(|entry| outside(&entry.sa))
    }

    fn since(&self, slot: u32) -> u64 {
        self.get(slot).map_or(0, |entry| entry.since.get())
    }
}

/// A worker's SAs.
pub(crate) struct Table {
    entries: Entries,
    inbound: Finder,
    flows: Flows,
}

impl Table {
    /// Room for `slots` SAs. Memory is taken as they come.
    pub(crate) fn new(slots: u32) -> Table {
        Table {
            entries: Entries {
                all: Vec::with_capacity(slots as usize),
                slots,
            },
            inbound: Finder::new(inbound(slots)),
            flows: Flows::new(slots - inbound(slots)),
        }
    }

    /// Takes an SA: inbound it is found at once, outbound after
    /// [`Table::activate`]. What the slot held before goes.
    pub(crate) fn load(&mut self, entry: Entry) {
        let slot = entry.slot;
        self.unload(slot);
        let place = place(self.entries.slots, slot);
        if slot >= self.entries.slots {
            return;
        }
        if entry.dir == Dir::In {
            self.inbound.insert(&Some(outside(&entry.sa)), slot);
        }
        let entries = &mut self.entries.all;
        while entries.len() <= place {
            entries.push(None);
        }
        entries[place] = Some(entry);
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
            let own = outside(&old.sa);
            let name = |slot| entries.outside(slot);
            self.inbound.remove(&Some(own), slot, name);
        }
        let place = place(self.entries.slots, slot);
        if let Some(place) = self.entries.all.get_mut(place) {
            *place = None;
        }
    }

    /// The SA in a slot.
    pub(crate) fn get(&self, slot: u32) -> Option<&Entry> {
        self.entries.get(slot)
    }

    /// The inbound SA with this destination and SPI.
    pub(crate) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<&Entry> {
        let wanted = Some((map_addr(dst), spi));
        let is = |slot| self.entries.outside(slot) == wanted;
        self.get(self.inbound.find(&wanted, is)?)
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

#[cfg(test)]
mod tests {
    use super::*;
    use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Suite};

    fn sa() -> Sa {
        let suite = Suite::NullAesGcm;
        let keys = EspKeys::expand(suite, &Ik::from_bytes([1; 16]), &Ck::from_bytes([1; 16]));
        let selector = Selector {
            src: [192, 0, 2, 1].into(),
            dst: [192, 0, 2, 2].into(),
            src_port: None,
            dst_port: None,
            proto: SelProto::UdpTcp,
        };
        let spec = SaSpec {
            spi: 256,
            mode: Mode::Trans,
            selector,
            suite,
            outer: None,
            esn: false,
            replay_window: 64,
        };
        Sa::new(spec, &keys).unwrap()
    }

    #[test]
    fn partners_are_those_given_and_a_limit_leaves_them() {
        let sa = sa();
        for n in 0..6u32 {
            let given: Vec<u32> = (7..7 + n).collect();
            let list = given.iter().copied().collect();
            let entry = Entry::new(0, SetId(1), Dir::In, sa.clone(), list);
            assert_eq!(entry.partners(), given);
            entry.set_path(Path::default());
            assert_eq!(entry.partners(), given);
        }
    }
}
