//! The program gm-ue.
#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> std::process::ExitCode {
    gm_ue::cli::main(&gm_ue::cli::Cli::parse())
}
