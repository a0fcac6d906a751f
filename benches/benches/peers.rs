//! Our best engine against the libraries of others, in one run and in turns:
//! `cargo bench -p gm-benches --features peers --bench peers`.
//!
//! Whole ESP packets of 1024 SAs, round-robin, sealed and opened in place, IVs
//! supplied to all; [`gm_benches::contest`] says how, [`gm_benches::peers`] who.
//! A word of the command line chooses the suites whose name has it; such a run
//! is printed, not kept.

use gm_benches::contest::{
    BATCH, Contestant, EngineAt, LENGTHS, Op, SAS, SUITES, Turns, Work, suite_name,
};
use gm_benches::stats::{Figure, geometric_mean, rounded};
use gm_benches::{peers, pin, report, rounds};
use serde_json::{Map, Value, json};

const ROUNDS: usize = 101;
const PASSES: usize = 2;
/// Turns by which the best of a library's ways is found.
const TRIALS: usize = 5;

fn main() {
    let pinned = pin(0);
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let turns = Turns {
        rounds: rounds(ROUNDS),
        passes: rounds(PASSES),
    };
    let mut rows = vec![];
    for suite in SUITES {
        if filter
            .as_ref()
            .is_some_and(|word| !suite_name(suite).contains(word))
        {
            continue;
        }
        for length in LENGTHS {
            let mut work = Work::new(suite, |_| length);
            let mut ours = EngineAt::best(suite, work.keys()).expect("this machine has an engine");
            let mut others = peers::all(suite, work.keys());
            for other in &mut others {
                work.agree(&mut **other);
            }
            for op in Op::BOTH {
                rows.extend(row(&mut work, &mut ours, &mut others, op, length, turns));
            }
        }
    }
    if filter.is_some() {
        return;
    }
    report::section("peers", summary(&rows, pinned));
    report::section("ratios", Value::from(rows));
}

/// The ratios to all peers for one suite, direction and length.
#[expect(clippy::print_stdout, reason = "a bench's report goes there")]
fn row(
    work: &mut Work,
    ours: &mut EngineAt,
    others: &mut [Box<dyn Contestant>],
    op: Op,
    length: usize,
    turns: Turns,
) -> Vec<Value> {
    let ways: Vec<&str> = others
        .iter_mut()
        .map(|other| best_way(work, &mut **other, op))
        .collect();
    let mut who: Vec<&mut dyn Contestant> = vec![ours];
    who.extend(
        others
            .iter_mut()
            .map(|other| &mut **other as &mut dyn Contestant),
    );
    let times = work.contest(&mut who, op, turns);
    let names = who[1..].iter().map(|other| other.name());
    let line = |((name, way), theirs): ((&str, &str), &Vec<f64>)| {
        let ratio = Figure::ratio(&times[0], theirs);
        let [ours, theirs] = [&times[0], theirs].map(|series| rounded(Figure::of(series).median));
        let suite = suite_name(work.suite());
        println!(
            "{suite:<24} {:<4} {length:>5} {ours:>7.1} ns  {name:<10} {theirs:>7.1} ns  {:.3} ±{:.1} %  {way}",
            op.name(),
            ratio.median,
            ratio.spread * 100.0,
        );
        json!({
            "peer": name, "suite": suite, "op": op.name(), "bytes": length,
            "ratio": rounded(ratio.median), "spread": rounded(ratio.spread),
            "ours_ns": ours, "theirs_ns": theirs, "way": way,
        })
    };
    names.zip(ways).zip(&times[1..]).map(line).collect()
}

/// Takes the way by which a peer is fastest here.
fn best_way(work: &mut Work, who: &mut dyn Contestant, op: Op) -> &'static str {
    let ways = who.ways();
    let mut time = |way| {
        who.take(way);
        let trials: Vec<f64> = (0..rounds(TRIALS)).map(|_| work.turn(who, op, 1)).collect();
        Figure::of(&trials).median
    };
    let times: Vec<f64> = match ways.len() {
        1 => vec![0.0],
        many => (0..many).map(&mut time).collect(),
    };
    let best = (0..times.len())
        .min_by(|a, b| times[*a].total_cmp(&times[*b]))
        .unwrap_or(0);
    who.take(best);
    ways[best]
}

/// Means and worst cases, the libraries, and how it was measured.
fn summary(rows: &[Value], pinned: bool) -> Value {
    let mut summary = Map::new();
    for name in ["ipsec_mb", "openssl", "aws_lc", "rustcrypto"] {
        let here = rows.iter().filter(|row| row["peer"] == name);
        let ratios: Vec<f64> = here.filter_map(|row| row["ratio"].as_f64()).collect();
        let max = ratios.iter().copied().fold(0.0, f64::max);
        summary.insert(
            name.to_owned(),
            json!({ "geometric_mean": rounded(geometric_mean(&ratios)), "max": rounded(max) }),
        );
    }
    summary.insert("libraries".to_owned(), peers::versions());
    summary.insert(
        "method".to_owned(),
        json!(format!(
            "ratio: our time over theirs, median of {ROUNDS} rounds in turns, spread: quartiles' \
             distance over the median; {SAS} SAs round-robin, {BATCH} packets at a time for gmesp \
             and ipsec_mb, else one; bytes of payload, padding and trailer; keys set up, IVs \
             supplied; {} one core",
            if pinned { "pinned to" } else { "not pinned to" }
        )),
    );
    summary.into()
}
