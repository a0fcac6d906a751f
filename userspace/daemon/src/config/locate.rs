//! Where in a TOML text an error is: the table and the key, for people.

use std::ops::Range;

/// The place of `span` in `text`: line number from 1, table header without the
/// brackets (empty at the top), key (empty where the line holds none).
pub(super) fn locate(text: &str, span: Option<Range<usize>>) -> Place {
    let Some(span) = span else {
        return Place::default();
    };
    let at = span.start.min(text.len());
    let line_start = text
        .get(..at)
        .and_then(|head| head.rfind('\n'))
        .map_or(0, |nl| nl + 1);
    let mut place = Place {
        line: Some(1 + count_lines(text, line_start)),
        ..Place::default()
    };
    let line = text
        .get(line_start..)
        .and_then(|rest| rest.lines().next())
        .unwrap_or("");
    if let Some(table) = header(line) {
        // The whole table is meant, for instance because a key is missing.
        place.table = table;
        return place;
    }
    place.table = text
        .get(..line_start)
        .and_then(|head| head.lines().rev().find_map(header))
        .unwrap_or_default();
    if let Some((key, _)) = line.split_once('=') {
        place.key = key.trim().to_owned();
    }
    place
}

fn count_lines(text: &str, end: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(end)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// `[name]` or `[[name]]`: the name.
fn header(line: &str) -> Option<String> {
    let line = line.trim_start();
    let inner = line.strip_prefix("[[").or_else(|| line.strip_prefix('['))?;
    let (name, _) = inner.split_once(']')?;
    let name = name.trim();
    // An array's continuation line, such as `["a"]`, is no header.
    let bare = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (!name.is_empty() && name.chars().all(bare)).then(|| name.to_owned())
}

/// A place in a TOML text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: Option<usize>,
    pub(super) table: String,
    pub(super) key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_line_table_and_key() {
        let text = "a = 1\n[gm]\nx = 1\n\n[edge.timers]\nlife = \"x\"\n";
        let at = text.find("\"x\"").unwrap();
        let place = locate(text, Some(at..at + 3));
        assert_eq!(
            place,
            Place {
                line: Some(6),
                table: "edge.timers".into(),
                key: "life".into()
            }
        );
        assert_eq!(locate(text, Some(0..1)).table, "");
        assert_eq!(locate(text, Some(6..10)).table, "gm");
    }

    #[test]
    fn a_span_out_of_the_text_is_no_panic() {
        assert_eq!(locate("ä", Some(1..900)).line, Some(1));
        assert_eq!(locate("", None), Place::default());
    }
}
