//! All that crosses the boundary between the kernel's BPF programs and the
//! user space of gmesp, compiled for both sides from the same source:
//!
//! * [`wire`]: what kind of packet is this? One parser for BPF and workers.
//! * [`maps`]: the layouts of BPF map keys and values.
//! * [`source`]: what is kept for each source, and the place that it has.
//! * [`sample`]: what is said about single packets that were dropped.
//! * [`verdict`]: every reason to pass, steer or drop a packet.
#![no_std]
#![forbid(unsafe_code)]

pub mod maps;
pub mod sample;
pub mod source;
pub mod verdict;
pub mod wire;
