//! The kernel as judge of the vectors: what Scapy and pyca/cryptography have sealed
//! (tests/vectors) is opened by Linux's ESP with states and policies as `gm_xfrm::kernel`
//! plans them. What comes out is what gm-esp gives out, byte for byte, and the kernel
//! counts the same replays and damages.
#![forbid(unsafe_code)]

#[path = "kernel_vectors/host.rs"]
mod host;
#[path = "kernel_vectors/vectors.rs"]
mod vectors;

use std::collections::BTreeSet;
use std::net::IpAddr;

use host::Host;
use vectors::{Vectors, destination};

/// Opens a folder of vectors: SAs towards one end in one namespace, those towards the
/// other in another.
fn the_kernel_agrees(folder: &str) {
    let vectors = Vectors::load(folder);
    let sources: BTreeSet<IpAddr> = vectors.sas.iter().map(|sa| sa.spec.source()).collect();
    let all: BTreeSet<IpAddr> = vectors.sas.iter().flat_map(host::local).collect();
    // Who sends as well may not be at home where its packets come from outside.
    let (both, only) = all.iter().partition(|at| sources.contains(at));
    let mut opened = 0;
    for locals in [both, only] {
        let locals: BTreeSet<IpAddr> = locals;
        if !locals.is_empty() {
            opened += judged(&vectors, &locals);
        }
    }
    assert_eq!(opened, vectors.plain.len(), "{folder}");
}

/// What comes out of the kernel at these addresses; how many packets.
fn judged(vectors: &Vectors, locals: &BTreeSet<IpAddr>) -> usize {
    let here = |packet: &&Vec<u8>| destination(packet).is_some_and(|at| locals.contains(&at));
    let sas = vectors.sas.iter();
    let sas: Vec<_> = sas
        .filter(|sa| locals.contains(&sa.destination()))
        .collect();
    let mut host = Host::new(&sas, locals);
    for packet in vectors.esp().filter(here) {
        host.receives(packet);
    }
    let wanted: Vec<&[u8]> = vectors.plain.iter().filter(here).map(|p| &p[..]).collect();
    let got = host.delivered(&wanted);
    assert_eq!(got, wanted.len());
    for sa in &sas {
        let counted = host.counters(sa);
        let count = |verdict: &str| vectors.count(sa.spec.spi, verdict) as u32;
        let what = format!("SPI {}: replay, stale, bad ICV", sa.spec.spi);
        // Number 0 is refused without being counted.
        let replay = count("replay") - vectors.zeros(sa.spec.spi) as u32;
        assert_eq!(
            (counted.replay, counted.stale, counted.icv_failed),
            (replay, count("stale"), count("bad-icv")),
            "{what}"
        );
    }
    got
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn every_suite_mode_and_size_opens_in_the_kernel() {
    gm_tests::needs_esp!();
    the_kernel_agrees("esp");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_kernel_drops_what_we_drop() {
    gm_tests::needs_esp!();
    the_kernel_agrees("verdicts");
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_edges_of_every_window_are_the_kernels() {
    gm_tests::needs_esp!();
    the_kernel_agrees("more/windows");
}
