//! Text that keys stand in.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Text that is wiped when dropped, and that leaves no pieces behind when it
/// grows, as a `String` would.
#[derive(Default)]
pub(crate) struct Text(Zeroizing<String>);

impl Text {
    /// Appends a key, two digits for an octet.
    pub(crate) fn hex(&mut self, bytes: &[u8]) {
        for byte in bytes {
            for nibble in [byte >> 4, byte & 15] {
                let digit = char::from_digit(nibble.into(), 16).unwrap_or_default();
                let mut utf8 = [0; 4];
                self.push(digit.encode_utf8(&mut utf8));
                utf8.zeroize();
            }
        }
    }

    /// Appends text.
    pub(crate) fn push(&mut self, text: &str) {
        if self.0.capacity() - self.0.len() < text.len() {
            let room = (2 * self.0.capacity())
                .max(self.0.len() + text.len())
                .max(4096);
            let mut larger = Zeroizing::new(String::with_capacity(room));
            larger.push_str(&self.0);
            self.0 = larger;
        }
        self.0.push_str(text);
    }

    /// What was written.
    pub(crate) fn finish(self) -> Zeroizing<String> {
        self.0
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn what_is_written_stands_there_however_long_it_grows() {
        let mut text = Text::default();
        let mut wanted = String::new();
        for n in 0..5000 {
            let _ = write!(text, "{n} ");
            text.hex(&[0x0f, 0xa0, n as u8]);
            let _ = write!(wanted, "{n} 0fa0{:02x}", n as u8);
        }
        assert_eq!(*text.finish(), wanted);
    }
}
