//! The engines alone, against each other: packets of mixed lengths against equal
//! ones, the levels without AVX-512 against RustCrypto, and what the IVs of CBC
//! cost. Sections `mix`, `without_avx512` and `cbc_iv`.

use std::hint::black_box;
use std::time::Instant;

use gm_benches::contest::{
    BATCH, EngineAt, LENGTHS, Op, SAS, SUITES, Transform, Turns, Work, suite_name,
};
use gm_benches::report::{self, Table};
use gm_benches::stats::{Figure, alternate, geometric_mean};
use gm_benches::{pin, rounds};
use gm_engines::Level;
use gm_esp::{BufferedIv, IvSource};
use serde_json::{Value, json};

const ROUNDS: usize = 101;
const PASSES: usize = 2;

fn main() {
    pin(0);
    let turns = Turns {
        rounds: rounds(ROUNDS),
        passes: rounds(PASSES),
    };
    mix(turns);
    without_avx512(turns);
    cbc_iv(turns);
}

/// Lengths of ESP packets as seen in labs: how many of a hundred, from, to. The
/// last two are the pairs of fragments, a packet each.
const MIX: [(usize, usize, usize); 7] = [
    (40, 100, 199),
    (26, 400, 599),
    (12, 700, 799),
    (15, 900, 1099),
    (5, 1200, 1476),
    (1, 1276, 1276),
    (1, 400, 1080),
];

/// Header, IV and ICV of the longest kind.
const AROUND: usize = 36;

/// Payload, padding and trailer of a packet of the mix: whole blocks, for all
/// suites. Each place has its own, in every run the same.
fn mixed(place: usize) -> usize {
    let mut random = (place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 32) as usize % bound
    };
    let mut hundredth = below(100);
    let kind = MIX.into_iter().find(|(share, ..)| {
        let here = hundredth < *share;
        hundredth = hundredth.saturating_sub(*share);
        here
    });
    let (_, from, to) = kind.unwrap_or(MIX[0]);
    (from + below(to - from + 1) - AROUND) / 16 * 16
}

/// Equal lengths whose sum is that of the mix: two neighbouring numbers of blocks.
fn equal(place: usize) -> usize {
    let blocks: usize = (0..SAS).map(mixed).sum::<usize>() / 16;
    (blocks * (place + 1) / SAS - blocks * place / SAS) * 16
}

fn mix(turns: Turns) {
    let mut table = Table::new(
        "A mix of lengths against equal lengths of the same mean, 64 packets at a time",
        "Nanoseconds per packet; the ratio is the mix over the equal ones.",
    )
    .columns(&["suite", "op", "mix ns", "equal ns", "ratio"]);
    for suite in SUITES {
        let [mut mixed, mut equal] = [Work::new(suite, mixed), Work::new(suite, equal)];
        assert_eq!(mixed.bytes(), equal.bytes(), "the same bytes");
        let best = || EngineAt::best(suite, mixed.keys()).expect("this machine has an engine");
        let (mut one, mut other) = (best(), best());
        for op in Op::BOTH {
            let times = alternate(
                turns.rounds,
                &mut [&mut || mixed.turn(&mut one, op, turns.passes), &mut || {
                    equal.turn(&mut other, op, turns.passes)
                }],
            );
            table = table.row([
                suite_name(suite).into(),
                op.name().into(),
                Figure::of(&times[0]).into(),
                Figure::of(&times[1]).into(),
                Figure::ratio(&times[0], &times[1]).into(),
            ]);
        }
    }
    report::section("mix", table);
}

fn without_avx512(turns: Turns) {
    let mut table = Table::new(
        "The AVX2 engine, 64 packets at a time, against RustCrypto's crates, one at a time",
        "Nanoseconds per packet; the ratio is AVX2's time over RustCrypto's.",
    )
    .columns(&["suite", "op", "bytes", "avx2 ns", "rustcrypto ns", "ratio"]);
    let mut means: Vec<Value> = vec![];
    for suite in SUITES {
        let mut ratios = vec![];
        for length in LENGTHS {
            let mut work = Work::new(suite, |_| length);
            let keys = work.keys();
            let Some(mut avx2) = EngineAt::new("avx2", Level::Avx2, BATCH, suite, keys) else {
                report::section(
                    "without_avx512",
                    json!({ "not measured": "this machine has no AVX2" }),
                );
                return;
            };
            let mut theirs = EngineAt::rustcrypto(suite, keys).expect("works everywhere");
            work.agree(&mut avx2);
            for op in Op::BOTH {
                let times = work.contest(&mut [&mut avx2, &mut theirs], op, turns);
                let ratio = Figure::ratio(&times[0], &times[1]);
                ratios.push(ratio.median);
                table = table.row([
                    suite_name(suite).into(),
                    op.name().into(),
                    length.into(),
                    Figure::of(&times[0]).into(),
                    Figure::of(&times[1]).into(),
                    ratio.into(),
                ]);
            }
        }
        means.push(json!({ "suite": suite_name(suite), "ratio": geometric_mean(&ratios) }));
    }
    let means = json!({
        "title": "Geometric means of the ratios below, seal and open",
        "columns": ["suite", "ratio"],
        "rows": means,
    });
    report::section("without_avx512", Value::from(vec![means, table.into()]));
}

/// IVs for one turn.
const IVS: usize = 64 * 1024;

fn cbc_iv(turns: Turns) {
    let mut source = BufferedIv::new(|bytes: &mut [u8]| {
        getrandom::fill(bytes).expect("the operating system has random bytes");
    });
    let mut iv = [0; 16];
    let mut draw = || {
        let began = Instant::now();
        for _ in 0..IVS {
            source.fill(black_box(&mut iv));
        }
        began.elapsed().as_nanos() as f64 / IVS as f64
    };
    let suite = Transform::HmacSha1AesCbc;
    let mut table = Table::new(
        "What an unpredictable IV for CBC costs, above the sealing with an IV supplied",
        "Nanoseconds per packet. 4 KiB of the operating system's random bytes at a time.",
    )
    .columns(&["bytes", "IV ns", "seal ns", "ratio"]);
    for length in LENGTHS {
        let mut work = Work::new(suite, |_| length);
        let mut ours = EngineAt::best(suite, work.keys()).expect("this machine has an engine");
        let times = alternate(
            turns.rounds,
            &mut [&mut draw, &mut || {
                work.turn(&mut ours, Op::Seal, turns.passes)
            }],
        );
        table = table.row([
            length.into(),
            Figure::of(&times[0]).into(),
            Figure::of(&times[1]).into(),
            Figure::ratio(&times[0], &times[1]).into(),
        ]);
    }
    report::section("cbc_iv", table);
}
