//! gmespd: the daemon that puts the gmesp parts together.
//!
//! `run` walks: configuration, hardening (`harden`), control socket
//! (`socket`), data plane (`live` behind `plane`), control interface
//! (`control`), SIP edge (`edge`), and waits for a signal.
#![forbid(unsafe_code)]

mod capture;
mod config;
mod control;
mod demo;
mod door;
mod edge;
mod events;
mod explain;
mod hands;
mod harden;
mod home;
mod journal;
mod kernel;
mod live;
mod migrate;
mod notify;
mod pcapng;
mod plane;
mod run;
mod running;
mod samples;
mod sets;
mod socket;
mod subscribers;
#[cfg(test)]
mod testing;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Config;

const WRONG_USE: u8 = 2;
const FAILED: u8 = 1;

/// IPsec ESP fast path for the IMS Gm link.
#[derive(Debug, Parser)]
#[command(
    name = "gmespd",
    version,
    after_help = "Exit code: 0 stopped as told, 1 it could not run, 2 wrong use or configuration.\n\
                  GMESP_LOG overrides [log] level."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground.
    Run {
        /// The configuration; gmespd.example.toml shows every key.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Also stop when stdin closes, so that a parent's end is ours.
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// Check a configuration and change nothing.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Show it: phones register through the fast path, and an attacker gets
    /// nowhere. Everything happens in namespaces of its own. Needs root.
    Demo(demo::Args),
    /// The phone of the demo.
    #[command(hide = true)]
    Ue(gm_ue::program::Args),
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Run {
            config,
            until_stdin_closes,
        } => run(&config, until_stdin_closes),
        Command::Check { config } => check(&config),
        Command::Demo(args) => demo::run(&args),
        Command::Ue(args) => gm_ue::program::main(&args),
        Command::Version => say(&format!("gmespd {}", env!("CARGO_PKG_VERSION"))),
    }
}

fn run(file: &Path, until_stdin_closes: bool) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => return fail(WRONG_USE, &error.to_string()),
    };
    let level = std::env::var("GMESP_LOG").unwrap_or_else(|_| config.log.level.clone());
    let filter = match config::filter(&level) {
        Ok(filter) => filter,
        Err(error) => return fail(WRONG_USE, &format!("GMESP_LOG: {error}")),
    };
    // stdout has the one line that says that the daemon is ready.
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    harden::protect_memory();
    harden::raise_file_limit();
    let subscribers = match &config.home {
        Some(home) => subscribers::load(&home.subscribers),
        None => Ok(Vec::new()),
    };
    let subscribers = match subscribers {
        Ok(subscribers) => subscribers,
        Err(error) => return fail(WRONG_USE, &error.to_string()),
    };
    match run::run(config, subscribers, until_stdin_closes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &format!("{error:#}")),
    }
}

fn check(file: &Path) -> ExitCode {
    let checked = Config::load(file)
        .map_err(|error| error.to_string())
        .and_then(|config| {
            let home = config.home.as_ref();
            home.map(|home| {
                subscribers::load(&home.subscribers).map_err(|error| error.to_string())
            })
            .transpose()?;
            Ok((
                config.warnings(),
                config.choose_engine().map_err(|e| e.to_string())?,
            ))
        });
    match checked {
        Ok((warnings, engine)) => {
            let mut lines: Vec<_> = warnings.iter().map(|w| format!("warning: {w}")).collect();
            lines.push(format!("engine: {engine}"));
            lines.push(format!("{}: good", file.display()));
            say(&lines.join("\n"))
        }
        Err(error) => fail(WRONG_USE, &error),
    }
}

fn say(line: &str) -> ExitCode {
    match writeln!(std::io::stdout(), "{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

fn fail(code: u8, what: &str) -> ExitCode {
    // With nobody to tell, the exit code must do.
    let _ = writeln!(std::io::stderr(), "gmespd: {what}");
    ExitCode::from(code)
}
