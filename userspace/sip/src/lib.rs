//! The SIP security agent of the Gm link, without I/O.
#![forbid(unsafe_code)]
