//! SAD.toml and the types of the control interface.
#![forbid(unsafe_code)]
