//! The parameters of a Digest challenge or of credentials (RFC 3261 clause 25.1).

use std::borrow::Cow;
use std::fmt;

use crate::header::list;
use crate::message::is_token;

/// Parameters that most values have at most.
const USUAL: usize = 16;

/// The parameters of one Digest header value, which they borrow: a challenge from the core
/// carries keys, and there is no copy of them to wipe.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthParams<'a>(Vec<(&'a str, &'a str)>);

impl fmt::Debug for AuthParams<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<'a> AuthParams<'a> {
    /// Parses `Digest a=b, c="d"`; `None` for another scheme.
    pub fn parse(value: &'a str) -> Option<AuthParams<'a>> {
        let rest = digest(value)?;
        let mut all = Vec::with_capacity(USUAL);
        all.extend(list::split(rest, ',').filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim(), value))
        }));
        Some(AuthParams(all))
    }

    /// The same of credentials in which everybody reads the same parameters; `None` for
    /// others: Digest, quotes that close and hide no escapes, names that are tokens and stand
    /// once. A name with an asterisk (`username*`, RFC 7616 clause 3.4) is another way to say
    /// the same, which only some know.
    pub fn unambiguous(value: &'a str) -> Option<AuthParams<'a>> {
        let rest = digest(value)?;
        let quotes = memchr::memchr_iter(b'"', value.as_bytes()).count();
        if value.contains('\\') || quotes % 2 == 1 {
            return None;
        }
        let mut all: Vec<(&str, &str)> = Vec::with_capacity(USUAL);
        let mut flags = Vec::new();
        for part in list::split(rest, ',') {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => {
                    flags.push(part);
                    (part, "")
                }
            };
            let token = !name.is_empty() && name.bytes().all(|b| b != b'*' && is_token(b));
            let good = match value.strip_prefix('"') {
                Some(inner) => inner.strip_suffix('"').is_some_and(|v| !v.contains('"')),
                None => !value.contains(['"', '<', '>', ' ', '\t', '\r', '\n']),
            };
            if !token || !good {
                return None;
            }
            all.push((name, value));
        }
        if !differ(&all) {
            return None;
        }
        // Without an equals sign it is no parameter, but may not look like one.
        if !flags.is_empty() {
            all.retain(|(name, _)| !flags.contains(name));
        }
        Some(AuthParams(all))
    }

    /// A parameter's value without quotes, blind to the name's case; the first when there are several.
    pub fn get(&self, name: &str) -> Option<String> {
        self.find(name).map(Cow::into_owned)
    }

    /// The same without a copy where there are no escapes.
    pub fn find(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        Some(list::unquote(value))
    }
}

/// Whether no name stands twice, blind to case.
fn differ(all: &[(&str, &str)]) -> bool {
    if all.len() > USUAL {
        let mut names: Vec<_> = all.iter().map(|(n, _)| n.to_ascii_lowercase()).collect();
        names.sort_unstable();
        return names.windows(2).all(|pair| pair[0] != pair[1]);
    }
    let twice = |at: usize| {
        all[..at]
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(all[at].0))
    };
    !(0..all.len()).any(twice)
}

/// What stands behind the scheme `Digest`.
fn digest(value: &str) -> Option<&str> {
    let value = value.trim_start();
    let (scheme, rest) = value.split_once(|c: char| c.is_ascii_whitespace())?;
    scheme.eq_ignore_ascii_case("Digest").then_some(rest)
}

/// A change of a Digest header's parameters.
#[derive(Debug, Clone, Copy)]
pub enum Edit<'a> {
    /// Takes every parameter of that name away.
    Remove(&'a str),
    /// Adds `name=value` at the end; the value is written as given.
    Append(&'a str, &'a str),
}

/// Puts the parameters of which `removes` does not say yes to the name behind what is in
/// `out`. Says whether any went, and whether nothing but blanks is left.
fn keep(text: &str, removes: impl Fn(&str) -> bool, out: &mut String) -> (bool, bool) {
    let mut left = text;
    let (mut first, mut changed, mut blank) = (true, false, true);
    loop {
        let end = list::find(left.as_bytes(), b',');
        let part = &left[..end];
        let name = part.split_once('=').map_or(part, |(name, _)| name);
        if removes(name.trim()) {
            changed = true;
        } else {
            blank &= part.trim().is_empty();
            if std::mem::take(&mut first) {
                out.push_str(part.trim_start());
            } else {
                out.push(',');
                out.push_str(part);
            }
        }
        if end == left.len() {
            return (changed, blank);
        }
        left = &left[end + 1..];
    }
}

/// Takes parameters away whatever the scheme, and where several challenges stand in
/// one value. A value that cannot be read so that they are surely gone becomes empty.
pub fn purge(value: &str, names: &[&str]) -> Option<String> {
    let one_of = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    let last = |name: &str| one_of(name.split_ascii_whitespace().next_back().unwrap_or(""));
    let head = digest(value).map_or(0, |rest| value.len() - rest.len());
    let mut out = String::with_capacity(value.len());
    out.push_str(&value[..head]);
    let (changed, _) = keep(&value[head..], last, &mut out);
    match bare_word(&out, one_of) {
        Some(false) => changed.then_some(out),
        _ => Some(String::new()),
    }
}

/// Whether one of the tokens before equals signs outside quotes is such; `None` when a quote
/// stays open.
fn bare_word(value: &str, is: impl Fn(&str) -> bool) -> Option<bool> {
    let (mut found, mut word) = (false, String::with_capacity(32));
    let (mut quoted, mut escaped, mut ended) = (false, false, false);
    for c in value.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '=' => {
                found |= is(&word);
                word.clear();
            }
            c if c.is_ascii_whitespace() => ended = true,
            c => {
                let token = u8::try_from(c).is_ok_and(is_token);
                if std::mem::take(&mut ended) || !token {
                    word.clear();
                }
                if token {
                    word.push(c);
                }
            }
        }
    }
    (!quoted).then_some(found)
}

/// Applies edits in one pass; the other parameters keep their bytes and their
/// order. `None` when nothing changes or the scheme is not Digest.
pub fn edit(value: &str, edits: &[Edit<'_>]) -> Option<String> {
    let rest = digest(value)?;
    let removes = |name: &str| {
        edits
            .iter()
            .any(|e| matches!(e, Edit::Remove(n) if n.eq_ignore_ascii_case(name)))
    };
    let more = edits.iter().map(|e| match e {
        Edit::Append(name, value) => name.len() + value.len() + 2,
        Edit::Remove(_) => 0,
    });
    let mut out = String::with_capacity(value.len() + more.sum::<usize>());
    out.push_str(&value[..value.len() - rest.len()]);
    let (mut changed, blank) = keep(rest, removes, &mut out);
    for one in edits {
        if let Edit::Append(name, value) = one {
            changed = true;
            out.truncate(out.trim_end().len());
            out.push_str(if blank { " " } else { "," });
            out.push_str(name);
            out.push('=');
            out.push_str(value);
        }
    }
    changed.then_some(out)
}
