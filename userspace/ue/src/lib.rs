//! The UE role: registers with IMS AKA over the same engine.
#![forbid(unsafe_code)]
