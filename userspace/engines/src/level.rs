//! Which engine this machine gets.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2::Avx2, avx512::Avx512};
use crate::transform::{SALT_LEN, Transform};
use crate::wide::WideKey;
#[cfg(target_arch = "x86_64")]
use crate::wide::{GcmSide, Wide};
use crate::{Engine, Job, reference};

/// What an engine asks of the processor, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// AVX-512 F, BW, VL and VBMI with VAES, VPCLMULQDQ and BMI2: sixteen packets of
    /// HMAC-SHA-1 and AES-CBC side by side, GCM and GMAC four blocks a register.
    Avx512,
    /// AVX2, AES and PCLMULQDQ: eight packets of HMAC-SHA-1 and AES-CBC side by side,
    /// GCM and GMAC eight blocks in flight.
    Avx2,
    /// Nothing: the reference engine.
    Portable,
}

impl Level {
    /// All levels, the best first.
    pub const ALL: [Level; 3] = [Level::Avx512, Level::Avx2, Level::Portable];

    /// The level's engine; `None` where the processor cannot.
    pub fn engine(self) -> Option<&'static dyn Engine> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => there().0.as_ref().map(|engine| engine as &dyn Engine),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => there().1.as_ref().map(|engine| engine as &dyn Engine),
            Level::Portable => Some(reference()),
            #[cfg(not(target_arch = "x86_64"))]
            _ => None,
        }
    }

    /// A key in the level's form, where it has one of its own.
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))]
    pub(crate) fn wide_key(
        self,
        transform: Transform,
        integrity: &[u8],
        encryption: &[u8],
        salt: [u8; SALT_LEN],
    ) -> Option<WideKey> {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                let level = there().0.as_ref()?.level;
                WideKey::mac(level, transform, integrity, encryption).or_else(|| {
                    WideKey::gcm(
                        level,
                        GcmSide::Avx512,
                        transform,
                        integrity,
                        encryption,
                        salt,
                    )
                })
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                let level = there().1.as_ref()?.level;
                WideKey::mac(level, transform, integrity, encryption).or_else(|| {
                    WideKey::gcm(level, GcmSide::Avx2, transform, integrity, encryption, salt)
                })
            }
            _ => None,
        }
    }

    /// Its name: `avx512`, `avx2`, `portable`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Avx512 => "avx512",
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }
}

#[cfg(target_arch = "x86_64")]
type There = (Option<Wide<Avx512>>, Option<Wide<Avx2>>);

/// The engines, as far as the processor can. It is asked once, for that takes
/// microseconds in a virtual machine.
#[cfg(target_arch = "x86_64")]
fn there() -> &'static There {
    static THERE: OnceLock<There> = OnceLock::new();
    THERE.get_or_init(|| {
        let avx512 = Avx512::detect().map(|level| Wide {
            level,
            name: Level::Avx512.name(),
        });
        let avx2 = Avx2::detect().map(|level| Wide {
            level,
            name: Level::Avx2.name(),
        });
        (avx512, avx2)
    })
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not the name of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such engine: avx512, avx2 or portable")]
pub struct UnknownLevel;

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Level, UnknownLevel> {
        let found = Level::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or(UnknownLevel)
    }
}

/// What was chosen, once for the process.
static CHOSEN: OnceLock<Level> = OnceLock::new();

/// The level of [`best`], which is this process's own from now on.
pub fn chosen() -> Level {
    *CHOSEN.get_or_init(|| {
        let able = Level::ALL
            .into_iter()
            .find(|level| level.engine().is_some());
        able.unwrap_or(Level::Portable)
    })
}

/// The engine of this process: the fastest that the machine can, or the one that
/// was [`force`]d.
pub fn best() -> &'static dyn Engine {
    chosen().engine().unwrap_or(reference())
}

/// Has a job done whose key is of a wide engine's form. Every wide engine works
/// with each of these; that there is one the key itself shows. Not [`best`],
/// which may have been forced to be the reference engine.
pub(crate) fn wide(job: &mut Job<'_>, run: impl FnOnce(&dyn Engine, &mut [Job<'_>])) {
    let wide = [Level::Avx512, Level::Avx2].into_iter();
    match wide.filter_map(Level::engine).next() {
        Some(engine) => run(engine, std::slice::from_mut(job)),
        None => job.ok = false,
    }
}

/// Makes a level this process's own, for benches and for machines whose better
/// one is in doubt. Returns whether it is: it is not where the processor cannot,
/// or when another one has been in use already.
pub fn force(level: Level) -> bool {
    level.engine().is_some() && *CHOSEN.get_or_init(|| level) == level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_first_that_the_processor_can() {
        let first = Level::ALL
            .into_iter()
            .find_map(|level| level.engine().map(|engine| (level, engine.name())));
        let (level, name) = first.unwrap();
        assert_eq!(best().name(), name);
        // It is in use now, so no other one comes in its place.
        assert!(force(level));
        assert_eq!(force(Level::Portable), level == Level::Portable);
        assert_eq!(best().name(), name);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        assert_eq!("avx1024".parse::<Level>(), Err(UnknownLevel));
    }
}
