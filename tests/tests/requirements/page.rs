//! The pages for people, made from the tables.

use std::fmt::Write;

use super::shown::Many;
use super::table::{Phones, Requirement, Requirements, Role, Shown};

const HEAD: &str = "<!-- Made from FILE; do not edit. UPDATE=1 cargo test -p gm-tests --test requirements writes it. -->\n";

/// `tests/spec/REQUIREMENTS.md`.
pub fn requirements(table: &Requirements) -> String {
    let mut page = HEAD.replace("FILE", "requirements.toml");
    page.push_str(
        "\n# What TS 33.203 asks of Gm, and what shows that it is done\n\n\
         One row for each \"shall\" of clauses 5.1.2 to 5.1.4, 6.1 to 6.3, 7.1 to 7.5 and of annexes H, I and M (M.6,\n\
         M.7), and for what binds like one, in our words. Role: whom it binds; *other* is nobody on Gm. A test stands\n\
         as `CRATE: path` (unit test) or `CRATE/TARGET: path`, the path as `cargo test -- --list` prints it; `::*`\n\
         means all cases. Those of gm-tests that need root run with `tests/run root`. Where the specification is\n\
         silent or says two things, rows cite the readings (A-NN) of ARCHITECTURE.md.\n\n",
    );
    totals(&mut page, table);
    let mut clause = "";
    for row in &table.requirement {
        let own = row.clause.rsplit_once('-').map_or("", |(clause, _)| clause);
        if own != clause {
            clause = own;
            let title = table
                .title
                .get(clause)
                .map(String::as_str)
                .unwrap_or_default();
            let _ = write!(
                page,
                "\n## {clause} {title}\n\n| | role | what is asked | where | shown by |\n|---|---|---|---|---|\n"
            );
        }
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            row.clause,
            row.role.name(),
            cell(&row.text),
            row.place.as_ref().map(places).unwrap_or_default(),
            shown(&row.shown)
        );
    }
    page
}

/// `tests/spec/PHONES.md`.
pub fn phones(table: &Phones) -> String {
    let mut page = HEAD.replace("FILE", "phones.toml");
    page.push_str(
        "\n# What real phones and cores write and do, and what shows that we can take it\n\n\
         The shapes are real, every value in the tests is made up. Names of tests as in [REQUIREMENTS.md](REQUIREMENTS.md).\n",
    );
    let mut about = "";
    for row in &table.phone {
        if row.about != about {
            about = &row.about;
            let _ = write!(
                page,
                "\n## {about}\n\n| | what is seen | shown by |\n|---|---|---|\n"
            );
        }
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            row.id,
            cell(&row.text),
            shown(&row.shown)
        );
    }
    page
}

fn totals(page: &mut String, table: &Requirements) {
    page.push_str("| role | rows | shown by tests | without a test, for a reason | open |\n|---|---|---|---|---|\n");
    for role in [Role::Ue, Role::PCscf, Role::Both, Role::Other] {
        let rows: Vec<&Requirement> = table
            .requirement
            .iter()
            .filter(|r| r.role == role)
            .collect();
        let count = |f: fn(&Shown) -> bool| rows.iter().filter(|r| f(&r.shown)).count();
        let open = count(|s| s.open.is_some());
        let reason = count(|s| s.reason.is_some());
        let shown = rows.len() - open - reason;
        let _ = writeln!(
            page,
            "| {} | {} | {shown} | {reason} | {open} |",
            role.name(),
            rows.len()
        );
    }
}

fn shown(shown: &Shown) -> String {
    let mut parts: Vec<String> = shown
        .test
        .iter()
        .flat_map(Many::all)
        .map(|t| format!("`{t}`"))
        .collect();
    parts.extend(shown.reason.iter().map(|r| format!("no test: {}", cell(r))));
    parts.extend(shown.open.iter().map(|o| format!("**open**: {}", cell(o))));
    parts.join("<br>")
}

fn places(all: &Many) -> String {
    let one = |place: &String| match place.split_once(": ") {
        Some((file, name)) => format!("[`{name}`](../../{file})"),
        None => place.clone(),
    };
    all.all().iter().map(one).collect::<Vec<_>>().join(", ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
