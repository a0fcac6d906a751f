//! A SIP message as it came: start line, header lines, body (RFC 3261 clause 7).
//!
//! Every header line keeps its bytes, folds and line ending included; what the
//! edge does not touch leaves it exactly as it arrived. Edits work on lines and
//! on elements of comma lists. `Debug` shows no header value, because a 401 of
//! the core carries IK and CK.

use std::borrow::Cow;
use std::fmt;

use crate::header::list;

mod edit;
mod ends;
mod line;
mod shared;
mod start;

use line::Name;
pub(crate) use line::is_token;
pub use line::{Header, same_name};
use shared::Piece;
pub use start::Start;
use start::{parse_start, start_line};

/// The longest message that is taken, in bytes: a UDP datagram cannot be longer.
pub const MAX_MESSAGE: usize = 65_536;
/// The most header lines that a message may have.
pub const MAX_HEADERS: usize = 256;
/// Room for those of most messages.
const USUAL_HEADERS: usize = 24;

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
    /// A header line has no name, no colon, bytes that no name has, a NUL or a
    /// CR without LF.
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

/// A SIP message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    start: Start,
    start_raw: Piece,
    headers: Vec<Header>,
    end_raw: Piece,
    body: Piece,
    /// A line ends with LF alone.
    bare: bool,
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
        let (mut message, all, head) = Message::split_head(bytes)?;
        let rest = all.len() - head;
        let len = message.content_length()?.unwrap_or(rest);
        if len > rest {
            return Err(ParseError::Truncated);
        }
        message.body = all.part(head..head + len);
        Ok(message)
    }

    /// Parses start line and headers only; the body stays empty.
    pub(crate) fn parse_head(bytes: &[u8]) -> Result<Message, ParseError> {
        Message::split_head(bytes).map(|(message, _, _)| message)
    }

    /// The message without its body, all bytes, and where the body begins in them.
    fn split_head(bytes: &[u8]) -> Result<(Message, Piece, usize), ParseError> {
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
        let mut bare = false;
        if !is_plain(&bytes[..at], &mut bare) {
            return Err(ParseError::StartLine);
        }
        let start = parse_start(&bytes[..at])?;
        let all = Piece::shared(bytes.to_vec());
        let start_raw = all.part(0..at);
        let mut headers = Vec::with_capacity(USUAL_HEADERS);
        loop {
            let mut end = line_end(bytes, at).ok_or(ParseError::NoEnd)?;
            if matches!(&bytes[at..end], b"\r\n" | b"\n") {
                bare |= end - at == 1;
                let message = Message {
                    start,
                    start_raw,
                    headers,
                    end_raw: all.part(at..end),
                    body: all.part(end..end),
                    bare,
                };
                return Ok((message, all, end));
            }
            while matches!(bytes.get(end), Some(b' ' | b'\t')) {
                end = line_end(bytes, end).ok_or(ParseError::NoEnd)?;
            }
            if headers.len() == MAX_HEADERS {
                return Err(ParseError::TooManyHeaders);
            }
            if !is_plain(&bytes[at..end], &mut bare) {
                return Err(ParseError::Header);
            }
            headers.push(Header::parse(all.part(at..end))?);
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
        let kept = ["Via", "From", "To", "Call-ID", "CSeq"].map(Name::new);
        for header in &request.headers {
            if !kept.iter().any(|name| header.is(*name)) {
                continue;
            }
            let mut header = header.clone();
            if header.is(Name::new("To"))
                && crate::header::NameAddr::parse(&header.value())
                    .is_some_and(|to| to.param("tag").is_none())
            {
                let value = header.clone();
                header.splice_value(&[value.raw_value(), b";tag=", to_tag.as_bytes()]);
            }
            out.headers.push(header);
        }
        out
    }

    fn with_start(start: Start) -> Message {
        let mut bytes = start_line(&start);
        let at = bytes.len();
        bytes.extend_from_slice(b"\r\n");
        let all = Piece::shared(bytes);
        Message {
            start,
            start_raw: all.part(0..at),
            headers: Vec::new(),
            end_raw: all.part(at..at + 2),
            body: all.part(at + 2..at + 2),
            bare: false,
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
        self.body = Piece::new(body.to_vec());
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

    /// All header lines in order.
    pub fn headers(&self) -> &[Header] {
        &self.headers
    }

    /// The lines of one header, in order, compact forms included.
    pub fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Header> {
        let name = Name::new(name);
        self.headers.iter().filter(move |h| h.is(name))
    }

    /// The first line's value, unfolded.
    pub fn value(&self, name: &str) -> Option<Cow<'_, str>> {
        let name = Name::new(name);
        let line = self.headers.iter().find(|h| h.is(name));
        line.map(Header::value)
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

    /// Whether one of the elements of a comma list is such, without copies.
    pub fn any_element(&self, name: &str, mut is: impl FnMut(&str) -> bool) -> bool {
        self.lines(name)
            .any(|h| list::split(&h.value(), ',').any(&mut is))
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

    /// The message's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        self.pieces().for_each(|part| out.extend_from_slice(part));
        out
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// Its bytes in order.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.headers.iter().map(Header::raw);
        let ends = [&*self.end_raw, &*self.body];
        std::iter::once(&*self.start_raw).chain(lines).chain(ends)
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
}

/// The index behind the line ending of the line that begins at `from`.
fn line_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr::memchr(b'\n', &bytes[from..]).map(|n| from + n + 1)
}

/// No NUL, and a CR only before its LF: others end a line or a text there, and
/// would see headers that nobody has looked at here. Says too when an LF has no CR.
fn is_plain(line: &[u8], bare: &mut bool) -> bool {
    let mut returned = None;
    for at in memchr::memchr3_iter(b'\r', b'\n', 0, line) {
        match line[at] {
            b'\r' if line.get(at + 1) == Some(&b'\n') => returned = Some(at),
            b'\n' => *bare |= at == 0 || returned != Some(at - 1),
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
