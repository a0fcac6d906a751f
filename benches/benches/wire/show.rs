//! What goes into the report.

use gm_benches::report::{Plot, Table};
use gm_benches::stats::Figure;
use gm_esp::Suite;
use serde_json::Value;

use crate::latency::Latency;
use crate::phones::overhead;
use crate::throughput::Row;

/// IP and UDP header.
const HEADERS: usize = 28;

fn way(inbound: bool) -> &'static str {
    if inbound { "inbound" } else { "outbound" }
}

/// Ratios, one row each.
pub fn ratios(rows: &[Row]) -> Table {
    let note = "Thousands of packets in a second of one core, 64 phones in turn, \
                SIP datagrams of so many bytes, a veth pair on either side; \
                Mbit/s of ESP packets; the forwarder moves frames of the same length between the \
                same devices and does nothing to them; ratio by core time, and by what arrived";
    let columns = [
        "way",
        "suite",
        "bytes",
        "gmesp kpps",
        "Mbit/s",
        "forwarder kpps",
        "ratio",
        "ratio arrived",
        "core busy",
        "lost",
    ];
    let table = Table::new("One worker, end to end", note).columns(&columns);
    rows.iter().fold(table, |table, row| {
        let case = row.case;
        let bits = 8 * (HEADERS + case.bytes + overhead(case.suite, case.bytes));
        let busy = row.busy.map(|b| format!("{:.2}", b.median)).join(" / ");
        table.row([
            way(case.inbound).into(),
            case.suite.to_string().into(),
            case.bytes.into(),
            row.rates[0].into(),
            (row.rates[0].median * bits as f64 / 1e3).round().into(),
            row.rates[1].into(),
            row.ratio.into(),
            row.delivered.into(),
            busy.into(),
            row.lost.iter().sum::<usize>().into(),
        ])
    })
}

/// Rates by length, a line for each suite; where everything was measured.
pub fn rates(rows: &[Row], lengths: &[usize], inbound: bool) -> Option<Table> {
    let find = |suite: Suite, bytes: usize| {
        let is = |r: &&Row| (r.case.inbound, r.case.suite, r.case.bytes) == (inbound, suite, bytes);
        rows.iter().find(is)
    };
    let names = Suite::ALL.map(|suite| suite.to_string());
    let [a, b, c, d] = names.each_ref().map(String::as_str);
    let title = format!("One worker, {}, by length", way(inbound));
    let mut table = Table::new(&title, "Thousands of packets in a second of one core").columns(&[
        "bytes",
        a,
        b,
        c,
        d,
        "forwarder",
    ]);
    for bytes in lengths {
        let mut found = Vec::new();
        for suite in Suite::ALL {
            found.push(find(suite, *bytes)?);
        }
        let raw: Vec<f64> = found.iter().map(|r| r.rates[1].median).collect();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| Value::from(found[i].rates[0]));
        table = table.row([(*bytes).into(), a, b, c, d, Figure::of(&raw).into()]);
    }
    Some(table.plot(Plot {
        x: "bytes",
        y: &[a, b, c, d, "forwarder"],
        unit: "kpps",
        log_x: false,
    }))
}

/// Round trips and what a pass adds.
pub fn latency(latency: &Latency) -> Table {
    let note = format!(
        "Microseconds, application and peer and worker on one core, {}, SIP of {} bytes; one pass is \
         half of what a round trip is longer than without it; a wake-up is one thread that wakes \
         another on the same core and sleeps",
        latency.suite, latency.bytes
    );
    let named = [
        ("round trip, nothing between", &latency.trips[0]),
        ("round trip, forwarder", &latency.trips[1]),
        ("round trip, gmesp", &latency.trips[2]),
        ("round trip, gmesp, busy_poll", &latency.trips[3]),
        ("one pass, forwarder", &latency.added[0]),
        ("one pass, gmesp", &latency.added[1]),
        ("one pass, gmesp, busy_poll", &latency.added[2]),
        ("one wake-up", &latency.wake),
    ];
    let table = Table::new("Latency", &note).columns(&["what", "p50 us", "p99 us"]);
    named.iter().fold(table, |table, (name, trip)| {
        table.row([(*name).into(), trip.p50.into(), trip.p99.into()])
    })
}
