//! What fuzzing has kept, held against the properties of its target without any of
//! what fuzzing needs. For the tests named fuzz_corpus.

use std::path::{Path, PathBuf};

/// The folder `tests` of the project.
pub fn tests() -> PathBuf {
    let crate_of_the_test = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_of_the_test.join("../../tests")
}

/// Fewest inputs of a corpus.
#[allow(dead_code, reason = "not every corpus has as many")]
pub const LEAST: usize = 100;

/// Runs `check` over the files of a folder and says which one it was that failed.
pub fn each(folder: &Path, least: usize, check: impl Fn(&[u8])) {
    let files = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut count = 0;
    for file in files {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("readable");
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&bytes)));
        assert!(held.is_ok(), "{} breaks a property", path.display());
        count += 1;
    }
    assert!(count >= least, "only {count} files in {}", folder.display());
}
