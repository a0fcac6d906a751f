//! Dropped packets and explanations, for people and for programs.

use std::collections::BTreeMap;
use std::io::Write;

use gm_api::drops::{
    DropLine, DropReport, DropSample, Explanation, LeftOut, PrefixRow, Verdict, Weight,
};

use crate::Error;
use crate::args::{By, Drops};
use crate::client::Client;
use crate::commands::print_json;
use crate::table::{address, new, plain, right, time};

/// Characters in a line of an explanation.
const WIDTH: usize = 88;

/// Samples that are fetched to find the wanted ones among them.
const LOOK_THROUGH: usize = 4096;

pub(crate) async fn drops(client: &Client, args: &Drops, out: &mut dyn Write) -> Result<(), Error> {
    if args.follow {
        return follow(client, args, out).await;
    }
    if let Some(most) = args.last {
        return last(client, args, most, out).await;
    }
    match args.by {
        By::Reason => {
            let report = client.drops().await?;
            if args.json {
                return print_json(out, &report);
            }
            writeln!(out, "{}", reasons(&report))?;
        }
        By::Prefix => {
            let rows = client.prefixes(args.limit).await?;
            if args.json {
                return print_json(out, &rows);
            }
            writeln!(out, "{}", prefixes(&rows))?;
        }
        By::Sa => {
            let mut rows = client.list().await?;
            rows.retain(|row| !row.drops.is_empty());
            if args.json {
                return print_json(out, &rows);
            }
            if rows.is_empty() {
                writeln!(out, "no SA has dropped packets")?;
            } else {
                writeln!(out, "{}", crate::table::sas(&rows))?;
            }
        }
    }
    Ok(())
}

async fn follow(client: &Client, args: &Drops, out: &mut dyn Write) -> Result<(), Error> {
    let mut lines = client.follow_drops().await?;
    while let Some(line) = lines.next().await? {
        let line = match line {
            DropLine::Sample(sample) if wanted(args, &sample) => DropLine::Sample(sample),
            DropLine::Sample(_) => continue,
            DropLine::LeftOut(left_out) => match narrowed(args, left_out) {
                Some(left_out) => DropLine::LeftOut(left_out),
                None => continue,
            },
        };
        if args.json {
            serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            let text = match &line {
                DropLine::Sample(sample) => sample_line(sample),
                DropLine::LeftOut(left_out) => left_out_line(left_out),
            };
            writeln!(out, "{text}")?;
        }
        out.flush()?;
    }
    Ok(())
}

async fn last(
    client: &Client,
    args: &Drops,
    most: usize,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let mut samples = client.recent_drops(None, LOOK_THROUGH).await?;
    samples.retain(|sample| wanted(args, sample));
    samples.truncate(most);
    // The newest last, as with `tail`.
    samples.reverse();
    if samples.is_empty() && !args.json {
        writeln!(out, "no samples")?;
    }
    for sample in &samples {
        if args.json {
            serde_json::to_writer(&mut *out, sample).map_err(std::io::Error::from)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", sample_line(sample))?;
        }
    }
    Ok(())
}

fn wanted(args: &Drops, sample: &DropSample) -> bool {
    (args.reason.is_empty() || args.reason.contains(&sample.reason))
        && (args.address.is_empty()
            || args.address.contains(&sample.src)
            || args.address.contains(&sample.dst))
        && (args.spi.is_empty() || sample.spi.is_some_and(|spi| args.spi.contains(&spi)))
}

/// What was left out of the wanted reasons; which addresses and SPIs that was
/// nobody knows.
fn narrowed(args: &Drops, mut left_out: LeftOut) -> Option<LeftOut> {
    if !args.reason.is_empty() {
        left_out
            .left_out
            .retain(|reason, _| args.reason.contains(reason));
    }
    (!left_out.left_out.is_empty() || left_out.missed > 0).then_some(left_out)
}

/// A dropped packet as a line: time of day (UTC), direction, from where to
/// where, SPI and number, reason.
pub(crate) fn sample_line(sample: &DropSample) -> String {
    let port = |ip, port: Option<u16>| match port {
        Some(_) => address((ip, port)),
        None => ip.to_string(),
    };
    let mut line = format!(
        "{}  {:<3}  {:<18}  {} {} > {}",
        time(sample.time_ms),
        sample.direction,
        plain(&sample.reason),
        plain(&sample.proto),
        port(sample.src, sample.src_port),
        port(sample.dst, sample.dst_port),
    );
    if let Some(spi) = sample.spi {
        line += &format!("  SPI {spi} ({spi:#x})");
    }
    if let Some(seq) = sample.seq {
        line += &format!(" seq {seq}");
    }
    line += &format!("  {} bytes at {}", sample.length, plain(&sample.station));
    if let Some(interface) = &sample.interface {
        line += &format!(" {}", plain(interface));
    }
    line
}

fn left_out_line(left_out: &LeftOut) -> String {
    let mut parts: Vec<String> = left_out
        .left_out
        .iter()
        .map(|(reason, n)| format!("{} {n}", plain(reason)))
        .collect();
    if left_out.missed > 0 {
        parts.push(format!(
            "{} samples, this terminal was too slow",
            left_out.missed
        ));
    }
    format!(
        "{}  ...  not shown: {}",
        time(left_out.time_ms),
        parts.join(", ")
    )
}

fn reasons(report: &DropReport) -> String {
    if report.reasons.is_empty() {
        return "nothing was dropped".into();
    }
    let mut table = new(&["reason", "packets", "what to look at"]);
    for row in &report.reasons {
        table.add_row([
            plain(&row.reason).into_owned(),
            row.packets.to_string(),
            plain(&row.advice).into_owned(),
        ]);
    }
    right(&mut table, &[1]);
    table
        .set_content_arrangement(comfy_table::ContentArrangement::Dynamic)
        .set_width(100);
    table.to_string()
}

fn prefixes(rows: &[PrefixRow]) -> String {
    if rows.is_empty() {
        return "no phone has dropped packets".into();
    }
    let mut table = new(&["phone", "packets", "reasons"]);
    for row in rows {
        table.add_row([
            plain(&row.prefix).into_owned(),
            row.packets.to_string(),
            by_count(&row.reasons),
        ]);
    }
    right(&mut table, &[1]);
    table.to_string()
}

/// `reason n, reason n`, the most first.
fn by_count(reasons: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = reasons.iter().collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let all = all
        .iter()
        .map(|(reason, n)| format!("{} {n}", plain(reason)));
    all.collect::<Vec<_>>().join(", ")
}

/// An explanation as people read it.
pub(crate) fn explanation(said: &Explanation, out: &mut dyn Write) -> std::io::Result<()> {
    let head = match said.verdict {
        Verdict::Fine => "nothing is wrong",
        Verdict::Trouble => "something is wrong",
        Verdict::Unknown => "unknown",
    };
    writeln!(out, "{}: {head}", said.address)?;
    let mut heading = None;
    for finding in &said.findings {
        if heading != Some(finding.weight) {
            heading = Some(finding.weight);
            let text = match finding.weight {
                Weight::Cause => "Probable causes, the first one first",
                Weight::Hint => "Also seen",
                Weight::State => "How it stands",
            };
            writeln!(out, "\n{text}")?;
        }
        let text = format!("{} [{}]", plain(&finding.text), plain(&finding.cause));
        wrapped(out, "  * ", "    ", &text)?;
        for line in &finding.evidence {
            wrapped(out, "      - ", "        ", &plain(line))?;
        }
        if let Some(advice) = &finding.advice {
            wrapped(out, "      What to do: ", "        ", &plain(advice))?;
        }
    }
    Ok(())
}

fn wrapped(out: &mut dyn Write, first: &str, other: &str, text: &str) -> std::io::Result<()> {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + word.chars().count() >= WIDTH {
            writeln!(out, "{line}")?;
            line = other.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(out, "{line}")
}

#[cfg(test)]
mod tests;
