//! One header line, and what its name means.

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use zeroize::Zeroizing;

use super::ParseError;
use super::shared::Piece;

/// One header line with its bytes: name, colon, value, folds and line ending.
#[derive(Clone)]
pub struct Header {
    line: Piece,
    value_at: u32,
    value_end: u32,
    name_len: u16,
    tag: Tag,
    /// The value goes over several lines.
    folded: bool,
}

impl PartialEq for Header {
    fn eq(&self, other: &Header) -> bool {
        self.line == other.line
    }
}

impl Eq for Header {}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({})", self.name())
    }
}

/// A name that is looked for.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    long: &'a [u8],
    tag: Tag,
}

impl<'a> Name<'a> {
    pub fn new(name: &'a str) -> Name<'a> {
        let long = long_name(name.as_bytes());
        let tag = tag(long);
        Name { long, tag }
    }
}

/// Which names differ: their first and middle letters, blind to case.
type Tag = [u8; 2];

fn tag(long: &[u8]) -> Tag {
    [0, long.len() / 2].map(|at| long.get(at).copied().unwrap_or(0) | 0x20)
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
        let plain = memchr::memchr3(b'\r', b'\n', 0, bytes).unwrap_or(bytes.len());
        raw.extend_from_slice(&bytes[..plain]);
        let mut at = plain;
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
            folded: folded(&raw[value_at..value_end]),
            line: Piece::new(raw),
            tag: tag(long_name(name.as_bytes())),
            name_len: name.len() as u16,
            value_at: value_at as u32,
            value_end: value_end as u32,
        }
    }

    /// Takes one line of a message apart; `line` ends with its line ending.
    pub(super) fn parse(line: Piece) -> Result<Header, ParseError> {
        let raw: &[u8] = &line;
        let colon = memchr(b':', raw).ok_or(ParseError::Header)?;
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
            tag: tag(long_name(name)),
            name_len: name.len() as u16,
            value_at: from as u32,
            value_end: to as u32,
            folded: folded(&raw[from..to]),
            line,
        })
    }

    /// The name as it is written, perhaps compact.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).unwrap_or("")
    }

    fn name_bytes(&self) -> &[u8] {
        &self.line[..self.name_len as usize]
    }

    /// Whether this is its name.
    #[inline]
    pub(super) fn is(&self, name: Name<'_>) -> bool {
        self.tag == name.tag && long_name(self.name_bytes()).eq_ignore_ascii_case(name.long)
    }

    /// The value's bytes without blanks at its ends, folds left in.
    pub fn raw_value(&self) -> &[u8] {
        &self.line[self.value_at as usize..self.value_end as usize]
    }

    /// The value as text: folds become blanks, bytes that are not UTF-8 the replacement character.
    pub fn value(&self) -> Cow<'_, str> {
        let raw = self.raw_value();
        let text = match std::str::from_utf8(raw) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(raw),
        };
        if self.folded {
            Cow::Owned(unfold(&text))
        } else {
            text
        }
    }

    /// What `read` makes of it, for what may be keys: where a fold or a byte that is not
    /// UTF-8 makes a copy of the whole value, that is wiped.
    pub(crate) fn with_secret<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        let raw = self.raw_value();
        match std::str::from_utf8(raw) {
            Ok(text) if !self.folded => read(text),
            _ => {
                let text = Zeroizing::new(String::from_utf8_lossy(raw).into_owned());
                read(&Zeroizing::new(unfold(&text)))
            }
        }
    }

    /// The whole line, line ending included.
    pub fn raw(&self) -> &[u8] {
        &self.line
    }

    /// Puts other bytes in the value's place; name and line ending stay.
    pub(super) fn splice_value(&mut self, value: &[&[u8]]) {
        let (at, end) = (self.value_at as usize, self.value_end as usize);
        let new: usize = value.iter().map(|part| part.len()).sum();
        let mut raw = Vec::with_capacity(self.line.len() - (end - at) + new);
        raw.extend_from_slice(&self.line[..at]);
        value.iter().for_each(|part| raw.extend_from_slice(part));
        self.value_end = raw.len() as u32;
        raw.extend_from_slice(&self.line[end..]);
        self.folded = folded(&raw[at..self.value_end as usize]);
        self.line = Piece::new(raw);
    }
}

fn folded(value: &[u8]) -> bool {
    memchr2(b'\r', b'\n', value).is_some()
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
    const TOKEN: [bool; 256] = {
        let mut all = [false; 256];
        let mut b = 0;
        while b < 256 {
            all[b] = (b as u8).is_ascii_alphanumeric()
                || matches!(
                    b as u8,
                    b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~'
                );
            b += 1;
        }
        all
    };
    TOKEN[usize::from(b)]
}

/// Whether two header names mean one header, blind to case and compact forms.
pub fn same_name(a: &str, b: &str) -> bool {
    long_name(a.as_bytes()).eq_ignore_ascii_case(long_name(b.as_bytes()))
}

fn long_name(name: &[u8]) -> &[u8] {
    let [letter] = name else {
        return name;
    };
    match letter.to_ascii_lowercase() {
        b'a' => b"Accept-Contact",
        b'b' => b"Referred-By",
        b'c' => b"Content-Type",
        b'd' => b"Request-Disposition",
        b'e' => b"Content-Encoding",
        b'f' => b"From",
        b'i' => b"Call-ID",
        b'j' => b"Reject-Contact",
        b'k' => b"Supported",
        b'l' => b"Content-Length",
        b'm' => b"Contact",
        b'n' => b"Identity-Info",
        b'o' => b"Event",
        b'r' => b"Refer-To",
        b's' => b"Subject",
        b't' => b"To",
        b'u' => b"Allow-Events",
        b'v' => b"Via",
        b'x' => b"Session-Expires",
        b'y' => b"Identity",
        _ => name,
    }
}
