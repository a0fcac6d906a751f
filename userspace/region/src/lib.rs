//! Shared memory: the memfd region of hot SA state and mapped BPF arrays.
//!
//! The [`Region`] holds what must outlive the process that made it: sequence
//! numbers, replay windows, counters, and what is needed to build every SA anew.
//! A successor adopts the file descriptor and goes on where its predecessor
//! stopped, so that no sequence number is used twice and no packet is accepted
//! twice (TS 33.203 gives all four SAs of a set one key: a repeated GCM nonce
//! loses it).
//!
//! ```text
//! Header | Hot | Record | Common | Keys | Trace | window bits | drops: each times slots
//!          both  control  control control control worker      worker
//! ```
//!
//! Offsets instead of pointers, a versioned header, and nothing but atomic
//! integers in it, touched as it is needed: whatever another process writes there, reading it is no
//! undefined behaviour. Who may write what is the users' agreement: counters,
//! `seq`, `top`, the bits and the drops belong to the SA's one worker, the rest to the
//! control plane.

mod common;
mod error;
mod hot;
mod keys;
mod layout;
mod mapped;
mod mapping;
mod prefetch;
mod region;

pub use common::Common;
pub use error::{LockProblem, RegionError};
pub use hot::{DROP_REASONS, Hot, SlotState};
pub use keys::KeyMaterial;
pub use layout::{COMMON_BYTES, MAX_SLOTS, MAX_WINDOW_WORDS, RECORD_BYTES, place};
pub use mapped::{MapValue, Mapped};
pub use prefetch::prefetch;
pub use region::{Region, Slot, Trace};
