//! The parameters of a Digest challenge or of credentials (RFC 3261 clause 25.1).

use std::fmt;

use zeroize::Zeroize;

use crate::header::list;
use crate::message::is_token;

/// The parameters of one Digest header value; wiped on drop, because a challenge
/// from the core carries keys.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthParams(Vec<(String, String)>);

impl Drop for AuthParams {
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            value.zeroize();
        }
    }
}

impl fmt::Debug for AuthParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl AuthParams {
    /// Parses `Digest a=b, c="d"`; `None` for another scheme.
    pub fn parse(value: &str) -> Option<AuthParams> {
        let rest = digest(value)?;
        let one = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_owned(), list::unquote(value)))
        };
        Some(AuthParams(list::split(rest, ',').filter_map(one).collect()))
    }

    /// A parameter's value without quotes, blind to the name's case; the first when there are several.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
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
    if value.contains('\\') || value.matches('"').count() % 2 == 1 {
        return false;
    }
    let mut names: Vec<_> = list::split(rest, ',')
        .map(|part| {
            part.split('=')
                .next()
                .unwrap_or("")
                .trim()
                .to_ascii_lowercase()
        })
        .collect();
    let count = names.len();
    let tokens = names
        .iter()
        .all(|n| !n.is_empty() && !n.contains('*') && n.bytes().all(is_token));
    names.sort_unstable();
    names.dedup();
    let quotes = list::split(rest, ',').all(|part| {
        let value = part.split_once('=').map_or("", |(_, value)| value.trim());
        match value.strip_prefix('"') {
            Some(inner) => inner.strip_suffix('"').is_some_and(|v| !v.contains('"')),
            None => !value.contains(['"', '<', '>', ' ', '\t', '\r', '\n']),
        }
    });
    tokens && quotes && names.len() == count
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
