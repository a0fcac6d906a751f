//! The table of requirements (tests/spec): its rows are whole and well-formed, the tests that
//! they name exist, and the pages made from it are up to date.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[path = "requirements/names.rs"]
mod names;
#[path = "requirements/page.rs"]
mod page;
#[path = "requirements/shown.rs"]
mod shown;
#[path = "requirements/table.rs"]
mod table;

use table::{Phones, Requirements};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the repository")
        .to_owned()
}

/// Read once: the sources are many.
fn names() -> &'static BTreeSet<String> {
    static NAMES: OnceLock<BTreeSet<String>> = OnceLock::new();
    NAMES.get_or_init(|| names::of_workspace(&root()))
}

fn spec(file: &str) -> PathBuf {
    root().join("tests/spec").join(file)
}

fn report(problems: &[String]) {
    assert!(
        problems.is_empty(),
        "{} problems:\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn every_requirement_is_shown_by_a_test_that_exists_or_says_why_not() {
    let table: Requirements = table::read(&spec("requirements.toml"));
    report(&table.problems(&root(), names()));
}

#[test]
fn every_habit_of_phones_is_shown_by_a_test_that_exists_or_says_why_not() {
    let table: Phones = table::read(&spec("phones.toml"));
    report(&table.problems(&root(), names()));
}

#[test]
fn no_row_is_open() {
    let requirements: Requirements = table::read(&spec("requirements.toml"));
    let phones: Phones = table::read(&spec("phones.toml"));
    report(&[requirements.unfinished(&root()), phones.unfinished()].concat());
}

#[test]
fn readings_that_rows_cite_are_written_down() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let text = fs::read_to_string(spec("requirements.toml")).expect("the table");
    let digits = |at: &usize| {
        text[at + 2..]
            .bytes()
            .take_while(u8::is_ascii_digit)
            .count()
    };
    let cited: BTreeSet<&str> = text
        .match_indices("A-")
        .map(|(at, _)| at)
        .filter(|at| digits(at) == 2)
        .map(|at| &text[at..at + 4])
        .collect();
    assert!(cited.len() > 20, "{cited:?}");
    let lost: Vec<_> = cited
        .iter()
        .filter(|a| !architecture.contains(&format!("\n| {a} |")))
        .collect();
    assert!(lost.is_empty(), "not in ARCHITECTURE.md: {lost:?}");
}

#[test]
fn the_pages_say_what_the_tables_say() {
    for (file, made) in [
        (
            "REQUIREMENTS.md",
            page::requirements(&table::read(&spec("requirements.toml"))),
        ),
        (
            "PHONES.md",
            page::phones(&table::read(&spec("phones.toml"))),
        ),
    ] {
        if std::env::var_os("UPDATE").is_some() {
            fs::write(spec(file), &made).expect("the page is written");
        }
        let kept = fs::read_to_string(spec(file)).unwrap_or_default();
        assert!(
            kept == made,
            "{file} is stale: UPDATE=1 cargo test -p gm-tests --test requirements"
        );
    }
}

/// The names are read out of sources; here they are held against a harness, this one.
#[test]
fn names_are_those_that_the_harness_lists() {
    let program = std::env::current_exe().expect("this program");
    let output = std::process::Command::new(program)
        .arg("--list")
        .output()
        .expect("a list");
    let listed: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            Some(format!(
                "gm-tests/requirements: {}",
                line.strip_suffix(": test")?
            ))
        })
        .collect();
    let read: BTreeSet<String> = names()
        .iter()
        .filter(|n| n.starts_with("gm-tests/requirements: "))
        .cloned()
        .collect();
    assert_eq!(read, listed);
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let names: BTreeSet<String> = ["c: m::one", "c: m::two::case_1_a", "c: m::two::case_2_b"]
        .map(str::to_owned)
        .into();
    let exists = |name: &str| shown::exists(&root(), &names, name).is_ok();
    for good in [
        "c: m::one",
        "c: m::two::*",
        "c: m::two::case_2_b",
        "tests/run: step_unit",
    ] {
        assert!(exists(good), "{good}");
    }
    for bad in [
        "c: m::on",
        "c: one",
        "m::one",
        "c: m::two",
        "c: m::one::*",
        "c: m::*",
        "tests/run: step_un",
        "tests/no: x",
    ] {
        assert!(!exists(bad), "{bad}");
    }
}

/// Prints all names, for whoever writes rows.
#[test]
#[ignore = "a tool: prints the names of all tests"]
fn list_names() {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for name in names() {
        let _ = writeln!(out, "{name}");
    }
}
