//! A run of `gm-ue register` in the laboratory.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{K, Lab, Plan, program};

/// What a run said.
pub struct Run {
    /// Exit code.
    pub code: Option<i32>,
    /// The JSON object.
    pub told: Value,
    /// The trace.
    pub trace: String,
}

impl Run {
    /// Why it ended early.
    pub fn reason(&self) -> &str {
        self.told["failure"]["reason"].as_str().unwrap_or_default()
    }

    /// How many lines of the trace have all these words.
    pub fn lines(&self, words: &[&str]) -> usize {
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        self.trace.lines().filter(has).count()
    }

    /// How many different lines those are, whatever the time: on a slow machine requests
    /// and answers are repeated.
    pub fn different(&self, words: &[&str]) -> usize {
        let said = |line: &'_ str| Some(line.trim_start().split_once(' ')?.1.to_owned());
        let has = |line: &&str| words.iter().all(|word| line.contains(word));
        let lines: HashSet<_> = self.trace.lines().filter(has).filter_map(said).collect();
        lines.len()
    }

    /// It went as asked.
    pub fn succeeds(self) -> Run {
        assert_eq!(self.code, Some(0), "{}\n{}", self.told, self.trace);
        assert_eq!(self.told["ok"], true);
        self
    }
}

/// A laboratory with room for unfinished registrations of one phone.
pub fn lab() -> Lab {
    Lab::new(&Plan {
        max_sas: 1024,
        ..Plan::one()
    })
}

/// Runs `gm-ue register` as ue1 with these arguments.
pub fn register(lab: &Lab, args: &[&str]) -> Run {
    let config = lab.ue_toml("ue1", K);
    let mut command = Command::new(program("gm-ue"));
    command
        .args(["register", "--json", "--config", &config])
        .args(args)
        .stdin(Stdio::null());
    let output = lab.ue.run(|| command.output()).expect("gm-ue runs");
    let trace = String::from_utf8_lossy(&output.stderr).into_owned();
    let told = serde_json::from_slice(&output.stdout);
    Run {
        code: output.status.code(),
        told: told.unwrap_or_else(|e| panic!("no result: {e}; it said: {trace}")),
        trace,
    }
}

/// A `gm-ue run` that is told what to do.
pub struct Phone {
    child: Child,
    events: Receiver<Value>,
}

impl Phone {
    /// Starts ue1 and waits until it is ready.
    pub fn start(lab: &Lab) -> Phone {
        let config = lab.ue_toml("ue1", K);
        let mut command = Command::new(program("gm-ue"));
        command
            .args(["run", "--json", "--config", &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = lab.ue.run(|| command.spawn()).expect("gm-ue starts");
        let stdout = child.stdout.take().expect("stdout");
        let (sender, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::Null);
                let _ = sender.send(event);
            }
        });
        let mut phone = Phone { child, events };
        phone.says("ready");
        phone
    }

    /// Gives a command.
    pub fn told(&mut self, command: &str) -> &mut Phone {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        writeln!(stdin, "{command}").expect("gm-ue listens");
        self
    }

    /// The next event of that name; others are passed over.
    pub fn says(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut before = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                panic!("no {name:?} after {before:?}")
            };
            if event["event"] == name {
                return event;
            }
            before.push(event);
        }
    }
}

impl Drop for Phone {
    fn drop(&mut self) {
        // The end of stdin is its end.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
