//! Tests that cross crates, in namespaces and against oracles.
