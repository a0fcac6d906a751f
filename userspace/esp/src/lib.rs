//! The ESP protocol of the Gm link: suites, keys, open and seal, anti-replay.
//!
//! No I/O, no clock, no randomness, no thread, no allocation per packet: a
//! packet is a window on the caller's buffer ([`packet::PacketBuf`]), and what
//! the protocol needs from outside is an argument.
//!
//! A packet in (RFC 4303 3.4, RFC 4301 5.2), each step a type:
//!
//! ```text
//! Received --check(sa, window)--> Checked --open(engine)--> Opened
//!    is it ESP?   shape, mode,       ICV, decryption          |
//!    whole?       replay, read-only                     commit(window)
//!                                                             v
//! plain IP packet <-- Admitted <--admit()-- Stripped <--strip()-- Committed
//!                  inner packet, selectors         trailer   replay again, mark
//! ```
//!
//! A packet out (RFC 4303 3.3):
//!
//! ```text
//! Selected --number(counter, ports, iv)--> Numbered --seal(engine)--> Sealed
//!  selectors, room                 number, headers, IV, trailer      ciphertext, ICV
//! ```
//!
//! Verdicts are [`gm_abi::verdict::Reason`]s, in the order in which
//! `tests/vectors/README.md` lists them.
#![forbid(unsafe_code)]

pub mod fragment;
pub mod inbound;
pub mod iv;
pub mod keys;
pub mod outbound;
pub mod packet;
pub mod reassembly;
pub mod replay;
pub mod sa;
pub mod selector;
pub mod seq;
pub mod suite;

mod batch;
mod ecn;
mod encap;
mod headers;
mod sa_key;
mod sa_spec;
#[cfg(test)]
mod testing;

pub use gm_abi::verdict::Reason;
pub use gm_abi::wire::EncapPort;
pub use inbound::{Admitted, Checked, Committed, Opened, Received, Rejected, Stripped};
pub use iv::{BufferedIv, IvSource};
pub use keys::{Ck, EspKeys, Ik};
pub use outbound::{EncapPorts, Numbered, Sealed, Selected};
pub use packet::{NoRoom, PacketBuf};
pub use replay::{OwnedWindow, Window};
pub use sa::{Mode, Outer, Sa, SaError, SaSpec};
pub use sa_key::{Ends, SaKey};
pub use selector::{InnerFlow, SelProto, Selector};
pub use seq::Counter;
pub use suite::{Legacy, Suite};

/// Packets that one call of an engine sees at most; longer batches are cut.
pub const BATCH: usize = batch::WIDTH;
/// Room that sealing needs in front of the IP header at most: IPv6 40, UDP 8,
/// ESP 8, IV 16 bytes.
pub const MAX_FRONT: usize = 40 + 8 + 8 + 16;
/// Room that sealing needs behind the packet at most: padding 15, trailer 2,
/// ICV 16 bytes.
pub const MAX_BACK: usize = 15 + 2 + 16;
