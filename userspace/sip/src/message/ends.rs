//! One reading of where lines end.

use super::shared::Piece;
use super::{Header, Message};

impl Message {
    /// Ends every line of the head with CRLF, where one ends with LF alone (RFC 3261 clause
    /// 25.1 knows CRLF only). A reader that takes nothing else for an end would find other
    /// headers than are found here, and look for them in what is the body here.
    pub fn end_lines(&mut self) {
        if !std::mem::take(&mut self.bare) {
            return;
        }
        for header in &mut self.headers {
            if let Some(line) = ended(header.raw())
                && let Ok(ended) = Header::parse(Piece::new(line))
            {
                *header = ended;
            }
        }
        for line in [&mut self.start_raw, &mut self.end_raw] {
            if let Some(ended) = ended(line) {
                *line = Piece::new(ended);
            }
        }
    }
}

/// The line with CR before each LF; `None` where they are there.
fn ended(line: &[u8]) -> Option<Vec<u8>> {
    let bare = |at: usize| line[at] == b'\n' && (at == 0 || line[at - 1] != b'\r');
    if !(0..line.len()).any(bare) {
        return None;
    }
    let mut out = Vec::with_capacity(line.len() + 2);
    for (at, byte) in line.iter().enumerate() {
        if bare(at) {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_ends_with_crlf_and_the_rest_stays() {
        let text = "MESSAGE sip:b SIP/2.0\nTo: a,\n\tb\r\nX: \nl: 3\r\n\na\nb";
        let mut message = Message::parse(text.as_bytes()).expect("a message");
        let values = message.elements("To");
        message.end_lines();
        let bytes = message.to_bytes();
        let wanted = "MESSAGE sip:b SIP/2.0\r\nTo: a,\r\n\tb\r\nX: \r\nl: 3\r\n\r\na\nb";
        assert_eq!(String::from_utf8_lossy(&bytes), wanted);
        assert_eq!(message.elements("To"), values);
        assert_eq!(Message::parse(&bytes), Ok(message));
    }
}
