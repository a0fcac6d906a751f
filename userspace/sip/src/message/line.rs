//! One header line, and what its name means.

use std::borrow::Cow;
use std::fmt;

use zeroize::Zeroize;

use super::ParseError;

/// One header line with its bytes: name, colon, value, folds and line ending.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    raw: Vec<u8>,
    name_len: usize,
    value_at: usize,
    value_end: usize,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({})", self.name())
    }
}

/// A 401 of the core carries IK and CK: no line stays in freed memory.
impl Drop for Header {
    fn drop(&mut self) {
        self.raw.zeroize();
    }
}

impl Header {
    /// A new line `name: value`. A NUL, or a CR or LF that is no fold, becomes a
    /// blank, so that no value can grow a second header or end the line for some.
    pub fn new(name: &str, value: &str) -> Header {
        let mut raw = Vec::with_capacity(name.len() + value.len() + 4);
        raw.extend_from_slice(name.as_bytes());
        raw.extend_from_slice(b": ");
        let value_at = raw.len();
        let bytes = value.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let fold =
                bytes[at..].starts_with(b"\r\n") && matches!(bytes.get(at + 2), Some(b' ' | b'\t'));
            if fold {
                raw.extend_from_slice(&bytes[at..at + 3]);
                at += 3;
                continue;
            }
            raw.push(if matches!(bytes[at], b'\r' | b'\n' | 0) {
                b' '
            } else {
                bytes[at]
            });
            at += 1;
        }
        let value_end = raw.len();
        raw.extend_from_slice(b"\r\n");
        Header {
            raw,
            name_len: name.len(),
            value_at,
            value_end,
        }
    }

    /// Takes one line apart; `raw` ends with its line ending.
    pub(super) fn parse(raw: &[u8]) -> Result<Header, ParseError> {
        let colon = raw
            .iter()
            .position(|&b| b == b':')
            .ok_or(ParseError::Header)?;
        let name = raw[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
            return Err(ParseError::Header);
        }
        // From the end first: the value of an empty line stands before its line ending.
        let (mut from, mut to) = (colon + 1, raw.len());
        while to > from && raw[to - 1].is_ascii_whitespace() {
            to -= 1;
        }
        while from < to && raw[from].is_ascii_whitespace() {
            from += 1;
        }
        Ok(Header {
            raw: raw.to_vec(),
            name_len: name.len(),
            value_at: from,
            value_end: to,
        })
    }

    /// The name as it is written, perhaps compact.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.raw[..self.name_len]).unwrap_or("")
    }

    /// The value's bytes without blanks at its ends, folds left in.
    pub fn raw_value(&self) -> &[u8] {
        &self.raw[self.value_at..self.value_end]
    }

    /// The value as text: folds become blanks, bytes that are not UTF-8 the replacement character.
    pub fn value(&self) -> Cow<'_, str> {
        let text = String::from_utf8_lossy(self.raw_value());
        if text.contains(['\r', '\n']) {
            Cow::Owned(unfold(&text))
        } else {
            text
        }
    }

    /// The whole line, line ending included.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Puts other bytes in the value's place; name and line ending stay.
    pub(super) fn splice_value(&mut self, value: &[u8]) {
        let mut raw = self.raw[..self.value_at].to_vec();
        raw.extend_from_slice(value);
        let value_end = raw.len();
        raw.extend_from_slice(&self.raw[self.value_end..]);
        // The old line may have held keys.
        self.raw.zeroize();
        self.raw = raw;
        self.value_end = value_end;
    }
}

fn unfold(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut fold = false;
    for c in text.chars() {
        match c {
            '\r' | '\n' => fold = true,
            ' ' | '\t' if fold => {}
            _ => {
                if std::mem::take(&mut fold) {
                    out.push(' ');
                }
                out.push(c);
            }
        }
    }
    out
}

/// Whether a byte may stand in a token (RFC 3261 clause 25.1).
pub(crate) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b)
}

/// Whether two header names mean one header, blind to case and compact forms.
pub fn same_name(a: &str, b: &str) -> bool {
    long_name(a).eq_ignore_ascii_case(long_name(b))
}

fn long_name(name: &str) -> &str {
    let [letter] = name.as_bytes() else {
        return name;
    };
    match letter.to_ascii_lowercase() {
        b'a' => "Accept-Contact",
        b'b' => "Referred-By",
        b'c' => "Content-Type",
        b'd' => "Request-Disposition",
        b'e' => "Content-Encoding",
        b'f' => "From",
        b'i' => "Call-ID",
        b'j' => "Reject-Contact",
        b'k' => "Supported",
        b'l' => "Content-Length",
        b'm' => "Contact",
        b'n' => "Identity-Info",
        b'o' => "Event",
        b'r' => "Refer-To",
        b's' => "Subject",
        b't' => "To",
        b'u' => "Allow-Events",
        b'v' => "Via",
        b'x' => "Session-Expires",
        b'y' => "Identity",
        _ => name,
    }
}
