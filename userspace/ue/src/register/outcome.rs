//! How it went with a phone.

use std::fmt;
use std::net::IpAddr;

use gm_sip::ue::Fault;
use serde::Serialize;

use crate::trace::printable;

/// A registration that the network granted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Registered {
    /// `alg/ealg`.
    pub suite: String,
    /// "trans" or "udp-enc-tun".
    pub mode: String,
    /// The phone's address as the P-CSCF sees it.
    pub public_address: IpAddr,
    /// port_uc, port_us, port_pc, port_ps.
    pub ports: [u16; 4],
    /// spi_uc, spi_us, spi_pc, spi_ps.
    pub spis: [u32; 4],
    /// Granted seconds.
    pub expires: u32,
    /// Whether there was a challenge.
    pub authenticated: bool,
    /// Milliseconds from the first REGISTER to the 200.
    pub ms: f64,
}

/// A MESSAGE of ours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sent {
    /// The final status; 408 when none came, 503 when it could not be sent.
    pub status: u16,
    /// Milliseconds to the answer.
    pub ms: f64,
}

/// A MESSAGE of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Its From.
    pub from: String,
    /// Its body.
    pub body: String,
    /// "udp" or "tcp".
    pub transport: String,
}

/// What did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// "start", "register", "again", "message", "expect", "hold", "deregister", or
    /// "stop" for a signal.
    pub step: String,
    /// Why.
    pub reason: String,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Outcome {
    /// Everything happened that was asked for.
    pub ok: bool,
    /// What the phone was told to do wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Each registration in turn, renewals of its own too: the first thousand.
    pub registrations: Vec<Registered>,
    /// The MESSAGE that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Sent>,
    /// MESSAGEs that came: the first thousand.
    pub received: Vec<Received>,
    /// Times that the phone began again after a failure.
    pub retries: u32,
    /// What came and was not taken, by reason as it was told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
    /// The de-registration was confirmed through the SA.
    pub deregistered: bool,
    /// What ended it early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

impl Outcome {
    /// It could not begin, or not go on.
    pub(super) fn not_run(faults: &[Fault], error: &anyhow::Error) -> Outcome {
        Outcome {
            faults: faults.iter().map(ToString::to_string).collect(),
            failure: Some(Failure {
                step: "start".into(),
                reason: format!("{error:#}"),
            }),
            ..Outcome::default()
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for r in &self.registrations {
            let how = if r.authenticated {
                "challenged"
            } else {
                "not challenged"
            };
            writeln!(
                f,
                "registered for {} s in {:.1} ms, {how}: {} {} as {}, ports uc {} us {} pc {} ps {}",
                r.expires,
                r.ms,
                r.suite,
                r.mode,
                r.public_address,
                r.ports[0],
                r.ports[1],
                r.ports[2],
                r.ports[3]
            )?;
        }
        if let Some(sent) = &self.message {
            writeln!(
                f,
                "MESSAGE answered with {} in {:.1} ms",
                sent.status, sent.ms
            )?;
        }
        for got in &self.received {
            let (from, body) = (printable(&got.from), printable(&got.body));
            writeln!(f, "MESSAGE from {from}: {body}")?;
        }
        for why in &self.ignored {
            writeln!(f, "something was ignored: {why}")?;
        }
        if self.retries > 0 {
            writeln!(f, "began again {} times", self.retries)?;
        }
        if self.deregistered {
            writeln!(f, "de-registered, confirmed through the SA")?;
        }
        match &self.failure {
            Some(failure) => write!(f, "FAILED: {}: {}", failure.step, failure.reason),
            None => write!(f, "ok"),
        }
    }
}
