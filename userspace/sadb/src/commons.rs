//! What SAs have in common, and where it stands in the region.
//!
//! ```text
//!  0 number of the set (8), fingerprint of the keys (16)
//! 24 source (16), destination (16), outer source (16), outer destination (16)
//! ```
//!
//! Of an SA or of the one the other way. The keys stand beside it. Whoever
//! changes this raises the region's layout version.

use std::net::IpAddr;
use std::sync::Arc;

use gm_esp::{EspKeys, SaSpec};
use gm_region::{COMMON_BYTES, Common, Region};

use crate::record;
use crate::types::SetId;

/// Source, destination, outer source, outer destination: IPv6 bytes or IPv4 in
/// the first four.
pub(crate) type Ends = [[u8; 16]; 4];

/// Addresses, keys and set of some of a set's SAs, as a rule of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    pub(crate) set: SetId,
    pub(crate) fingerprint: [u64; 2],
    pub(crate) ends: Ends,
}

/// The addresses of an SA.
pub(crate) fn ends(spec: &SaSpec) -> Ends {
    let outer = spec.outer.as_ref();
    let outer = |end: fn(&gm_esp::Outer) -> IpAddr| outer.map_or([0; 16], |o| bytes(end(o)));
    [
        bytes(spec.selector.src),
        bytes(spec.selector.dst),
        outer(|o| o.src),
        outer(|o| o.dst),
    ]
}

/// The addresses of the SA the other way.
pub(crate) fn turned([src, dst, outer_src, outer_dst]: Ends) -> Ends {
    [dst, src, outer_dst, outer_src]
}

fn bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
    }
}

impl Shared {
    fn to_bytes(&self) -> [u8; COMMON_BYTES] {
        let [one, two] = self.fingerprint;
        let words = [self.set.0, one, two].map(u64::to_ne_bytes);
        let all = words.as_flattened().iter().chain(self.ends.as_flattened());
        let mut bytes = [0; COMMON_BYTES];
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }

    fn from_bytes(bytes: &[u8; COMMON_BYTES]) -> Shared {
        let word = |i: usize| u64::from_ne_bytes(std::array::from_fn(|b| bytes[8 * i + b]));
        Shared {
            set: SetId(word(0)),
            fingerprint: [word(1), word(2)],
            ends: std::array::from_fn(|i| std::array::from_fn(|b| bytes[24 + 16 * i + b])),
        }
    }

    /// Writes it, before a slot refers to it.
    pub(crate) fn write(&self, at: Common<'_>, keys: &EspKeys) {
        at.set_record(&self.to_bytes());
        at.set_key_material(&record::material(keys));
    }

    /// What stands in a place.
    pub(crate) fn read(at: Common<'_>) -> Shared {
        Shared::from_bytes(&at.record())
    }

    /// The fingerprint alone.
    pub(crate) fn fingerprint(at: Common<'_>) -> [u64; 2] {
        [at.word(1), at.word(2)]
    }
}

/// Hands out places.
pub(crate) struct Commons {
    region: Arc<Region>,
    /// Those that were used and are free.
    free: Vec<u32>,
}

impl Commons {
    /// Of a region in which those in `used` are in use; the others are wiped.
    pub(crate) fn new(region: Arc<Region>, used: impl Fn(u32) -> bool) -> Commons {
        let free: Vec<u32> = (0..region.commons()).filter(|at| !used(*at)).collect();
        let commons = Commons { region, free };
        commons.free.iter().for_each(|place| commons.wipe(*place));
        commons
    }

    fn wipe(&self, place: u32) {
        if let Some(at) = self.region.common(place) {
            at.wipe();
        }
    }

    /// A place; `None`: none is left.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| self.region.new_common())
    }

    /// Wipes a place and takes it back.
    pub(crate) fn put(&mut self, place: u32) {
        self.wipe(place);
        self.free.push(place);
    }
}
