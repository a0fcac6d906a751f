//! Talks to gmespd.
#![forbid(unsafe_code)]

fn main() {}
