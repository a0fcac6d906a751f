//! The parameters of a Digest challenge or of credentials (RFC 3261 clause 25.1).

use std::fmt;

use zeroize::Zeroize;

use crate::header::list;

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

/// Applies edits in one pass; the other parameters keep their bytes and their
/// order. `None` when nothing changes or the scheme is not Digest.
pub fn edit(value: &str, edits: &[Edit<'_>]) -> Option<String> {
    let rest = digest(value)?;
    let head = &value[..value.len() - rest.len()];
    let mut parts = Vec::new();
    let mut left = rest;
    let mut changed = false;
    loop {
        let end = list::find(left.as_bytes(), b',');
        let part = &left[..end];
        let name = part.split('=').next().unwrap_or("").trim();
        let removed = edits
            .iter()
            .any(|e| matches!(e, Edit::Remove(n) if n.eq_ignore_ascii_case(name)));
        changed |= removed;
        if !removed {
            parts.push(part);
        }
        if end == left.len() {
            break;
        }
        left = &left[end + 1..];
    }
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
