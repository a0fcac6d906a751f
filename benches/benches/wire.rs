//! One worker, end to end.
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
#[path = "wire/sink.rs"]
mod sink;
#[path = "wire/stat.rs"]
mod stat;
#[path = "wire/throughput.rs"]
mod throughput;
#[path = "wire/world.rs"]
mod world;

use anyhow::Result;
use gm_esp::Suite;

/// The P-CSCF's protected ports (TS 33.203 7.1).
const PORT_PS: u16 = 5063;
const PORT_PC: u16 = 5064;

/// CPU of the worker, and of the forwarder; CPU of generator and sink.
const WORKER_CPU: usize = 0;
const GENERATOR_CPU: usize = 1;

/// Lengths of the SIP datagrams; the longest fits a packet of 1500 bytes.
const LENGTHS: [usize; 4] = [128, 384, 768, 1392];

struct Args {
    test: bool,
    filter: Option<String>,
}

fn args() -> Args {
    let mut args = Args {
        test: false,
        filter: None,
    };
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--test" => args.test = true,
            word if word.starts_with("--") => {}
            word => args.filter = Some(word.to_owned()),
        }
    }
    args
}

fn run(args: &Args) -> Result<()> {
    let chosen = |name: &str| {
        args.filter
            .as_ref()
            .is_none_or(|f| name.contains(f.as_str()))
    };
    let mut cases = Vec::new();
    for inbound in [true, false] {
        for suite in Suite::ALL {
            for bytes in LENGTHS {
                cases.push(throughput::Case {
                    inbound,
                    suite,
                    bytes,
                });
            }
        }
    }
    cases.retain(|case| chosen(&case.name()));
    if args.test {
        cases.retain(|case| case.suite == Suite::NullAesGcm && case.bytes == 384);
    }
    let size = match args.test {
        true => throughput::Size {
            rounds: 1,
            packets: 2048,
        },
        false => throughput::Size {
            rounds: 9,
            packets: 32 * 1024,
        },
    };
    if !cases.is_empty() {
        let mut suites: Vec<Suite> = cases.iter().map(|c| c.suite).collect();
        suites.dedup();
        suites.sort_by_key(|s| s.to_string());
        suites.dedup();
        let mut lines = throughput::Lines::new(&suites)?;
        for case in cases {
            let row = lines.measure(case, size)?;
            println!(
                "{:<50} gmesp {:>9.0} ({:.0} %, busy {:.2}, lost {}) raw {:>9.0} ({:.0} %, busy {:.2}, lost {}) ratio {:.3} ({:.1} %)",
                case.name(),
                row.rates[0].median,
                row.rates[0].spread * 100.0,
                row.busy[0],
                row.lost[0],
                row.rates[1].median,
                row.rates[1].spread * 100.0,
                row.busy[1],
                row.lost[1],
                row.ratio.median,
                row.ratio.spread * 100.0,
            );
        }
    }
    if chosen("latency") {
        let size = match args.test {
            true => latency::Size {
                rounds: 1,
                pings: 200,
            },
            false => latency::Size {
                rounds: 9,
                pings: 4000,
            },
        };
        let l = latency::measure(Suite::NullAesGcm, 384, size)?;
        println!("trips {:?}\nadded {:?}", l.trips, l.added);
    }
    Ok(())
}

fn main() {
    if let Err(e) = run(&args()) {
        println!("wire: not measured: {e:#}");
        std::process::exit(1);
    }
}
