//! The keys of the demo's SAs, kept beside the capture when `--pcap` asks
//! for it: as SAD.toml for gm-xfrm and as Wireshark's `esp_sa` table.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gm_api::sad::Sad;
use gm_esp::keys::EspKeys;
use gm_esp::suite::Suite;

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
        let mut table = String::from(
            "# Wireshark: Preferences, Protocols, ESP, ESP SAs; or copy to the profile as esp_sa.\n",
        );
        for sa in &parsed.entries {
            table.push_str(&line(sa.spec.spi, sa.spec.suite, &sa.keys));
        }
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

/// A line of Wireshark's table. Its AES-GCM wants the salt behind the key.
fn line(spi: u32, suite: Suite, keys: &EspKeys) -> String {
    let hex = |key: Option<&[u8]>| {
        key.map(|k| format!("0x{}", hex::encode(k)))
            .unwrap_or_default()
    };
    let cipher = match suite {
        Suite::HmacSha1Null | Suite::HmacMd5Null => "NULL",
        Suite::HmacSha1AesCbc | Suite::HmacMd5AesCbc => "AES-CBC [RFC3602]",
        Suite::HmacSha1DesEde3Cbc | Suite::HmacMd5DesEde3Cbc => "TripleDES-CBC [RFC2451]",
        Suite::NullAesGcm => "AES-GCM with 16 octet ICV [RFC4106]",
        Suite::AesGmacNull => {
            return format!("# SPI {spi:#010x}: AES-GMAC, which Wireshark cannot do\n");
        }
    };
    let mac = match suite.alg() {
        "hmac-sha-1-96" => "HMAC-SHA-1-96 [RFC2404]",
        "hmac-md5-96" => "HMAC-MD5-96 [RFC2403]",
        _ => "NULL",
    };
    let salt = keys.salt().map(hex::encode).unwrap_or_default();
    let (cipher_key, mac_key) = (hex(keys.encryption()) + &salt, hex(keys.integrity()));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\"IPv4\",\"*\",\"*\",\"{spi:#010x}\",\"{cipher}\",\"{cipher_key}\",\"{mac}\",\"{mac_key}\""
    );
    text
}
