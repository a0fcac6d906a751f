//! SAs as SAD.toml (the form that [`gm_api::sad`] reads).

use std::fmt::Write as _;

use gm_api::sad::SadEntry;
use zeroize::Zeroizing;

use super::Text;

/// The file: a comment of these lines, and a table for each SA with its ESP
/// keys as they are.
///
/// # Errors
/// What toml says, which knows no key.
pub fn file(comment: &str, sas: &[SadEntry]) -> Result<Zeroizing<String>, toml::ser::Error> {
    let mut text = Text::default();
    for line in comment.lines() {
        let _ = writeln!(text, "# {line}");
    }
    for sa in sas {
        text.push("\n[[sa]]\n");
        text.push(&toml::to_string(&sa.row())?);
        let salt = sa.keys.salt().map(Zeroizing::new);
        for (name, key) in [
            ("integrity_key", sa.keys.integrity()),
            ("encryption_key", sa.keys.encryption()),
            ("salt", salt.as_deref().map(|salt| &salt[..])),
        ] {
            let Some(key) = key else { continue };
            let _ = write!(text, "{name} = \"");
            text.hex(key);
            text.push("\"\n");
        }
    }
    Ok(text.finish())
}
