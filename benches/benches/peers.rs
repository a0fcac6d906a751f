//! Our best engine against the libraries of others, in one run and in turns:
//! `cargo bench -p gm-benches --features peers --bench peers`.
//!
//! Whole ESP packets of 1024 SAs, round-robin, sealed and opened in place, IVs
//! supplied to all; [`gm_benches::contest`] says how, [`gm_benches::peers`] who.
//! A word of the command line chooses the suites whose name has it; such a run
//! is printed, not kept.

use gm_benches::contest::{
    BATCH, Contestant, EngineAt, LENGTHS, Op, SAS, SUITES, Transform, Turns, Work, suite_name,
};
use gm_benches::stats::{Figure, geometric_mean, rounded};
use gm_benches::{peers, pin, report, rounds};
use serde_json::{Map, Value, json};

/// How often everything is laid out anew in memory, the older copies staying: where
/// keys and contexts happen to lie is worth up to a tenth.
const LAYOUTS: usize = 5;
/// Rounds in each layout.
const ROUNDS: usize = 25;
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
            let mut layouts: Vec<_> = (0..rounds(LAYOUTS))
                .map(|_| lay_out(suite, length))
                .collect();
            for op in Op::BOTH {
                rows.extend(row(&mut layouts, op, length, turns));
            }
        }
    }
    if filter.is_some() {
        return;
    }
    report::section("peers", summary(&rows, pinned));
    report::section("ratios", Value::from(rows));
}

/// Packets, ourselves and the others, who agree with us.
type Layout = (Work, EngineAt, Vec<Box<dyn Contestant>>);

fn lay_out(suite: Transform, length: usize) -> Layout {
    let mut work = Work::new(suite, |_| length);
    let ours = EngineAt::best(suite, work.keys()).expect("this machine has an engine");
    let mut others = peers::all(suite, work.keys());
    for other in &mut others {
        work.agree(&mut **other);
    }
    (work, ours, others)
}

/// The ratios to all peers for one suite, direction and length.
#[expect(clippy::print_stdout, reason = "a bench's report goes there")]
fn row(layouts: &mut [Layout], op: Op, length: usize, turns: Turns) -> Vec<Value> {
    let suite = suite_name(layouts[0].0.suite());
    let names: Vec<&str> = layouts[0].2.iter().map(|other| other.name()).collect();
    let mut times = vec![vec![]; 1 + names.len()];
    let mut ways = vec![vec![]; names.len()];
    for (work, ours, others) in layouts {
        for (other, ways) in others.iter_mut().zip(&mut ways) {
            let way = best_way(work, &mut **other, op);
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        let mut who: Vec<&mut dyn Contestant> = vec![ours];
        who.extend(
            others
                .iter_mut()
                .map(|other| &mut **other as &mut dyn Contestant),
        );
        for (all, these) in times.iter_mut().zip(work.contest(&mut who, op, turns)) {
            all.extend(these);
        }
    }
    let line = |((name, ways), theirs): ((&&str, &Vec<&str>), &Vec<f64>)| {
        let way = ways.join(" or ");
        let ratio = Figure::ratio(&times[0], theirs);
        let [ours, theirs] = [&times[0], theirs].map(|series| rounded(Figure::of(series).median));
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
    names.iter().zip(&ways).zip(&times[1..]).map(line).collect()
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
            "ratio: our time over theirs, median of {} rounds in turns, {LAYOUTS} times laid out anew in memory, spread: quartiles' \
             distance over the median; {SAS} SAs round-robin, {BATCH} packets at a time for gmesp \
             and ipsec_mb, else one; bytes of payload, padding and trailer; keys set up, IVs \
             supplied; {} one core",
            LAYOUTS * ROUNDS,
            if pinned { "pinned to" } else { "not pinned to" }
        )),
    );
    summary.into()
}
