//! Talks to gmespd: the commands of `gmespctl`, callable with any reader and
//! writers, and the [`client`] that they use.
#![forbid(unsafe_code)]

mod args;
pub mod client;
mod commands;
mod drops;
pub mod table;

use std::ffi::OsString;
use std::io::{Read, Write};

use clap::Parser;

use crate::args::Args;
use crate::client::ClientError;

/// Exit code: done.
pub const OK: u8 = 0;
/// Exit code: gmespd could not be reached, or could not do it.
pub const FAILED: u8 = 1;
/// Exit code: wrong arguments or a wrong file.
pub const WRONG_USE: u8 = 2;
/// Exit code of `explain`: something is wrong.
pub const TROUBLE: u8 = 3;
/// Exit code of `explain`: nothing is known of the address.
pub const UNKNOWN: u8 = 4;

/// Runs one command. `args` begins with the program's name; the result is the
/// exit code. Must not be called on a thread that drives a tokio runtime.
pub fn run<I, T>(args: I, input: &mut dyn Read, out: &mut dyn Write, err: &mut dyn Write) -> u8
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let _ = write!(err, "{}", error.render());
            return WRONG_USE;
        }
        Err(help) => {
            let _ = write!(out, "{}", help.render());
            return OK;
        }
    };
    match commands::execute(args, input, out) {
        Ok(code) => code,
        // Whoever read the output has seen enough, as with `| head`.
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => OK,
        Err(error) => {
            // The daemon's words may quote a stranger's or a file's.
            let text = error.to_string();
            let lines: Vec<_> = text.lines().map(table::plain).collect();
            let _ = writeln!(err, "gmespctl: {}", lines.join("\n"));
            error.exit_code()
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{file}: cannot be read: {error}")]
    File { file: String, error: std::io::Error },
    #[error("{0}: is no text in UTF-8; it must be a SAD.toml")]
    NoText(String),
    #[error("output: {0}")]
    Output(#[from] std::io::Error),
}

impl Error {
    fn exit_code(&self) -> u8 {
        match self {
            Error::File { .. } | Error::NoText(_) => WRONG_USE,
            Error::Client(ClientError::Refused { error, .. })
                if matches!(error.code.as_str(), "bad-sad" | "bad-request") =>
            {
                WRONG_USE
            }
            _ => FAILED,
        }
    }
}
