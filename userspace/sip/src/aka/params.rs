//! The parameters of a Digest challenge or of credentials (RFC 3261 clause 25.1).

use std::borrow::Cow;
use std::fmt;

use crate::header::list;
use crate::message::is_token;

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
        let mut all = Vec::with_capacity(16);
        all.extend(list::split(rest, ',').filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim(), value))
        }));
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

/// The parameters of which `removes` does not say yes to the name, and whether any went.
fn left_over(text: &str, removes: impl Fn(&str) -> bool) -> (Vec<&str>, bool) {
    let mut left = text;
    let (mut parts, mut changed) = (Vec::new(), false);
    loop {
        let end = list::find(left.as_bytes(), b',');
        let part = &left[..end];
        if removes(part.split('=').next().unwrap_or("").trim()) {
            changed = true;
        } else {
            parts.push(part);
        }
        if end == left.len() {
            return (parts, changed);
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
    let (mut parts, changed) = left_over(&value[head..], last);
    if let Some(first) = parts.first_mut() {
        *first = first.trim_start();
    }
    let out = format!("{}{}", &value[..head], parts.join(","));
    match bare_words(&out) {
        Some(words) if !words.iter().any(|w| one_of(w)) => changed.then_some(out),
        _ => Some(String::new()),
    }
}

/// The tokens before equals signs outside quotes; `None` when a quote stays open.
fn bare_words(value: &str) -> Option<Vec<String>> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped, mut ended) = (false, false, false);
    for c in value.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '=' => words.push(std::mem::take(&mut word)),
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
    (!quoted).then_some(words)
}

/// Whether everybody reads the same parameters in credentials: Digest, quotes that
/// close and hide no escapes, names that are tokens and stand once. A name with an asterisk
/// (`username*`, RFC 7616 clause 3.4) is another way to say the same, which only some know.
pub fn is_unambiguous(value: &str) -> bool {
    let Some(rest) = digest(value) else {
        return false;
    };
    let quotes = memchr::memchr_iter(b'"', value.as_bytes()).count();
    if value.contains('\\') || quotes % 2 == 1 {
        return false;
    }
    let mut names: Vec<Cow<'_, str>> = Vec::with_capacity(16);
    for part in list::split(rest, ',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (name, value) = (name.trim(), value.trim());
        let token = !name.is_empty() && name.bytes().all(|b| b != b'*' && is_token(b));
        let good = match value.strip_prefix('"') {
            Some(inner) => inner.strip_suffix('"').is_some_and(|v| !v.contains('"')),
            None => !value.contains(['"', '<', '>', ' ', '\t', '\r', '\n']),
        };
        if !token || !good {
            return false;
        }
        let upper = name.bytes().any(|b| b.is_ascii_uppercase());
        names.push(match upper {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        });
    }
    names.sort_unstable();
    names.windows(2).all(|pair| pair[0] != pair[1])
}

/// Applies edits in one pass; the other parameters keep their bytes and their
/// order. `None` when nothing changes or the scheme is not Digest.
pub fn edit(value: &str, edits: &[Edit<'_>]) -> Option<String> {
    let rest = digest(value)?;
    let head = &value[..value.len() - rest.len()];
    let removes = |name: &str| {
        edits
            .iter()
            .any(|e| matches!(e, Edit::Remove(n) if n.eq_ignore_ascii_case(name)))
    };
    let (mut parts, mut changed) = left_over(rest, removes);
    if let Some(first) = parts.first_mut() {
        *first = first.trim_start();
    }
    let mut out = format!("{head}{}", parts.join(","));
    for one in edits {
        if let Edit::Append(name, value) = one {
            changed = true;
            out.truncate(out.trim_end().len());
            out.push_str(if parts.iter().all(|p| p.trim().is_empty()) {
                " "
            } else {
                ","
            });
            out.push_str(&format!("{name}={value}"));
        }
    }
    changed.then_some(out)
}
