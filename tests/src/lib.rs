//! Tests that cross crates, in namespaces and against oracles.
#![forbid(unsafe_code)]

pub mod netns;
