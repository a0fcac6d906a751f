//! `[gm] engine`: what computes the ciphers and MACs.

use gm_engines::Level;
use serde::Deserialize;

use super::{Config, ConfigError, PlaneKind};

/// `[gm] engine`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The fastest that the processor can.
    #[default]
    Auto,
    /// [`Level::Avx512`].
    Avx512,
    /// [`Level::Avx2`].
    Avx2,
    /// [`Level::Portable`].
    Portable,
}

impl EngineKind {
    /// The level that is asked for; none with "auto".
    fn level(self) -> Option<Level> {
        match self {
            EngineKind::Auto => None,
            EngineKind::Avx512 => Some(Level::Avx512),
            EngineKind::Avx2 => Some(Level::Avx2),
            EngineKind::Portable => Some(Level::Portable),
        }
    }
}

/// The levels of this processor.
fn able() -> Vec<&'static str> {
    let able = Level::ALL.into_iter().filter(|l| l.engine().is_some());
    able.map(Level::name).collect()
}

impl Config {
    /// Whether the processor can what is asked for.
    pub(super) fn check_engine(&self) -> Result<(), ConfigError> {
        let Some(level) = self.gm.engine.level() else {
            return Ok(());
        };
        let refuse = |what: String, hint: &str| Err(ConfigError::at("gm", "engine", what, hint));
        if self.gm.data_plane == PlaneKind::Kernel {
            let what = format!("is {level}, and data_plane is \"kernel\"");
            return refuse(what, "the kernel computes by itself: take it out");
        }
        if level.engine().is_none() {
            let what = format!("this processor cannot {level}");
            let hint = format!("it can {}; \"auto\" takes the first", able().join(" and "));
            return refuse(what, &hint);
        }
        Ok(())
    }

    /// Makes the chosen engine this process's own, before there is any key. Returns
    /// the name of its level, or says that the kernel computes.
    ///
    /// # Errors
    /// When another engine has been in use already.
    pub fn choose_engine(&self) -> anyhow::Result<&'static str> {
        if let Some(level) = self.gm.engine.level()
            && !gm_engines::force(level)
        {
            anyhow::bail!("[gm] engine: {level} cannot be chosen any more");
        }
        Ok(self.engine_name())
    }

    /// The level of the engine that seals and opens, or `kernel`.
    pub fn engine_name(&self) -> &'static str {
        match self.gm.data_plane {
            PlaneKind::Xdp => gm_engines::chosen().name(),
            PlaneKind::Kernel => "kernel",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn with(line: &str) -> Result<Config, ConfigError> {
        let example = include_str!("../../gmespd.example.toml");
        let text = example.replace("engine = \"auto\"", line);
        assert!(text.contains(line), "the example shows the key");
        Config::parse(&text, Path::new("x.toml"))
    }

    #[test]
    fn an_engine_that_the_processor_has_not_got_is_refused_with_words() {
        for level in Level::ALL {
            match (with(&format!("engine = \"{level}\"")), level.engine()) {
                (Ok(config), Some(_)) => assert_eq!(config.gm.engine.level(), Some(level)),
                (Err(error), None) => {
                    let error = error.to_string();
                    assert!(error.contains("this processor cannot"), "{error}");
                    assert!(error.contains("portable"), "{error}");
                }
                (Ok(_), None) => panic!("{level} was taken"),
                (Err(error), Some(_)) => panic!("{error}"),
            }
        }
        assert!(with("engine = \"auto\"").is_ok());
        let error = with("engine = \"sse2\"").unwrap_err().to_string();
        assert!(error.contains("sse2"), "{error}");
    }
}
