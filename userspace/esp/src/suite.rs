//! The names of Annex H of TS 33.203 and which of them go together.

use gm_engines::Transform;

/// What an SA's `alg` and `ealg` say together (TS 33.203 Annex H, 7.1).
///
/// Four are today's. Four more were in older releases and are all that many
/// phones offer; nobody gets one of those from a name without saying
/// [`Legacy::Allow`].
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
    /// Legacy: `hmac-md5-96` with `null`.
    HmacMd5Null,
    /// Legacy: `hmac-md5-96` with `aes-cbc`.
    HmacMd5AesCbc,
    /// Legacy: `hmac-md5-96` with `des-ede3-cbc`.
    HmacMd5DesEde3Cbc,
    /// Legacy: `hmac-sha-1-96` with `des-ede3-cbc`.
    HmacSha1DesEde3Cbc,
}

/// Whether names of [`Suite::LEGACY`] are taken. A configuration's switch
/// becomes this value, and what reads names of strangers asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Legacy {
    /// They are refused with [`SuiteError::Legacy`].
    #[default]
    Refuse,
    /// They are taken as the others are.
    Allow,
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
    /// A suite that Annex H had once, and the caller does not allow.
    #[error("{0} is a legacy suite, dropped from the specification, and is not allowed here")]
    Legacy(Suite),
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

const ALGS: [&str; 4] = ["hmac-sha-1-96", "aes-gmac", "null", "hmac-md5-96"];
const EALGS: [&str; 4] = ["null", "aes-cbc", "aes-gcm", "des-ede3-cbc"];

impl Suite {
    /// All suites of today's specification.
    pub const ALL: [Suite; 4] = [
        Suite::HmacSha1Null,
        Suite::HmacSha1AesCbc,
        Suite::AesGmacNull,
        Suite::NullAesGcm,
    ];

    /// The suites that only older releases have.
    pub const LEGACY: [Suite; 4] = [
        Suite::HmacMd5Null,
        Suite::HmacMd5AesCbc,
        Suite::HmacMd5DesEde3Cbc,
        Suite::HmacSha1DesEde3Cbc,
    ];

    /// [`Suite::ALL`], then [`Suite::LEGACY`]: for what has to work with every
    /// SA that there may be, not for what chooses or offers.
    pub fn every() -> impl Iterator<Item = Suite> + Clone {
        Suite::ALL.into_iter().chain(Suite::LEGACY)
    }

    /// Whether only older releases have this suite.
    pub const fn is_legacy(self) -> bool {
        match self {
            Suite::HmacSha1Null
            | Suite::HmacSha1AesCbc
            | Suite::AesGmacNull
            | Suite::NullAesGcm => false,
            Suite::HmacMd5Null
            | Suite::HmacMd5AesCbc
            | Suite::HmacMd5DesEde3Cbc
            | Suite::HmacSha1DesEde3Cbc => true,
        }
    }

    /// The suite of today's specification with these Annex H names; tokens have
    /// no case (RFC 3261 7.3.1).
    ///
    /// # Errors
    /// [`SuiteError`] says which name is unknown, that they are no pair, or
    /// that they are a legacy suite.
    pub fn from_names(alg: &str, ealg: &str) -> Result<Suite, SuiteError> {
        Suite::from_names_with(alg, ealg, Legacy::Refuse)
    }

    /// [`Suite::from_names`] for a caller who may allow legacy suites.
    ///
    /// # Errors
    /// [`SuiteError`], [`SuiteError::Legacy`] with [`Legacy::Refuse`] only.
    pub fn from_names_with(alg: &str, ealg: &str, legacy: Legacy) -> Result<Suite, SuiteError> {
        let find = |names: &[&'static str], name: &str| {
            let name = name.trim();
            names.iter().copied().find(|n| n.eq_ignore_ascii_case(name))
        };
        let alg = find(&ALGS, alg).ok_or_else(|| SuiteError::UnknownAlg(alg.to_owned()))?;
        let ealg = find(&EALGS, ealg).ok_or_else(|| SuiteError::UnknownEalg(ealg.to_owned()))?;
        let suite = Suite::every()
            .find(|suite| suite.alg() == alg && suite.ealg() == ealg)
            .ok_or(SuiteError::NotAPair { alg, ealg })?;
        match (suite.is_legacy(), legacy) {
            (true, Legacy::Refuse) => Err(SuiteError::Legacy(suite)),
            (true, Legacy::Allow) | (false, _) => Ok(suite),
        }
    }

    /// Reads `alg/ealg`. `parse` of a string is the same with [`Legacy::Refuse`].
    ///
    /// # Errors
    /// [`SuiteError`].
    pub fn parse_with(text: &str, legacy: Legacy) -> Result<Suite, SuiteError> {
        let (alg, ealg) = text
            .split_once('/')
            .ok_or_else(|| SuiteError::Form(text.to_owned()))?;
        Suite::from_names_with(alg, ealg, legacy)
    }

    /// Annex H's name of the integrity algorithm.
    pub const fn alg(self) -> &'static str {
        match self {
            Suite::HmacSha1Null | Suite::HmacSha1AesCbc | Suite::HmacSha1DesEde3Cbc => {
                "hmac-sha-1-96"
            }
            Suite::AesGmacNull => "aes-gmac",
            Suite::NullAesGcm => "null",
            Suite::HmacMd5Null | Suite::HmacMd5AesCbc | Suite::HmacMd5DesEde3Cbc => "hmac-md5-96",
        }
    }

    /// Annex H's name of the encryption algorithm.
    pub const fn ealg(self) -> &'static str {
        match self {
            Suite::HmacSha1Null | Suite::AesGmacNull | Suite::HmacMd5Null => "null",
            Suite::HmacSha1AesCbc | Suite::HmacMd5AesCbc => "aes-cbc",
            Suite::NullAesGcm => "aes-gcm",
            Suite::HmacMd5DesEde3Cbc | Suite::HmacSha1DesEde3Cbc => "des-ede3-cbc",
        }
    }

    /// The engine's transform for this suite.
    pub const fn transform(self) -> Transform {
        match self {
            Suite::HmacSha1Null => Transform::HmacSha1Null,
            Suite::HmacSha1AesCbc => Transform::HmacSha1AesCbc,
            Suite::AesGmacNull => Transform::AesGmacNull,
            Suite::NullAesGcm => Transform::NullAesGcm,
            Suite::HmacMd5Null => Transform::HmacMd5Null,
            Suite::HmacMd5AesCbc => Transform::HmacMd5AesCbc,
            Suite::HmacMd5DesEde3Cbc => Transform::HmacMd5DesEde3Cbc,
            Suite::HmacSha1DesEde3Cbc => Transform::HmacSha1DesEde3Cbc,
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

    /// Reads `alg/ealg` of today's specification.
    fn from_str(text: &str) -> Result<Suite, SuiteError> {
        Suite::parse_with(text, Legacy::Refuse)
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
        for suite in Suite::every() {
            let shown = suite.to_string();
            assert_eq!(Suite::parse_with(&shown, Legacy::Allow), Ok(suite));
        }
        for wrong in ["", "null", "null/null", "aes-gcm/null", "null/aes-gcm/null"] {
            assert!(wrong.parse::<Suite>().is_err(), "{wrong}");
            assert!(Suite::parse_with(wrong, Legacy::Allow).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_suites_agree_and_nothing_else_is_a_pair() {
        let mut pairs = 0;
        for alg in ALGS {
            for ealg in EALGS {
                match Suite::from_names_with(alg, ealg, Legacy::Allow) {
                    Ok(suite) => {
                        assert_eq!((suite.alg(), suite.ealg()), (alg, ealg));
                        pairs += 1;
                    }
                    Err(error) => assert_eq!(error, SuiteError::NotAPair { alg, ealg }),
                }
            }
        }
        assert_eq!(pairs, Suite::every().count());
    }

    #[test]
    fn legacy_suites_are_refused_unless_the_caller_allows_them() {
        assert_eq!(Legacy::default(), Legacy::Refuse);
        for suite in Suite::LEGACY {
            assert!(suite.is_legacy());
            let refused = Err(SuiteError::Legacy(suite));
            assert_eq!(Suite::from_names(suite.alg(), suite.ealg()), refused);
            assert_eq!(suite.to_string().parse::<Suite>(), refused);
            let allowed = Suite::from_names_with(suite.alg(), suite.ealg(), Legacy::Allow);
            assert_eq!(allowed, Ok(suite));
        }
        for suite in Suite::ALL {
            assert!(!suite.is_legacy());
            assert_eq!(Suite::from_names(suite.alg(), suite.ealg()), Ok(suite));
        }
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
        assert_eq!(legacy, SuiteError::Legacy(Suite::HmacMd5Null));
    }
}
