//! The parameters of an SA as bytes in its slot's record, and its keys.
//!
//! ```text
//!  0 direction, mode, suite, protocols, flags (2), SAs in the set,
//!   place in the set
//!  8 selector source (16), selector destination (16)
//! 40 outer source (16), outer destination (16)
//! 72 ports: source, destination, outer source, outer destination (2 each)
//! 80 SPI (4), replay window (4)
//! 88 number of the set (8)
//! ```
//!
//! Host byte order, addresses as IPv6 bytes or IPv4 in the first four. Whoever
//! changes this raises the region's layout version.

use std::net::IpAddr;

use gm_esp::{EspKeys, Mode, Outer, SaSpec, SelProto, Selector, Suite};
use gm_region::{KeyMaterial, RECORD_BYTES};

use crate::types::{Dir, SetId};

const ESN: u16 = 1;
const OUTER: u16 = 1 << 1;
const V6: u16 = 1 << 2;
const OUTER_V6: u16 = 1 << 3;
/// Four bits: which of the ports are there.
const PORTS: u16 = 4;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) set: SetId,
    pub(crate) spec: SaSpec,
    pub(crate) dir: Dir,
    /// SAs in the set; with fewer slots than this it is not whole.
    pub(crate) count: u8,
    /// Place in the set, from 0.
    pub(crate) place: u8,
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
        let mut flags = if esn { ESN } else { 0 };
        if selector.src.is_ipv6() {
            flags |= V6;
        }
        if let Some(outer) = outer {
            flags |= if outer.src.is_ipv6() {
                OUTER | OUTER_V6
            } else {
                OUTER
            };
        }
        let mut bytes = [0; RECORD_BYTES];
        for (i, port) in ports.into_iter().enumerate() {
            flags |= u16::from(port.is_some()) << (PORTS + i as u16);
            put(&mut bytes, 72 + 2 * i, &port.unwrap_or(0).to_ne_bytes());
        }
        let suite = Suite::every()
            .position(|s| s == suite)
            .unwrap_or(usize::from(u8::MAX));
        let head = [
            u8::from(self.dir == Dir::Out),
            u8::from(mode == Mode::UdpEncTun),
            suite as u8,
            u8::from(selector.proto == SelProto::Any),
        ];
        put(&mut bytes, 0, &head);
        put(&mut bytes, 4, &flags.to_ne_bytes());
        put(&mut bytes, 6, &[self.count, self.place]);
        put(&mut bytes, 8, &addr_bytes(selector.src));
        put(&mut bytes, 24, &addr_bytes(selector.dst));
        if let Some(outer) = outer {
            put(&mut bytes, 40, &addr_bytes(outer.src));
            put(&mut bytes, 56, &addr_bytes(outer.dst));
        }
        put(&mut bytes, 80, &spi.to_ne_bytes());
        put(&mut bytes, 84, &replay_window.to_ne_bytes());
        put(&mut bytes, 88, &self.set.0.to_ne_bytes());
        bytes
    }

    /// `None` for bytes that `to_bytes` does not write.
    pub(crate) fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Record> {
        let flags = u16::from_ne_bytes(get(bytes, 4));
        let port = |i: usize| {
            let there = flags >> (PORTS + i as u16) & 1 == 1;
            there.then(|| u16::from_ne_bytes(get(bytes, 72 + 2 * i)))
        };
        let addr = |at: usize, v6: bool| -> IpAddr {
            let b: [u8; 16] = get(bytes, at);
            if v6 {
                b.into()
            } else {
                [b[0], b[1], b[2], b[3]].into()
            }
        };
        let v6 = flags & V6 != 0;
        let outer_v6 = flags & OUTER_V6 != 0;
        let outer = (flags & OUTER != 0).then(|| Outer {
            src: addr(40, outer_v6),
            dst: addr(56, outer_v6),
            sport: port(2),
            dport: port(3),
        });
        let record = Record {
            set: SetId(u64::from_ne_bytes(get(bytes, 88))),
            spec: SaSpec {
                spi: u32::from_ne_bytes(get(bytes, 80)),
                mode: if bytes[1] == 0 {
                    Mode::Trans
                } else {
                    Mode::UdpEncTun
                },
                selector: Selector {
                    src: addr(8, v6),
                    dst: addr(24, v6),
                    src_port: port(0),
                    dst_port: port(1),
                    proto: if bytes[3] == 0 {
                        SelProto::UdpTcp
                    } else {
                        SelProto::Any
                    },
                },
                suite: Suite::every().nth(usize::from(bytes[2]))?,
                outer,
                esn: flags & ESN != 0,
                replay_window: u32::from_ne_bytes(get(bytes, 84)),
            },
            dir: if bytes[0] == 0 { Dir::In } else { Dir::Out },
            count: bytes[6],
            place: bytes[7],
        };
        // Everything that is not exactly a record is none.
        (record.to_bytes() == *bytes).then_some(record)
    }
}

fn put(bytes: &mut [u8; RECORD_BYTES], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

fn get<const N: usize>(bytes: &[u8; RECORD_BYTES], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
    }
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
