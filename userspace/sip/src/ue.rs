//! The UE's side of registration (TS 33.203 clauses 7.2, 7.4.1a, M.7).
//!
//! Drive it with [`Ue::register`], [`Ue::deregister`], [`Ue::send`],
//! [`Ue::handle`] and [`Ue::handle_timeout`]; take everything from [`Ue::poll`]
//! after each. Before each registration two SPIs must be there ([`Ue::add_spis`]).

mod io;

pub use io::{
    Aka, AkaAnswer, AkaFailure, Ignored, RequestId, UeConfig, UeEvent, UeFailure, UeInput, UeOutput,
};
