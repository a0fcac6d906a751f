//! All that crosses the boundary between the kernel's BPF programs and the
//! user space of gmesp, compiled for both sides from the same source:
//!
//! * [`wire`]: what kind of packet is this? One parser for BPF and workers.
//! * [`maps`]: the layouts of BPF map keys and values.
//! * [`verdict`]: every reason to pass, steer or drop a packet.
#![no_std]
#![forbid(unsafe_code)]

pub mod maps;
pub mod verdict;
pub mod wire;
