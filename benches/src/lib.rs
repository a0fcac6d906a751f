//! The benches, `cargo bench -p gm-benches`, and what they share.
//!
//! * `esp`: whole packets sealed and opened, per suite, size and number of SAs;
//! * `engines`: the engines alone: mixed lengths, without AVX-512, CBC's IVs;
//! * `peers`: the engines against the libraries of others (`--features peers`);
//! * `worker`: what a worker does beside the cryptography, without a kernel;
//! * `xdp`: the programs in the kernel, per number of SAs (needs root);
//! * `wire`: a worker end to end over veth, beside a raw forwarder (needs root);
//! * `sip`: registrations, through gm-sip alone and end to end (needs root);
//! * `scale`: SA sets a second, and what they take, up to a million SAs (needs root);
//! * `report`: draws tables and plots from what the others have written.
//!
//! With `--test` each runs once, for a moment, and says what it cannot do here.
//!
//! A figure is the [median](stats::Figure) of many short rounds in which what is
//! compared takes turns, so that a noisy moment hits all alike; and it goes to a
//! [section](report::section) of a JSON file.
// Allowed in `peers::ffi` alone.
#![deny(unsafe_code)]

pub mod contest;
pub mod machine;
#[cfg(feature = "peers")]
pub mod peers;
pub mod report;
pub mod stats;

/// Whether the program was asked to show that it works, not to measure (`--test`).
pub fn smoke() -> bool {
    std::env::args().any(|arg| arg == "--test")
}

/// `wanted` rounds; one with [`smoke`].
pub fn rounds(wanted: usize) -> usize {
    if smoke() { 1 } else { wanted }
}

/// Keeps the calling thread on one processor. Returns whether that was granted.
pub fn pin(processor: usize) -> bool {
    let mut only = rustix::thread::CpuSet::new();
    only.set(processor);
    rustix::thread::sched_setaffinity(None, &only).is_ok()
}
