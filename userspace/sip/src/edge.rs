//! The P-CSCF's edge: a stateless proxy between UEs and the core that holds the
//! security agreement (TS 33.203 clause 7, RFC 3261 clause 16.11).
mod config;
mod io;

pub use crate::lifecycle::{RemoveReason, Timers};
pub use config::{ConfigError, EdgeConfig, Limits};
pub use io::{FlowEvent, Input, Output, Refusal};
