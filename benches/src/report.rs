//! Where figures go: a section of a JSON file each, and pages drawn from it.
//!
//! ```text
//! GM_BENCH_RESULTS=$PWD/benches/results/0.1.0/results.json cargo bench -p gm-benches
//! cargo bench -p gm-benches --bench report     results.json -> README.md, *.svg
//! ```

mod page;
mod svg;
mod table;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use page::pages;
pub use table::{Plot, Table};

/// The environment variable that names the JSON file, absolutely: cargo runs a
/// bench in the folder of its package.
pub const RESULTS: &str = "GM_BENCH_RESULTS";

/// Prints a section, and merges it into the file that [`RESULTS`] names.
///
/// The page understands a [`Table`], a list of tables, and anything else as a
/// list of names and values. A section of that name is replaced, others stay.
/// Nothing is kept of a [`smoke`](crate::smoke) run.
///
/// # Panics
/// When the file cannot be read as JSON or not be written: figures that are lost
/// in silence are worse.
pub fn section(name: &str, value: impl Into<Value>) {
    let value = value.into();
    print(name, &value);
    let Some(path) = std::env::var_os(RESULTS).filter(|_| !crate::smoke()) else {
        return;
    };
    let merged = merge(Path::new(&path), name, value);
    merged.unwrap_or_else(|error| panic!("{}: {error}", PathBuf::from(path).display()));
}

#[expect(clippy::print_stdout, reason = "a bench's report goes there")]
fn print(name: &str, value: &Value) {
    let text = match name {
        "ratios" => table::markdown(&page::ratios(value)),
        _ => table::markdown(value),
    };
    print!("\n== {name}\n\n{text}");
}

/// Locks the file, for several benches may run at once.
fn merge(path: &Path, name: &str, value: Value) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    file.lock()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut all: Map<String, Value> = match text.trim() {
        "" => Map::new(),
        text => serde_json::from_str(text)?,
    };
    all.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
    all.insert("machine".into(), crate::machine::description());
    all.insert(name.to_owned(), value);
    let text = serde_json::to_string_pretty(&all)? + "\n";
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_one_file_stand_side_by_side_and_a_new_one_replaces_the_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/results.json");
        merge(&path, "xdp", json!({ "a long value that is replaced": 1 })).unwrap();
        merge(&path, "sip", json!([2])).unwrap();
        merge(&path, "xdp", json!(3)).unwrap();
        let all: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&all["xdp"], &all["sip"]), (&json!(3), &json!([2])));
        assert!(all["machine"]["compiler"].is_string());
    }

    #[test]
    fn a_file_that_is_no_json_is_left_as_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "figures of last year").unwrap();
        assert!(merge(file.path(), "xdp", json!(1)).is_err());
        assert_eq!(
            std::fs::read_to_string(file.path()).unwrap(),
            "figures of last year"
        );
    }
}
