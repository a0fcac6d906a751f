//! `gm-xfrm`: Annex I keys, and ESP in capture files.
//!
//! Exit codes: 0 done, whatever the verdicts; 1 a file cannot be read or
//! written; 2 wrong use, which includes what stands in SAD.toml.
#![forbid(unsafe_code)]

// Beside this file and not in bin/ itself, where each file is a program.
#[path = "gm-xfrm/args.rs"]
mod args;

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use args::{Cli, Command, KeysArgs, OpenArgs, PcapCommand, SealArgs};
use clap::Parser;
use gm_api::sad::Sad;
use gm_esp::keys::{Ck, EspKeys, Ik};
use gm_esp::suite::{Legacy, Suite};
use gm_xfrm::output::{Output, Secrecy, is_stdio, same_file};
use gm_xfrm::{ToolError, open, seal};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::Serialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

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
    // Keys and plaintext must not end up in a core dump.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
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
    // Whoever asks for a legacy suite's keys has packets of one.
    let suite = Suite::from_names_with(&args.alg, &args.ealg, Legacy::Allow).map_err(misuse)?;
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
    let text = read_secret(path, 4096)?;
    gm_api::keysfile::parse(&input_name(path), &text).map_err(misuse)
}

/// Text of at most `limit` bytes, wiped when dropped. Pieces that a growing
/// buffer leaves behind are not there: it is given its room at once.
fn read_secret(path: &Path, limit: usize) -> Result<Zeroizing<String>, Failure> {
    let name = input_name(path);
    let mut text = Zeroizing::new(String::with_capacity(limit + 1));
    let mut input = open_input(path)?.take(limit as u64);
    match input.read_to_string(&mut text) {
        Ok(read) if read == limit => Err(misuse(format!("{name}: longer than any such file"))),
        Ok(_) => Ok(text),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(misuse(format!("{name}: not text")))
        }
        Err(e) => Err(unreadable(format!("cannot read {name}: {e}"))),
    }
}

fn pcap_open(args: &OpenArgs) -> Result<(), Failure> {
    let taken = [("--sad", &args.sad), ("the input", &args.input)];
    distinct("--out", &args.out, &taken)?;
    distinct("--report", &args.report, &taken)?;
    distinct("--report", &args.report, &[("--out", &args.out)])?;
    one_stdin(&args.sad, &args.input)?;
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
    one_stdin(&args.sad, &args.input)?;
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

/// Standard input can be read once.
fn one_stdin(sad: &Path, input: &Path) -> Result<(), Failure> {
    if is_stdio(sad) && is_stdio(input) {
        return Err(misuse(
            "--sad and the input are both -; give one of them a name",
        ));
    }
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
    let sad = if is_stdio(path) {
        // A file of SAs is text of some kilobytes; what is longer is none.
        let text = read_secret(path, 16 << 20)?;
        Sad::parse(&input_name(path), &text)
    } else {
        Sad::load(path)
    };
    sad.map_err(|e| {
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
