//! One worker, end to end: real packets on veth pairs, real sockets at the end.
//!
//! ```text
//!   CPU 1                                    CPU 0                            CPU 1
//! generator ─> f0 ═ p0: XDP ─> ring ─> worker: open ─> gm0x ═ gm0 ─> tc ─> guard ─> UDP socket
//! generator ─> gm0 ═ gm0x: XDP ─> ring ─> worker: seal ─> p0 ═ f0: XDP ─> ring ─> counter
//! ```
//!
//! `═` is a veth pair. Who sends on one runs what is at its other end: the
//! generator's CPU the XDP program in front of the worker, the worker's CPU all
//! that is behind it, on the way in the kernel's whole receive path up to the
//! queue of the application's socket. The generator sends with AF_XDP and so
//! takes the place of the local stack on the way out, whose share is not the
//! worker's. It has sealed its packets before the clock runs, 64 phones in turn,
//! each with its next number.
//!
//! **Throughput** is loss-free: at most 512 packets are under way, half of a
//! ring, and all have to arrive. Generator and counter need less time than the
//! worker, so the worker's core is busy all the time (the table says how much).
//! A rate is packets per second of that core: of the time that the worker's
//! thread ran (and the kernel's ksoftirqd of that CPU), with the interrupts on
//! its account. On a quiet machine that is what arrives in a second; where
//! others run on that CPU too it stays, and the other ratio of the table, of
//! what arrived, shows them.
//!
//! **The forwarder** is a raw AF_XDP program on devices of the same kind, with
//! gmesp's rings, batches and way to wait, and gmesp's BPF programs around it
//! (on p0 the one of gm0x, for there is no SA to look up; the generator's CPU
//! runs it). It takes as many bytes off the end of a frame, or puts them there,
//! as ESP has, so both move frames of equal length; what it is sent is in clear.
//! Rounds of both alternate, 20 ms each; figures are medians, the spread is that
//! of the quartiles.
//!
//! **Latency** is that of a UDP ping-pong: the application's socket on port_ps,
//! a peer with a packet socket on f0 who answers each packet with the next of
//! those that were sealed ahead of time, and the worker between them, all three
//! on CPU 0, all blocking; and again with a worker that goes on looking
//! (`busy_poll`). The same without anything between them, and with the forwarder. What one pass adds is half of the difference of the round trips,
//! for a round trip has one pass out and one in; p50 and p99 are those of a
//! round's 1000 trips.
//!
//! Everything is in network namespaces without names, which go with the process
//! however it ends. `--rounds=N` makes more or fewer than 31; another word
//! filters by name (`throughput/inbound/null/aes-gcm/384`, `latency`).
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench's report goes there")]

#[path = "wire/cable.rs"]
mod cable;
#[path = "wire/forwarder.rs"]
mod forwarder;
#[path = "wire/latency.rs"]
mod latency;
#[path = "wire/phones.rs"]
mod phones;
#[path = "wire/programs.rs"]
mod programs;
#[path = "wire/show.rs"]
mod show;
#[path = "wire/sink.rs"]
mod sink;
#[path = "wire/stat.rs"]
mod stat;
#[path = "wire/throughput.rs"]
mod throughput;
#[path = "wire/world.rs"]
mod world;

use anyhow::{Context, Result};
use gm_benches::{report, smoke};
use gm_esp::Suite;
use serde_json::Value;

use crate::throughput::{Case, Lines};

/// The P-CSCF's protected ports (TS 33.203 7.1).
const PORT_PS: u16 = 5063;
const PORT_PC: u16 = 5064;

/// CPU of the worker, and of the forwarder; CPU of generator and counter.
const WORKER_CPU: usize = 0;
const GENERATOR_CPU: usize = 1;

/// Lengths of the SIP datagrams; the longest fits an uplink's 1500 bytes with
/// every suite.
const LENGTHS: [usize; 4] = [128, 384, 768, 1392];

/// What latency is measured with, and all that a run with `--test` has.
const USUAL: (Suite, usize) = (Suite::NullAesGcm, 384);

/// Rounds, if nobody says otherwise.
const ROUNDS: usize = 31;

/// The command line.
struct Args {
    filter: Option<String>,
    rounds: usize,
}

impl Args {
    fn read() -> Result<Args> {
        let (mut filter, mut rounds) = (None, gm_benches::rounds(ROUNDS));
        for arg in std::env::args().skip(1) {
            match arg.strip_prefix("--rounds=") {
                Some(n) => rounds = n.parse().context("--rounds wants a number")?,
                None if arg.starts_with("--") => {}
                None => filter = Some(arg),
            }
        }
        let rounds = rounds.max(1);
        Ok(Args { filter, rounds })
    }

    fn wants(&self, name: &str) -> bool {
        let part = self.filter.as_deref().unwrap_or_default();
        name.contains(part)
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for inbound in [true, false] {
            for suite in Suite::ALL {
                cases.extend(LENGTHS.map(|bytes| Case {
                    inbound,
                    suite,
                    bytes,
                }));
            }
        }
        cases.retain(|case| self.wants(&case.name()));
        cases.retain(|case| !smoke() || (case.suite, case.bytes) == USUAL);
        cases
    }
}

fn run(args: &Args) -> Result<Vec<Value>> {
    let (rounds, mut tables) = (args.rounds, Vec::new());
    let cases = args.cases();
    if !cases.is_empty() {
        let packets = if smoke() { 2048 } else { 8192 };
        let size = throughput::Size { rounds, packets };
        let mut lines = Lines::new(&cases)?;
        let mut rows = Vec::new();
        for case in cases {
            let row = lines.measure(case, size).with_context(|| case.name())?;
            rows.push(row);
        }
        tables.push(show::ratios(&rows).into());
        for inbound in [true, false] {
            tables.extend(show::rates(&rows, &LENGTHS, inbound).map(Value::from));
        }
    }
    if args.wants("latency") {
        let pings = if smoke() { 200 } else { 1000 };
        let size = latency::Size { rounds, pings };
        tables.push(show::latency(&latency::measure(USUAL, size)?).into());
    }
    Ok(tables)
}

fn main() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        println!("wire: not measured: needs root for namespaces, BPF and AF_XDP");
        return Ok(());
    }
    let tables = run(&Args::read()?).context("wire: not measured")?;
    report::section("wire", tables);
    Ok(())
}
