//! A run of `gm-ue register` in the laboratory.

use std::process::{Command, Stdio};

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
