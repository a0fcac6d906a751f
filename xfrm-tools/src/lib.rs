//! What `gm-xfrm` does: ESP in captures, as functions over readers and writers,
//! and the Linux kernel's own ESP.
//!
//! * [`open`]: opens the ESP packets of a capture and judges every packet.
//! * [`seal`]: seals the packets of a capture that an SA's selectors match.
//! * [`capture`]: pcap and pcapng as streams.
//! * [`kernel`]: the kernel's states and policies over netlink.
//! * [`group`]: which of them are a registration's, whoever made them.
//! * [`export`], [`import`]: SAs for other programs, and from them.
//!
//! A packet's way through `pcap open`: [`capture::Reader`] -> [`frame`] finds
//! the IP packet -> fragments are put together -> the states of
//! [`gm_esp::inbound`] -> [`verdict::Line`] to the report, and what was opened
//! behind its own link header to [`capture::write_packet`].
#![forbid(unsafe_code)]

pub mod capture;
mod error;
pub mod export;
mod fragments;
pub mod frame;
pub mod group;
pub mod import;
pub mod kernel;
pub mod open;
pub mod output;
pub mod seal;
pub mod verdict;

pub use error::{SaProblem, ToolError};
