//! The gmesp daemon.
#![forbid(unsafe_code)]

mod capture;
mod config;
mod control;
mod events;
mod notify;
mod pcapng;
mod plane;
mod sets;
mod socket;

fn main() {}
