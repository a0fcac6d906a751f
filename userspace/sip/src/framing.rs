//! Messages out of a byte stream by Content-Length (RFC 3261 clause 18.3).

use crate::message::{MAX_MESSAGE, Message, ParseError};

/// What a stream holds at its front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Not enough bytes yet.
    Incomplete,
    /// `n` bytes of CR and LF: a keepalive; drop them. Two CRLFs are a ping (RFC 5626 clause 4.4.1).
    Keepalive(usize),
    /// The first `n` bytes are one message.
    Message(usize),
}

/// Looks at the front of a stream's bytes. An error means that the stream cannot
/// be read on and is to be closed. A message without Content-Length has no body.
pub fn next(stream: &[u8]) -> Result<Frame, ParseError> {
    let blank = stream
        .iter()
        .take_while(|&&b| matches!(b, b'\r' | b'\n'))
        .count();
    if blank > 0 {
        return Ok(Frame::Keepalive(blank));
    }
    let window = &stream[..stream.len().min(MAX_MESSAGE)];
    let Some(head) = head_end(window) else {
        return if stream.len() >= MAX_MESSAGE {
            Err(ParseError::TooLong)
        } else {
            Ok(Frame::Incomplete)
        };
    };
    let body = Message::parse_head(&window[..head])?
        .content_length()?
        .unwrap_or(0);
    let len = head + body;
    if len > MAX_MESSAGE {
        return Err(ParseError::TooLong);
    }
    Ok(if stream.len() < len {
        Frame::Incomplete
    } else {
        Frame::Message(len)
    })
}

/// The index behind the first empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(n) = bytes[at..].iter().position(|&b| b == b'\n') {
        let line = &bytes[at..=at + n];
        at += n + 1;
        if matches!(line, b"\r\n" | b"\n") {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ONE: &[u8] = b"OPTIONS sip:a@b SIP/2.0\r\nCall-ID: 1\r\nl: 4\r\n\r\nbody";

    #[test]
    fn pipelined_and_split_messages() {
        let stream = [ONE, b"\r\n\r\n", ONE].concat();
        for cut in 0..ONE.len() {
            assert_eq!(next(&ONE[..cut]), Ok(Frame::Incomplete), "cut at {cut}");
        }
        assert_eq!(next(&stream), Ok(Frame::Message(ONE.len())));
        assert_eq!(next(&stream[ONE.len()..]), Ok(Frame::Keepalive(4)));
        assert_eq!(
            next(&stream[ONE.len() + 4..]),
            Ok(Frame::Message(ONE.len()))
        );
    }

    #[test]
    fn a_stream_that_cannot_be_read_on() {
        assert_eq!(
            next(b"OPTIONS sip:a@b SIP/2.0\r\nl: x\r\n\r\n"),
            Err(ParseError::ContentLength)
        );
        assert_eq!(
            next(b"OPTIONS sip:a@b SIP/2.0\r\nl: 70000\r\n\r\n"),
            Err(ParseError::TooLong)
        );
        assert_eq!(next(&vec![b'a'; MAX_MESSAGE]), Err(ParseError::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics_and_never_promises_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(Frame::Message(n) | Frame::Keepalive(n)) = next(&bytes) {
                prop_assert!(n > 0 && n <= bytes.len());
            }
        }
    }
}
