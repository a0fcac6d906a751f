//! How a row of a table names the tests that show it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// One value or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Many {
    /// Written as a string.
    One(String),
    /// Written as a list.
    All(Vec<String>),
}

impl Many {
    /// All of them.
    pub fn all(&self) -> &[String] {
        match self {
            Many::One(one) => std::slice::from_ref(one),
            Many::All(all) => all,
        }
    }
}

/// Whether a text says something, on one line.
pub fn sentence(id: &str, text: &str) -> Option<String> {
    let good = text.len() >= 12 && text.trim() == text && !text.contains('\n');
    (!good).then(|| format!("{id}: not a sentence: {text:?}"))
}

/// A test's name, `NAME::*` for all cases of one, or `SCRIPT: ID` with an ID that stands in the script.
pub fn exists(root: &Path, names: &BTreeSet<String>, test: &str) -> Result<(), String> {
    if test.starts_with("tests/") {
        return in_file(root, test);
    }
    let cases = test
        .strip_suffix('*')
        .filter(|stem| stem.ends_with("::"))
        .map(|stem| format!("{stem}case_"));
    let first = cases.and_then(|cases| {
        let name = names.range(cases.clone()..).next()?;
        name.starts_with(&cases).then_some(name)
    });
    let found = names.contains(test) || first.is_some();
    if found {
        Ok(())
    } else {
        Err(format!("there is no test {test:?}"))
    }
}

/// `FILE: NAME`: the file is there, and the name stands in it as a word.
fn in_file(root: &Path, place: &str) -> Result<(), String> {
    let (file, name) = part(place)?;
    let text = read_text(root, file)?;
    if words(&text, name).next().is_some() {
        Ok(())
    } else {
        Err(format!("{file} has no {name:?}"))
    }
}

/// The two parts of `FILE: NAME`.
pub fn part(place: &str) -> Result<(&str, &str), String> {
    let parts = place.split_once(": ").filter(|(_, name)| !name.is_empty());
    parts.ok_or_else(|| format!("not FILE: NAME: {place:?}"))
}

/// A file of the repository.
pub fn read_text(root: &Path, file: &str) -> Result<String, String> {
    fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"))
}

/// Where a name stands as a whole word.
pub fn words<'t>(text: &'t str, name: &'t str) -> impl Iterator<Item = usize> + 't {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let whole = move |at: &usize| {
        let (before, behind) = (&text[..*at], &text[at + name.len()..]);
        !inside(before.chars().next_back()) && !inside(behind.chars().next())
    };
    text.match_indices(name).map(|(at, _)| at).filter(whole)
}
