//! The keys of the demo's SAs, kept beside the capture when `--pcap` asks
//! for it: as SAD.toml for gm-xfrm and as Wireshark's `esp_sa` table.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gm_api::sad::Sad;
use gm_xfrm::export::wireshark;

use super::phone::write_private;
use super::report::Stage;
use super::{NAT_PUBLIC, UE_PRIVATE};

/// Where keys go.
pub struct Keys {
    scratch: PathBuf,
    out: Option<PathBuf>,
}

impl Keys {
    /// `out`: the directory that `--pcap` names.
    pub fn create(out: Option<&Path>, scratch: &Path) -> Result<Keys> {
        Ok(Keys {
            scratch: scratch.to_owned(),
            out: out.map(Path::to_owned),
        })
    }

    /// The file into which the phone with this number writes its SAs.
    pub fn next(&self, number: usize) -> PathBuf {
        self.scratch.join(format!("keys-{number}.toml"))
    }

    /// Writes both files, mode 0600.
    pub fn finish(&self, stage: &mut Stage) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let mut sad = String::from(
            "# The SAs of a gmesp demo, as the P-CSCF's side of the wire sees them.\n\
             # Open the capture: gm-xfrm pcap open --sad sad.toml --out plain.pcapng --report report.jsonl capture.pcapng\n\n",
        );
        for number in 0.. {
            match fs::read_to_string(self.next(number)) {
                Ok(text) => sad.push_str(&as_seen_on_the_wire(&text, number)),
                Err(_) => break,
            }
        }
        write_private(&out.join("sad.toml"), &sad)?;
        let parsed = Sad::parse("sad.toml", &sad).context("the demo's own SAD")?;
        let table = wireshark::table(&parsed.entries);
        write_private(&out.join("esp_sa"), &table)?;
        stage.scene("Kept for Wireshark, Scapy and gm-xfrm");
        for (file, what) in [
            (
                "capture.pcapng",
                "what crossed the wire, at the P-CSCF's end",
            ),
            ("sad.toml", "the SAs with their keys, for gm-xfrm pcap open"),
            ("esp_sa", "the same for Wireshark (which cannot do GMAC)"),
        ] {
            stage.say(&format!("   {:<40} {what}", out.join(file).display()));
        }
        Ok(())
    }
}

/// A phone's own view made the wire's: the NAT's address instead of the
/// phone's own, one set number for each phone, and no direction.
fn as_seen_on_the_wire(text: &str, number: usize) -> String {
    let mut seen = String::new();
    for line in text.lines().filter(|line| !line.starts_with("dir = ")) {
        if line.starts_with("set = ") {
            let _ = writeln!(seen, "set = {}", number + 1);
        } else {
            let _ = writeln!(
                seen,
                "{}",
                line.replace(&UE_PRIVATE.to_string(), &NAT_PUBLIC.to_string())
            );
        }
    }
    seen.push('\n');
    seen
}
