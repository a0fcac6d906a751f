//! Wireshark's table of ESP SAs, the file `esp_sa` of its configuration.
//!
//! A line has the IP version, source, destination, SPI, cipher, key, ICV and
//! key, each in quotes; `#` begins a comment. Newer versions have more fields,
//! with defaults for those that a line has not.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use gm_api::sad::{Dir, SadEntry, mode_name};
use gm_esp::keys::EspKeys;
use gm_esp::suite::Suite;
use zeroize::Zeroizing;

use super::Text;

const HEAD: &str = "\
# Wireshark's ESP SAs. Anyone who has this file can read what they protect.
# Copy it as esp_sa to the folder of Wireshark's profile (Help, About, Folders),
# and switch on, in Preferences, Protocols, ESP: decrypt and check payloads.
# tshark: WIRESHARK_CONFIG_DIR=FOLDER tshark -o esp.enable_encryption_decode:TRUE
#   -o esp.enable_authentication_check:TRUE -r CAPTURE
";

/// What Wireshark cannot do with an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lack {
    /// Nothing of it.
    #[error("Wireshark has no AES-GMAC")]
    Gmac,
    /// It opens nothing without checking the ICV.
    #[error("Wireshark has no AES-GCM with extended sequence numbers")]
    EsnGcm,
    /// It opens packets and does not check them.
    #[error("Wireshark checks no ICV where sequence numbers are extended")]
    EsnIcv,
}

impl Lack {
    /// All of them.
    pub const ALL: [Lack; 3] = [Lack::Gmac, Lack::EsnGcm, Lack::EsnIcv];

    /// Whether the SA stands in the table as a comment only.
    pub fn is_left_out(self) -> bool {
        matches!(self, Lack::Gmac | Lack::EsnGcm)
    }
}

/// What Wireshark cannot do with this SA, if there is something.
pub fn lack(sa: &SadEntry) -> Option<Lack> {
    match (sa.spec.suite, sa.spec.esn) {
        (Suite::AesGmacNull, _) => Some(Lack::Gmac),
        (Suite::NullAesGcm, true) => Some(Lack::EsnGcm),
        (_, true) => Some(Lack::EsnIcv),
        (_, false) => None,
    }
}

/// The whole file. Addresses stand in it only where an SPI occurs twice: what
/// a capture shows behind a NAT are not those that the SA has.
pub fn table(sas: &[SadEntry]) -> Zeroizing<String> {
    let mut of_spi: HashMap<(bool, u32), usize> = HashMap::new();
    for sa in sas {
        *of_spi.entry(id(sa)).or_default() += 1;
    }
    let mut text = Text::default();
    text.push(HEAD);
    for sa in sas {
        let alone = of_spi.get(&id(sa)).is_none_or(|n| *n == 1);
        comment(&mut text, sa);
        match lack(sa) {
            Some(lack) if lack.is_left_out() => {
                let _ = writeln!(text, "# (left out: {lack}; gm-xfrm pcap open has)");
            }
            _ => line(&mut text, sa, (!alone).then(|| sa.destination())),
        }
    }
    text.finish()
}

/// What Wireshark tells SAs apart by where no address is given.
fn id(sa: &SadEntry) -> (bool, u32) {
    (sa.destination().is_ipv6(), sa.spec.spi)
}

fn comment(text: &mut Text, sa: &SadEntry) {
    text.push("\n# ");
    if let Some(set) = sa.set {
        let _ = write!(text, "set {set}, ");
    }
    match sa.dir {
        Some(Dir::In) => text.push("in, "),
        Some(Dir::Out) => text.push("out, "),
        None => {}
    }
    let side = |text: &mut Text, addr: IpAddr, port: Option<u16>| match port {
        Some(port) => write!(text, "{addr} port {port}"),
        None => write!(text, "{addr}"),
    };
    let selector = &sa.spec.selector;
    let _ = side(text, selector.src, selector.src_port);
    text.push(" -> ");
    let _ = side(text, selector.dst, selector.dst_port);
    let _ = writeln!(text, ", {}, {}", mode_name(sa.spec.mode), sa.spec.suite);
}

fn line(text: &mut Text, sa: &SadEntry, destination: Option<IpAddr>) {
    let (v6, spi) = id(sa);
    let version = if v6 { "IPv6" } else { "IPv4" };
    let destination = destination.map_or("*".to_owned(), |addr| addr.to_string());
    let (cipher, mac) = names(sa.spec.suite, sa.spec.esn);
    let _ = write!(
        text,
        "\"{version}\",\"*\",\"{destination}\",\"{spi:#010x}\",\"{cipher}\",\""
    );
    encryption_key(text, &sa.keys);
    let _ = write!(text, "\",\"{mac}\",\"");
    if let Some(key) = sa.keys.integrity() {
        text.push("0x");
        text.hex(key);
    }
    text.push("\"\n");
}

/// Wireshark wants the salt of AES-GCM behind the key, as the kernel does.
fn encryption_key(text: &mut Text, keys: &EspKeys) {
    if let Some(key) = keys.encryption() {
        text.push("0x");
        text.hex(key);
        if let Some(salt) = keys.salt().map(Zeroizing::new) {
            text.hex(&salt[..]);
        }
    }
}

/// Wireshark's names for cipher and ICV. With extended sequence numbers the
/// ICV covers four octets that are not in the packet (RFC 4303 2.2.1), so that
/// it must not be checked.
fn names(suite: Suite, esn: bool) -> (&'static str, &'static str) {
    let cipher = match suite {
        Suite::HmacSha1Null | Suite::HmacMd5Null => "NULL",
        Suite::HmacSha1AesCbc | Suite::HmacMd5AesCbc => "AES-CBC [RFC3602]",
        Suite::HmacSha1DesEde3Cbc | Suite::HmacMd5DesEde3Cbc => "TripleDES-CBC [RFC2451]",
        Suite::NullAesGcm => "AES-GCM with 16 octet ICV [RFC4106]",
        Suite::AesGmacNull => "NULL",
    };
    let mac = match suite {
        Suite::NullAesGcm | Suite::AesGmacNull => "NULL",
        _ if esn => "ANY 96 bit authentication [no checking]",
        Suite::HmacSha1Null | Suite::HmacSha1AesCbc | Suite::HmacSha1DesEde3Cbc => {
            "HMAC-SHA-1-96 [RFC2404]"
        }
        Suite::HmacMd5Null | Suite::HmacMd5AesCbc | Suite::HmacMd5DesEde3Cbc => {
            "HMAC-MD5-96 [RFC2403]"
        }
    };
    (cipher, mac)
}
