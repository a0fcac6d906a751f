//! The first line: request line or status line (RFC 3261 clauses 7.1 and 7.2).

use super::ParseError;
use super::line::is_token;

/// What the first line says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// A request: method and Request-URI.
    Request {
        /// As written; methods are case-sensitive.
        method: String,
        /// The Request-URI as text.
        uri: String,
    },
    /// A response: status code and reason phrase.
    Response {
        /// 100 to 699.
        code: u16,
        /// The reason phrase.
        reason: String,
    },
}

pub(super) fn start_line(start: &Start) -> Vec<u8> {
    match start {
        Start::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n").into_bytes(),
        Start::Response { code, reason } => format!("SIP/2.0 {code:03} {reason}\r\n").into_bytes(),
    }
}

pub(super) fn parse_start(raw: &[u8]) -> Result<Start, ParseError> {
    let line = String::from_utf8_lossy(raw);
    let line = line.trim_end_matches(['\r', '\n']);
    if line
        .get(..8)
        .is_some_and(|v| v.eq_ignore_ascii_case("SIP/2.0 "))
    {
        let rest = &line[8..];
        let code = rest
            .get(..3)
            .filter(|c| c.bytes().all(|b| b.is_ascii_digit()))
            .ok_or(ParseError::StartLine)?;
        let reason = rest[3..].strip_prefix(' ').unwrap_or(&rest[3..]);
        let code: u16 = code.parse().map_err(|_| ParseError::StartLine)?;
        if !(100..700).contains(&code) || (rest.len() > 3 && !rest[3..].starts_with(' ')) {
            return Err(ParseError::StartLine);
        }
        return Ok(Start::Response {
            code,
            reason: reason.into(),
        });
    }
    let mut words = line.split(' ');
    let (Some(method), Some(uri), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(ParseError::StartLine);
    };
    let good = !method.is_empty()
        && method.bytes().all(is_token)
        && !uri.is_empty()
        && version.eq_ignore_ascii_case("SIP/2.0");
    if !good {
        return Err(ParseError::StartLine);
    }
    Ok(Start::Request {
        method: method.into(),
        uri: uri.into(),
    })
}
