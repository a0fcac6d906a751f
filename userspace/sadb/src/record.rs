//! The parameters of an SA as bytes in its slot's record, and its keys.
//!
//! ```text
//!  0 flags (2), suite, SAs in the set, place in the set, 0, replay window (2)
//!  8 ports: source, destination, outer source, outer destination (2 each)
//! 16 SPI (4), where the rest stands ([`Shared`]) (4)
//! ```
//!
//! Host byte order. Whoever changes this raises the region's layout version.

use std::net::IpAddr;

use gm_esp::{EspKeys, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_region::{KeyMaterial, RECORD_BYTES, Region, Slot};

use crate::commons::{self, Shared};
use crate::types::{Dir, SetId};

const ESN: u16 = 1;
const OUTER: u16 = 1 << 1;
const V6: u16 = 1 << 2;
const OUTER_V6: u16 = 1 << 3;
/// Four bits: which of the ports are there.
const PORTS: u16 = 4;
const OUT: u16 = 1 << 8;
const UDP_ENC_TUN: u16 = 1 << 9;
const ANY: u16 = 1 << 10;
/// Source and destination are the other way round than where the rest stands.
const TURNED: u16 = 1 << 11;

/// What a record says, with what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) set: SetId,
    pub(crate) spec: SaSpec,
    pub(crate) dir: Dir,
    /// SAs in the set; with fewer slots than this it is not whole.
    pub(crate) count: u8,
    /// Place in the set, from 0.
    pub(crate) place: u8,
    /// Where addresses, keys and set stand.
    pub(crate) common: u32,
    /// The addresses stand there the other way round.
    pub(crate) turned: bool,
}

impl Record {
    pub(crate) fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let SaSpec {
            spi,
            mode,
            selector,
            suite,
            outer,
            esn,
            replay_window,
        } = self.spec;
        let ports = [
            selector.src_port,
            selector.dst_port,
            outer.and_then(|o| o.sport),
            outer.and_then(|o| o.dport),
        ];
        let facts = [
            (ESN, esn),
            (V6, selector.src.is_ipv6()),
            (OUTER, outer.is_some()),
            (OUTER_V6, outer.is_some_and(|o| o.src.is_ipv6())),
            (OUT, self.dir == Dir::Out),
            (UDP_ENC_TUN, mode == Mode::UdpEncTun),
            (ANY, selector.proto == SelProto::Any),
            (TURNED, self.turned),
        ];
        let true_ones = facts.into_iter().filter(|(_, is)| *is);
        let mut flags = true_ones.fold(0, |flags, (flag, _)| flags | flag);
        let mut bytes = [0; RECORD_BYTES];
        for (i, port) in ports.into_iter().enumerate() {
            flags |= u16::from(port.is_some()) << (PORTS + i as u16);
            put(&mut bytes, 8 + 2 * i, &port.unwrap_or(0).to_ne_bytes());
        }
        let suite = Suite::every()
            .position(|s| s == suite)
            .unwrap_or(usize::from(u8::MAX));
        // A window has 4096 numbers at most.
        let window = u16::try_from(replay_window).unwrap_or(0);
        put(&mut bytes, 0, &flags.to_ne_bytes());
        put(&mut bytes, 2, &[suite as u8, self.count, self.place]);
        put(&mut bytes, 6, &window.to_ne_bytes());
        put(&mut bytes, 16, &spi.to_ne_bytes());
        put(&mut bytes, 20, &self.common.to_ne_bytes());
        bytes
    }

    /// `None` for bytes that `to_bytes` does not write, and for what does not fit
    /// to where the rest stands.
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_BYTES], shared: &Shared) -> Option<Record> {
        let flags = u16::from_ne_bytes(get(bytes, 0));
        let port = |i: usize| {
            let there = flags >> (PORTS + i as u16) & 1 == 1;
            there.then(|| u16::from_ne_bytes(get(bytes, 8 + 2 * i)))
        };
        let is = |flag: u16| flags & flag != 0;
        let ends = match is(TURNED) {
            true => commons::turned(shared.ends),
            false => shared.ends,
        };
        let addr = |i: usize, v6: bool| -> IpAddr {
            let [a, b, c, d, ..] = ends[i];
            if v6 {
                ends[i].into()
            } else {
                [a, b, c, d].into()
            }
        };
        let outer = is(OUTER).then(|| Outer {
            src: addr(2, is(OUTER_V6)),
            dst: addr(3, is(OUTER_V6)),
            sport: port(2),
            dport: port(3),
        });
        let record = Record {
            set: shared.set,
            spec: SaSpec {
                spi: u32::from_ne_bytes(get(bytes, 16)),
                mode: if is(UDP_ENC_TUN) {
                    Mode::UdpEncTun
                } else {
                    Mode::Trans
                },
                selector: Selector {
                    src: addr(0, is(V6)),
                    dst: addr(1, is(V6)),
                    src_port: port(0),
                    dst_port: port(1),
                    proto: if is(ANY) {
                        SelProto::Any
                    } else {
                        SelProto::UdpTcp
                    },
                },
                suite: Suite::every().nth(usize::from(bytes[2]))?,
                outer,
                esn: is(ESN),
                replay_window: u16::from_ne_bytes(get(bytes, 6)).into(),
            },
            dir: if is(OUT) { Dir::Out } else { Dir::In },
            count: bytes[3],
            place: bytes[4],
            common: common_in(bytes),
            turned: is(TURNED),
        };
        // Everything that is not exactly a record is none.
        let is_exact = record.to_bytes() == *bytes && commons::ends(&record.spec) == ends;
        is_exact.then_some(record)
    }

    /// What a slot's record says; `None`: it is none.
    pub(crate) fn read(region: &Region, slot: Slot<'_>) -> Option<(Record, Shared)> {
        let bytes = slot.record();
        let at = Some(common_in(&bytes)).filter(|at| *at < region.commons())?;
        let shared = Shared::read(region.common(at)?);
        Some((Record::from_bytes(&bytes, &shared)?, shared))
    }
}

fn common_in(bytes: &[u8; RECORD_BYTES]) -> u32 {
    u32::from_ne_bytes(get(bytes, 20))
}

/// Where the rest of what a slot's record says stands.
pub(crate) fn common_of(slot: Slot<'_>) -> u32 {
    common_in(&slot.record())
}

fn put(bytes: &mut [u8; RECORD_BYTES], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn get<const N: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

/// The keys as the region keeps them.
pub(crate) fn material(keys: &EspKeys) -> KeyMaterial {
    let mut material = KeyMaterial::default();
    let integrity = keys.integrity().unwrap_or_default();
    material.integrity[..integrity.len()].copy_from_slice(integrity);
    let encryption = keys.encryption().unwrap_or_default();
    material.encryption[..encryption.len()].copy_from_slice(encryption);
    material.salt = keys.salt().unwrap_or_default();
    material
}

/// The keys that the region keeps for an SA of this suite.
pub(crate) fn keys(suite: Suite, material: &KeyMaterial) -> Option<EspKeys> {
    let t = suite.transform();
    let integrity = &material.integrity[..t.integrity_key_len()];
    let encryption = &material.encryption[..t.encryption_key_len()];
    let part = |bytes| Some(bytes).filter(|b: &&[u8]| !b.is_empty());
    let salt = t.has_salt().then_some(&material.salt[..]);
    EspKeys::explicit(suite, part(integrity), part(encryption), salt).ok()
}
