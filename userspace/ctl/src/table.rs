//! What people see: tables and lines.

use std::net::IpAddr;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table, TableComponent};
use gm_api::control::{FlowEvent, Health, SaStatus, Stats};
use gm_api::sad::Dir;

/// The SAs, one line each.
pub fn sas(rows: &[SaStatus]) -> String {
    let mut table = new(&[
        "set", "dir", "SPI", "mode", "from", "to", "suite", "state", "seq/top", "packets", "bytes",
        "drops",
    ]);
    for row in rows {
        let sa = &row.sa;
        let drops: Vec<String> = row
            .drops
            .iter()
            .map(|(reason, n)| format!("{reason} {n}"))
            .collect();
        let (dir, at) = match sa.dir {
            Some(Dir::Out) => ("out", sa.seq.unwrap_or(0)),
            Some(Dir::In) | None => ("in", row.top),
        };
        table.add_row([
            sa.set.map_or_else(|| "-".to_owned(), |set| set.to_string()),
            dir.to_owned(),
            sa.spi.to_string(),
            sa.mode.clone(),
            end(
                (sa.src, sa.src_port),
                sa.outer_src.map(|ip| (ip, sa.encap_sport)),
            ),
            end(
                (sa.dst, sa.dst_port),
                sa.outer_dst.map(|ip| (ip, sa.encap_dport)),
            ),
            format!("{}/{}", sa.alg, sa.ealg),
            row.state.clone(),
            at.to_string(),
            row.packets.to_string(),
            row.bytes.to_string(),
            drops.join(", "),
        ]);
    }
    right(&mut table, &[0, 2, 8, 9, 10]);
    table.to_string()
}

pub(crate) type End = (IpAddr, Option<u16>);

/// `inner:port` and, behind a NAT, the outer end in parentheses.
fn end(inner: End, outer: Option<End>) -> String {
    match outer {
        Some(outer) => format!("{} (via {})", address(inner), address(outer)),
        None => address(inner),
    }
}

/// A port that is any, or not known yet, is a star.
pub(crate) fn address((ip, port): End) -> String {
    let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// The reasons that have counted anything.
pub fn reasons(stats: &Stats) -> String {
    let mut table = new(&["reason", "packets"]);
    for (reason, n) in stats.reasons.iter().filter(|(_, n)| **n > 0) {
        table.add_row([reason.clone(), n.to_string()]);
    }
    if table.row_count() == 0 {
        return "no packets yet".into();
    }
    right(&mut table, &[1]);
    table.to_string()
}

/// What the SIP side has refused; empty when it has nothing.
pub fn refusals(stats: &Stats) -> String {
    if stats.refusals.is_empty() {
        return String::new();
    }
    let mut table = new(&["refused", "messages"]);
    for (reason, n) in &stats.refusals {
        table.add_row([reason.clone(), n.to_string()]);
    }
    right(&mut table, &[1]);
    table.to_string()
}

/// The workers and their sockets, one line each.
pub fn workers(stats: &Stats) -> String {
    let mut table = new(&[
        "worker",
        "queues",
        "cpu",
        "batches",
        "packets",
        "handed out",
        "handed in",
        "frames",
        "free",
        "leaked",
        "tap missed",
        "restarts",
    ]);
    let mut sockets = new(&[
        "worker",
        "socket",
        "rx dropped",
        "rx ring full",
        "fill ring empty",
        "tx invalid",
    ]);
    for row in &stats.workers {
        table.add_row([
            row.worker.to_string(),
            queues(&row.lanes),
            row.cpu
                .map_or_else(|| "any".to_owned(), |cpu| cpu.to_string()),
            row.batches.to_string(),
            row.packets.to_string(),
            row.handed_out.to_string(),
            row.handed_in.to_string(),
            row.frames.to_string(),
            row.frames_free.to_string(),
            row.frames_leaked.to_string(),
            row.tap_missed.to_string(),
            row.restarts.to_string(),
        ]);
        for socket in &row.sockets {
            sockets.add_row([
                row.worker.to_string(),
                format!("{} queue {}", socket.interface, socket.queue),
                socket.rx_dropped.to_string(),
                socket.rx_ring_full.to_string(),
                socket.fill_ring_empty.to_string(),
                socket.tx_invalid.to_string(),
            ]);
        }
    }
    right(&mut table, &[0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    right(&mut sockets, &[0, 2, 3, 4, 5]);
    format!("{table}\n{sockets}")
}

/// Queue numbers, or a dash.
fn queues(lanes: &[u32]) -> String {
    let all: Vec<String> = lanes.iter().map(u32::to_string).collect();
    if all.is_empty() {
        "-".into()
    } else {
        all.join(" ")
    }
}

/// The health, one `name: value` per line.
pub fn health(health: &Health) -> String {
    let addresses: Vec<String> = health.addresses.iter().map(IpAddr::to_string).collect();
    let edge = if health.edge {
        format!("on, {} registered", health.registrations)
    } else {
        "off".into()
    };
    let mut lines = vec![
        ("status", health.status.clone()),
        ("version", health.version.clone()),
        ("pid", health.pid.to_string()),
        ("uptime", format!("{} s", health.uptime_s)),
        ("plane", health.data_plane.clone()),
        ("engine", health.engine.clone()),
        ("uplinks", health.uplinks.join(", ")),
        ("addresses", addresses.join(", ")),
        ("SAs", format!("{} of {}", health.sas, health.max_sas)),
        ("edge", edge),
        (
            "capture",
            health.capture.clone().unwrap_or_else(|| "off".into()),
        ),
    ];
    lines.extend(health.lost.iter().map(|lost| ("lost", lost.clone())));
    let lines: Vec<String> = lines
        .iter()
        .map(|(name, value)| format!("{:<11}{value}", format!("{name}:")))
        .collect();
    lines.join("\n")
}

/// The time of day, UTC, of milliseconds since 1970.
pub(crate) fn time(ms: u64) -> String {
    let ms = ms % 86_400_000;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:03}", ms % 1000)
}

/// One event as a line: time of day (UTC), step, and what is known.
pub fn event(event: &FlowEvent) -> String {
    let mut line = format!("{}  {:<12}", time(event.time_ms), event.step);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line += &format!(" {name} {}", plain(&value));
        }
    };
    add("impi", event.impi.clone());
    add("ue", event.ue.clone());
    add("suite", event.suite.clone());
    add("mode", event.mode.clone());
    add("set", event.set.map(|set| set.to_string()));
    let spis: Vec<String> = event
        .spis
        .iter()
        .map(|(name, spi)| format!("{name}={spi}"))
        .collect();
    add("SPIs", (!spis.is_empty()).then(|| spis.join(" ")));
    add("status", event.status.map(|status| status.to_string()));
    add("reason:", event.reason.clone());
    add("that is:", event.explain.clone());
    line
}

/// What strangers wrote, without what a terminal would obey: control characters and
/// those that turn or hide text stand as escapes.
pub fn plain(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(moves_terminal) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if moves_terminal(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out.into()
}

fn moves_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Lines above, below and under the header only.
pub(crate) fn new(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(header);
    table.remove_style(TableComponent::HorizontalLines);
    table.remove_style(TableComponent::MiddleIntersections);
    table.remove_style(TableComponent::LeftBorderIntersections);
    table.remove_style(TableComponent::RightBorderIntersections);
    table
}

pub(crate) fn right(table: &mut Table, columns: &[usize]) {
    for index in columns {
        if let Some(column) = table.column_mut(*index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_show_ports_and_the_nat() {
        let inner: End = ("192.0.2.7".parse().unwrap(), Some(5061));
        let outer: End = ("2001:db8::1".parse().unwrap(), None);
        assert_eq!(end(inner, None), "192.0.2.7:5061");
        assert_eq!(
            end(inner, Some(outer)),
            "192.0.2.7:5061 (via [2001:db8::1]:*)"
        );
    }

    #[test]
    fn an_event_is_one_line() {
        let shown = event(&FlowEvent {
            time_ms: 86_400_000 + 3_723_004,
            step: "SM6".into(),
            impi: Some("001@ims".into()),
            spis: [("uc".to_owned(), 1), ("us".to_owned(), 2)].into(),
            status: Some(401),
            ..FlowEvent::default()
        });
        assert_eq!(
            shown,
            "01:02:03.004  SM6          impi 001@ims SPIs uc=1 us=2 status 401"
        );
    }

    #[test]
    fn a_strangers_name_does_not_drive_the_terminal() {
        let shown = event(&FlowEvent {
            step: "SM1".into(),
            impi: Some("a\u{1b}]0;x\u{7}\r\n\u{9b}2J\u{202e}ü@ims".into()),
            ..FlowEvent::default()
        });
        let ending = " impi a\\u{1b}]0;x\\u{7}\\u{d}\\u{a}\\u{9b}2J\\u{202e}ü@ims";
        assert!(shown.ends_with(ending), "{shown}");
    }

    #[test]
    fn quiet_counters_are_left_out() {
        let stats = Stats {
            reasons: [("ok".to_owned(), 2), ("replay".to_owned(), 0)].into(),
            refusals: [("collision".to_owned(), 3)].into(),
            workers: Vec::new(),
        };
        let shown = reasons(&stats);
        assert!(shown.contains("ok") && !shown.contains("replay"), "{shown}");
        assert!(refusals(&stats).contains("collision"));
    }
}
