//! Via (RFC 3261 clause 20.42) with received and rport (RFC 3581).

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::list::{self, Params};

/// A host in a Via or URI: an address or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address; IPv6 in brackets on the wire.
    Ip(IpAddr),
    /// A name, to be resolved by others.
    Name(String),
}

impl Host {
    /// Parses `1.2.3.4`, `[2001:db8::1]`, a bare IPv6 address, or a name.
    pub fn parse(text: &str) -> Option<Host> {
        let text = text.trim();
        let inner = text
            .strip_prefix('[')
            .and_then(|t| t.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(ip) = inner.parse() {
            return Some(Host::Ip(ip));
        }
        let good = !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        good.then(|| Host::Name(text.to_ascii_lowercase()))
    }

    /// The address, when it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Host::Ip(ip) => Some(*ip),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// Splits `host[:port]`.
pub(crate) fn host_port(text: &str) -> Option<(Host, Option<u16>)> {
    let text = text.trim();
    // One colon, or one behind a bracket, is in front of a port; others are an IPv6 address's.
    let ends = text.rsplit_once(':');
    let ends = ends.filter(|(host, _)| !host.contains(':') || host.trim_end().ends_with(']'));
    match ends {
        Some((host, port)) => Some((Host::parse(host)?, Some(port.trim().parse().ok()?))),
        None => Some((Host::parse(text)?, None)),
    }
}

/// One Via.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// UDP, TCP or another, in upper case.
    pub transport: String,
    /// The sender's host as it says.
    pub host: Host,
    /// The sender's port as it says.
    pub port: Option<u16>,
    /// branch, received, rport and others, in order.
    pub params: Params,
}

/// The same, of which the text is somebody else's.
pub(crate) struct ViaParts<'a> {
    transport: &'a str,
    pub host: Host,
    pub port: Option<u16>,
    params: &'a str,
}

impl<'a> ViaParts<'a> {
    pub fn parse(text: &'a str) -> Option<ViaParts<'a>> {
        if !list::closed(text.as_bytes()) {
            return None;
        }
        let end = list::find(text.as_bytes(), b';');
        let (head, params) = text.split_at(end);
        let mut parts = head.trim().splitn(3, '/');
        let (name, version, rest) = (
            parts.next()?.trim(),
            parts.next()?.trim(),
            parts.next()?.trim_start(),
        );
        if !name.eq_ignore_ascii_case("SIP") || version != "2.0" {
            return None;
        }
        let (transport, sent_by) = rest.split_once(|c: char| c.is_ascii_whitespace())?;
        let blank = |c: char| c.is_ascii_whitespace();
        let sent_by = sent_by.trim_matches(blank);
        let sent_by = match sent_by.contains(blank) {
            true => Cow::Owned(sent_by.split_ascii_whitespace().collect()),
            false => Cow::Borrowed(sent_by),
        };
        let (host, port) = host_port(&sent_by)?;
        Some(ViaParts {
            transport,
            host,
            port,
            params,
        })
    }

    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        list::param(self.params, name)
    }

    pub fn reply_to(&self, source: SocketAddr) -> SocketAddr {
        let port = if self.param("rport").is_some() {
            source.port()
        } else {
            self.port.unwrap_or(5060)
        };
        SocketAddr::new(source.ip(), port)
    }
}

impl Via {
    /// Parses one element of a Via header; blanks around slash and colon are allowed.
    /// `None` too where a quote or bracket stays open: what is appended would be inside.
    pub fn parse(text: &str) -> Option<Via> {
        let parts = ViaParts::parse(text)?;
        Some(Via {
            transport: parts.transport.to_ascii_uppercase(),
            host: parts.host,
            port: parts.port,
            params: Params::parse(parts.params),
        })
    }

    /// The branch parameter.
    pub fn branch(&self) -> Option<String> {
        self.params.get("branch")
    }

    /// The received parameter as an address.
    pub fn received(&self) -> Option<IpAddr> {
        Host::parse(&self.params.get("received")?)?.ip()
    }

    /// Whether rport was asked for or is filled in.
    pub fn has_rport(&self) -> bool {
        self.params.get("rport").is_some()
    }

    /// Where a response to a request from `source` goes over UDP: the source address,
    /// with the source port when rport is there, else with the port of sent-by
    /// (RFC 3261 clause 18.2.2, RFC 3581 clause 4).
    pub fn reply_to(&self, source: SocketAddr) -> SocketAddr {
        let port = if self.has_rport() {
            source.port()
        } else {
            self.port.unwrap_or(5060)
        };
        SocketAddr::new(source.ip(), port)
    }
}

/// Writes the source of a packet into a Via element: `received` always when
/// `always` is set or the source differs from sent-by, the value of `rport` where
/// it is asked for. What the sender itself wrote as received is taken away.
/// Everything else keeps its bytes.
pub fn mark_source(element: &str, source: SocketAddr, always: bool) -> Option<String> {
    let via = ViaParts::parse(element)?;
    let mut out = String::with_capacity(element.len() + 64);
    let mut rest = element;
    let mut first = true;
    loop {
        let end = list::find(rest.as_bytes(), b';');
        let part = &rest[..end];
        let name = part.split('=').next().unwrap_or("").trim();
        if first {
            out.push_str(part.trim_end());
        } else if name.eq_ignore_ascii_case("rport") {
            // Writing to a string does not fail.
            let _ = write!(out, ";rport={}", source.port());
        } else if !name.eq_ignore_ascii_case("received") {
            out.push(';');
            out.push_str(part);
        }
        first = false;
        if end == rest.len() {
            break;
        }
        rest = &rest[end + 1..];
    }
    if always || via.param("rport").is_some() || via.host != Host::Ip(source.ip()) {
        let _ = write!(out, ";received={}", source.ip());
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        "SIP/2.0/UDP 192.0.2.1:5070;branch=z9hG4bK1;rport",
        "UDP",
        "192.0.2.1",
        Some(5070)
    )]
    #[case(
        "SIP / 2.0 / tcp [2001:db8::7] : 5070 ; branch = z9hG4bK1",
        "TCP",
        "2001:db8::7",
        Some(5070)
    )]
    #[case("SIP/2.0/UDP 2001:db8::7;branch=z9hG4bK1", "UDP", "2001:db8::7", None)]
    fn shapes(
        #[case] text: &str,
        #[case] transport: &str,
        #[case] ip: &str,
        #[case] port: Option<u16>,
    ) {
        let via = Via::parse(text).expect("a Via");
        assert_eq!((via.transport.as_str(), via.port), (transport, port));
        assert_eq!(via.host.ip(), ip.parse().ok());
        assert_eq!(via.branch().as_deref(), Some("z9hG4bK1"));
    }

    #[rstest]
    #[case("")]
    #[case("SIP/2.0/UDP")]
    #[case("HTTP/2.0/UDP a")]
    #[case("SIP/2.0/UDP a:99999")]
    #[case("SIP/2.0/UDP a;x=\"b")]
    #[case("SIP/2.0/UDP a;x=\"b\\\"")]
    #[case("SIP/2.0/UDP a;x=<b")]
    fn refused(#[case] text: &str) {
        assert_eq!(Via::parse(text), None);
    }

    #[test]
    fn source_is_written_and_a_spoofed_one_removed() {
        let source: SocketAddr = "198.51.100.9:40000".parse().expect("address");
        let via = "SIP/2.0/UDP 10.0.0.1:5060;received=1.1.1.1;x=\"a;b\";rport;branch=z9hG4bKa";
        let marked = mark_source(via, source, false).expect("marked");
        assert_eq!(
            marked,
            "SIP/2.0/UDP 10.0.0.1:5060;x=\"a;b\";rport=40000;branch=z9hG4bKa;received=198.51.100.9"
        );
        let same = "SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bKa";
        assert_eq!(mark_source(same, source, false).as_deref(), Some(same));
    }
}
