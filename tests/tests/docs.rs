//! The documents lead somewhere: links to files and headings, functions that
//! ARCHITECTURE.md names, rules and readings that the code cites.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// The documents whose links are followed.
fn documents() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    all.push(root().join("tests/README.md"));
    all.push(root().join("benches/README.md"));
    all.push(root().join("ebpf/prebuilt/README.md"));
    all.sort();
    all
}

/// A link `[text](target)`.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    text: String,
    target: String,
}

/// The links of a document, those in fenced blocks left out.
fn links(markdown: &str) -> Vec<Link> {
    let mut text = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.push_str(line);
            text.push('\n');
        }
    }
    let mut links = Vec::new();
    for (at, _) in text.match_indices("](") {
        let Some(begin) = text[..at].rfind('[') else {
            continue;
        };
        let Some(end) = text[at..].find(')') else {
            continue;
        };
        links.push(Link {
            text: text[begin + 1..at].replace('\n', " "),
            target: text[at + 2..at + end].to_owned(),
        });
    }
    links
}

/// What a heading is called in a link, as GitHub makes it.
fn anchors(markdown: &str) -> BTreeSet<String> {
    markdown
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
            heading.chars().filter(kept).collect::<String>()
        })
        .map(|heading| heading.replace(' ', "-"))
        .collect()
}

/// What is wrong with a link of `document`, if anything.
fn broken(document: &Path, link: &Link) -> Option<String> {
    if link.target.contains("://") {
        return None;
    }
    let (file, anchor) = match link.target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link.target.as_str(), None),
    };
    let file = match file {
        "" => document.to_owned(),
        file => document.parent().unwrap().join(file),
    };
    if !file.exists() {
        return Some(format!("{} is not there", link.target));
    }
    match anchor {
        Some(anchor) if !anchors(&read(&file)).contains(anchor) => {
            Some(format!("{} has no such heading", link.target))
        }
        _ => None,
    }
}

/// Whether Rust source defines an item, or an enum's variant, of this name.
fn defines(source: &str, name: &str) -> bool {
    let keywords = [
        "fn", "struct", "enum", "trait", "const", "static", "type", "mod",
    ];
    let word = |c: char| c.is_alphanumeric() || c == '_';
    source.lines().map(str::trim_start).any(|line| {
        if line.starts_with("//") {
            return false;
        }
        let words: Vec<&str> = line.split(|c| !word(c)).filter(|w| !w.is_empty()).collect();
        let item = words
            .windows(2)
            .any(|pair| keywords.contains(&pair[0]) && pair[1] == name);
        // A variant stands at the beginning of its line.
        let rest = line.strip_prefix(name);
        item || name.starts_with(char::is_uppercase)
            && rest.is_some_and(|r| matches!(r.trim_start().chars().next(), Some(',' | '{' | '(')))
    })
}

/// What is wrong with a name that leads to a Rust file, if anything. Text that
/// is the end of the path means the file.
fn misnamed(root: &Path, link: &Link) -> Option<String> {
    let name = link.text.strip_prefix('`')?.strip_suffix('`')?;
    if !link.target.ends_with(".rs") || Path::new(&link.target).ends_with(name) {
        return None;
    }
    let source = read(&root.join(&link.target));
    let mut parts: Vec<&str> = name.split("::").collect();
    let last = parts.pop()?;
    if !defines(&source, last) {
        return Some(format!("{} does not define {last}", link.target));
    }
    let missing = parts.into_iter().find(|part| !source.contains(part))?;
    Some(format!("{} does not know {missing}", link.target))
}

/// All Rust sources of the repository.
fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// What the comments of a source cite: `A-19` and so on, `rule 4` and so on.
fn citations(source: &str) -> BTreeSet<String> {
    let mut cited = BTreeSet::new();
    // A citation may go on in the next line of its comment.
    let text: String = source
        .lines()
        .map(|line| line.trim_start().trim_start_matches(['/', '!']))
        .collect::<Vec<_>>()
        .join(" ");
    for (at, keyword) in text.match_indices("ARCHITECTURE, r") {
        let rest = &text[at + keyword.len()..];
        let list = rest.split([')', '.', ';', ':']).next().unwrap_or_default();
        for word in list.split([' ', ',']) {
            if word.starts_with("A-") {
                cited.insert(word.to_owned());
            } else if list.starts_with("ule") && word.parse::<u8>().is_ok() {
                cited.insert(format!("rule {word}"));
            }
        }
    }
    cited
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    let mut followed = 0;
    for document in documents() {
        for link in links(&read(&document)) {
            followed += 1;
            if let Some(what) = broken(&document, &link) {
                wrong.push(format!("{}: {what}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(followed > 100, "only {followed} links were found");
}

#[test]
fn architecture_names_what_is_there() {
    let links = links(&read(&root().join("ARCHITECTURE.md")));
    let wrong: Vec<String> = links.iter().filter_map(|l| misnamed(&root(), l)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn readme_says_of_every_reason_what_it_is() {
    let readme = read(&root().join("README.md"));
    let rest = readme.split_once("\n## When a packet does not arrive\n");
    let section = rest.unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|l| l.starts_with("| `")).collect();
    for reason in gm_abi::verdict::Reason::ALL {
        let name = format!("`{}`", reason.name());
        let named = |row: &&&str| row.split('|').nth(1).unwrap().contains(&name);
        assert_eq!(rows.iter().filter(named).count(), 1, "{name}");
    }
}

#[test]
fn what_the_code_cites_is_written_down() {
    let architecture = read(&root().join("ARCHITECTURE.md"));
    let section = |from: &str| {
        let rest = architecture.split_once(from).unwrap().1;
        rest.split("\n## ").next().unwrap().to_owned()
    };
    let rules = section("\n## Rules of the data path\n");
    let readings = section("\n## Readings of the specification\n");
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let mut seen = 0;
    for file in files {
        if file.ends_with("tests/tests/docs.rs") {
            continue;
        }
        for cited in citations(&read(&file)) {
            seen += 1;
            let there = match cited.strip_prefix("rule ") {
                Some(rule) => rules.contains(&format!("\n{rule}. ")),
                None => readings.contains(&format!("\n| {cited} |")),
            };
            assert!(
                there,
                "{} cites {cited}, which ARCHITECTURE.md lacks",
                file.display()
            );
        }
    }
    assert!(seen > 10, "only {seen} citations were found");
}

#[test]
fn what_leads_nowhere_is_found() {
    let text = "see [`a::b`](x.rs) and\n[two\nwords](y.md#z)\n```\n[no](t)\n```\n";
    let found = links(text);
    let targets: Vec<&str> = found.iter().map(|l| l.target.as_str()).collect();
    assert_eq!(targets, ["x.rs", "y.md#z"]);
    assert_eq!(found[1].text, "two words");

    let here = root().join("tests/README.md");
    let link = |target: &str| Link {
        text: "`no_such_function`".into(),
        target: target.into(),
    };
    assert_eq!(broken(&here, &link("../README.md")), None);
    assert_eq!(broken(&here, &link("https://example.org/x")), None);
    assert_eq!(broken(&here, &link("#the-oracles")), None);
    assert!(broken(&here, &link("no-such-file.md")).is_some());
    assert!(broken(&here, &link("../README.md#no-such-heading")).is_some());

    assert!(misnamed(&root(), &link("ebpf/abi/src/maps.rs")).is_some());
    let source = "// fn a()\npub(crate) async fn b(x: u8) {\nstruct C<'a>;\n    D {\n    e.f(g);\n";
    for (name, is) in [
        ("a", false),
        ("b", true),
        ("C", true),
        ("D", true),
        ("f", false),
    ] {
        assert_eq!(defines(source, name), is, "{name}");
    }

    let cited =
        citations("/// (ARCHITECTURE, rules 4\n    /// and 6), ARCHITECTURE, readings A-04, A-05.");
    let cited: Vec<&str> = cited.iter().map(String::as_str).collect();
    assert_eq!(cited, ["A-04", "A-05", "rule 4", "rule 6"]);
}
