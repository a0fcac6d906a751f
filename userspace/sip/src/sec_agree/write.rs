//! Writing lists: Security-Client of the UE, Security-Server of the P-CSCF
//! (TS 33.203 clause 7.2, Annex H). Parameters are those of RFC 3329 and no other:
//! some phones give up on what they do not know.

use gm_esp::{Mode, Suite};

use super::{Confidentiality, Ends, Policy};

/// One entry as it is written.
struct Entry<'a> {
    suite: Suite,
    mode: Mode,
    /// Not there in the list of an error: nothing is reserved yet.
    ends: Option<&'a Ends>,
    /// In tenths.
    q: Option<usize>,
    /// Whether "no encryption" is written as ealg=null or not at all.
    write_null: bool,
}

impl Entry<'_> {
    fn text(&self) -> String {
        let mut out = "ipsec-3gpp".to_owned();
        if let Some(tenths) = self.q {
            out += &format!(";q=0.{tenths}");
        }
        out += &format!(";alg={}", self.suite.alg());
        if self.suite.ealg() != "null" || self.write_null {
            out += &format!(";ealg={}", self.suite.ealg());
        }
        let mode = match self.mode {
            Mode::Trans => "trans",
            Mode::UdpEncTun => "UDP-enc-tun",
        };
        out += &format!(";prot=esp;mod={mode}");
        if let Some(ends) = self.ends {
            // Ten digits: Annex H.
            out += &format!(
                ";spi-c={:010};spi-s={:010};port-c={};port-s={}",
                ends.spi_c, ends.spi_s, ends.port_c, ends.port_s
            );
        }
        out
    }
}

/// What policy allows, best first, with falling q.
fn announced(policy: &Policy, mode: Mode, ends: Option<&Ends>) -> String {
    let mut suites = policy.suites();
    // One digit behind the point is what all phones read; there are eight suites.
    suites.truncate(9);
    let count = suites.len();
    let entry = |(n, suite): (usize, &Suite)| {
        Entry {
            suite: *suite,
            mode,
            ends,
            q: Some(count - n),
            write_null: policy.confidentiality != Confidentiality::Never,
        }
        .text()
    };
    let entries: Vec<_> = suites.iter().enumerate().map(entry).collect();
    entries.join(", ")
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
    let entry = |suite: &Suite, mode: &Mode| {
        Entry {
            suite: *suite,
            mode: *mode,
            ends: Some(ends),
            q: None,
            write_null: true,
        }
        .text()
    };
    let entries: Vec<_> = modes
        .iter()
        .flat_map(|m| suites.iter().map(move |s| entry(s, m)))
        .collect();
    entries.join(", ")
}
