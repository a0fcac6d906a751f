//! `[log]`: what is logged.

use serde::Deserialize;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::ConfigError;

const HINT: &str =
    "write error, warn, info, debug, trace or off, or a filter such as \"info,gm_dataplane=debug\"";

/// `[log]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// "error", "warn", "info", "debug", "trace", or tracing's filter syntax.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info".into(),
        }
    }
}

impl Log {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |what| ConfigError::at("log", "level", what, HINT);
        filter(&self.level).map(drop).map_err(wrong)
    }
}

/// What a level or a filter lets through.
///
/// # Errors
/// A sentence. tracing takes a word that is no level for a target, and is silent
/// about everything else then: here it is an error.
pub fn filter(text: &str) -> Result<Targets, String> {
    let wrong = |word: &str| Err(format!("{word:?} is no level"));
    for word in text.split(',').map(str::trim) {
        let level = word.rsplit_once('=').map_or(word, |(_, level)| level);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return wrong(word);
        }
    }
    text.parse()
        .map_err(|error| format!("{text:?} is no filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_not_silence() {
        for good in [
            "info",
            "DEBUG",
            "off",
            "info,gm_dataplane=debug",
            "a=off, warn",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for wrong in ["loud", "", "info,", "gm_sip", "gm_sip=loud", "info;debug"] {
            let error = filter(wrong).expect_err(wrong);
            assert!(error.contains("is no level"), "{error}");
        }
        let log = Log {
            level: "verbose".into(),
        };
        let error = log.check().expect_err("refused").to_string();
        assert!(error.contains("[log] level: \"verbose\" is no level; write error, warn"));
    }
}
