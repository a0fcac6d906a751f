//! The command line: what may be given, and the help that teaches it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use gm_api::sad::REPLAY_WINDOWS;

/// ESP of the IMS Gm link: expand keys, open and seal captures, and set up the
/// kernel's own ESP.
#[derive(Parser)]
#[command(name = "gm-xfrm", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gm-xfrm keys --alg null --ealg aes-gcm --keys-from keys.txt
  gm-xfrm pcap open --sad SAD.toml --out plain.pcap --report report.jsonl esp.pcap
  gm-xfrm pcap seal --sad SAD.toml --out esp.pcap plain.pcap
  gm-xfrm install --sad SAD.toml
  gm-xfrm list
  gm-xfrm export --sad SAD.toml --format wireshark --show-keys --out esp_sa
  gm-xfrm import --out SAD.toml

Exit codes: 0 done; 1 a file cannot be read or written, or the kernel refuses;
2 wrong use or an error in SAD.toml.";

#[derive(Subcommand)]
pub enum Command {
    /// Expand IK and CK into the ESP keys of a suite (TS 33.203 Annex I)
    #[command(after_help = KEYS_HELP)]
    Keys(KeysArgs),
    /// Open or seal the packets of a capture
    #[command(subcommand, after_help = SAD_HELP)]
    Pcap(PcapCommand),
    /// Install SAs and their policies in the kernel, all of them or none
    Install(crate::install::InstallArgs),
    /// Remove SAs and their policies from the kernel
    Remove(crate::remove::RemoveArgs),
    /// List the kernel's SAs and policies
    List(crate::list::ListArgs),
    /// Compare SAD.toml with the kernel
    Diff(crate::diff::DiffArgs),
    /// Print what happens to the kernel's SAs and policies
    Watch(crate::watch::WatchArgs),
    /// Write SAs for iproute2, Wireshark or programs
    Export(crate::export::ExportArgs),
    /// Write the kernel's SAs as SAD.toml
    Import(crate::import::ImportArgs),
    /// Have gmespd take over the SAs of another P-CSCF, under traffic
    #[command(after_help = crate::adopt::HELP)]
    Adopt(crate::adopt::TransferArgs),
    /// Have gmespd give them back
    #[command(after_help = crate::adopt::BACK_HELP)]
    GiveBack(crate::adopt::TransferArgs),
}

const KEYS_HELP: &str = "\
A file for --keys-from holds the lines ik=HEX and ck=HEX (# begins a comment)
or one JSON object {\"ik\": \"HEX\", \"ck\": \"HEX\"}; 32 hexadecimal digits each.

Examples:
  gm-xfrm keys --alg hmac-sha-1-96 --ealg aes-cbc --keys-from keys.txt
  printf 'ik=%s\\nck=%s\\n' \"$IK\" \"$CK\" | gm-xfrm keys --alg null --ealg aes-gcm --keys-from - --json";

const SAD_HELP: &str = "\
Example of a SAD.toml, one table for each SA:
  [[sa]]
  spi = 2831146962             # 256 or more
  mode = \"trans\"               # or \"udp-enc-tun\"
  src = \"198.51.100.10\"        # of the protected packet
  dst = \"203.0.113.5\"
  src_port = 62557             # absent: any
  dst_port = 9206
  proto = \"udp-tcp\"            # or \"any\"
  alg = \"hmac-sha-1-96\"        # with ealg \"null\" or \"aes-cbc\";
  ealg = \"aes-cbc\"             # \"aes-gmac\" with \"null\", \"null\" with \"aes-gcm\";
                               # of older releases \"hmac-md5-96\", \"des-ede3-cbc\"
  ik = \"447266b1847a80f4d2b9e57fb4cd8316\"   # ik and ck, or integrity_key,
  ck = \"a85a9947c4b72d635fa18fb2f71764dc\"   # encryption_key, salt
  # udp-enc-tun only: outer_src, outer_dst, encap_sport, encap_dport
  # optional: set, dir, seq, replay_window, esn";

#[derive(Args)]
pub struct KeysArgs {
    /// Integrity algorithm: hmac-sha-1-96, aes-gmac or null; of older releases hmac-md5-96
    #[arg(long)]
    pub alg: String,
    /// Encryption algorithm: null, aes-cbc or aes-gcm; of older releases des-ede3-cbc
    #[arg(long)]
    pub ealg: String,
    /// IK, 32 hexadecimal digits; seen by all users of this machine while it runs
    #[arg(
        long,
        value_name = "HEX",
        requires = "ck",
        conflicts_with = "keys_from"
    )]
    pub ik: Option<String>,
    /// CK, 32 hexadecimal digits; seen by all users of this machine while it runs
    #[arg(
        long,
        value_name = "HEX",
        requires = "ik",
        conflicts_with = "keys_from"
    )]
    pub ck: Option<String>,
    /// Read IK and CK from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-", required_unless_present = "ik")]
    pub keys_from: Option<PathBuf>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum PcapCommand {
    /// Open every ESP and UDP-encapsulated ESP packet, and judge every packet
    #[command(after_help = OPEN_HELP)]
    Open(OpenArgs),
    /// Seal every packet that the selectors of an SA match
    #[command(after_help = SEAL_HELP)]
    Seal(SealArgs),
}

const OPEN_HELP: &str = "\
The report has one line for each input packet, in order:
  {\"index\":0,\"spi\":305419896,\"seq\":1,\"verdict\":\"ok\"}
Verdicts: ok, unknown-spi, bad-icv, replay, stale, malformed, selector-mismatch,
mode-mismatch, dummy, not-esp, and fragment for all but the last fragment of a
datagram that is put together. See 'gm-xfrm pcap --help' for SAD.toml.

Example, the verdicts counted:
  gm-xfrm pcap open --sad SAD.toml --out plain.pcap --report - esp.pcap \\
    | grep -o '[a-z-]*\"}$' | sort | uniq -c";

const SEAL_HELP: &str = "\
The first SA in the file that matches seals. Each run numbers from 1 or from
the SA's seq: never seal different packets twice with the same keys and numbers
where the result leaves the lab, because AES-GCM and AES-GMAC lose the key then.
See 'gm-xfrm pcap --help' for SAD.toml.

Example:
  gm-xfrm pcap seal --sad SAD.toml --out esp.pcap plain.pcap";

#[derive(Args)]
pub struct OpenArgs {
    /// The security associations; - for standard input
    #[arg(long, value_name = "SAD.toml")]
    pub sad: PathBuf,
    /// Where what was opened goes: same format and link type as the input; - for standard output
    #[arg(long, value_name = "PLAIN.pcap")]
    pub out: PathBuf,
    /// Where the verdicts go, one JSON object per line; - for standard output
    #[arg(long, value_name = "REPORT.jsonl")]
    pub report: PathBuf,
    /// Replay window of every SA in packets, 32 to 4096, instead of SAD.toml's or 64
    #[arg(long, value_name = "N", value_parser = window)]
    pub replay_window: Option<u32>,
    /// The capture, pcap or pcapng; - for standard input
    #[arg(value_name = "IN.pcap")]
    pub input: PathBuf,
}

#[derive(Args)]
pub struct SealArgs {
    /// The security associations; - for standard input
    #[arg(long, value_name = "SAD.toml")]
    pub sad: PathBuf,
    /// Where the sealed packets go: same format and link type as the input; - for standard output
    #[arg(long, value_name = "ESP.pcap")]
    pub out: PathBuf,
    /// The capture, pcap or pcapng; - for standard input
    #[arg(value_name = "IN.pcap")]
    pub input: PathBuf,
}

fn window(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if REPLAY_WINDOWS.contains(&n) => Ok(n),
        _ => Err("must be an integer from 32 to 4096".to_string()),
    }
}
