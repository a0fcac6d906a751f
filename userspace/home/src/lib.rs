//! An embedded IMS home network: registrar and AKA vectors, so that no HSS is
//! needed to try the Gm link. Without I/O: datagrams in, datagrams out.
//!
//! [`vectors`] makes authentication vectors (TS 33.102, Milenage of TS 35.206);
//! [`registrar`] challenges, checks and keeps contacts; [`Home`] routes MESSAGE and
//! OPTIONS to them and answers for `sip:echo@DOMAIN`.
#![forbid(unsafe_code)]

mod home;
pub mod registrar;
pub mod vectors;

pub use home::{Home, HomeConfig, HomeEvent};
pub use vectors::{Subscriber, Vector};
