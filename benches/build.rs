//! Names the compiler.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map_or("rustc".into(), |out| {
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    });
    println!("cargo::rustc-env=GM_BENCH_RUSTC={version}");
}
