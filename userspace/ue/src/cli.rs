//! `gm-ue` and its commands.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{load, program, proxy, register};

/// A phone without a phone, over gmesp's own data path: one that is told what to
/// do, thousands at a rate, or ESP for somebody else's SIP UE.
#[derive(Debug, Parser)]
#[command(
    name = "gm-ue",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "`gm-ue --config FILE` alone is `gm-ue run --config FILE`. Every command has its own \
                  --help with examples. All need root, and an uplink whose driver knows XDP."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<program::Args>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register one phone, let it do what the options say, and tell how it went.
    Register(Box<register::Args>),
    /// One phone that is told what to do on stdin and tells it on stdout.
    Run(program::Args),
    /// ESP and the security agreement for an ordinary SIP UE, such as SIPp.
    Proxy(proxy::Args),
    /// Many phones at a rate, and a summary.
    Load(load::Args),
}

/// Runs what was asked for. Exit codes: 0 good, 1 it could not run, 2 wrong use or
/// configuration, 3 the network refused or something failed.
pub fn main(cli: &Cli) -> ExitCode {
    program::log_to_stderr();
    match (&cli.command, &cli.run) {
        (Some(Command::Register(args)), _) => register::main(args),
        (Some(Command::Run(args)), _) | (None, Some(args)) => program::main(args),
        (Some(Command::Proxy(args)), _) => proxy::main(args),
        (Some(Command::Load(args)), _) => load::main(args),
        (None, None) => {
            use clap::CommandFactory;
            let _ = Cli::command().print_help();
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for args in [
            &["gm-ue", "--config", "ue.toml", "--json"][..],
            &["gm-ue", "run", "--config", "ue.toml"],
            &[
                "gm-ue",
                "register",
                "--config",
                "ue.toml",
                "--fault",
                "wrong-res",
            ],
        ] {
            assert!(Cli::try_parse_from(args).is_ok(), "{args:?}");
        }
        assert!(Cli::try_parse_from(["gm-ue", "register"]).is_err());
        let wrong = ["gm-ue", "register", "--config", "x", "--fault", "no-such"];
        let error = Cli::try_parse_from(wrong).unwrap_err().to_string();
        assert!(error.contains("drop-sm12"), "{error}");
    }
}
