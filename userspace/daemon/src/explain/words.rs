//! Times, SPIs and packets as people read them.

use std::net::{IpAddr, SocketAddr};

use gm_api::control::SaStatus;
use gm_api::sad::Dir;

use super::facts::{Gone, Seen};

/// A time that has passed.
pub fn ago(ms: u64) -> String {
    format!("{} ago", span(ms))
}

/// A time.
pub fn span(ms: u64) -> String {
    match ms / 1000 {
        0..10 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        s @ 10..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

/// An SPI in both ways that people write it.
pub fn spi(spi: u32) -> String {
    format!("SPI {spi} ({spi:#x})")
}

/// `1 packet`, `2 packets`.
pub fn packets(n: u64) -> String {
    if n == 1 {
        "1 packet".into()
    } else {
        format!("{n} packets")
    }
}

/// An address, with its port where there is one.
pub fn end(ip: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(ip, port).to_string(),
        None => ip.to_string(),
    }
}

/// A dropped packet.
pub fn seen(seen: &Seen) -> String {
    let s = &seen.sample;
    let mut text = format!(
        "{}: {} {} to {}",
        ago(seen.ago_ms),
        protocol(s.proto),
        end(s.src, s.src_port),
        end(s.dst, s.dst_port)
    );
    if let Some(number) = s.spi {
        text += &format!(", {}", spi(number));
    }
    if let Some(seq) = s.seq {
        text += &format!(", sequence number {seq}");
    }
    text + &format!(", {} bytes: {}", s.len, s.reason.name())
}

/// The name of an IP protocol, or its number.
pub fn protocol(proto: u8) -> String {
    match proto {
        1 | 58 => "ICMP".into(),
        6 => "TCP".into(),
        17 => "UDP".into(),
        50 => "ESP".into(),
        other => format!("protocol {other}"),
    }
}

/// An SA that is installed.
pub fn sa(row: &SaStatus) -> String {
    let dir = row.sa.dir.unwrap_or(Dir::In);
    let (direction, number) = match dir {
        Dir::In => ("in", format!("highest number {}", row.top)),
        Dir::Out => ("out", format!("last number {}", row.sa.seq.unwrap_or(0))),
    };
    let set = row.sa.set.map_or_else(String::new, |n| format!("set {n} "));
    let mut text = format!(
        "{set}{direction}, {}, {} to {}, {}, {}, {}",
        spi(row.sa.spi),
        end(row.sa.src, row.sa.src_port),
        end(row.sa.dst, row.sa.dst_port),
        row.state,
        packets(row.packets),
        number,
    );
    if let Some(ms) = row.idle_ms {
        text += &format!(", last packet {}", ago(ms));
    }
    for (reason, n) in &row.drops {
        text += &format!(", {reason} {n}");
    }
    text
}

/// An SA that was removed.
pub fn gone(gone: &Gone) -> String {
    let set = gone
        .set
        .map_or_else(String::new, |n| format!(" of set {n}"));
    let why = gone
        .why
        .as_ref()
        .map_or_else(String::new, |why| format!(" ({why})"));
    format!(
        "{}{set} was deleted {}{why}; it had carried {}",
        spi(gone.spi),
        ago(gone.ago_ms),
        packets(gone.packets)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_exact_as_they_are_short() {
        let spans = [0, 1_250, 59_000, 119_999, 120_000, 7_300_000, 200_000_000];
        let texts = ["0.0 s", "1.2 s", "59 s", "119 s", "2 min", "2 h", "2 days"];
        assert_eq!(spans.map(span), texts);
    }

    #[test]
    fn ends_have_a_port_where_there_is_one() {
        let v6 = "2001:db8::7".parse().unwrap();
        assert_eq!(end(v6, Some(5060)), "[2001:db8::7]:5060");
        assert_eq!(end(v6, None), "2001:db8::7");
    }
}
