//! The libraries of others as contestants.
//!
//! | name | what | how |
//! |---|---|---|
//! | `ipsec_mb` | Intel's ipsec-mb | 64 packets in flight, the best of its ways per row |
//! | `openssl` | OpenSSL 3, EVP | a packet a call, contexts kept per SA |
//! | `aws_lc` | aws-lc-rs | a packet a call, keys kept per SA |
//! | `rustcrypto` | RustCrypto's crates, our reference engine | a packet a call |

mod aws_lc;
#[allow(unsafe_code, reason = "the one place where C is called")]
mod ffi;

use serde_json::{Value, json};

use crate::contest::{Contestant, EngineAt, Keys, Transform};

pub use aws_lc::AwsLc;
pub use ffi::{IpsecMb, OpenSsl};

/// All of them for the SAs of one suite, Intel's first.
///
/// # Panics
/// When a library refuses: a comparison without it would not be the one asked for.
pub fn all(suite: Transform, keys: &[Keys]) -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(IpsecMb::new(suite, keys).expect("ipsec-mb takes the keys")),
        Box::new(OpenSsl::new(suite, keys).expect("OpenSSL takes the keys")),
        Box::new(AwsLc::new(suite, keys).expect("aws-lc takes the keys")),
        Box::new(EngineAt::rustcrypto(suite, keys).expect("the reference engine takes the keys")),
    ]
}

/// Names and versions of the libraries.
pub fn versions() -> Value {
    json!({
        "ipsec_mb": ffi::ipsec_mb_version(),
        "openssl": ffi::openssl_version(),
        "aws_lc": format!("aws-lc-rs with {}", ffi::aws_lc_version()),
        "rustcrypto": "as in Cargo.lock",
    })
}
