//! What real phones and cores write and do, one test each: shapes are those of
//! captures, every value is made up.
//!
//! | module | of |
//! |---|---|
//! | `client_shapes` | Security-Client by phone |
//! | `whole` | whole registrations by phone through an edge |
//! | `server_shapes` | Security-Server by core, met by the UE role |
//! | `verify` | Security-Verify |
//! | `policy` | what policies on confidentiality announce |
//! | `digest` | challenges of cores, credentials of phones |
//! | `registering` | registering again, leaving |
//! | `headers` | odd headers |
//! | `habits` | what phones do besides |
//! | `random` | the same with random values |

mod client_shapes;
mod digest;
mod habits;
mod headers;
mod messages;
mod models;
mod policy;
mod random;
mod registering;
mod requests;
mod rig;
mod server_shapes;
mod verify;
mod whole;
