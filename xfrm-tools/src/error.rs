//! What stops a tool. A packet never does.

use gm_api::sad::Sad;
use thiserror::Error;

use crate::capture::CaptureError;

/// An SA of the file that cannot be set up.
#[derive(Debug, Error)]
#[error("{file}: [[sa]] #{table}: {what}")]
pub struct SaProblem {
    file: String,
    table: usize,
    what: String,
}

impl SaProblem {
    pub(crate) fn new(sad: &Sad, table: usize, what: String) -> SaProblem {
        SaProblem {
            file: sad.name.clone(),
            table,
            what,
        }
    }
}

/// Why a tool stopped, by the stream at which it happened.
#[derive(Debug, Error)]
pub enum ToolError {
    /// The capture cannot be read.
    #[error("input: {0}")]
    Input(#[from] CaptureError),
    /// The packets cannot be written.
    #[error("output: {0}")]
    Output(std::io::Error),
    /// The report cannot be written.
    #[error("report: {0}")]
    Report(std::io::Error),
    /// An SA cannot be set up.
    #[error(transparent)]
    Sa(#[from] SaProblem),
}

impl ToolError {
    /// A packet of one IP version for a link type of the other.
    pub(crate) fn wrong_version() -> ToolError {
        ToolError::Output(std::io::Error::other(
            "the link type of the input is for one IP version, the packet has the other; \
             convert the input to raw IP (101)",
        ))
    }
}
