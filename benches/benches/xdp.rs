//! What a verdict of the BPF programs costs, through BPF_PROG_TEST_RUN.
//!
//! One call repeats one packet a million times. A wrapper
//! (`ebpf/gm-xdp/src/bin/bench.rs`) undoes what the last round has done to it,
//! draws the SPI, and goes on to the program under test or, in the same way, to
//! one that only passes. A figure is the difference, in nanoseconds a packet,
//! taken round by round while the two take turns.
//!
//! What is in the figure: everything from the driver's call to the action, the
//! redirect's look-up of the socket among it. What is not: what the kernel does
//! for that action afterwards, so not the copy into the socket's memory.
//!
//! `cargo bench -p gm-benches --bench xdp -- [--test] [FILTER]`, as root; the
//! filter is a part of a row's name.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a bench says why it cannot run")]

#[path = "xdp/cases.rs"]
mod cases;
#[path = "xdp/lab.rs"]
mod lab;
#[path = "xdp/sending.rs"]
mod sending;

use gm_benches::report::{self, Plot, Table};
use gm_benches::stats::{Figure, alternate};
use gm_benches::{pin, rounds, smoke};

use cases::{Case, Under};
use lab::{Lab, Problem};

const ROUNDS: usize = 11;

/// What the program under test takes more than one that only passes.
fn measure(case: &Case) -> Result<Figure, Problem> {
    let mut lab = Lab::new(case)?;
    let packets = if smoke() { 1000 } else { 1_000_000 };
    // A first round of each warms caches and predictors, and shows what fails.
    lab.run(case, false, packets)?;
    lab.run(case, true, packets)?;
    let lab = std::cell::RefCell::new(lab);
    let turn = |under_test| {
        let run = lab.borrow_mut().run(case, under_test, packets);
        run.unwrap_or(f64::NAN)
    };
    let values = alternate(
        rounds(ROUNDS),
        &mut [&mut || turn(true), &mut || turn(false)],
    );
    Ok(Figure::above(&values[0], &values[1]))
}

/// What the programs are for the verifier and for the processor.
fn sizes() -> Result<Table, Problem> {
    let mut table = Table::new(
        "Programs",
        "How many instructions the verifier has walked (it stops at a million), and how long the programs are, in \
         bytes: as the kernel keeps them, and as machine code.",
    )
    .columns(&["program", "instructions walked", "kept", "machine code"]);
    for (name, walked, kept, machine) in lab::sizes()? {
        table = table.row([name.into(), walked.into(), kept.into(), machine.into()]);
    }
    Ok(table)
}

fn by_number(most: u32, filter: &str) -> Result<Table, Problem> {
    let mut table = Table::new(
        "XDP verdict by number of SAs",
        "ESP for a random live SA: ns above a program that only passes. Beside it, one that reads one cache line \
         (64 bytes) of a map as large, at random, and nothing else.",
    )
    .columns(&["SAs", "verdict ns", "one read ns"])
    .plot(Plot {
        x: "SAs",
        y: &["verdict ns", "one read ns"],
        unit: "ns",
        log_x: true,
    });
    for sas in [100, 1000, 10_000, 100_000, 1_000_000] {
        let case = cases::known(&format!("own SPI of {sas}"), sas);
        if sas > most || !case.name.contains(filter) {
            continue;
        }
        let verdict = measure(&case)?;
        let read = measure(&Case {
            under: Under::Read,
            action: cases::PASS,
            ..case
        })?;
        table = table.row([sas.into(), verdict.into(), read.into()]);
    }
    Ok(table)
}

fn by_packet(title: &str, note: &str, cases: Vec<Case>, filter: &str) -> Result<Table, Problem> {
    let mut table = Table::new(title, note).columns(&["packet", "ns"]);
    for case in cases.iter().filter(|case| case.name.contains(filter)) {
        let cost = measure(case).map_err(|e| format!("{}: {e}", case.name))?;
        table = table.row([case.name.clone().into(), cost.into()]);
    }
    Ok(table)
}

fn by_sender(filter: &str) -> Result<Table, Problem> {
    let mut table = Table::new(
        "tc egress, as a sender meets it",
        "A UDP socket sends 356 bytes over a veth, nothing of which any SA protects: ns for each `send`, what any \
         program adds to that which lets everything go on, and what ours adds.",
    )
    .columns(&["from", "send ns", "any program ns", "ours ns"]);
    for (name, from) in [
        ("send, another address", "203.0.113.6"),
        ("send, another port", "203.0.113.5"),
    ] {
        if name.contains(filter) {
            let s = sending::sending(from)?;
            table = table.row([name.into(), s.plain.into(), s.any.into(), s.ours.into()]);
        }
    }
    Ok(table)
}

fn run(filter: &str) -> Result<Vec<Table>, Problem> {
    Ok(vec![
        by_number(if smoke() { 1000 } else { 1_000_000 }, filter)?,
        by_packet(
            "XDP by packet",
            "ns above a program that only passes; 1000 SAs.",
            cases::uplink(),
            filter,
        )?,
        by_packet(
            "tc egress by packet",
            "ns above a program that lets everything go on.",
            cases::egress(),
            filter,
        )?,
        by_packet(
            "The guard by packet",
            "ns above a program that lets everything go on.",
            cases::guard(),
            filter,
        )?,
        by_sender(filter)?,
        sizes()?,
    ])
}

fn main() {
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if let Err(error) = Lab::new(&Case::default()) {
        println!("xdp: not measured: needs root and bpf(2): {error}");
        return;
    }
    // The clock is the kernel's, but a thread that moves takes its caches along.
    pin(0);
    let tables = match run(filter.as_deref().unwrap_or("")) {
        Ok(tables) => tables,
        Err(error) => {
            println!("xdp: failed: {error}");
            std::process::exit(1);
        }
    };
    let tables: Vec<serde_json::Value> = tables.into_iter().map(Into::into).collect();
    report::section("xdp", tables);
}
