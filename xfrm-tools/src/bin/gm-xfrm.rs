//! `gm-xfrm`: Annex I keys, ESP in capture files, and the kernel's own ESP.
//!
//! Exit codes: 0 done, whatever the verdicts; 1 a file cannot be read or
//! written, or the kernel refuses; 2 wrong use, which includes what stands in
//! SAD.toml. `diff` is like diff(1): 1 when there are differences, 2 for all
//! trouble.
#![forbid(unsafe_code)]

// Beside this file and not in bin/ itself, where each file is a program.
#[path = "gm-xfrm/adopt.rs"]
mod adopt;
#[path = "gm-xfrm/args.rs"]
mod args;
#[path = "gm-xfrm/common.rs"]
mod common;
#[path = "gm-xfrm/diff.rs"]
mod diff;
#[path = "gm-xfrm/export.rs"]
mod export;
#[path = "gm-xfrm/import.rs"]
mod import;
#[path = "gm-xfrm/install.rs"]
mod install;
#[path = "gm-xfrm/list.rs"]
mod list;
#[path = "gm-xfrm/offline.rs"]
mod offline;
#[path = "gm-xfrm/remove.rs"]
mod remove;
#[path = "gm-xfrm/rows.rs"]
mod rows;
#[path = "gm-xfrm/watch.rs"]
mod watch;

use std::process::ExitCode;

use args::{Cli, Command, PcapCommand};
use clap::Parser;
use rustix::process::{Resource, Rlimit, setrlimit};

fn main() -> ExitCode {
    // Keys and plaintext must not end up in a core dump.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let done = |result: Result<(), common::Failure>| result.map(|()| ExitCode::SUCCESS);
    let result = match Cli::parse().command {
        Command::Keys(args) => done(offline::keys(args)),
        Command::Pcap(PcapCommand::Open(args)) => done(offline::pcap_open(&args)),
        Command::Pcap(PcapCommand::Seal(args)) => done(offline::pcap_seal(&args)),
        Command::Install(args) => done(install::run(&args)),
        Command::Remove(args) => done(remove::run(&args)),
        Command::List(args) => done(list::run(&args)),
        Command::Diff(args) => diff::run(&args),
        Command::Watch(args) => done(watch::run(&args)),
        Command::Export(args) => done(export::run(&args)),
        Command::Import(args) => done(import::run(&args)),
        Command::Adopt(args) => done(adopt::run(&args, adopt::Way::Here)),
        Command::GiveBack(args) => done(adopt::run(&args, adopt::Way::Back)),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            common::say(&format!("error: {}", failure.line));
            ExitCode::from(failure.code)
        }
    }
}
