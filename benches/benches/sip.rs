//! Complete registrations through gm-sip's edge, without I/O, on one core: SM1 to SM12, and
//! the end of it, by expiry or by de-registration. Every phone is another identity at
//! another address, and a batch of them is under way at once.
//!
//! The clock stands still while the edge does not work: what phones and core cost is a
//! figure of its own. The data plane is left out: each Install is answered at once.
//!
//! `-- --test` goes once through all of it.
#![allow(clippy::print_stdout, reason = "a bench's report goes there")]

use std::time::Duration;

use gm_benches::report::{self, Table};
use gm_benches::stats::Figure;
use gm_sip::Message;
use serde_json::{Value, json};

#[path = "sip/core.rs"]
mod core;
#[path = "sip/engine.rs"]
mod engine;
#[path = "sip/home.rs"]
mod home;
#[path = "sip/phone.rs"]
mod phone;
#[path = "sip/wire.rs"]
mod wire;

use engine::{BATCH, BATCHES, Bench, LONG, SHORT, Spent};
use phone::Phone;

/// The columns of the engine's table behind the first.
const STEPS: [&str; 10] = [
    "registered before",
    "registrations/s",
    "us each",
    "SM1",
    "SM4",
    "SM7",
    "SM10",
    "expiry",
    "de-registration",
    "phones and core",
];

/// A row: so many are registered already.
fn registering(registered: u32, count: u32, rounds: usize) -> [Value; 10] {
    let mut bench = Bench::new();
    bench.round(registered, LONG, false);
    assert_eq!(bench.edge.len().0, registered as usize);
    bench.round(count, SHORT, false);
    let staying: Vec<_> = (0..rounds)
        .map(|_| bench.round(count, SHORT, false))
        .collect();
    let leaving: Vec<_> = (0..rounds.div_ceil(4))
        .map(|_| bench.round(count, SHORT, true))
        .collect();
    assert_eq!(
        bench.edge.len().0,
        registered as usize,
        "all of a round end"
    );
    let us = |all: &[Spent], of: &dyn Fn(&Spent) -> Duration| -> Vec<f64> {
        let each = |s: &Spent| of(s).as_secs_f64() * 1e6 / f64::from(count);
        all.iter().map(each).collect()
    };
    let figure = |of: &dyn Fn(&Spent) -> Duration| Value::from(Figure::of(&us(&staying, of)));
    let whole = us(&staying, &Spent::registration);
    let rate: Vec<_> = whole.iter().map(|us| 1e6 / us).collect();
    [
        json!(registered),
        Figure::of(&rate).into(),
        Figure::of(&whole).into(),
        figure(&|s| s.sm1),
        figure(&|s| s.sm4),
        figure(&|s| s.sm7),
        figure(&|s| s.sm10),
        figure(&|s| s.expiry),
        Figure::of(&us(&leaving, &|s| s.leave)).into(),
        figure(&|s| s.others),
    ]
}

fn sizes() {
    let mut bench = Bench::new();
    for n in 0..4 {
        let mut phone = Phone::new(n);
        let sm1 = phone.sm1();
        let sm2 = bench.ue_sends(&phone, false, &sm1);
        let sm4 = core::challenge(&Message::parse(&sm2).expect("SIP"), n).to_bytes();
        let sm6 = bench.core_sends(&sm4);
        phone.challenged(&sm6);
        let sm7 = phone.sm7();
        let sm8 = bench.ue_sends(&phone, true, &sm7);
        let up = Message::parse(&sm8).expect("SIP");
        let sm10 = core::success(&up, &phone.impu(), 60).to_bytes();
        println!(
            "sip/sizes/{n}: sm1 {} sm4 {} sm6 {} sm7 {} sm10 {}",
            sm1.len(),
            sm4.len(),
            sm6.len(),
            sm7.len(),
            sm10.len()
        );
    }
}

/// With real sockets; `None` where that cannot be.
fn end_to_end(count: u32, concurrent: u32, rounds: usize) -> Option<Table> {
    let say = |why: String| println!("sip: nothing end to end: {why}");
    let net = wire::Net::new().map_err(say).ok()?;
    let mut all = Vec::new();
    for _ in 0..rounds {
        all.push(net.run(count, concurrent).map_err(say).ok()?);
    }
    let each = |of: fn(&wire::Rate) -> f64| -> Value {
        Figure::of(&all.iter().map(of).collect::<Vec<_>>()).into()
    };
    let table = Table::new(
        "Registrations end to end",
        "gmespd with XDP and AF_XDP on CPU 0, the home network and gm-ue load on CPU 1, a veth \
         between two network namespaces. Processor time in us for each registration; that of \
         phones has their start and end in it.",
    );
    let columns = [
        "phones",
        "at a time",
        "registrations/s",
        "gmespd",
        "its thread gm-edge",
        "phones' side",
        "home",
        "failed",
    ];
    Some(table.columns(&columns).row([
        json!(count),
        json!(concurrent),
        each(|r| r.per_second),
        each(|r| r.gmespd),
        each(|r| r.edge),
        each(|r| r.phones),
        each(|r| r.home),
        json!(all.iter().map(|r| r.failed).sum::<u64>()),
    ]))
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--home") {
        let local = args[at + 1].parse().expect("an address");
        return home::serve(local, args[at + 2].parse().expect("a number"));
    }
    // As criterion's benches have it: what is not an option is what is wanted.
    let wanted = |part: &str| {
        let mut filters = args[1..].iter().filter(|a| !a.starts_with('-')).peekable();
        filters.peek().is_none() || filters.any(|f| part.contains(f.as_str()))
    };
    let small = gm_benches::smoke();
    let mut tables: Vec<Value> = Vec::new();
    if wanted("engine") {
        sizes();
        let note = "gm-sip's edge without I/O on one core, Installs answered at once; us of the \
                    engine for each registration from SM1 to SM12 and its expiry, by step; what \
                    phones and a core cost in the same loop is a column of its own and counts \
                    for nothing. 256 under way at once.";
        let table = Table::new("Registrations without I/O", note).columns(&STEPS);
        let rounds = gm_benches::rounds(15);
        let (few, many, count) = match small {
            true => (0, 100, 50),
            false => (0, 100_000, BATCH * BATCHES),
        };
        let table = table
            .row(registering(few, count, rounds))
            .row(registering(many, count, rounds));
        tables.push(table.into());
    }
    if wanted("wire") {
        let (count, concurrent) = if small { (20, 10) } else { (4_000, 200) };
        tables.extend(end_to_end(count, concurrent, gm_benches::rounds(5)).map(Value::from));
    }
    report::section("sip", tables);
}
