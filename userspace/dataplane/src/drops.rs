//! Samples of packets that were dropped: what a person needs to see of one,
//! and how the workers give them away.
//!
//! Counters are exact; samples are a few of many. Each side has a number of
//! them for each reason and a tenth of a second ([`SAMPLES_EACH`]), so that a
//! flood costs the path one load a packet, and one reason leaves room for the
//! others. gm-watch (`drops/watch.rs`) collects them.

mod bpf;
mod follow;
mod memory;
#[cfg(test)]
mod tests;
mod watch;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};
use gm_abi::maps::Addr;
use gm_abi::verdict::{Action, Reason};

use crate::{DataPlane, Error};

pub use follow::{DropNews, MAX_FOLLOWERS};
pub(crate) use watch::{Watch, left_out};

/// Samples for each reason in [`REFILL_MS`], of the BPF programs and of the
/// workers each.
pub const SAMPLES_EACH: u32 = 8;

/// Milliseconds between two refills of all tokens.
pub const REFILL_MS: u64 = 100;

/// Samples of the workers that gm-watch has not fetched yet, at most.
const WAITING: usize = 1024;

/// Where a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Station {
    /// XDP on the uplink.
    Uplink,
    /// XDP on gm0x.
    Gm0x,
    /// tc ingress of any interface.
    Guard,
    /// tc egress of any interface.
    Egress,
    /// tc ingress of gm0, where opened packets come from.
    Gm0,
    /// A worker.
    Worker,
}

impl Station {
    /// The word in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Station::Uplink => "uplink",
            Station::Gm0x => "gm0x",
            Station::Guard => "guard",
            Station::Egress => "egress",
            Station::Gm0 => "gm0",
            Station::Worker => "worker",
        }
    }
}

/// One dropped packet. It has no content of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropSample {
    /// When, nanoseconds of CLOCK_MONOTONIC ([`monotonic_ns`]).
    pub at: u64,
    /// Why.
    pub reason: Reason,
    /// Where.
    pub station: Station,
    /// It was to leave: the phone is where it was going, not where it is from.
    pub outbound: bool,
    /// Index of the interface; 0: not known.
    pub interface: u32,
    /// IP protocol of what follows the IP header; ESP is 50.
    pub proto: u8,
    /// Source address of the outermost IP header.
    pub src: IpAddr,
    /// Destination address of it.
    pub dst: IpAddr,
    /// Source port of UDP or TCP.
    pub src_port: Option<u16>,
    /// Destination port of it.
    pub dst_port: Option<u16>,
    /// SPI, of ESP or of the SA.
    pub spi: Option<u32>,
    /// Sequence number, its low 32 bits.
    pub seq: Option<u32>,
    /// Length in bytes as seen there: XDP and tc count the Ethernet header,
    /// workers begin at the IP header.
    pub len: u32,
}

impl DropSample {
    /// The phone's address, seen from here.
    pub fn peer(&self) -> IpAddr {
        if self.outbound { self.dst } else { self.src }
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which BPF has too.
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// An address of the maps as one of the standard library.
pub(crate) fn from_map(addr: Addr) -> IpAddr {
    let v6 = Ipv6Addr::from(addr);
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

/// What is sampled: drops, and what the network says about our packets.
fn is_sampled(reason: Reason) -> bool {
    reason.action() == Action::Drop || matches!(reason, Reason::PathMtu | Reason::PeerUnreachable)
}

/// A worker's way to give samples away. Clones share the tokens. The default
/// one takes none.
#[derive(Clone, Default)]
pub(crate) struct Sampler {
    shared: Option<(Arc<Tokens>, Sender<DropSample>)>,
}

impl Sampler {
    /// One that fills the receiver's channel. It has no tokens before the
    /// first [`Tokens::refill`].
    pub(crate) fn new() -> (Sampler, Arc<Tokens>, Receiver<DropSample>) {
        let (to, from) = bounded(WAITING);
        let tokens = Arc::new(Tokens::default());
        let sampler = Sampler {
            shared: Some((tokens.clone(), to)),
        };
        (sampler, tokens, from)
    }

    /// Gives a sample when this is a drop and its reason has one left; `make`
    /// is called only then. No lock, no system call but the clock's, no
    /// allocation.
    pub(crate) fn sample(&self, reason: Reason, make: impl FnOnce() -> Option<DropSample>) {
        let Some((tokens, to)) = &self.shared else {
            return;
        };
        if is_sampled(reason)
            && tokens.take(reason)
            && let Some(sample) = make()
        {
            // A full channel: gm-watch is behind, and the counters stay exact.
            let _ = to.try_send(sample);
        }
    }
}

/// How many samples are left for each reason.
#[derive(Debug)]
pub(crate) struct Tokens([AtomicU32; Reason::COUNT]);

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens(std::array::from_fn(|_| AtomicU32::new(0)))
    }
}

impl Tokens {
    /// Every reason has all its samples again.
    pub(crate) fn refill(&self) {
        for left in &self.0 {
            left.store(SAMPLES_EACH, Ordering::Relaxed);
        }
    }

    fn take(&self, reason: Reason) -> bool {
        let left = &self.0[reason.index()];
        // The load keeps a flood from writing a line that workers share.
        left.load(Ordering::Relaxed) > 0
            && left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
    }
}

impl DataPlane {
    /// Samples of dropped packets from now on; each receiver gets all of them.
    ///
    /// # Errors
    /// [`Error::Full`] when [`MAX_FOLLOWERS`] follow already, [`Error::Down`].
    pub fn drop_samples(&self) -> Result<Receiver<DropNews>, Error> {
        let shared = self.with(|c| Ok(c.watch.shared().clone()))?;
        shared.follow().ok_or(Error::Followers(MAX_FOLLOWERS))
    }

    /// The newest samples of the last 4096 that `wanted` wants, the newest
    /// first, at most `limit`. Empty when the data plane is down.
    pub fn recent_drops(
        &self,
        wanted: impl Fn(&DropSample) -> bool,
        limit: usize,
    ) -> Vec<DropSample> {
        let shared = self.with(|c| Ok(c.watch.shared().clone()));
        shared.map_or_else(|_| Vec::new(), |shared| shared.newest(wanted, limit))
    }

    /// Those of the phone with this address.
    pub fn recent_drops_of(&self, address: IpAddr, limit: usize) -> Vec<DropSample> {
        self.recent_drops(|sample| sample.peer() == address, limit)
    }
}
