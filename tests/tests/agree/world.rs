//! What stands in the maps, and the same once more in user space.

use std::collections::{HashMap, HashSet};

use gm_abi::maps::{
    Addr, META_ESP, META_FRAGMENT, META_ICMP, META_MAGIC, META_UDP_ESP, MODE_TRANS,
    MODE_UDP_ENC_TUN, Meta, SPI_BASE, STATE_FRAGMENT_RATE, STATE_LIMITED, WINDOW_CELLS,
};
use gm_abi::source::{ICMP_TOKENS, PREFIX_PLACES, PrefixDrops, place_of, prefix_of, tag_of};
use gm_abi::verdict::{Action, DROP_COUNT, Reason};
use gm_abi::wire::{
    self, Bytes, Class, ETH_LEN, EncapPort, IPV4, IPV6, IpPacket, L3, MAX_VLAN_TAGS, SERVICE_VLAN,
    TCP, UDP, VLAN,
};

use super::dice::Dice;
use super::lab::{ENCAP_PORT, Lab, OURS_V4, OURS_V6, SEED, SLOTS, Sa};
use super::model;

/// Places of `SLOT_DROPS`, in order.
const OF_SLOT: [Reason; 4] = [
    Reason::Replay,
    Reason::Stale,
    Reason::ModeMismatch,
    Reason::IcvLimited,
];

pub struct World {
    pub lab: Lab,
    /// SAs to make frames for.
    pub sas: Vec<Sa>,
    /// Where frames come from, mostly.
    pub sources: Vec<Addr>,
    /// Ports that they come from, mostly.
    pub ports: Vec<u16>,
    /// What every reason has been counted.
    pub counted: Vec<u64>,
    of_slots: HashMap<u32, [u64; 4]>,
    of_sources: Vec<PrefixDrops>,
    limited: HashSet<u64>,
    /// Words of `FRAGMENT_TOKENS`; not there: zero. `None`: no limit.
    tokens: Option<HashMap<u32, i64>>,
}

impl World {
    pub fn new(dice: &mut Dice) -> World {
        let v6 = |last: u8| {
            let mut addr = OURS_V6;
            (addr[7], addr[15]) = (last, last);
            addr
        };
        let mut sources: Vec<Addr> = (1..6)
            .flat_map(|n| [gm_abi::maps::mapped([198, 51, 100, n]), v6(n)])
            .collect();
        // Nobody's, and ours.
        sources.extend([[0; 16], OURS_V4, OURS_V6]);
        let mut world = World {
            lab: Lab::new(),
            sas: Vec::new(),
            sources,
            ports: vec![4500, 5060, 33333, 5104, 1, 65535],
            counted: vec![0; Reason::COUNT],
            of_slots: HashMap::new(),
            of_sources: (0..PREFIX_PLACES).map(|_| PrefixDrops::default()).collect(),
            limited: HashSet::new(),
            tokens: None,
        };
        for nth in 0..64 {
            world.add_sa(dice, nth);
        }
        world
    }

    /// An SA of any kind in a slot of its own.
    fn add_sa(&mut self, dice: &mut Dice, nth: u32) {
        let slot = nth * 7 % SLOTS;
        let dst = dice.pick(&[OURS_V4, OURS_V6]);
        let mode = dice.pick(&[MODE_TRANS, MODE_UDP_ENC_TUN]);
        let mut sa = Sa::of_slot(slot, dice.below(4) as u32, dst, mode);
        let top = dice.pick(&[0, 1, 64, 1000, 70_000, u32::MAX]);
        if !dice.one_in(4) {
            let window = dice.pick(&[32, 64, 100, 1024, 4096]);
            let seen: Vec<u32> = (0..40)
                .map(|_| top.saturating_sub(dice.below(130) as u32))
                .collect();
            sa.window = Some((top, window, cells(&seen)));
        }
        sa.limited = dice.one_in(3);
        if dice.one_in(2) {
            let port = match mode {
                MODE_TRANS => 0,
                _ => dice.pick(&self.ports),
            };
            sa.tag = tag_of(&dice.pick(&self.sources), port, SEED);
        }
        if dice.one_in(3) {
            // Chosen by somebody else, now and then in our own range.
            sa.spi = match dice.one_in(2) {
                true => 256 + dice.below(1 << 20) as u32,
                false => SPI_BASE + 900 + nth,
            };
            self.lab.install_foreign(slot, sa);
        } else {
            self.lab.install(slot, sa);
        }
        self.sas.push(sa);
    }

    /// What user space changes every now and then: an SA, limits, tokens.
    pub fn change(&mut self, dice: &mut Dice) {
        for prefix in std::mem::take(&mut self.limited) {
            self.lab
                .set_word("SOURCE_LIMITS", place_of(prefix, SEED), 0);
        }
        let on = dice.one_in(2);
        self.lab.set_word("STATE", STATE_LIMITED, on.into());
        if on {
            for _ in 0..3 {
                let prefix = prefix_of(&dice.pick(&self.sources));
                self.limited.insert(prefix);
                self.lab
                    .set_word("SOURCE_LIMITS", place_of(prefix, SEED), prefix);
            }
        }
        let on = dice.one_in(2);
        self.lab.set_word("STATE", STATE_FRAGMENT_RATE, on.into());
        for word in self.tokens.take().into_iter().flat_map(|t| t.into_keys()) {
            self.lab.set_word("FRAGMENT_TOKENS", word, 0);
        }
        if on {
            let mut tokens = HashMap::from([
                (0, dice.below(600) as i64),
                (ICMP_TOKENS, dice.below(40) as i64 - 2),
            ]);
            for source in &self.sources {
                let word = 1 + place_of(prefix_of(source), SEED);
                tokens.insert(word, dice.below(100) as i64 - 2);
            }
            for (word, n) in &tokens {
                self.lab
                    .set_word("FRAGMENT_TOKENS", *word, n.cast_unsigned());
            }
            self.tokens = Some(tokens);
        }
    }

    /// What has to become of a frame: counted here, too.
    pub fn expect(&mut self, frame: &[u8]) -> (Reason, Option<Meta>) {
        let mut reason = model::uplink(&self.lab, frame);
        let L3::Ip(ip) = wire::parse_frame(frame) else {
            self.count(reason, None, None);
            return (reason, None);
        };
        let class = wire::classify(frame, &ip, EncapPort::Dst(ENCAP_PORT));
        let esp = match class {
            Class::Esp { spi, esp, .. } | Class::UdpEsp { spi, esp, .. } => Some((spi, esp)),
            _ => None,
        };
        let sa = esp
            .and_then(|(spi, _)| self.lab.sas.get(&(ip.dst, spi)))
            .copied();
        if let Some((_, sa)) = sa
            && matches!(reason, Reason::SteerEsp | Reason::SteerUdpEsp)
            && self.limited.contains(&prefix_of(&ip.src))
        {
            let port = ip.ports.map_or(0, |(port, _)| port);
            // New, and left in peace: it may be another phone's behind the same NAT.
            let open = sa.tag == 0 && !sa.limited;
            if !open && sa.tag != tag_of(&ip.src, port, SEED) {
                reason = Reason::IcvLimited;
            }
        }
        if reason == Reason::SteerFragment && !self.takes_fragment(&ip.src) {
            reason = Reason::FragmentRate;
        }
        if reason == Reason::SteerIcmp && !self.takes(ICMP_TOKENS) {
            reason = Reason::IcmpUnbelieved;
        }
        self.count(reason, sa.map(|(slot, _)| slot), Some(&ip.src));
        let slot = sa.map_or(0, |(slot, _)| slot);
        let at = esp.map_or(ip.l4, |(_, at)| at);
        let note = match reason {
            Reason::SteerEsp => Some(note(META_ESP, slot, &ip, at)),
            Reason::SteerUdpEsp => Some(note(META_UDP_ESP, slot, &ip, at)),
            Reason::SteerFragment => Some(note(META_FRAGMENT, 0, &ip, ip.l4)),
            Reason::SteerIcmp => Some(note(META_ICMP, 0, &ip, ip.l4)),
            _ => None,
        };
        (reason, note)
    }

    /// What the guard has to drop it for, on `lo`; `None`: it goes on.
    pub fn expect_of_guard(&mut self, frame: &[u8]) -> Option<Reason> {
        let skb = Skb(frame);
        let ip = skb.read()?;
        if ![OURS_V4, OURS_V6].contains(&ip.dst) {
            return None;
        }
        let has_ports = matches!(ip.proto, TCP | UDP);
        let reason = match wire::classify(&skb, &ip, EncapPort::Dst(ENCAP_PORT)) {
            Class::Esp { .. } | Class::UdpEsp { .. } => Reason::UnknownSpi,
            Class::Keepalive => Reason::Keepalive,
            Class::Malformed { .. } => Reason::Malformed,
            Class::Fragment if ip.v6 || has_ports => Reason::CleartextProtected,
            Class::Fragment if wire::is_icmp_error(&skb, &ip) => Reason::ClearIcmp,
            Class::Other if ip.hides_ports() => Reason::Malformed,
            Class::Other if ip.ports.is_some_and(|(_, dst)| model::is_protected(dst)) => {
                Reason::CleartextProtected
            }
            Class::Fragment | Class::NonEspMarker | Class::Other => return None,
        };
        self.count(reason, None, Some(&ip.src));
        Some(reason)
    }

    fn takes_fragment(&mut self, src: &Addr) -> bool {
        self.takes(1 + place_of(prefix_of(src), SEED)) && self.takes(0)
    }

    fn takes(&mut self, word: u32) -> bool {
        let Some(tokens) = &mut self.tokens else {
            return true;
        };
        let left = tokens.entry(word).or_default();
        let one = *left > 0;
        *left -= i64::from(one);
        one
    }

    fn count(&mut self, reason: Reason, slot: Option<u32>, src: Option<&Addr>) {
        self.counted[reason.index()] += 1;
        let of_slot = OF_SLOT.iter().position(|r| *r == reason);
        if let (Some(slot), Some(at)) = (slot, of_slot) {
            self.of_slots.entry(slot).or_default()[at] += 1;
        }
        if let Some(src) = src.filter(|_| reason.action() == Action::Drop) {
            let prefix = prefix_of(src);
            self.of_sources[place_of(prefix, SEED) as usize].count(prefix, reason);
        }
    }

    /// What was counted for SAs and for sources agrees as well.
    pub fn settle(&mut self) {
        for slot in 0..SLOTS {
            let expected = self.of_slots.remove(&slot).unwrap_or_default();
            assert_eq!(self.lab.drops(slot), expected, "slot {slot}");
        }
        let places = self.lab.array::<[u8; 256]>("PREFIXES");
        for (at, (place, expected)) in places.iter().zip(&self.of_sources).enumerate() {
            let b = place.unwrap();
            let word = |i: usize| u64::from_ne_bytes(b[8 * i..8 * i + 8].try_into().unwrap());
            let drops: [u64; DROP_COUNT] = std::array::from_fn(|i| word(2 + i));
            let found = (word(0) != 0).then_some((word(0), drops));
            assert_eq!(found, expected.read(), "place {at}");
        }
    }
}

/// A frame as a tc program sees it: bytes count from the network header, and the
/// length is that of the whole frame.
struct Skb<'a>(&'a [u8]);

impl Bytes for Skb<'_> {
    fn get<const N: usize>(&self, off: usize) -> Option<[u8; N]> {
        Bytes::get(&self.0[ETH_LEN..], off)
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Skb<'_> {
    /// The packet behind up to two tags; its version is its own word.
    fn read(&self) -> Option<IpPacket> {
        let mut kind = u16::from_be_bytes([self.0[12], self.0[13]]);
        let mut l3 = 0;
        for _ in 0..MAX_VLAN_TAGS {
            if ![VLAN, SERVICE_VLAN].contains(&kind) {
                break;
            }
            kind = u16::from_be_bytes(self.get::<2>(l3 + 2)?);
            l3 += 4;
        }
        match wire::parse_ip(self, l3) {
            L3::Ip(ip) if [IPV4, IPV6].contains(&kind) => Some(ip),
            _ => None,
        }
    }
}

pub fn note(kind: u8, slot: u32, ip: &IpPacket, at: usize) -> Meta {
    Meta {
        slot,
        esp: at as u16,
        l3: ip.l3 as u8,
        kind,
        magic: META_MAGIC,
        reserved: 0,
    }
}

/// Cells in which these numbers are marked; the newest block wins a cell.
fn cells(seen: &[u32]) -> [u64; WINDOW_CELLS] {
    let mut cells = [0u64; WINDOW_CELLS];
    for seq in seen {
        let (block, bit) = (u64::from(seq / 32), seq % 32);
        let cell = &mut cells[block as usize % WINDOW_CELLS];
        if *cell >> 32 < block {
            *cell = block << 32;
        }
        if *cell >> 32 == block {
            *cell |= 1 << bit;
        }
    }
    cells
}
