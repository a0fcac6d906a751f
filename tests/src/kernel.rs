//! What the kernel under a test has, for tests that need more than every kernel
//! gives them.

use std::process::Command;
use std::sync::OnceLock;

use crate::netns::NetNs;

/// The SA that [`has_esp`] tries, in a namespace of its own: NULL with HMAC-SHA-1-96,
/// the least that a kernel with ESP has.
const TRIED: &[&str] = &[
    "xfrm",
    "state",
    "add",
    "src",
    "192.0.2.1",
    "dst",
    "192.0.2.2",
    "proto",
    "esp",
    "spi",
    "0x676d",
    "mode",
    "transport",
    "enc",
    "ecb(cipher_null)",
    "",
    "auth-trunc",
    "hmac(sha1)",
    "0x000102030405060708090a0b0c0d0e0f10111213",
    "96",
];

/// Whether this kernel has ESP (`CONFIG_INET_ESP`) and lets us use it. Tried once in
/// a process; needs root and iproute2.
///
/// # Panics
/// Where no namespace can be made.
pub fn has_esp() -> bool {
    static ESP: OnceLock<bool> = OnceLock::new();
    *ESP.get_or_init(|| {
        let ns = NetNs::new().expect("a network namespace, which needs root");
        let made = ns.run(|| Command::new("ip").args(TRIED).output());
        made.is_ok_and(|out| out.status.success())
    })
}

/// First in a test that needs ESP in the kernel: where there is none, it prints the
/// line by which `tests/run` counts the test as skipped, and returns.
///
/// The test is `#[ignore = "needs a kernel with ESP"]`, and `tests/vm/tests.sh` names it.
#[macro_export]
macro_rules! needs_esp {
    () => {
        if !$crate::kernel::has_esp() {
            #[allow(clippy::print_stdout, reason = "SKIPPED lines are for tests/run")]
            {
                println!("SKIPPED: this kernel has no ESP; the step vm has one that does");
            }
            return;
        }
    };
}
