//! The list of behaviours (tests/behaviours.toml): everything that is asked for has a row, every
//! row names tests, and the tests are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

// What the table of requirements has for its rows serves here too.
#[path = "requirements/names.rs"]
mod names;
#[path = "behaviours/required.rs"]
mod required;
#[path = "requirements/shown.rs"]
mod shown;

use shown::Many;

/// Something that the data plane does, whatever stacks and strangers do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Behaviour {
    /// `replay.jump`: its group in [`required::GROUPS`], and its name there.
    id: String,
    /// What it is, in our words.
    text: String,
    /// Who tests or asks for it: a project, a section of an RFC, a CVE.
    source: String,
    /// What shows it.
    test: Option<Many>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    behaviour: Vec<Behaviour>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository")
        .to_owned()
}

fn table() -> Table {
    let text = fs::read_to_string(root().join("tests/behaviours.toml")).expect("the table");
    toml::from_str(&text).unwrap_or_else(|e| panic!("tests/behaviours.toml: {e}"))
}

/// All ids that must be there, in the order of the table.
fn required() -> Vec<String> {
    let of_group = |(group, ids): &(&str, &[&str])| {
        let ids = ids.iter().map(|id| format!("{group}.{id}"));
        ids.collect::<Vec<_>>()
    };
    required::GROUPS.iter().flat_map(of_group).collect()
}

/// What is wrong with the rows themselves, one line each.
fn problems(table: &Table, root: &Path, names: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut ids, mut texts) = (BTreeSet::new(), BTreeMap::new());
    for Behaviour {
        id,
        text,
        source,
        test,
    } in &table.behaviour
    {
        if !ids.insert(id) {
            problems.push(format!("{id} stands twice"));
        }
        if let Some(other) = texts.insert(text, id) {
            problems.push(format!("{id} says what {other} says"));
        }
        problems.extend(shown::sentence(id, text));
        if source.trim().is_empty() {
            problems.push(format!("{id}: no source"));
        }
        let tests = test.as_ref().map_or(&[][..], Many::all);
        if tests.is_empty() {
            problems.push(format!("{id}: no test"));
        }
        let unique: BTreeSet<_> = tests.iter().collect();
        if unique.len() != tests.len() {
            problems.push(format!("{id}: a test stands twice"));
        }
        let lost = tests
            .iter()
            .filter_map(|test| shown::exists(root, names, test).err());
        problems.extend(lost.map(|why| format!("{id}: {why}")));
    }
    problems
}

#[test]
fn every_behaviour_is_shown_by_a_test_that_exists() {
    let names = names::of_workspace(&root());
    let problems = problems(&table(), &root(), &names);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_behaviour_that_is_asked_for_has_its_row() {
    let there: Vec<String> = table().behaviour.into_iter().map(|b| b.id).collect();
    let required = required();
    let lost: Vec<_> = required.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "without a row: {lost:?}");
    let odd: Vec<_> = there.iter().filter(|id| !required.contains(id)).collect();
    assert!(odd.is_empty(), "nobody asks for these: {odd:?}");
    assert_eq!(there, required, "the order of the rows is another");
}

#[test]
fn what_is_wrong_with_a_row_is_noticed() {
    let row = |id: &str, text: &str, test: Option<&str>| Behaviour {
        id: id.into(),
        text: text.into(),
        source: "nobody".into(),
        test: test.map(|t| Many::One(t.into())),
    };
    let names: BTreeSet<String> = ["c: m::one".to_owned()].into();
    let wrong = |rows: Vec<Behaviour>| problems(&Table { behaviour: rows }, &root(), &names).len();
    let good = row("a.b", "A packet comes in.", Some("c: m::one"));
    assert_eq!(wrong(vec![good.clone()]), 0);
    let again = row("a.b", "A packet goes out.", Some("c: m::one"));
    assert_eq!(wrong(vec![good.clone(), again]), 1);
    let same = row("a.c", "A packet comes in.", Some("c: m::one"));
    assert_eq!(wrong(vec![good.clone(), same]), 1);
    for bad in [
        row("a.b", "A packet comes in.", Some("c: m::two")),
        row("a.b", "A packet comes in.", None),
        row("a.b", "no", Some("c: m::one")),
        Behaviour {
            source: " ".into(),
            ..good.clone()
        },
        Behaviour {
            test: Some(Many::All(vec![])),
            ..good.clone()
        },
        Behaviour {
            test: Some(Many::All(vec!["c: m::one".into(), "c: m::one".into()])),
            ..good
        },
    ] {
        assert_eq!(wrong(vec![bad.clone()]), 1, "{bad:?}");
    }
}
