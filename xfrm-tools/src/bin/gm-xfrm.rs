//! `gm-xfrm`: Annex I keys, and ESP in capture files.
//!
//! Exit codes: 0 done, whatever the verdicts; 1 a file cannot be read or
//! written; 2 wrong use, which includes what stands in SAD.toml.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use gm_api::sad::{REPLAY_WINDOWS, Sad};
use gm_esp::keys::{Ck, EspKeys, Ik};
use gm_esp::suite::Suite;
use gm_xfrm::output::{Output, Secrecy, is_stdio, same_file};
use gm_xfrm::{ToolError, open, seal};
use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// ESP of the IMS Gm link, offline: expand keys, open and seal captures.
#[derive(Parser)]
#[command(name = "gm-xfrm", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gm-xfrm keys --alg null --ealg aes-gcm --keys-from keys.txt
  gm-xfrm pcap open --sad SAD.toml --out plain.pcap --report report.jsonl esp.pcap
  gm-xfrm pcap seal --sad SAD.toml --out esp.pcap plain.pcap

Exit codes: 0 done; 1 a file cannot be read or written; 2 wrong use or an
error in SAD.toml.";

#[derive(Subcommand)]
enum Command {
    /// Expand IK and CK into the ESP keys of a suite (TS 33.203 Annex I)
    #[command(after_help = KEYS_HELP)]
    Keys(KeysArgs),
    /// Open or seal the packets of a capture
    #[command(subcommand, after_help = SAD_HELP)]
    Pcap(PcapCommand),
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
  ealg = \"aes-cbc\"             # \"aes-gmac\" with \"null\", \"null\" with \"aes-gcm\"
  ik = \"447266b1847a80f4d2b9e57fb4cd8316\"   # ik and ck, or integrity_key,
  ck = \"a85a9947c4b72d635fa18fb2f71764dc\"   # encryption_key, salt
  # udp-enc-tun only: outer_src, outer_dst, encap_sport, encap_dport
  # optional: set, dir, seq, replay_window, esn";

#[derive(Args)]
struct KeysArgs {
    /// Integrity algorithm: hmac-sha-1-96, aes-gmac or null
    #[arg(long)]
    alg: String,
    /// Encryption algorithm: null, aes-cbc or aes-gcm
    #[arg(long)]
    ealg: String,
    /// IK, 32 hexadecimal digits; seen by all users of this machine while it runs
    #[arg(
        long,
        value_name = "HEX",
        requires = "ck",
        conflicts_with = "keys_from"
    )]
    ik: Option<String>,
    /// CK, 32 hexadecimal digits; seen by all users of this machine while it runs
    #[arg(
        long,
        value_name = "HEX",
        requires = "ik",
        conflicts_with = "keys_from"
    )]
    ck: Option<String>,
    /// Read IK and CK from a file, or from standard input with -
    #[arg(long, value_name = "FILE|-", required_unless_present = "ik")]
    keys_from: Option<PathBuf>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum PcapCommand {
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
  gm-xfrm pcap open --sad SAD.toml --out plain.pcap --report - esp.pcap | sort | uniq -c";

const SEAL_HELP: &str = "\
The first SA in the file that matches seals. Each run numbers from 1 or from
the SA's seq: never seal different packets twice with the same keys and numbers
where the result leaves the lab, because AES-GCM and AES-GMAC lose the key then.
See 'gm-xfrm pcap --help' for SAD.toml.

Example:
  gm-xfrm pcap seal --sad SAD.toml --out esp.pcap plain.pcap";

#[derive(Args)]
struct OpenArgs {
    /// The security associations
    #[arg(long, value_name = "SAD.toml")]
    sad: PathBuf,
    /// Where what was opened goes: same format and link type as the input; - for standard output
    #[arg(long, value_name = "PLAIN.pcap")]
    out: PathBuf,
    /// Where the verdicts go, one JSON object per line; - for standard output
    #[arg(long, value_name = "REPORT.jsonl")]
    report: PathBuf,
    /// Replay window of every SA in packets, 32 to 4096, instead of SAD.toml's or 64
    #[arg(long, value_name = "N", value_parser = window)]
    replay_window: Option<u32>,
    /// The capture, pcap or pcapng; - for standard input
    #[arg(value_name = "IN.pcap")]
    input: PathBuf,
}

#[derive(Args)]
struct SealArgs {
    /// The security associations
    #[arg(long, value_name = "SAD.toml")]
    sad: PathBuf,
    /// Where the sealed packets go: same format and link type as the input; - for standard output
    #[arg(long, value_name = "ESP.pcap")]
    out: PathBuf,
    /// The capture, pcap or pcapng; - for standard input
    #[arg(value_name = "IN.pcap")]
    input: PathBuf,
}

fn window(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(n) if REPLAY_WINDOWS.contains(&n) => Ok(n),
        _ => Err("must be an integer from 32 to 4096".to_string()),
    }
}

/// An error's line for people, and the exit code that goes with it.
struct Failure {
    code: u8,
    line: String,
}

fn unreadable(line: impl ToString) -> Failure {
    Failure {
        code: 1,
        line: line.to_string(),
    }
}

fn misuse(line: impl ToString) -> Failure {
    Failure {
        code: 2,
        line: line.to_string(),
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Keys(args) => keys(args),
        Command::Pcap(PcapCommand::Open(args)) => pcap_open(&args),
        Command::Pcap(PcapCommand::Seal(args)) => pcap_seal(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("error: {}", failure.line));
            ExitCode::from(failure.code)
        }
    }
}

/// A line on standard error; there is nobody to tell when that fails.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "gm-xfrm: {line}");
}

#[derive(Serialize, Zeroize, ZeroizeOnDrop)]
struct KeysReply {
    integrity_key: Option<String>,
    encryption_key: Option<String>,
    salt: Option<String>,
}

fn keys(mut args: KeysArgs) -> Result<(), Failure> {
    let given = (
        args.ik.take().map(Zeroizing::new),
        args.ck.take().map(Zeroizing::new),
    );
    let suite = Suite::from_names(&args.alg, &args.ealg).map_err(misuse)?;
    let (ik, ck) = match (given, &args.keys_from) {
        ((Some(ik), Some(ck)), _) => (
            Ik::from_hex(&ik).map_err(|e| misuse(format!("--ik: {e}")))?,
            Ck::from_hex(&ck).map_err(|e| misuse(format!("--ck: {e}")))?,
        ),
        (_, Some(path)) => keys_from(path)?,
        _ => return Err(misuse("give --ik and --ck, or --keys-from")),
    };
    let keys = EspKeys::expand(suite, &ik, &ck);
    let reply = KeysReply {
        integrity_key: keys.integrity().map(hex::encode),
        encryption_key: keys.encryption().map(hex::encode),
        salt: keys.salt().map(hex::encode),
    };
    let text = Zeroizing::new(if args.json {
        serde_json::to_string(&reply).map_err(unreadable)? + "\n"
    } else {
        let or_none = |key: &Option<String>| key.clone().unwrap_or("none".to_string());
        format!(
            "integrity_key   {}\nencryption_key  {}\nsalt            {}\n",
            or_none(&reply.integrity_key),
            or_none(&reply.encryption_key),
            or_none(&reply.salt)
        )
    });
    let mut stdout = io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| unreadable(format!("cannot write to standard output: {e}")))
}

fn keys_from(path: &Path) -> Result<(Ik, Ck), Failure> {
    let name = input_name(path);
    // Keys take a hundred bytes; a page is read once and never moved.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    open_input(path)?
        .take(4096)
        .read_to_end(&mut bytes)
        .map_err(|e| unreadable(format!("cannot read {name}: {e}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| misuse(format!("{name}: not text")))?;
    gm_api::keysfile::parse(&name, text).map_err(misuse)
}

fn pcap_open(args: &OpenArgs) -> Result<(), Failure> {
    let taken = [("--sad", &args.sad), ("the input", &args.input)];
    distinct("--out", &args.out, &taken)?;
    distinct("--report", &args.report, &taken)?;
    distinct("--report", &args.report, &[("--out", &args.out)])?;
    let sad = load(&args.sad)?;
    let input = open_input(&args.input)?;
    let mut plain = create(&args.out, Secrecy::Private)?;
    let mut report = create(&args.report, Secrecy::Usual)?;
    let totals = open::capture(&sad, args.replay_window, input, &mut plain, &mut report)
        .map_err(|e| failed(e, &args.input, &args.out, Some(&args.report)))?;
    finish(plain, &args.out)?;
    finish(report, &args.report)?;
    say(&totals.to_string());
    Ok(())
}

fn pcap_seal(args: &SealArgs) -> Result<(), Failure> {
    let taken = [("--sad", &args.sad), ("the input", &args.input)];
    distinct("--out", &args.out, &taken)?;
    let sad = load(&args.sad)?;
    let mut sealer = seal::Sealer::new(&sad).map_err(misuse)?;
    let input = open_input(&args.input)?;
    let mut out = create(&args.out, Secrecy::Usual)?;
    let totals = seal::capture(&mut sealer, input, &mut out)
        .map_err(|e| failed(e, &args.input, &args.out, None))?;
    finish(out, &args.out)?;
    say(&totals.to_string());
    Ok(())
}

/// An output must not be a file that is read or another output.
fn distinct(option: &str, path: &Path, taken: &[(&str, &PathBuf)]) -> Result<(), Failure> {
    for (name, other) in taken {
        // - is standard input for what is read and standard output for this.
        if same_file(path, other) && !(is_stdio(path) && *name != "--out") {
            let line = format!("{option} and {name} are one file; give {option} another name");
            return Err(misuse(line));
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Sad, Failure> {
    Sad::load(path).map_err(|e| {
        if e.is_read() {
            unreadable(e)
        } else {
            misuse(e)
        }
    })
}

fn input_name(path: &Path) -> String {
    if is_stdio(path) {
        "standard input".to_string()
    } else {
        path.display().to_string()
    }
}

fn open_input(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if is_stdio(path) {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(BufReader::with_capacity(1 << 16, file))),
        Err(e) => Err(unreadable(format!("cannot read {}: {e}", path.display()))),
    }
}

fn create(path: &Path, secrecy: Secrecy) -> Result<Output, Failure> {
    Output::create(path, secrecy)
        .map_err(|e| unreadable(format!("cannot write {}: {e}", path.display())))
}

fn finish(output: Output, path: &Path) -> Result<(), Failure> {
    output
        .finish()
        .map_err(|e| unreadable(format!("cannot write {}: {e}", path.display())))
}

fn failed(error: ToolError, input: &Path, out: &Path, report: Option<&Path>) -> Failure {
    match error {
        ToolError::Input(e) => unreadable(format!("cannot read {}: {e}", input_name(input))),
        ToolError::Output(e) => unreadable(format!("cannot write {}: {e}", out.display())),
        ToolError::Report(e) => {
            let report = report.unwrap_or(out);
            unreadable(format!("cannot write {}: {e}", report.display()))
        }
        ToolError::Sa(e) => misuse(e),
    }
}
