//! Lists and parameters: splitting that knows quotes and angle brackets.

use std::borrow::Cow;

/// Elements of `text` between `sep`, trimmed, empty ones left out. A separator in
/// a quoted string or between angle brackets does not count.
pub fn split(text: &str, sep: char) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    let sep = sep as u8;
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let end = find(text.as_bytes(), sep);
            let element = text[..end].trim();
            rest = (end < text.len()).then(|| &text[end + 1..]);
            if !element.is_empty() {
                return Some(element);
            }
        }
    })
}

/// Where the first element of a comma list ends: the index of its comma, or the length.
pub fn first_end(value: &[u8]) -> usize {
    find(value, b',')
}

/// The index of the first `sep` (ASCII) that is outside quotes and brackets, or the length.
pub fn find(bytes: &[u8], sep: u8) -> usize {
    // Most elements have neither quote nor bracket in front of their separator.
    match memchr::memchr3(sep, b'"', b'<', bytes) {
        None => bytes.len(),
        Some(at) if bytes[at] == sep => at,
        Some(at) => at + find_behind(&bytes[at..], sep),
    }
}

fn find_behind(bytes: &[u8], sep: u8) -> usize {
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for (at, &b) in bytes.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            _ if quoted => {}
            b'<' if sep != b'<' => angle = true,
            b'>' => angle = false,
            _ if b == sep && !angle => return at,
            _ => {}
        }
    }
    bytes.len()
}

/// Whether every quote and bracket that begins in the text ends in it: only then
/// can something be put behind it.
pub fn closed(bytes: &[u8]) -> bool {
    let Some(first) = memchr::memchr2(b'"', b'<', bytes) else {
        return true;
    };
    let bytes = &bytes[first..];
    let (mut quoted, mut escaped, mut angle) = (false, false, false);
    for &b in bytes {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if !angle => quoted = !quoted,
            _ if quoted => {}
            b'<' => angle = true,
            b'>' => angle = false,
            _ => {}
        }
    }
    !quoted && !angle
}

/// A quoted string without its quotes and escapes; anything else as it is.
pub fn unquote(text: &str) -> Cow<'_, str> {
    let text = text.trim();
    let Some(inner) = text.strip_prefix('"') else {
        return Cow::Borrowed(text);
    };
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut out = String::with_capacity(inner.len());
    let mut escaped = false;
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        escaped = false;
        out.push(c);
    }
    Cow::Owned(out)
}

/// Parameters between semicolons in order: names, and values as written.
pub fn params(text: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    split(text, ';').map(|one| match one.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (one, None),
    })
}

/// A parameter's value (empty when it has none), blind to the name's case; quotes taken off.
pub(crate) fn param<'a>(text: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, value) = params(text).find(|(n, _)| n.eq_ignore_ascii_case(name))?;
    Some(value.map(unquote).unwrap_or_default())
}

/// Parameters in order, `name` or `name=value`, kept as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Params(String);

impl Params {
    /// Those of what stands behind the first semicolon.
    pub fn parse(text: &str) -> Params {
        Params(text.to_owned())
    }

    /// Names, and values as written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        params(&self.0)
    }

    /// A parameter's value (empty when it has none), blind to the name's case; quotes taken off.
    pub fn get(&self, name: &str) -> Option<String> {
        self.find(name).map(Cow::into_owned)
    }

    /// The same without a copy where there are no escapes.
    pub fn find(&self, name: &str) -> Option<Cow<'_, str>> {
        param(&self.0, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a, b,c", &["a", "b", "c"])]
    #[case(r#"qop="auth,auth-int", b"#, &[r#"qop="auth,auth-int""#, "b"])]
    #[case(r#""a\",b" <sip:x@y;z=,>,c"#, &[r#""a\",b" <sip:x@y;z=,>"#, "c"])]
    #[case(", ,a,,", &["a"])]
    #[case("", &[])]
    fn commas(#[case] text: &str, #[case] want: &[&str]) {
        assert_eq!(split(text, ',').collect::<Vec<_>>(), want);
    }

    #[test]
    fn parameters_keep_their_order_and_lose_their_case() {
        let params = Params::parse(r#"Alg=x ; q = 0.1;flag; s="a;b""#);
        assert_eq!(params.get("alg").as_deref(), Some("x"));
        assert_eq!(params.get("q").as_deref(), Some("0.1"));
        assert_eq!(params.get("flag").as_deref(), Some(""));
        assert_eq!(params.get("s").as_deref(), Some("a;b"));
        assert_eq!(params.get("none"), None);
    }
}
