//! The SAs of a registration with their keys, as SAD.toml: for captures of a
//! test's own, and only when a file is named for it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use gm_api::sad::{Dir, SaRow};
use gm_sip::SaSetRequest;
use zeroize::Zeroizing;

/// A file of mode 0600 that collects SAs.
pub struct KeysOut(File);

impl KeysOut {
    /// Makes the file, or empties it.
    pub fn create(path: &Path) -> Result<KeysOut> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| {
                // One that was there keeps the mode that it had.
                file.set_permissions(Permissions::from_mode(0o600))?;
                Ok(KeysOut(file))
            })
            .with_context(|| format!("cannot write the keys to {}", path.display()))
    }

    /// Appends the four SAs of a set.
    pub fn write(&mut self, request: &SaSetRequest) -> Result<()> {
        let (ik, ck) = (request.ik.as_bytes(), request.ck.as_bytes());
        let keys = Zeroizing::new(format!(
            "ik = \"{}\"\nck = \"{}\"\n",
            Zeroizing::new(hex::encode(ik)).as_str(),
            Zeroizing::new(hex::encode(ck)).as_str()
        ));
        let inbound = request.inbound.iter().map(|spec| (spec, Dir::In));
        let outbound = request.outbound.iter().map(|spec| (spec, Dir::Out));
        for (spec, dir) in inbound.chain(outbound) {
            let mut row = SaRow::from_spec(spec);
            row.set = Some(request.token.0);
            row.dir = Some(dir);
            let row = toml::to_string(&row).context("cannot write an SA as TOML")?;
            write!(self.0, "[[sa]]\n{row}{}\n", keys.as_str()).context("cannot write the keys")?;
        }
        Ok(())
    }
}
