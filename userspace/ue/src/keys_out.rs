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

#[cfg(test)]
mod tests {
    use gm_sip::sa_set::{SetParams, Tunnel};
    use gm_sip::sec_agree::Ends;
    use gm_sip::{Role, SetToken};

    use super::*;

    #[test]
    fn a_file_that_all_may_read_does_not_stay_so() {
        let name = format!("gm-ue-keys-out-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let made = KeysOut::create(&path);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        std::fs::remove_file(&path).unwrap();
        assert!(made.is_ok());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_written_is_a_sad() {
        use std::io::{Read, Seek};
        let ends = |first: u16| Ends {
            spi_c: 1_000_000_000 + u32::from(first),
            spi_s: 1_000_000_001 + u32::from(first),
            port_c: first,
            port_s: first + 1,
        };
        let params = SetParams {
            ue: [192, 0, 2, 77].into(),
            pcscf: [192, 0, 2, 1].into(),
            ue_ends: ends(31_100),
            pcscf_ends: ends(5066),
            suite: gm_esp::Suite::NullAesGcm,
            tunnel: Some(Tunnel {
                local: [10, 45, 0, 2].into(),
                remote: [192, 0, 2, 1].into(),
                port: 4500,
            }),
            replay_window: 64,
        };
        let (ik, ck) = ([1; 16], [2; 16]);
        let (ik, ck) = (gm_esp::Ik::from_bytes(ik), gm_esp::Ck::from_bytes(ck));
        let request = SaSetRequest::new(SetToken(7), Role::Ue, params, ik, ck);
        let mut out = KeysOut(tempfile::tempfile().unwrap());
        out.write(&request).unwrap();
        let mut text = String::new();
        out.0.rewind().unwrap();
        out.0.read_to_string(&mut text).unwrap();

        let sad = gm_api::sad::Sad::parse("keys.toml", &text).unwrap_or_else(|e| panic!("{e}"));
        let specs: Vec<_> = sad.entries.iter().map(|sa| sa.spec).collect();
        let wanted: Vec<_> = request
            .inbound
            .into_iter()
            .chain(request.outbound)
            .collect();
        assert_eq!(specs, wanted);
        for sa in &sad.entries {
            assert!(sa.keys == request.keys());
            assert_eq!(sa.set, Some(7));
        }
        let dirs: Vec<_> = sad.entries.iter().map(|sa| sa.dir).collect();
        assert_eq!(dirs, [Dir::In, Dir::In, Dir::Out, Dir::Out].map(Some));
    }
}
