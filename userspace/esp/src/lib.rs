//! The ESP protocol of the Gm link: suites, keys, open and seal, anti-replay.
#![forbid(unsafe_code)]
