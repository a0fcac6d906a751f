//! A SIP message as it came: start line, header lines, body (RFC 3261 clause 7).
//!
//! Every header line keeps its bytes, folds and line ending included; what the
//! edge does not touch leaves it exactly as it arrived. Edits work on lines and
//! on elements of comma lists. `Debug` shows no header value, because a 401 of
//! the core carries IK and CK.

use std::borrow::Cow;
use std::fmt;

use crate::header::list;

/// The longest message that is taken, in bytes: a UDP datagram cannot be longer.
pub const MAX_MESSAGE: usize = 65_536;
/// The most header lines that a message may have.
pub const MAX_HEADERS: usize = 256;

/// Why bytes are no SIP message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Nothing but CR and LF: a keepalive (RFC 5626 clause 3.5.1).
    #[error("keepalive, no message")]
    Empty,
    /// Longer than [`MAX_MESSAGE`].
    #[error("message longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// More header lines than [`MAX_HEADERS`].
    #[error("more than {MAX_HEADERS} header lines")]
    TooManyHeaders,
    /// The first line is neither a request line nor a status line.
    #[error("start line is not SIP/2.0")]
    StartLine,
    /// A header line has no name, no colon, or bytes that no name has.
    #[error("malformed header line")]
    Header,
    /// The empty line after the headers is missing.
    #[error("no end of headers")]
    NoEnd,
    /// Content-Length is no number, or two of them differ.
    #[error("malformed Content-Length")]
    ContentLength,
    /// Content-Length promises more bytes than there are.
    #[error("body shorter than Content-Length")]
    Truncated,
}

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

impl Header {
    /// A new line `name: value`. A CR or LF in the value that is no fold becomes
    /// a blank, so that no value can grow a second header.
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
            raw.push(if matches!(bytes[at], b'\r' | b'\n') {
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
    fn parse(raw: &[u8]) -> Result<Header, ParseError> {
        let colon = raw
            .iter()
            .position(|&b| b == b':')
            .ok_or(ParseError::Header)?;
        let name = raw[..colon].trim_ascii_end();
        if name.is_empty() || !name.iter().all(|&b| is_token(b)) {
            return Err(ParseError::Header);
        }
        let (mut from, mut to) = (colon + 1, raw.len());
        while from < to && raw[from].is_ascii_whitespace() {
            from += 1;
        }
        while to > from && raw[to - 1].is_ascii_whitespace() {
            to -= 1;
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
    fn splice_value(&mut self, value: &[u8]) {
        let mut raw = self.raw[..self.value_at].to_vec();
        raw.extend_from_slice(value);
        let value_end = raw.len();
        raw.extend_from_slice(&self.raw[self.value_end..]);
        // The old line may have held keys.
        zeroize::Zeroize::zeroize(&mut self.raw);
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

/// A SIP message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    start: Start,
    start_raw: Vec<u8>,
    headers: Vec<Header>,
    end_raw: Vec<u8>,
    body: Vec<u8>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Message({:?}, {} headers, {} bytes)",
            self.start,
            self.headers.len(),
            self.body.len()
        )
    }
}

impl Message {
    /// Parses one datagram. CRLFs in front are skipped. The body is what
    /// Content-Length says, bytes behind it are dropped (RFC 3261 clause 18.3);
    /// without Content-Length it is the rest.
    pub fn parse(bytes: &[u8]) -> Result<Message, ParseError> {
        let (mut message, rest) = Message::split_head(bytes)?;
        let len = message.content_length()?.unwrap_or(rest.len());
        message.body = rest.get(..len).ok_or(ParseError::Truncated)?.to_vec();
        Ok(message)
    }

    /// Parses start line and headers only; the body stays empty.
    pub(crate) fn parse_head(bytes: &[u8]) -> Result<Message, ParseError> {
        Message::split_head(bytes).map(|(message, _)| message)
    }

    fn split_head(bytes: &[u8]) -> Result<(Message, &[u8]), ParseError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(ParseError::TooLong);
        }
        let skip = bytes
            .iter()
            .take_while(|&&b| matches!(b, b'\r' | b'\n'))
            .count();
        let bytes = &bytes[skip..];
        if bytes.is_empty() {
            return Err(ParseError::Empty);
        }
        let mut at = line_end(bytes, 0).ok_or(ParseError::NoEnd)?;
        let start_raw = bytes[..at].to_vec();
        let start = parse_start(&start_raw)?;
        let mut headers = Vec::new();
        loop {
            let mut end = line_end(bytes, at).ok_or(ParseError::NoEnd)?;
            if matches!(&bytes[at..end], b"\r\n" | b"\n") {
                let end_raw = bytes[at..end].to_vec();
                return Ok((
                    Message {
                        start,
                        start_raw,
                        headers,
                        end_raw,
                        body: Vec::new(),
                    },
                    &bytes[end..],
                ));
            }
            while matches!(bytes.get(end), Some(b' ' | b'\t')) {
                end = line_end(bytes, end).ok_or(ParseError::NoEnd)?;
            }
            if headers.len() == MAX_HEADERS {
                return Err(ParseError::TooManyHeaders);
            }
            headers.push(Header::parse(&bytes[at..end])?);
            at = end;
        }
    }

    /// A request without headers or body.
    pub fn request(method: &str, uri: &str) -> Message {
        let start = Start::Request {
            method: method.into(),
            uri: uri.into(),
        };
        Message::with_start(start)
    }

    /// A response to `request`: Via, From, To, Call-ID and CSeq are copied (RFC 3261
    /// clause 8.2.6.2), `to_tag` is added to a To that has none.
    pub fn response(request: &Message, code: u16, reason: &str, to_tag: &str) -> Message {
        let mut out = Message::with_start(Start::Response {
            code,
            reason: reason.into(),
        });
        for header in &request.headers {
            let keep = ["Via", "From", "To", "Call-ID", "CSeq"]
                .iter()
                .any(|n| same_name(n, header.name()));
            if !keep {
                continue;
            }
            let mut header = header.clone();
            if same_name(header.name(), "To")
                && crate::header::NameAddr::parse(&header.value())
                    .is_some_and(|to| to.param("tag").is_none())
            {
                let mut value = header.raw_value().to_vec();
                value.extend_from_slice(b";tag=");
                value.extend_from_slice(to_tag.as_bytes());
                header.splice_value(&value);
            }
            out.headers.push(header);
        }
        out
    }

    fn with_start(start: Start) -> Message {
        let start_raw = start_line(&start);
        Message {
            start,
            start_raw,
            headers: Vec::new(),
            end_raw: b"\r\n".to_vec(),
            body: Vec::new(),
        }
    }

    /// Appends a header line; for building.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Message {
        self.push(name, value);
        self
    }

    /// Sets the body and Content-Length; for building.
    #[must_use]
    pub fn with_body(mut self, body: &[u8]) -> Message {
        self.body = body.to_vec();
        self.set("Content-Length", &body.len().to_string());
        self
    }

    /// What the first line says.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The method of a request.
    pub fn method(&self) -> Option<&str> {
        match &self.start {
            Start::Request { method, .. } => Some(method),
            Start::Response { .. } => None,
        }
    }

    /// The Request-URI of a request.
    pub fn uri(&self) -> Option<&str> {
        match &self.start {
            Start::Request { uri, .. } => Some(uri),
            Start::Response { .. } => None,
        }
    }

    /// The status code of a response.
    pub fn status(&self) -> Option<u16> {
        match &self.start {
            Start::Request { .. } => None,
            Start::Response { code, .. } => Some(*code),
        }
    }

    /// Puts another Request-URI into a request; a response stays as it is.
    pub fn set_uri(&mut self, new: &str) {
        if let Start::Request { uri, .. } = &mut self.start {
            *uri = new.into();
            self.start_raw = start_line(&self.start);
        }
    }

    /// All header lines in order.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The lines of one header, in order, compact forms included.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        self.headers
            .iter()
            .filter(move |h| same_name(h.name(), name))
    }

    /// The first line's value, unfolded.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers
            .iter()
            .find(|h| same_name(h.name(), name))
            .map(Header::value)
    }

    /// All elements of a header that is a comma list, over all its lines.
    pub fn elements(&self, name: &str) -> Vec<String> {
        self.lines(name)
            .flat_map(|h| {
                list::split(&h.value(), ',')
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// The first element of a comma list: the topmost Via or Route.
    pub fn first_element(&self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        let first = list::split(&value, ',').next()?;
        Some(first.to_owned())
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Appends a header line after all others.
    pub fn push(&mut self, name: &str, value: &str) {
        self.headers.push(Header::new(name, value));
    }

    /// Inserts a line above the first one of that name, or at the very top.
    pub fn insert_top(&mut self, name: &str, value: &str) {
        let at = self.position(name).unwrap_or(0);
        self.headers.insert(at, Header::new(name, value));
    }

    /// Replaces the first line's value and removes the other lines, or appends.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.position(name) {
            Some(at) => {
                self.headers[at] = Header::new(name, value);
                let mut index = 0;
                self.headers.retain(|h| {
                    index += 1;
                    index <= at + 1 || !same_name(h.name(), name)
                });
            }
            None => self.push(name, value),
        }
    }

    /// Removes all lines of a header and says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.headers.len();
        self.headers.retain(|h| !same_name(h.name(), name));
        before - self.headers.len()
    }

    /// Rewrites each line of a header: the closure gets the value's bytes and gives
    /// other ones, or `None` to leave the line alone.
    pub fn rewrite(&mut self, name: &str, mut f: impl FnMut(&str) -> Option<String>) {
        for header in self
            .headers
            .iter_mut()
            .filter(|h| same_name(h.name(), name))
        {
            let text =
                zeroize::Zeroizing::new(String::from_utf8_lossy(header.raw_value()).into_owned());
            if let Some(new) = f(&text) {
                header.splice_value(new.as_bytes());
            }
        }
    }

    /// Takes every element equal to `element` (blind to case) out of a comma list;
    /// a line that has no other goes.
    pub fn remove_element(&mut self, name: &str, element: &str) {
        self.headers.retain_mut(|header| {
            if !same_name(header.name(), name) {
                return true;
            }
            let value = header.value().into_owned();
            let all: Vec<_> = list::split(&value, ',').collect();
            let left: Vec<_> = all
                .iter()
                .copied()
                .filter(|e| !e.eq_ignore_ascii_case(element))
                .collect();
            if left.len() < all.len() {
                header.splice_value(left.join(", ").as_bytes());
            }
            left.len() == all.len() || !left.is_empty()
        });
    }

    /// Puts `new` in the place of the first element of a comma list; the rest of
    /// the line keeps its bytes. False when there is no such header.
    pub fn replace_first_element(&mut self, name: &str, new: &str) -> bool {
        let Some(at) = self.position(name) else {
            return false;
        };
        let header = &mut self.headers[at];
        let value = header.raw_value();
        let end = list::first_end(value);
        let mut bytes = new.as_bytes().to_vec();
        bytes.extend_from_slice(&value[end..]);
        header.splice_value(&bytes);
        true
    }

    /// Takes the first element of a comma list away and gives it.
    pub fn remove_first_element(&mut self, name: &str) -> Option<String> {
        let at = self.position(name)?;
        let first = self.first_element(name)?;
        let header = &mut self.headers[at];
        let value = header.raw_value();
        let end = list::first_end(value);
        if end == value.len() {
            self.headers.remove(at);
        } else {
            let rest = value[end + 1..].trim_ascii_start().to_vec();
            header.splice_value(&rest);
        }
        Some(first)
    }

    /// The message's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let headers: usize = self.headers.iter().map(|h| h.raw.len()).sum();
        let mut out = Vec::with_capacity(self.start_raw.len() + headers + self.body.len() + 2);
        out.extend_from_slice(&self.start_raw);
        for header in &self.headers {
            out.extend_from_slice(&header.raw);
        }
        out.extend_from_slice(&self.end_raw);
        out.extend_from_slice(&self.body);
        out
    }

    /// Content-Length, when there is one.
    pub(crate) fn content_length(&self) -> Result<Option<usize>, ParseError> {
        let mut found = None;
        for header in self.lines("Content-Length") {
            let value = header.value();
            if value.is_empty() || value.len() > 9 || !value.bytes().all(|b| b.is_ascii_digit()) {
                return Err(ParseError::ContentLength);
            }
            let n: usize = value.parse().map_err(|_| ParseError::ContentLength)?;
            if found.is_some_and(|m| m != n) {
                return Err(ParseError::ContentLength);
            }
            found = Some(n);
        }
        Ok(found)
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.headers.iter().position(|h| same_name(h.name(), name))
    }
}

fn start_line(start: &Start) -> Vec<u8> {
    match start {
        Start::Request { method, uri } => format!("{method} {uri} SIP/2.0\r\n").into_bytes(),
        Start::Response { code, reason } => format!("SIP/2.0 {code:03} {reason}\r\n").into_bytes(),
    }
}

/// The index behind the line ending of the line that begins at `from`.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..]
        .iter()
        .position(|&b| b == b'\n')
        .map(|n| from + n + 1)
}

fn parse_start(raw: &[u8]) -> Result<Start, ParseError> {
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

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
