//! Which data plane the gmespd of a test has: `GM_TEST_DATA_PLANE`.

use std::env;

/// The variable: unset or `xdp`, or `kernel`.
pub const VARIABLE: &str = "GM_TEST_DATA_PLANE";

/// Whether the gmespd under test is to have the kernel's ESP for a data plane. What does
/// not apply then is listed, with reasons, in `tests/vm/kernel-plane-skip`.
///
/// # Panics
/// When the variable says something else.
pub fn is_kernel() -> bool {
    match env::var(VARIABLE).as_deref() {
        Err(env::VarError::NotPresent) | Ok("" | "xdp") => false,
        Ok("kernel") => true,
        other => panic!("{VARIABLE} is {other:?}: xdp or kernel"),
    }
}

/// What a gmespd.toml says of it: lines of its table `[gm]`, none for the default.
pub fn lines() -> &'static str {
    if is_kernel() {
        "data_plane = \"kernel\"\n"
    } else {
        ""
    }
}
