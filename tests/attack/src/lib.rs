//! Registered phones, and who attacks them: goodput as a ratio to no flood,
//! and a soak of SAs that are installed and removed under traffic.
//!
//! ```text
//! namespace "network": phones, attacker  net0 -- p0  namespace "P-CSCF": gmesp, UDP socket
//!
//! or, with --bridge:
//! namespace "phones"   u0 --\
//!                            bridge -- p0  namespace "P-CSCF": gmesp, UDP socket
//! namespace "attacker" a0 --/
//! ```
//!
//! The phones' packets are sealed by gm-esp before a measurement; what counts
//! is what arrives at an ordinary socket, once, and with the content that was
//! sent ([`sink`]). One thread, pinned to one CPU, sends for the phones and for
//! the attacker, the phones first ([`wire`]): a veth runs the receiver's XDP on
//! the sender's CPU, so the flood competes with its own shedding, and what it
//! does not reach is reported as the generator's loss.
#![forbid(unsafe_code)]

pub mod floods;
pub mod lab;
pub mod machine;
pub mod measure;
pub mod packet;
pub mod phones;
pub mod report;
pub mod sink;
pub mod soak;
pub mod wire;
