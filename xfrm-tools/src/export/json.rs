//! SAs as one JSON object, for programs.

use std::fmt::Write as _;
use std::net::IpAddr;

use gm_api::sad::{SaRow, SadEntry};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Text;
use crate::group::LeftOut;

/// A state that is no SA of a set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Destination address outside.
    pub dst: IpAddr,
    /// SPI, host byte order.
    pub spi: u32,
    /// Why.
    pub why: String,
}

impl From<&LeftOut> for Left {
    fn from(left: &LeftOut) -> Left {
        Left {
            dst: left.id.dst,
            spi: left.id.spi,
            why: left.why.to_string(),
        }
    }
}

/// `{"sas": [...], "left_out": [...]}` and a line's end. An SA has the keys of
/// SAD.toml and, with `keys`, `integrity_key`, `encryption_key` and `salt` where
/// its suite has them.
///
/// # Errors
/// What serde_json says, which knows no key.
pub fn object(
    sas: &[SadEntry],
    left_out: &[Left],
    keys: bool,
) -> Result<Zeroizing<String>, serde_json::Error> {
    let mut text = Text::default();
    text.push("{\"sas\":[");
    for (at, sa) in sas.iter().enumerate() {
        text.push(if at == 0 { "\n" } else { ",\n" });
        let row: SaRow = sa.row();
        let row = serde_json::to_string(&row)?;
        let Some(open) = row.strip_suffix('}').filter(|_| keys) else {
            text.push(&row);
            continue;
        };
        text.push(open);
        let salt = sa.keys.salt().map(Zeroizing::new);
        for (name, key) in [
            ("integrity_key", sa.keys.integrity()),
            ("encryption_key", sa.keys.encryption()),
            ("salt", salt.as_deref().map(|salt| &salt[..])),
        ] {
            let Some(key) = key else { continue };
            let _ = write!(text, ",\"{name}\":\"");
            text.hex(key);
            text.push("\"");
        }
        text.push("}");
    }
    let left_out = serde_json::to_string(left_out)?;
    let _ = writeln!(text, "\n],\"left_out\":{left_out}}}");
    Ok(text.finish())
}
