//! The UE role: a phone without a phone.
//!
//! It registers with IMS AKA and protects SIP with the same engine as the
//! P-CSCF's side: XDP and AF_XDP on its own uplink, four SAs a registration,
//! UDP-enc-tun behind a NAT. [`gm_sip::ue`] is the protocol, without I/O;
//! here are the parts around it:
//!
//! * [`config`]: ue.toml, who the phone is;
//! * [`usim`]: Milenage and the sequence numbers of AKA;
//! * [`host`]: what phones of one process share: data plane, SPIs, sockets and
//!   TCP connections, addresses ([`addresses`], [`keys_out`]);
//! * [`phone`]: one phone on it; [`agent`]: one phone that runs, with commands
//!   and events;
//! * [`report`]: what the protocol says, in the words of the events; [`trace`]:
//!   every message, for people;
//! * [`events`]: what the phone tells and what it can be told;
//! * [`cli`]: `gm-ue` on the command line, with [`program`] (`run`, which gmespd's
//!   demo uses as well), [`register`], [`proxy`] and [`load`].
#![forbid(unsafe_code)]

pub mod addresses;
pub mod agent;
pub mod cli;
pub mod config;
pub mod events;
pub mod host;
pub mod keys_out;
pub mod load;
pub mod phone;
pub mod program;
pub mod proxy;
pub mod register;
pub mod report;
mod signals;
mod sockets;
mod tcp;
pub mod trace;
pub mod usim;
