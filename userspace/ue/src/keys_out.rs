//! The SAs of a registration with their keys, as SAD.toml: for captures of a
//! test's own, and only when a file is named for it.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use gm_esp::{Mode, SaSpec};
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
        let mut text = Zeroizing::new(String::new());
        for (spec, dir) in request
            .inbound
            .iter()
            .map(|s| (s, "in"))
            .chain(request.outbound.iter().map(|s| (s, "out")))
        {
            entry(&mut text, spec, dir, request.token.0);
            text.push_str(&keys);
            text.push('\n');
        }
        self.0
            .write_all(text.as_bytes())
            .context("cannot write the keys")
    }
}

fn entry(text: &mut String, spec: &SaSpec, dir: &str, set: u64) {
    let mode = match spec.mode {
        Mode::Trans => "trans",
        Mode::UdpEncTun => "udp-enc-tun",
    };
    let selector = &spec.selector;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "[[sa]]\nset = {set}\ndir = \"{dir}\"\nspi = {}\nmode = \"{mode}\"\nsrc = \"{}\"\ndst = \"{}\"\n",
        spec.spi, selector.src, selector.dst
    );
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value}");
        }
    };
    line("src_port", selector.src_port.map(|p| p.to_string()));
    line("dst_port", selector.dst_port.map(|p| p.to_string()));
    line("alg", Some(format!("\"{}\"", spec.suite.alg())));
    line("ealg", Some(format!("\"{}\"", spec.suite.ealg())));
    if let Some(outer) = &spec.outer {
        line("outer_src", Some(format!("\"{}\"", outer.src)));
        line("outer_dst", Some(format!("\"{}\"", outer.dst)));
        line("encap_sport", outer.sport.map(|p| p.to_string()));
        line("encap_dport", outer.dport.map(|p| p.to_string()));
    }
}

#[cfg(test)]
mod tests {
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
}
