//! Draws the pages of a release from its results: `README.md` and the plots,
//! beside the JSON file that `GM_BENCH_RESULTS` names, or that of this version.
//!
//! With `--test` it draws nothing, and fails when the pages that are kept are not
//! what the JSON file gives.

use std::error::Error;
use std::path::{Path, PathBuf};

use gm_benches::report;

const KEPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/results/",
    env!("CARGO_PKG_VERSION"),
    "/results.json"
);

#[expect(clippy::print_stdout, reason = "a bench's report goes there")]
fn main() -> Result<(), Box<dyn Error>> {
    let path = match std::env::var_os(report::RESULTS) {
        Some(path) if !gm_benches::smoke() => PathBuf::from(path),
        _ => PathBuf::from(KEPT),
    };
    if !path.exists() {
        println!("report: there is no {}", path.display());
        return Ok(());
    }
    let results = serde_json::from_slice(&std::fs::read(&path)?)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    for (name, text) in report::pages(&results) {
        let page = folder.join(name);
        if gm_benches::smoke() {
            if std::fs::read_to_string(&page)? != text {
                return Err(format!(
                    "{}: not what {} gives: cargo bench -p gm-benches --bench report",
                    page.display(),
                    path.display()
                )
                .into());
            }
        } else {
            std::fs::write(&page, text)?;
            println!("{}", page.display());
        }
    }
    Ok(())
}
