//! `gm-attack flood` and `gm-attack soak`: see tests/README.md. Root only.
#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use gm_attack::floods::Kind;
use gm_attack::{measure, report, soak as soaking};

/// Measures gmesp under attack, in network namespaces of its own.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Goodput of registered phones under each kind of flood.
    Flood(Flood),
    /// SAs that come and go under traffic.
    Soak(Soak),
}

#[derive(clap::Args)]
struct Flood {
    /// Registered phones.
    #[arg(long, default_value_t = 1000)]
    phones: u32,
    /// Bytes of a phone's UDP payload.
    #[arg(long, default_value_t = 1000)]
    payload: usize,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Measurements of each kind; medians are reported.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Packets a second of all phones; without it half of what the machine can do.
    #[arg(long)]
    rate: Option<u64>,
    /// The flood's rate as a multiple of the phones'.
    #[arg(long, default_value_t = 10)]
    factor: u64,
    /// CPU of the generator.
    #[arg(long, default_value_t = 0)]
    generator: usize,
    /// CPU of gmesp and the application.
    #[arg(long, default_value_t = 1)]
    gmesp: usize,
    /// Gives phones and attacker a namespace each, behind a bridge, which costs
    /// the generator half of its rate.
    #[arg(long)]
    bridge: bool,
    /// Sends with packet sockets instead of AF_XDP.
    #[arg(long)]
    packet: bool,
    /// Kinds of floods; without it all.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Where the outcome is written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Soak {
    /// How long, in seconds.
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
    /// SAs that are installed at a time.
    #[arg(long, default_value_t = 10_000)]
    sas: u32,
    /// Phones (four SAs each) a second that go, and as many that come.
    #[arg(long, default_value_t = 50)]
    churn: u32,
    /// Packets a second to SAs that live.
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    /// Packets a second to SAs that have gone.
    #[arg(long, default_value_t = 500)]
    late: u64,
    /// Bytes of a UDP payload.
    #[arg(long, default_value_t = 400)]
    payload: usize,
    /// Seconds between two looks.
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Where the outcome is written as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Args::parse().command {
        Command::Flood(f) => flood(f),
        Command::Soak(s) => soak(&s),
    }
}

fn flood(f: Flood) -> Result<()> {
    let kinds = match f.kinds.is_empty() {
        true => Kind::value_variants().to_vec(),
        false => f.kinds,
    };
    let options = measure::Options {
        phones: f.phones,
        payload: f.payload,
        time: Duration::from_secs_f64(f.seconds),
        rounds: f.rounds,
        rate: f.rate,
        factor: f.factor,
        generator: Some(f.generator),
        gmesp: Some(f.gmesp),
        bridge: f.bridge,
        xdp: !f.packet,
        kinds,
    };
    let outcome = measure::run(&options, |line| eprintln!("{line}"))?;
    println!("{}", report::table(&outcome));
    if let Some(path) = f.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome)?)?;
    }
    anyhow::ensure!(report::holds(&outcome), "not all that is asked for holds");
    Ok(())
}

fn soak(s: &Soak) -> Result<()> {
    let options = soaking::Options {
        time: Duration::from_secs(s.seconds),
        sas: s.sas,
        churn: s.churn,
        rate: s.rate,
        late: s.late,
        payload: s.payload,
        every: Duration::from_secs(s.every),
    };
    let outcome = soaking::run(&options, |look| eprintln!("{}", report::look(look)))?;
    println!("{}", report::soak(&outcome));
    if let Some(path) = &s.json {
        std::fs::write(path, serde_json::to_vec_pretty(&outcome)?)?;
    }
    anyhow::ensure!(outcome.wrong.is_empty(), "something is wrong");
    Ok(())
}
