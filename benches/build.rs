//! Names the compiler; compiles the shims to C libraries with feature `peers`.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map_or("rustc".into(), |out| {
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    });
    println!("cargo::rustc-env=GM_BENCH_RUSTC={version}");
    #[cfg(feature = "peers")]
    shims();
}

/// Compiled against the libraries' own headers, so that no layout of a struct
/// of theirs is written down here.
#[cfg(feature = "peers")]
fn shims() {
    println!("cargo::rerun-if-changed=shim");
    cc::Build::new()
        .files(["shim/ipsec_mb.c", "shim/openssl.c"])
        .std("c11")
        .define("_POSIX_C_SOURCE", "200809L")
        .opt_level(3)
        .warnings(true)
        .extra_warnings(true)
        .compile("gm_bench_shims");
    println!("cargo::rustc-link-lib=IPSec_MB");
    println!("cargo::rustc-link-lib=crypto");
}
