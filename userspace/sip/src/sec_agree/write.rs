//! Writing lists: Security-Client of the UE, Security-Server of the P-CSCF
//! (TS 33.203 clause 7.2, Annex H). Parameters are those of RFC 3329 and no other:
//! some phones give up on what they do not know.

use std::fmt::Write as _;

use gm_esp::{Mode, Suite};

use super::{Confidentiality, Ends, Policy};

/// One entry as it is written.
struct Entry {
    suite: Suite,
    mode: Mode,
    /// In tenths.
    q: Option<usize>,
    /// Whether "no encryption" is written as ealg=null or not at all.
    write_null: bool,
}

impl Entry {
    /// Appends it, with SPIs and ports as they are written.
    fn write(&self, ends: &str, out: &mut String) {
        out.push_str("ipsec-3gpp");
        if let Some(tenths) = self.q {
            // Writing to a string does not fail.
            let _ = write!(out, ";q=0.{tenths}");
        }
        out.push_str(";alg=");
        out.push_str(self.suite.alg());
        if self.suite.ealg() != "null" || self.write_null {
            out.push_str(";ealg=");
            out.push_str(self.suite.ealg());
        }
        out.push_str(match self.mode {
            Mode::Trans => ";prot=esp;mod=trans",
            Mode::UdpEncTun => ";prot=esp;mod=UDP-enc-tun",
        });
        out.push_str(ends);
    }
}

/// Bytes of an entry that has everything.
const LONGEST: usize = 160;

/// The entries, all with these SPIs and ports; in the list of an error there are none,
/// because nothing is reserved yet.
fn list(entries: impl Iterator<Item = Entry>, ends: Option<&Ends>) -> String {
    let mut out = String::with_capacity(entries.size_hint().0 * LONGEST);
    // Ten digits: Annex H.
    let ends = ends.map(|ends| {
        format!(
            ";spi-c={:010};spi-s={:010};port-c={};port-s={}",
            ends.spi_c, ends.spi_s, ends.port_c, ends.port_s
        )
    });
    let ends = ends.unwrap_or_default();
    for (n, entry) in entries.enumerate() {
        out.push_str(if n == 0 { "" } else { ", " });
        entry.write(&ends, &mut out);
    }
    out
}

/// What policy allows, best first, with falling q.
fn announced(policy: &Policy, mode: Mode, ends: Option<&Ends>) -> String {
    let mut suites = policy.suites();
    // One digit behind the point is what all phones read; there are eight suites.
    suites.truncate(9);
    let count = suites.len();
    let all = suites.iter().enumerate().map(|(n, suite)| Entry {
        suite: *suite,
        mode,
        q: Some(count - n),
        write_null: policy.confidentiality != Confidentiality::Never,
    });
    list(all, ends)
}

/// Security-Server of SM6: everything that policy allows, best first, in the one
/// mode that was found, whatever the UE has offered: a stranger who has taken
/// something out of the offer shows in the UE's choice (clause 7.2, note 5).
/// Without encryption names when policy never encrypts, without null when it must.
pub fn server_list(policy: &Policy, mode: Mode, ends: &Ends) -> String {
    announced(policy, mode, Some(ends))
}

/// Security-Server of a 421 or 494 (RFC 3329 clause 2.3.1): what policy wants,
/// without SPIs and ports.
pub fn error_list(policy: &Policy) -> String {
    announced(policy, Mode::Trans, None)
}

/// Security-Client of SM1: every suite in every mode, all with the same SPIs and ports.
pub fn offer_list(suites: &[Suite], modes: &[Mode], ends: &Ends) -> String {
    let entry = |suite: &Suite, mode: Mode| Entry {
        suite: *suite,
        mode,
        q: None,
        write_null: true,
    };
    let all = modes
        .iter()
        .flat_map(|mode| suites.iter().map(move |suite| entry(suite, *mode)));
    list(all, Some(ends))
}
