//! Runs `nft`, with the one capability that it needs and nothing of our
//! environment.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};

use super::KernelError;

/// Where the program is looked for; not in PATH, which is the caller's.
const FOLDERS: [&str; 5] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin"];

/// How long it may take: it waits while somebody else changes the tables.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const LONGEST: u64 = 1 << 20;

fn program() -> Result<PathBuf, KernelError> {
    let mut places = FOLDERS.iter().map(|folder| Path::new(folder).join("nft"));
    places
        .find(|place| place.is_file())
        .ok_or(KernelError::NoNft)
}

/// Runs nft with these arguments and `input`; what it printed.
///
/// It is started by a thread of its own, because capabilities are a thread's: there
/// NET_ADMIN is made ambient, so that it reaches the program whoever this process runs
/// as, and nothing else does that a plain child would not have.
pub fn run(arguments: &[&str], input: &str) -> Result<String, KernelError> {
    let program = program()?;
    std::thread::scope(|scope| {
        let child = || {
            for set in [CapSet::Inheritable, CapSet::Ambient] {
                // Root's children have it anyway; for others nft says what is missing.
                let _ = caps::raise(None, set, Capability::CAP_NET_ADMIN);
            }
            finish(&program, arguments, input)
        };
        let thread = std::thread::Builder::new().name("gm-nft".into());
        let thread = thread
            .spawn_scoped(scope, child)
            .map_err(KernelError::Nft)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(KernelError::Nft(std::io::Error::other("a panic"))))
    })
}

fn finish(program: &Path, arguments: &[&str], input: &str) -> Result<String, KernelError> {
    let io = KernelError::Nft;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let deadline = Instant::now() + PATIENCE;
    let mut stdin = child.stdin.take();
    std::thread::scope(|scope| {
        // A pipe holds little: what it prints is read while it is fed.
        let out = scope.spawn(|| text(out));
        let err = scope.spawn(|| text(err));
        if let Some(mut stdin) = stdin.take() {
            // It may have ended with an error of its own, which says more.
            let _ = stdin.write_all(input.as_bytes());
        }
        let status = loop {
            match child.try_wait().map_err(io)? {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(KernelError::NftRefused("it does not end".into()));
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let (out, err) = (out.join(), err.join());
        if status.success() {
            Ok(out.unwrap_or_default())
        } else {
            let said = err.unwrap_or_default();
            let line = said.lines().find(|line| !line.trim().is_empty());
            Err(KernelError::NftRefused(line.unwrap_or("no word").into()))
        }
    })
}

fn text(from: Option<impl Read>) -> String {
    let mut text = Vec::new();
    if let Some(from) = from {
        // What was read until then is what there is to show.
        let _ = from.take(LONGEST).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
