//! The gmesp daemon.
#![forbid(unsafe_code)]

fn main() {}
