//! What the demo tells people (lines as it happens) and programs (one JSON object).

use serde::Serialize;

/// One thing that the demo shows.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// What was shown, in kebab case.
    pub name: String,
    /// Annex H's names, `alg/ealg`; null where no suite is concerned.
    pub suite: Option<String>,
    /// "trans" or "udp-enc-tun"; null where no mode is concerned.
    pub mode: Option<String>,
    /// It happened.
    pub ok: bool,
    /// Why not, or what was seen.
    pub reason: Option<String>,
}

/// Everything that the demo has shown.
#[derive(Debug, Serialize)]
pub struct Report {
    /// All steps happened.
    pub ok: bool,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Why the demo ended early, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The audience: a terminal, or a program that wants JSON at the end.
#[derive(Debug)]
pub struct Stage {
    json: bool,
    steps: Vec<Step>,
    suite: Option<String>,
    mode: Option<String>,
}

impl Stage {
    /// `json`: say nothing until [`Stage::close`].
    pub fn new(json: bool) -> Stage {
        Stage {
            json,
            steps: Vec::new(),
            suite: None,
            mode: None,
        }
    }

    /// A heading.
    pub fn scene(&self, title: &str) {
        self.say(&format!("\n== {title}"));
    }

    /// A line of what happens.
    #[allow(clippy::print_stdout, reason = "the demo talks to a person")]
    pub fn say(&self, line: &str) {
        if !self.json {
            println!("{line}");
        }
    }

    /// The suite and mode that the next steps are about.
    pub fn about(&mut self, suite: Option<&str>, mode: Option<&str>) {
        self.suite = suite.map(str::to_owned);
        self.mode = mode.map(str::to_owned);
    }

    /// Records a step.
    pub fn step(&mut self, name: &str, ok: bool, reason: impl Into<Option<String>>) {
        let reason = reason.into();
        let mark = if ok { "ok    " } else { "FAILED" };
        let tail = reason
            .as_deref()
            .map(|r| format!(": {r}"))
            .unwrap_or_default();
        self.say(&format!("   {mark} {name}{tail}"));
        self.steps.push(Step {
            name: name.to_owned(),
            suite: self.suite.clone(),
            mode: self.mode.clone(),
            ok,
            reason,
        });
    }

    /// The one line when the demo cannot run here at all.
    #[allow(clippy::print_stderr, reason = "the demo talks to a person")]
    pub fn cannot(self, missing: &str) {
        if self.json {
            self.close(Some(missing.to_owned()));
        } else {
            eprintln!("gmespd demo cannot run here: {missing}");
        }
    }

    /// The last line, or the JSON object. True when everything happened.
    #[allow(
        clippy::print_stdout,
        reason = "the demo talks to a person or a program"
    )]
    pub fn close(self, error: Option<String>) -> bool {
        let ok = error.is_none() && !self.steps.is_empty() && self.steps.iter().all(|s| s.ok);
        let passed = self.steps.iter().filter(|s| s.ok).count();
        let failed = self.steps.len() - passed;
        let report = Report {
            ok,
            steps: self.steps,
            error,
        };
        if self.json {
            match serde_json::to_string_pretty(&report) {
                Ok(text) => println!("{text}"),
                Err(e) => println!("{{\"ok\":false,\"error\":\"{e}\"}}"),
            }
            return ok;
        }
        if let Some(error) = &report.error {
            println!("\nThe demo ended early: {error}");
        }
        let verdict = if ok {
            "all of it happened"
        } else {
            "not all of it happened"
        };
        println!("\n{passed} passed, {failed} failed: {verdict}");
        ok
    }
}
