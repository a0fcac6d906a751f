//! What a UE can be told to do wrong, to see what the network makes of it. Each
//! fault is one deviation; everything else stays right.

use std::fmt;
use std::str::FromStr;

/// One deviation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The response is that of another RES; the keys are right (clause 6.1.2.1).
    WrongRes,
    /// The keys are wrong, so SM7 fails at the P-CSCF's ESP (clause 6.1.2.1).
    WrongKeys,
    /// The SIM says that AUTN's MAC is wrong (clause 6.1.2.2).
    WrongAutn,
    /// The SIM has seen higher sequence numbers: AUTS (clause 6.1.3).
    StaleSqn,
    /// The first REGISTER answers a challenge of long ago.
    Replay,
    /// No request of the network is answered.
    Silent,
    /// Security-Verify is not what Security-Server was (clause 7.2).
    WrongVerify,
    /// No Security-Verify in SM7.
    NoVerify,
    /// Security-Client of SM7 is not that of SM1 (clause 7.2).
    WrongClient,
    /// No Security-Client at all.
    NoClient,
    /// SM7 and what follows name another user than SM1 (clause 7.1 rule 4).
    WrongUser,
    /// SM7 names another address than its own in Via (clause 7.1 rule 2).
    WrongVia,
    /// The challenge is not answered (clause 6.1.2.3).
    NoSm7,
    /// SM7 goes out in clear.
    ClearSm7,
    /// SM12 is not seen, as if lost.
    DropSm12,
    /// A further registration offers the port_uc in use (clause 7.4.0: it changes).
    SamePort,
}

impl Fault {
    /// All, in the order of a registration.
    pub const ALL: [Fault; 16] = [
        Fault::NoClient,
        Fault::Replay,
        Fault::SamePort,
        Fault::WrongAutn,
        Fault::StaleSqn,
        Fault::NoSm7,
        Fault::ClearSm7,
        Fault::WrongRes,
        Fault::WrongKeys,
        Fault::WrongVerify,
        Fault::NoVerify,
        Fault::WrongClient,
        Fault::WrongUser,
        Fault::WrongVia,
        Fault::DropSm12,
        Fault::Silent,
    ];

    /// The name on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::WrongRes => "wrong-res",
            Fault::WrongKeys => "wrong-keys",
            Fault::WrongAutn => "wrong-autn",
            Fault::StaleSqn => "stale-sqn",
            Fault::Replay => "replay",
            Fault::Silent => "silent",
            Fault::WrongVerify => "wrong-verify",
            Fault::NoVerify => "no-verify",
            Fault::WrongClient => "wrong-client",
            Fault::NoClient => "no-client",
            Fault::WrongUser => "wrong-user",
            Fault::WrongVia => "wrong-via",
            Fault::NoSm7 => "no-sm7",
            Fault::ClearSm7 => "clear-sm7",
            Fault::DropSm12 => "drop-sm12",
            Fault::SamePort => "same-port",
        }
    }

    /// What it does and what a good network makes of it, in one line.
    pub fn about(self) -> &'static str {
        match self {
            Fault::WrongRes => "the digest is wrong, the keys are right: 403 through the new SA",
            Fault::WrongKeys => "IK is wrong: SM7 fails at the P-CSCF's ESP, no answer",
            Fault::WrongAutn => "the SIM does not know the network: it says so and stops",
            Fault::StaleSqn => {
                "the SIM has seen higher numbers: AUTS, a second challenge, registered"
            }
            Fault::Replay => "a first REGISTER with an old response in it: challenged all the same",
            Fault::Silent => "requests of the network get no answer: 408 for whoever asks",
            Fault::WrongVerify => "SM7 does not repeat Security-Server: refused",
            Fault::NoVerify => "SM7 without Security-Verify: refused",
            Fault::WrongClient => "SM7's offer is not SM1's: refused",
            Fault::NoClient => "REGISTER without an offer: refused",
            Fault::WrongUser => "SM7 names another private identity: refused",
            Fault::WrongVia => "SM7's Via names another address: refused",
            Fault::NoSm7 => "the challenge is not answered: the P-CSCF forgets its SAs in time",
            Fault::ClearSm7 => "SM7 in clear: discarded, no answer",
            Fault::DropSm12 => "SM12 is not seen: SM7 repeats, then no answer",
            Fault::SamePort => {
                "a further registration (--again 1 --clear) offers the port_uc in use: refused"
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Fault, String> {
        let known = Fault::ALL.into_iter().find(|f| f.name() == text);
        known.ok_or_else(|| {
            let names: Vec<_> = Fault::ALL.iter().map(|f| f.name()).collect();
            format!("no such fault; there are: {}", names.join(", "))
        })
    }
}
