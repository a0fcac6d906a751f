//! What the SAs of a set have in common: the expanded key, and the addresses
//! that it is used between.

use std::net::IpAddr;
use std::sync::Arc;

use gm_engines::Key;

use crate::keys::EspKeys;
use crate::sa::{SaError, SaSpec};
use crate::suite::Suite;

/// In memory once for all SAs that have it.
// The addresses first: what is asked for first.
#[repr(C)]
pub(crate) struct Common {
    pub(crate) ends: Ends,
    pub(crate) key: Key,
}

/// Memory of every set of SAs is what this takes.
const _: () = assert!(size_of::<Common>() <= 544);

/// The addresses of an SA or of the SA the other way, as they lie in memory,
/// beside the expanded key.
pub struct Ends(
    /// Source and destination, outer source and destination; IPv6 or IPv4 in the
    /// first four bytes.
    pub(crate) [[u8; 16]; 4],
);

/// Source and destination, and the outer ones.
type Pairs = ((IpAddr, IpAddr), Option<(IpAddr, IpAddr)>);

fn pairs(spec: &SaSpec) -> Pairs {
    let outer = spec.outer.as_ref().map(|o| (o.src, o.dst));
    ((spec.selector.src, spec.selector.dst), outer)
}

fn bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V6(v6) => v6.octets(),
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}

/// Reads what `bytes` has written.
#[inline]
pub(crate) fn address(bytes: &[u8; 16], v6: bool) -> IpAddr {
    let [a, b, c, d, ..] = *bytes;
    if v6 {
        IpAddr::from(*bytes)
    } else {
        IpAddr::from([a, b, c, d])
    }
}

/// An expanded key and the addresses that it is used between, for all SAs that
/// have them: as a rule the four of a set. It is wiped with the last of them.
///
/// No `Debug`, and no way back to the bytes.
#[derive(Clone)]
pub struct SaKey {
    pub(crate) common: Arc<Common>,
    pub(crate) suite: Suite,
    pairs: Pairs,
}

impl SaKey {
    /// Expands keys, which takes about as long as sealing a packet, for SAs
    /// between the addresses of `spec`, both ways.
    ///
    /// # Errors
    /// [`SaError::Key`].
    pub fn new(keys: &EspKeys, spec: &SaSpec) -> Result<SaKey, SaError> {
        let suite = keys.suite();
        let key = Key::new(
            suite.transform(),
            keys.integrity().unwrap_or_default(),
            keys.encryption().unwrap_or_default(),
            keys.salt().unwrap_or_default(),
        )?;
        let pairs = pairs(spec);
        let ((src, dst), outer) = pairs;
        let mut ends = [bytes(src), bytes(dst), [0; 16], [0; 16]];
        if let Some((src, dst)) = outer {
            ends[2] = bytes(src);
            ends[3] = bytes(dst);
        }
        let ends = Ends(ends);
        Ok(SaKey {
            common: Arc::new(Common { key, ends }),
            suite,
            pairs,
        })
    }

    /// Whether an SA has the addresses that this is for.
    pub fn is_for(&self, spec: &SaSpec) -> bool {
        self.turned(spec).is_some()
    }

    /// Whether it has them the other way round; `None`: it has others.
    pub(crate) fn turned(&self, spec: &SaSpec) -> Option<bool> {
        let ((src, dst), outer) = pairs(spec);
        if self.pairs == ((src, dst), outer) {
            return Some(false);
        }
        let back = ((dst, src), outer.map(|(src, dst)| (dst, src)));
        (self.pairs == back).then_some(true)
    }
}
