//! `tests/spec/requirements.toml` and `tests/spec/phones.toml`, and what is wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::shown::{Many, exists, part, read_text, sentence, words};

/// Whom a requirement binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The phone.
    Ue,
    /// The network's end of Gm.
    PCscf,
    /// Both of them.
    Both,
    /// Somebody who is not on Gm: S-CSCF, HSS, operator.
    Other,
}

impl Role {
    /// As it stands in the file.
    pub fn name(self) -> &'static str {
        match self {
            Role::Ue => "ue",
            Role::PCscf => "p-cscf",
            Role::Both => "both",
            Role::Other => "other",
        }
    }
}

/// What shows a row, or why nothing does.
#[derive(Debug, Clone, Deserialize)]
pub struct Shown {
    /// Tests.
    pub test: Option<Many>,
    /// Why there is none.
    pub reason: Option<String>,
    /// What is missing. No row may have it in the end.
    pub open: Option<String>,
}

/// A sentence of the specification, in our words.
#[derive(Debug, Clone, Deserialize)]
pub struct Requirement {
    /// Clause and number within it: `7.1-12`.
    pub clause: String,
    /// Whom it binds.
    pub role: Role,
    /// Where it stands in the text that the rows were counted against.
    pub line: u32,
    /// What is asked.
    pub text: String,
    /// `FILE: NAME` of what does it.
    #[serde(rename = "where")]
    pub place: Option<Many>,
    /// Evidence.
    #[serde(flatten)]
    pub shown: Shown,
}

/// The table of the specification.
#[derive(Debug, Clone, Deserialize)]
pub struct Requirements {
    /// Line of the text, and how many times it says "shall".
    pub shall: BTreeMap<String, u32>,
    /// Clause and what it is called, in our words.
    pub title: BTreeMap<String, String>,
    /// The rows.
    pub requirement: Vec<Requirement>,
}

/// Something that real phones or cores write or do.
#[derive(Debug, Clone, Deserialize)]
pub struct Habit {
    /// `client-1`.
    pub id: String,
    /// Under which heading.
    pub about: String,
    /// What it is.
    pub text: String,
    /// Evidence.
    #[serde(flatten)]
    pub shown: Shown,
}

/// The table of phones.
#[derive(Debug, Clone, Deserialize)]
pub struct Phones {
    /// The rows.
    pub phone: Vec<Habit>,
}

/// Reads a table.
pub fn read<T: serde::de::DeserializeOwned>(file: &Path) -> T {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The clauses whose sentences are all in the table.
const CLAUSES: [&str; 43] = [
    "5.1.2",
    "5.1.3",
    "5.1.4",
    "6.1.0",
    "6.1.1",
    "6.1.2.1",
    "6.1.2.2",
    "6.1.2.3",
    "6.1.3",
    "6.1.4",
    "6.1.5",
    "6.2",
    "6.3",
    "7.1",
    "7.2",
    "7.3.1.0",
    "7.3.1.1",
    "7.3.1.2",
    "7.3.1.3",
    "7.3.1.4",
    "7.3.2.1",
    "7.3.2.2",
    "7.3.2.3",
    "7.4.0",
    "7.4.1a",
    "7.4.2a",
    "7.5",
    "H",
    "I",
    "M.6.1",
    "M.6.2",
    "M.6.3",
    "M.7.1",
    "M.7.2",
    "M.7.3.1",
    "M.7.3.2.1",
    "M.7.3.2.2",
    "M.7.3.2.3",
    "M.7.3.2.4",
    "M.7.4.0",
    "M.7.4.1a",
    "M.7.4.2a",
    "M.7.5",
];

impl Requirements {
    /// What is wrong, one line each.
    pub fn problems(&self, root: &Path, names: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut counted: BTreeMap<u32, u32> = BTreeMap::new();
        let mut next: BTreeMap<&str, u32> = BTreeMap::new();
        for row in &self.requirement {
            *counted.entry(row.line).or_default() += 1;
            match row
                .clause
                .rsplit_once('-')
                .map(|(clause, n)| (clause, n.parse::<u32>()))
            {
                Some((clause, Ok(n))) if CLAUSES.contains(&clause) => {
                    let want = next.entry(clause).or_insert(1);
                    if n != *want {
                        problems.push(format!("{}: {clause}-{want} should be here", row.clause));
                    }
                    *want = n + 1;
                }
                _ => problems.push(format!(
                    "{}: no clause of the list with a number",
                    row.clause
                )),
            }
            problems.extend(row.shown.problems(&row.clause, root, names));
            problems.extend(sentence(&row.clause, &row.text));
            let lost = row.place.is_none() && row.shown.test.is_some();
            if row.role != Role::Other && lost {
                problems.push(format!("{}: says not where it is done", row.clause));
            }
        }
        for (line, shalls) in &self.shall {
            let rows = line
                .parse()
                .ok()
                .and_then(|l| counted.get(&l))
                .copied()
                .unwrap_or(0);
            if rows < *shalls {
                problems.push(format!(
                    "line {line} says \"shall\" {shalls} times and has {rows} rows"
                ));
            }
        }
        for clause in CLAUSES {
            if !next.contains_key(clause) {
                problems.push(format!("{clause} has no row"));
            }
            if !self.title.contains_key(clause) {
                problems.push(format!("{clause} has no title"));
            }
        }
        problems
    }
}

impl Requirements {
    /// Rows that are open, and places that are not there.
    pub fn unfinished(&self, root: &Path) -> Vec<String> {
        let open = self
            .requirement
            .iter()
            .filter_map(|r| r.shown.open(&r.clause));
        let places = self.requirement.iter().flat_map(|row| {
            let lost = |place: &String| defined(root, place).err();
            let all = row.place.iter().flat_map(Many::all).filter_map(lost);
            all.map(|why| format!("{}: {why}", row.clause))
                .collect::<Vec<_>>()
        });
        open.chain(places).collect()
    }
}

impl Phones {
    /// Rows that are open.
    pub fn unfinished(&self) -> Vec<String> {
        self.phone
            .iter()
            .filter_map(|r| r.shown.open(&r.id))
            .collect()
    }

    /// What is wrong, one line each.
    pub fn problems(&self, root: &Path, names: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let mut ids = BTreeSet::new();
        for row in &self.phone {
            if !ids.insert(&row.id) {
                problems.push(format!("{} stands twice", row.id));
            }
            problems.extend(sentence(&row.id, &row.text));
            problems.extend(row.shown.problems(&row.id, root, names));
        }
        problems
    }
}

impl Shown {
    fn open(&self, id: &str) -> Option<String> {
        self.open
            .as_ref()
            .map(|open| format!("{id} is open: {open}"))
    }

    fn problems(&self, id: &str, root: &Path, names: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
        let parts = [
            self.test.is_some(),
            self.reason.is_some(),
            self.open.is_some(),
        ];
        let some = parts.iter().filter(|p| **p).count();
        // A row with some tests may say what else is missing.
        if some != 1 && !(self.open.is_some() && self.reason.is_none()) {
            problems.push(format!("{id}: exactly one of test and reason"));
        }
        problems.extend(self.reason.iter().flat_map(|r| sentence(id, r)));
        if self.test.as_ref().is_some_and(|t| t.all().is_empty()) {
            problems.push(format!("{id}: an empty list of tests"));
        }
        for test in self.test.iter().flat_map(Many::all) {
            problems.extend(
                exists(root, names, test)
                    .err()
                    .map(|why| format!("{id}: {why}")),
            );
        }
        problems
    }
}

/// What comes before a name where it is defined.
const DEFINES: [&str; 9] = [
    "fn ", "struct ", "enum ", "const ", "static ", "trait ", "type ", "mod ", "pub ",
];

/// `FILE: NAME`: the file is there, and defines the name.
fn defined(root: &Path, place: &str) -> Result<(), String> {
    let (file, name) = part(place)?;
    let text = read_text(root, file)?;
    let defines = |at: usize| DEFINES.iter().any(|before| text[..at].ends_with(before));
    if words(&text, name).any(defines) {
        Ok(())
    } else {
        Err(format!("{file} does not define {name:?}"))
    }
}
