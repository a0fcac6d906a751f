//! The demo's phone: a gm-ue process in the UE's namespace, told what to do
//! on its stdin and heard on its stdout.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use gm_ue::events::UeEvent;

use super::child::Child as Guarded;
use super::interrupt;
use super::netns::Netns;
use super::report::Stage;

/// How long a phone may take for anything.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running phone.
pub struct Phone {
    _process: Guarded,
    stdin: ChildStdin,
    events: Receiver<UeEvent>,
}

/// What a registration gave.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Annex H's names.
    pub suite: String,
    /// "trans" or "udp-enc-tun".
    pub mode: String,
    /// Ports uc, us, pc, ps.
    pub ports: [u16; 4],
}

/// What became of a MESSAGE to the echo service.
#[derive(Clone, Debug)]
pub struct Echo {
    /// The answer; 408: there was none.
    pub status: u16,
    /// Whether the echo came back.
    pub came: bool,
    /// What the echo came over.
    pub transport: String,
}

impl Phone {
    /// Starts a phone with the configuration `toml`, which holds keys and so
    /// goes into a file of mode 0600 in `dir`.
    pub fn start(netns: &Netns, dir: &Path, toml: &str, keys_out: Option<&Path>) -> Result<Phone> {
        let config = write_private(&dir.join("ue.toml"), toml)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(["ue", "--json", "--config"]).arg(&config);
        if let Some(path) = keys_out {
            command.arg("--keys-out").arg(path);
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut process: Child = netns.spawn(&mut command)?;
        let stdin = process.stdin.take().ok_or_else(|| anyhow!("no stdin"))?;
        let stdout = process.stdout.take().ok_or_else(|| anyhow!("no stdout"))?;
        let process = Guarded::new("the phone", process);
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    break;
                }
            }
        });
        let mut phone = Phone {
            _process: process,
            stdin,
            events,
        };
        match phone.next()? {
            UeEvent::Ready { .. } => Ok(phone),
            other => bail!("the phone did not become ready: {other}"),
        }
    }

    /// Registers, and tells the flow as it goes.
    pub fn register(&mut self, stage: &Stage) -> Result<Registration> {
        self.tell("register")?;
        loop {
            match self.next()? {
                UeEvent::Flow { message, detail } => {
                    stage.say(&format!("   {message:<4} {detail}"))
                }
                UeEvent::Registered {
                    suite, mode, ports, ..
                } => {
                    return Ok(Registration { suite, mode, ports });
                }
                UeEvent::Failed { reason } => bail!("{reason}"),
                _ => {}
            }
        }
    }

    /// Sends a MESSAGE to the home network's echo service, and waits for both.
    pub fn echo(&mut self, text: &str) -> Result<Echo> {
        self.tell(&format!("message sip:echo@{} {text}", super::DOMAIN))?;
        let mut status = None;
        let mut echo = Echo {
            status: 408,
            came: false,
            transport: String::new(),
        };
        let deadline = Instant::now() + PATIENCE;
        while (status.is_none() || !echo.came) && Instant::now() < deadline {
            match self.next()? {
                UeEvent::MessageSent { status: s } => {
                    echo.status = s;
                    status = Some(s);
                    if s >= 300 {
                        break;
                    }
                }
                UeEvent::MessageReceived {
                    body, transport, ..
                } if body == text => {
                    echo.came = true;
                    echo.transport = transport;
                }
                UeEvent::Failed { reason } => bail!("{reason}"),
                _ => {}
            }
        }
        Ok(echo)
    }

    /// De-registers; returns when the 200 has come through the SA.
    pub fn deregister(&mut self) -> Result<()> {
        self.tell("deregister")?;
        loop {
            match self.next()? {
                UeEvent::Deregistered => return Ok(()),
                UeEvent::Failed { reason } => bail!("{reason}"),
                _ => {}
            }
        }
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.stdin, "{command}").context("the phone has gone")
    }

    fn next(&mut self) -> Result<UeEvent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            interrupt::check()?;
            match self.events.recv_timeout(Duration::from_millis(50)) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the phone said nothing for {PATIENCE:?}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the phone has ended (see its message above)")
                }
            }
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        let _ = self.tell("quit");
    }
}

/// Writes a file that only its owner may read.
pub fn write_private(path: &Path, text: &str) -> Result<PathBuf> {
    let _ = fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.to_owned())
}
