//! The program gm-ue.
#![forbid(unsafe_code)]

use clap::Parser;

fn main() -> std::process::ExitCode {
    gm_ue::program::main(&gm_ue::program::Args::parse())
}
