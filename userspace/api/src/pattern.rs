//! Names of many subscribers in one line: `ue{n}@home.test`, `00101{n:010}@...`.

/// The longest number that a pattern may ask for, in digits.
const WIDEST: usize = 20;

/// Puts `n` in every place of `{n}`, and with leading zeros of `{n:WIDTH}`. Other
/// braces stay as they are.
pub fn numbered(pattern: &str, n: u64) -> String {
    let mut out = String::with_capacity(pattern.len() + WIDEST);
    let mut rest = pattern;
    while let Some(at) = rest.find("{n") {
        out.push_str(&rest[..at]);
        match place(&rest[at..]) {
            Some((width, len)) => {
                out.push_str(&format!("{n:0width$}"));
                rest = &rest[at + len..];
            }
            None => {
                out.push_str("{n");
                rest = &rest[at + 2..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// Whether a number goes into this pattern: else all would be the same.
pub fn is_pattern(pattern: &str) -> bool {
    numbered(pattern, 1) != numbered(pattern, 2)
}

/// Width and length of the place that the text begins with.
fn place(text: &str) -> Option<(usize, usize)> {
    if text.starts_with("{n}") {
        return Some((0, 3));
    }
    let digits = text.strip_prefix("{n:")?;
    let end = digits.find('}')?;
    let width: usize = digits[..end].parse().ok()?;
    (width <= WIDEST).then_some((width, end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_where_the_pattern_says() {
        for (pattern, want) in [
            ("ue{n}@home.test", "ue7@home.test"),
            ("00101{n:010}@x", "001010000000007@x"),
            ("{n}-{n:3}", "7-007"),
            ("{n:99}{m}{", "{n:99}{m}{"),
            ("{n:x} {n", "{n:x} {n"),
        ] {
            assert_eq!(numbered(pattern, 7), want);
        }
        assert!(is_pattern("{n}") && !is_pattern("ue@home.test") && !is_pattern("{n:99}"));
    }
}
