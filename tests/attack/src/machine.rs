//! What the kernel says about this process and its namespaces.

use std::collections::BTreeMap;
use std::fs;

use gm_dataplane::{DataPlane, Reason};

/// Bytes that this process has in memory; 0 when the kernel does not say.
pub fn rss() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Open file descriptors of this process.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Bytes of datagrams that are not whole yet.
pub fn reassembly(plane: &DataPlane) -> u64 {
    let workers = plane.stats().map(|s| s.workers).unwrap_or_default();
    workers.iter().map(|w| w.reassembly_bytes).sum()
}

/// All counters that are not zero, by name, and what the kernel says that
/// AF_XDP sockets have lost.
pub fn counters(plane: &DataPlane) -> BTreeMap<&'static str, u64> {
    let Ok(stats) = plane.stats() else {
        return BTreeMap::new();
    };
    let sockets = || stats.workers.iter().flat_map(|w| &w.sockets);
    let lost = [
        ("(xsk rx dropped)", sockets().map(|s| s.rx_dropped).sum()),
        (
            "(xsk rx ring full)",
            sockets().map(|s| s.rx_ring_full).sum(),
        ),
    ];
    let named = Reason::ALL.iter().map(|r| (r.name(), stats.get(*r)));
    named.chain(lost).filter(|(_, n)| *n > 0).collect()
}

/// What was counted between two looks.
pub fn between(
    before: &BTreeMap<&'static str, u64>,
    after: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    let grown = |(name, n): (&&'static str, &u64)| {
        (
            *name,
            n.saturating_sub(before.get(name).copied().unwrap_or(0)),
        )
    };
    after.iter().map(grown).filter(|(_, n)| *n > 0).collect()
}
