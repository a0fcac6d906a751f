//! Sentences of TS 33.203 that take a phone, an edge and a home network to show:
//! which SA carries what, who outlives whom, and what comes of messages that came
//! another way (clauses 7.3 to 7.5, M.7; tests/spec/requirements.toml names the tests).

mod edge;
mod failures;
mod identities;
mod lives;
mod look;
mod nat;
mod setup;
mod ue;
mod world;

#[path = "../flow/parts.rs"]
mod parts;
