//! Criterion benches: `cargo bench -p gm-benches`.
//!
//! * `esp`: whole packets sealed and opened, per suite, size and number of SAs;
//! * `xdp`: the uplink's program in the kernel, per number of SAs (needs root).
//!
//! The benches are programs of their own; this library is empty.
#![forbid(unsafe_code)]
