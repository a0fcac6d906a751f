//! The security association database: control SAs apart from hot halves.
#![forbid(unsafe_code)]
