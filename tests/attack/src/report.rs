//! The table that people read.

use std::fmt::Write;

use crate::measure::{Measured, Outcome};
use crate::soak;

fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn middle(values: impl Iterator<Item = u64>) -> u64 {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or(0)
}

/// Whether all that is asked for holds.
pub fn holds(o: &Outcome) -> bool {
    o.forged + o.replayed + o.leaked == 0
        && o.series
            .iter()
            .all(|s| s.target.is_none_or(|t| median(&s.ratios()) >= t))
}

/// The outcome as text: medians over the rounds, and the spread of the ratio.
pub fn table(o: &Outcome) -> String {
    let mut t = String::new();
    let line = |t: &mut String, text: std::fmt::Arguments<'_>| {
        let _ = t.write_fmt(text);
        t.push('\n');
    };
    if let Some(most) = o.most {
        line(&mut t, format_args!("most: {most} packets a second"));
    }
    line(
        &mut t,
        format_args!("offered: {} packets a second of the phones\n", o.rate),
    );
    line(
        &mut t,
        format_args!(
            "{:<19} {:>9} {:>9} {:>6} {:>7} {:>7} {:>17} {:>6} {:>8} {:>9} {:>10}",
            "flood",
            "wanted/s",
            "sent/s",
            "lost",
            "quiet",
            "flood",
            "ratio",
            "target",
            "RSS",
            "fragments",
            "before XDP"
        ),
    );
    for s in &o.series {
        let loud = || s.rounds.iter().map(|(_, m)| m);
        let (wanted, sent) = (
            middle(loud().map(|m| m.flood.0)),
            middle(loud().map(|m| m.flood.1)),
        );
        let good = |get: &dyn Fn(&(Measured, Measured)) -> f64| {
            let mut all: Vec<f64> = s.rounds.iter().map(get).collect();
            all.sort_by(f64::total_cmp);
            median(&all)
        };
        let ratios = s.ratios();
        let (low, high) = (
            ratios.first().copied().unwrap_or(0.0),
            ratios.last().copied().unwrap_or(0.0),
        );
        let grown = loud()
            .map(|m| m.rss.1 as i64 - m.rss.0 as i64)
            .max()
            .unwrap_or(0);
        line(
            &mut t,
            format_args!(
                "{:<19} {:>9} {:>9} {:>5.0}% {:>7.3} {:>7.3} {:>5.3} {:.3}-{:.3} {:>5} {:>6}kB {:>7}kB {:>10}",
                s.kind,
                wanted,
                sent,
                100.0 * (1.0 - sent as f64 / wanted.max(1) as f64),
                good(&|r| r.0.goodput),
                good(&|r| r.1.goodput),
                median(&ratios),
                low,
                high,
                s.target.map_or("-".into(), |t| format!("{t:.1}")),
                grown / 1024,
                loud().map(|m| m.reassembly.1).max().unwrap_or(0) / 1024,
                middle(loud().map(|m| m.lost_before)),
            ),
        );
    }
    line(
        &mut t,
        format_args!("\nends of packets under the flood (last round):"),
    );
    for s in &o.series {
        let Some((_, m)) = s.rounds.last() else {
            continue;
        };
        let reasons: Vec<String> = m.reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
        line(
            &mut t,
            format_args!("  {:<19} {}", s.kind, reasons.join(", ")),
        );
    }
    line(
        &mut t,
        format_args!(
            "\naccepted forgeries {}, accepted replays {}, lost frames {}",
            o.forged, o.replayed, o.leaked
        ),
    );
    t
}

/// One moment of a soak, as a line.
pub fn look(l: &soak::Look) -> String {
    format!(
        "{:>6.0} s: {} SAs, {} phones changed, {} of {} delivered, {} late, RSS {} kB, {} files, {} of {} frames free",
        l.at,
        l.sas.1,
        l.churned,
        l.delivered.1,
        l.delivered.0,
        l.late,
        l.rss / 1024,
        l.descriptors,
        l.frames.1,
        l.frames.0
    )
}

/// What came of a soak.
pub fn soak(o: &soak::Outcome) -> String {
    let reasons: Vec<String> = o.reasons.iter().map(|(r, n)| format!("{r} {n}")).collect();
    let quarter = o.looks.get(o.looks.len() / 4).map_or(0, |l| l.rss);
    let last = o.looks.last().map_or(0, |l| l.rss);
    let mut t = format!(
        "{}\nends of packets: {}\nRSS {} kB after a quarter of the time, {} kB at its end\n\
         accepted on SAs that were gone {}, forgeries {}, replays {}\n",
        look(&o.end),
        reasons.join(", "),
        quarter / 1024,
        last / 1024,
        o.accepted_removed,
        o.accepted_forged,
        o.accepted_replayed,
    );
    match o.wrong.as_slice() {
        [] => t.push_str("nothing is wrong"),
        wrong => t.push_str(&wrong.join("\n")),
    }
    t
}
