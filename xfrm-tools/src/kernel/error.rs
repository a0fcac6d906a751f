//! What the kernel said, and what to do about it. Never a key.

use std::io;

use super::policy::PolicyId;
use super::state::StateId;

/// What a request was for, as errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A state.
    State(StateId),
    /// A policy.
    Policy(PolicyId),
    /// Reading all states.
    States,
    /// Reading all policies.
    Policies,
    /// Hearing of changes.
    Changes,
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::State(id) => write!(f, "state {id}"),
            Subject::Policy(id) => write!(f, "policy {id}"),
            Subject::States => f.write_str("the states"),
            Subject::Policies => f.write_str("the policies"),
            Subject::Changes => f.write_str("hearing of changes"),
        }
    }
}

/// Why the kernel's XFRM did not do it.
#[derive(Debug, thiserror::Error)]
pub enum XfrmError {
    /// The kernel has no XFRM netlink.
    #[error(
        "this kernel has no XFRM over netlink: it needs CONFIG_XFRM_USER, module xfrm_user ({0})"
    )]
    NoXfrm(io::Error),
    /// The socket failed.
    #[error("the XFRM netlink socket: {what}: {error}")]
    Socket {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Not allowed.
    #[error("{0}: needs CAP_NET_ADMIN in the user namespace of this network namespace")]
    NotAllowed(Subject),
    /// The kernel has no ESP.
    #[error(
        "{0}: this kernel has no ESP: it needs CONFIG_INET_ESP and CONFIG_INET6_ESP, \
         modules esp4 and esp6"
    )]
    NoEsp(Subject),
    /// The kernel has not got the algorithm.
    #[error(
        "{0}: this kernel's cryptography lacks {1}: modules authenc, cbc, gcm, seqiv, \
         echainiv, crypto_null and those of the ciphers"
    )]
    NoAlgorithm(Subject, String),
    /// It is there already.
    #[error("{0} exists")]
    Exists(Subject),
    /// It is not there.
    #[error("there is no {0}")]
    Missing(Subject),
    /// The kernel refuses it with another reason.
    #[error("{subject}: the kernel refuses: {error}{}", said(text))]
    Refused {
        /// What was asked for.
        subject: Subject,
        /// The error number's meaning.
        error: io::Error,
        /// The kernel's own words, where it has some.
        text: String,
    },
    /// The kernel's answer is no answer that this program understands.
    #[error("{subject}: the kernel's answer cannot be read: {what}")]
    Answer {
        /// What was asked for.
        subject: Subject,
        /// What is wrong.
        what: &'static str,
    },
    /// The tables change faster than they can be read.
    #[error("{0} changed while they were read, {1} times; try again")]
    Restless(Subject, u32),
    /// More than this program reads.
    #[error("{0}: more than {1} entries")]
    TooMany(Subject, usize),
    /// It cannot be expressed.
    #[error("{subject}: {what}")]
    Unsuitable {
        /// What was asked for.
        subject: Subject,
        /// Why not.
        what: &'static str,
    },
}

fn said(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(" ({text})"),
    }
}

impl XfrmError {
    /// Whether what was to be made is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, XfrmError::Exists(_))
    }

    /// Whether what was to be changed, read or removed is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, XfrmError::Missing(_))
    }

    /// Whether the kernel has no ESP or no XFRM at all.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, XfrmError::NoXfrm(_) | XfrmError::NoEsp(_))
    }

    /// What a negative acknowledgement means. `code` is the positive errno,
    /// `text` the kernel's words, `algorithms` those that a new state wants.
    pub(crate) fn from_code(
        subject: Subject,
        code: i32,
        text: String,
        algorithms: &str,
    ) -> XfrmError {
        let state = matches!(subject, Subject::State(_));
        match code {
            libc::EPERM => XfrmError::NotAllowed(subject),
            libc::EEXIST => XfrmError::Exists(subject),
            libc::ESRCH | libc::ENOENT if algorithms.is_empty() => XfrmError::Missing(subject),
            libc::EPROTONOSUPPORT if state => XfrmError::NoEsp(subject),
            libc::ENOSYS | libc::ENOENT if state => {
                XfrmError::NoAlgorithm(subject, algorithms.to_string())
            }
            code => XfrmError::Refused {
                subject,
                error: io::Error::from_raw_os_error(code),
                text,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(subject: Subject, code: i32, algorithms: &str) -> String {
        XfrmError::from_code(subject, code, "its words".to_string(), algorithms).to_string()
    }

    #[test]
    fn errors_say_what_to_do() {
        let id = StateId::esp([192, 0, 2, 1].into(), 0x1000);
        let state = Subject::State(id);
        let name = "state SPI 0x00001000 to 192.0.2.1";
        for (code, algorithms, wanted) in [
            (libc::EPERM, "", "needs CAP_NET_ADMIN"),
            (libc::EEXIST, "cbc(aes)", " exists"),
            (libc::ESRCH, "", "there is no "),
            (libc::EPROTONOSUPPORT, "cbc(aes)", "modules esp4 and esp6"),
            (libc::ENOSYS, "cbc(aes)", "lacks cbc(aes)"),
            (libc::ENOENT, "cbc(aes)", "lacks cbc(aes)"),
            (
                libc::EINVAL,
                "cbc(aes)",
                "Invalid argument (os error 22) (its words)",
            ),
        ] {
            let said = said(state.clone(), code, algorithms);
            assert!(said.contains(wanted) && said.contains(name), "{said}");
        }
        let said = said(Subject::Policies, libc::EPERM, "");
        assert!(said.starts_with("the policies: needs"), "{said}");
    }

    #[test]
    fn what_callers_ask_is_answered() {
        let error = |code| XfrmError::from_code(Subject::States, code, String::new(), "");
        assert!(error(libc::EEXIST).is_exists() && !error(libc::EINVAL).is_exists());
        assert!(error(libc::ESRCH).is_missing() && error(libc::ENOENT).is_missing());
        let no = XfrmError::NoXfrm(io::Error::from_raw_os_error(libc::EPROTONOSUPPORT));
        assert!(no.is_unsupported() && !error(libc::EPERM).is_unsupported());
        assert!(no.to_string().contains("CONFIG_XFRM_USER"));
    }
}
