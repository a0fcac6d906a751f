//! What is in the kernel, as a SAD.toml for gmespd and the offline tools.

use gm_api::sad::{Sad, SadEntry, SadError};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::export::sad;
use crate::group::Grouped;

const COMMENT: &str = "\
SAs that were in the kernel, with their keys: anyone who has this file can read
and forge what they protect. seq: the next number to send, or the first that
an inbound SA accepts, at the moment of reading.";

/// Why there is no file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It cannot be written as TOML.
    #[error("cannot write an SA as TOML: {0}")]
    Toml(#[from] toml::ser::Error),
    /// What was written is no SAD.toml.
    #[error("what would be written is not right: {0}")]
    Wrong(#[from] SadError),
}

/// The file, and lines about SAs that it cannot have.
///
/// # Errors
/// [`ImportError`]; what is returned has been read back as it will be.
pub fn file(grouped: &Grouped) -> Result<(Zeroizing<String>, Vec<String>), ImportError> {
    let mut refused = Vec::new();
    let mut fit = |sa: &SadEntry| {
        let last = if sa.spec.esn {
            i64::MAX as u64
        } else {
            u32::MAX.into()
        };
        let used_up = sa.seq.is_some_and(|seq| seq > last);
        if used_up {
            let (spi, to) = (sa.spec.spi, sa.destination());
            refused.push(format!(
                "SPI {spi:#010x} to {to}: left out: its numbers are used up"
            ));
        }
        !used_up
    };
    let mut sas = grouped.entries();
    sas.retain(&mut fit);
    let text = sad::file(COMMENT, &sas)?;
    Sad::parse("the SAs", &text)?;
    Ok((text, refused))
}
