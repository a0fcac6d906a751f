//! A byte stream: however it is cut, the same messages come out, and a reader
//! never has to keep more than one message of the longest kind.

use gm_sip::Message;
use gm_sip::framing::{Frame, next};
use gm_sip::message::{MAX_MESSAGE, ParseError};

/// What a stream gave: its messages, and why it cannot be read on.
#[derive(Debug, PartialEq, Eq, Default)]
struct Taken {
    messages: Vec<Vec<u8>>,
    blank: usize,
    error: Option<ParseError>,
    /// Bytes that are no whole message yet.
    left: usize,
}

/// A reader as an executor has it: a buffer that grows by what comes.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
    taken: Taken,
}

impl Reader {
    fn feed(&mut self, bytes: &[u8]) {
        if self.taken.error.is_some() {
            return;
        }
        self.buffer.extend_from_slice(bytes);
        loop {
            match next(&self.buffer) {
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Keepalive(n)) => {
                    assert!(n > 0 && self.buffer[..n].iter().all(|b| b"\r\n".contains(b)));
                    self.taken.blank += n;
                    self.buffer.drain(..n);
                }
                Ok(Frame::Message(n)) => {
                    let whole: Vec<u8> = self.buffer.drain(..n).collect();
                    let message = Message::parse(&whole).expect("a frame is a message");
                    assert_eq!(message.to_bytes(), whole, "nothing before or behind it");
                    self.taken.messages.push(whole);
                }
                Err(error) => {
                    self.taken.error = Some(error);
                    break;
                }
            }
        }
        if self.taken.error.is_none() {
            assert!(
                self.buffer.len() < MAX_MESSAGE,
                "more than a message is kept"
            );
        }
        self.taken.left = self.buffer.len();
    }
}

/// The first line says where to cut (each byte a length), the rest is the stream.
pub fn check(data: &[u8]) {
    let end = data.iter().position(|&b| b == b'\n').unwrap_or(0);
    let (cuts, stream) = (&data[..end], data.get(end + 1..).unwrap_or(&[]));
    let mut whole = Reader::default();
    // At once, but no more than an executor reads at a time.
    stream.chunks(MAX_MESSAGE).for_each(|c| whole.feed(c));
    let mut cut = Reader::default();
    let mut rest = stream;
    for &len in cuts {
        let (now, later) = rest.split_at(usize::from(len).min(rest.len()));
        cut.feed(now);
        rest = later;
    }
    cut.feed(rest);
    same(&whole.taken, &cut.taken);
    if stream.len() <= 512 {
        let mut bytes = Reader::default();
        stream.chunks(1).for_each(|b| bytes.feed(b));
        same(&whole.taken, &bytes.taken);
    }
}

fn same(a: &Taken, b: &Taken) {
    assert_eq!(a.messages, b.messages);
    assert_eq!((a.blank, a.error), (b.blank, b.error));
    if a.error.is_none() {
        assert_eq!(a.left, b.left);
    }
}
