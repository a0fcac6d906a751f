//! The names of Annex H of TS 33.203 and which of them go together.

use gm_engines::Transform;

/// What an SA's `alg` and `ealg` say together (TS 33.203 Annex H, 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suite {
    /// `hmac-sha-1-96` with `null`.
    HmacSha1Null,
    /// `hmac-sha-1-96` with `aes-cbc` (128 bit).
    HmacSha1AesCbc,
    /// `aes-gmac` (128 bit) with `null`.
    AesGmacNull,
    /// `null` with `aes-gcm` (128 bit, ICV of 16 bytes).
    NullAesGcm,
}

/// Why two names are no suite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuiteError {
    /// Not two names with a slash between them.
    #[error("{0:?} is not of the form \"alg/ealg\", such as \"hmac-sha-1-96/aes-cbc\"")]
    Form(String),
    /// Not a name of an integrity algorithm.
    #[error("alg {0:?} is none of hmac-sha-1-96, aes-gmac, null")]
    UnknownAlg(String),
    /// Not a name of an encryption algorithm.
    #[error("ealg {0:?} is none of null, aes-cbc, aes-gcm")]
    UnknownEalg(String),
    /// A name that Annex H had once, and no longer safe.
    #[error("{0:?} is a legacy algorithm, which is not supported")]
    Legacy(String),
    /// Both names exist, but not together.
    #[error(
        "alg {alg} does not go with ealg {ealg}; the pairs are hmac-sha-1-96 with null or \
         aes-cbc, aes-gmac with null, null with aes-gcm"
    )]
    NotAPair {
        /// The integrity algorithm.
        alg: &'static str,
        /// The encryption algorithm.
        ealg: &'static str,
    },
}

const ALGS: [&str; 3] = ["hmac-sha-1-96", "aes-gmac", "null"];
const EALGS: [&str; 3] = ["null", "aes-cbc", "aes-gcm"];
const LEGACY: [&str; 2] = ["hmac-md5-96", "des-ede3-cbc"];

impl Suite {
    /// All suites.
    pub const ALL: [Suite; 4] = [
        Suite::HmacSha1Null,
        Suite::HmacSha1AesCbc,
        Suite::AesGmacNull,
        Suite::NullAesGcm,
    ];

    /// The suite with these Annex H names; tokens have no case (RFC 3261 7.3.1).
    ///
    /// # Errors
    /// [`SuiteError`] says which name is unknown, or that they are no pair.
    pub fn from_names(alg: &str, ealg: &str) -> Result<Suite, SuiteError> {
        let find = |names: &[&'static str], name: &str| {
            let name = name.trim();
            names.iter().copied().find(|n| n.eq_ignore_ascii_case(name))
        };
        for name in [alg, ealg] {
            if find(&LEGACY, name).is_some() {
                return Err(SuiteError::Legacy(name.to_owned()));
            }
        }
        let alg = find(&ALGS, alg).ok_or_else(|| SuiteError::UnknownAlg(alg.to_owned()))?;
        let ealg = find(&EALGS, ealg).ok_or_else(|| SuiteError::UnknownEalg(ealg.to_owned()))?;
        Suite::ALL
            .into_iter()
            .find(|suite| suite.alg() == alg && suite.ealg() == ealg)
            .ok_or(SuiteError::NotAPair { alg, ealg })
    }

    /// Annex H's name of the integrity algorithm.
    pub const fn alg(self) -> &'static str {
        match self {
            Suite::HmacSha1Null | Suite::HmacSha1AesCbc => "hmac-sha-1-96",
            Suite::AesGmacNull => "aes-gmac",
            Suite::NullAesGcm => "null",
        }
    }

    /// Annex H's name of the encryption algorithm.
    pub const fn ealg(self) -> &'static str {
        match self {
            Suite::HmacSha1Null | Suite::AesGmacNull => "null",
            Suite::HmacSha1AesCbc => "aes-cbc",
            Suite::NullAesGcm => "aes-gcm",
        }
    }

    /// The engine's transform for this suite.
    pub const fn transform(self) -> Transform {
        match self {
            Suite::HmacSha1Null => Transform::HmacSha1Null,
            Suite::HmacSha1AesCbc => Transform::HmacSha1AesCbc,
            Suite::AesGmacNull => Transform::AesGmacNull,
            Suite::NullAesGcm => Transform::NullAesGcm,
        }
    }
}

/// `alg/ealg`, as configurations, reports and tables write a suite.
impl core::fmt::Display for Suite {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.alg(), self.ealg())
    }
}

impl core::str::FromStr for Suite {
    type Err = SuiteError;

    /// Reads `alg/ealg`.
    fn from_str(text: &str) -> Result<Suite, SuiteError> {
        let (alg, ealg) = text
            .split_once('/')
            .ok_or_else(|| SuiteError::Form(text.to_owned()))?;
        Suite::from_names(alg, ealg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read() {
        for suite in Suite::ALL {
            assert_eq!(suite.to_string().parse(), Ok(suite));
        }
        for wrong in ["", "null", "null/null", "aes-gcm/null", "null/aes-gcm/null"] {
            assert!(wrong.parse::<Suite>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_suites_agree_and_nothing_else_is_a_pair() {
        let mut pairs = 0;
        for alg in ALGS {
            for ealg in EALGS {
                match Suite::from_names(alg, ealg) {
                    Ok(suite) => {
                        assert_eq!((suite.alg(), suite.ealg()), (alg, ealg));
                        pairs += 1;
                    }
                    Err(error) => assert_eq!(error, SuiteError::NotAPair { alg, ealg }),
                }
            }
        }
        assert_eq!(pairs, Suite::ALL.len());
    }

    #[test]
    fn tokens_have_no_case() {
        let suite = Suite::from_names("HMAC-SHA-1-96", "AES-CBC");
        assert_eq!(suite, Ok(Suite::HmacSha1AesCbc));
    }

    #[test]
    fn strangers_are_named() {
        let unknown = Suite::from_names("sha256", "null").unwrap_err();
        assert_eq!(unknown, SuiteError::UnknownAlg("sha256".into()));
        let unknown = Suite::from_names("null", "rot13").unwrap_err();
        assert_eq!(unknown, SuiteError::UnknownEalg("rot13".into()));
        let legacy = Suite::from_names("hmac-md5-96", "null").unwrap_err();
        assert_eq!(legacy, SuiteError::Legacy("hmac-md5-96".into()));
    }
}
