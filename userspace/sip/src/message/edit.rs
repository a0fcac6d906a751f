//! Changes of single lines and list elements; all other bytes stay.

use super::line::Name;
use super::shared::Piece;
use super::{Header, Message, Start, start_line};
use crate::header::list;

impl Message {
    /// Puts another Request-URI into a request; a response stays as it is.
    pub fn set_uri(&mut self, new: &str) {
        if let Start::Request { uri, .. } = &mut self.start {
            *uri = new.into();
            self.start_raw = Piece::new(start_line(&self.start));
        }
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
                let (mut index, name) = (0, Name::new(name));
                self.headers.retain(|h| {
                    index += 1;
                    index <= at + 1 || !h.is(name)
                });
            }
            None => self.push(name, value),
        }
    }

    /// Removes all lines of a header and says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let (before, name) = (self.headers.len(), Name::new(name));
        self.headers.retain(|h| !h.is(name));
        before - self.headers.len()
    }

    /// Removes all lines of several headers, in one pass.
    pub fn remove_all<const N: usize>(&mut self, names: [&str; N]) {
        let names = names.map(Name::new);
        self.headers
            .retain(|h| !names.iter().any(|name| h.is(*name)));
    }

    /// Rewrites each line of a header: the closure gets the value's bytes and gives
    /// other ones, or `None` to leave the line alone.
    pub fn rewrite(&mut self, name: &str, mut f: impl FnMut(&str) -> Option<String>) {
        let name = Name::new(name);
        for header in self.headers.iter_mut().filter(|h| h.is(name)) {
            let raw = header.raw_value();
            let new = match std::str::from_utf8(raw) {
                Ok(text) => f(text),
                Err(_) => f(&zeroize::Zeroizing::new(
                    String::from_utf8_lossy(raw).into_owned(),
                )),
            };
            if let Some(new) = new {
                header.splice_value(&[new.as_bytes()]);
            }
        }
    }

    /// Takes every element equal to `element` (blind to case) out of a comma list;
    /// a line that has no other goes.
    pub fn remove_element(&mut self, name: &str, element: &str) {
        let name = Name::new(name);
        self.headers.retain_mut(|header| {
            if !header.is(name) {
                return true;
            }
            let value = header.value();
            let stays = |e: &&str| !e.eq_ignore_ascii_case(element);
            if list::split(&value, ',').all(|e| stays(&e)) {
                return true;
            }
            let left: Vec<_> = list::split(&value, ',').filter(stays).collect();
            if left.is_empty() {
                return false;
            }
            let left = left.join(", ");
            header.splice_value(&[left.as_bytes()]);
            true
        });
    }

    /// Puts `new` in the place of the first element of a comma list; the rest of
    /// the line keeps its bytes. False when there is no such header.
    pub fn replace_first_element(&mut self, name: &str, new: &str) -> bool {
        let Some(at) = self.position(name) else {
            return false;
        };
        let header = &mut self.headers[at];
        let old = header.clone();
        let value = old.raw_value();
        header.splice_value(&[new.as_bytes(), &value[first_end(value)..]]);
        true
    }

    /// Takes the first element of a comma list away and gives it.
    pub fn remove_first_element(&mut self, name: &str) -> Option<String> {
        let first = self.first_element(name)?;
        self.drop_first_element(name);
        Some(first)
    }

    /// Takes the first element of a comma list away.
    pub(crate) fn drop_first_element(&mut self, name: &str) {
        let Some(at) = self.position(name) else {
            return;
        };
        let header = &mut self.headers[at];
        let old = header.clone();
        let value = old.raw_value();
        let end = first_end(value);
        if end == value.len() {
            self.headers.remove(at);
        } else {
            let rest = &value[end + 1..];
            header.splice_value(&[&rest[leading(rest, char::is_whitespace)..]]);
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        let name = Name::new(name);
        self.headers.iter().position(|h| h.is(name))
    }
}

/// The end of the first element; empty ones in front of it go with it.
fn first_end(value: &[u8]) -> usize {
    let start = leading(value, |c| c == ',' || c.is_whitespace());
    start + list::first_end(&value[start..])
}

/// How many bytes in front are characters of a kind. White space is what it is to
/// [`list::split`], so that who reads and who edits mean the same element.
fn leading(value: &[u8], of: impl Fn(char) -> bool) -> usize {
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        // What is no UTF-8 is no white space either.
        Err(error) => std::str::from_utf8(&value[..error.valid_up_to()]).unwrap_or(""),
    };
    text.len() - text.trim_start_matches(of).len()
}
