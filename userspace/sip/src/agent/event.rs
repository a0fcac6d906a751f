//! What comes out of an agent.

use std::net::SocketAddr;
use std::sync::Arc;

use gm_esp::{Mode, Suite};

use super::Refusal;
use crate::lifecycle::RemoveReason;
use crate::sa_set::{SaSetRequest, SetToken};

/// Something to do, in this order; each is in force before the next is carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Install four SAs and answer with [`super::Agent::installed`].
    Install(Box<SaSetRequest>),
    /// Outbound of the set goes live.
    Activate(SetToken),
    /// Outbound of the set ends, inbound still accepts.
    Retire(SetToken),
    /// The set goes.
    Remove(SetToken),
    /// Something to show or log.
    Event(FlowEvent),
}

/// The flow as it happens (message numbers of TS 33.203 clause 6.1.1). No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEvent {
    /// A REGISTER that opens a procedure came and goes on as SM2.
    Sm1 {
        /// The private identity, empty when the UE gave none.
        impi: Arc<str>,
        /// Where it came from.
        ue: SocketAddr,
        /// The established set that protected it.
        over: Option<SetToken>,
        /// Whether a NAT was found.
        nat: bool,
    },
    /// The challenge came, its keys are taken out, a suite is chosen.
    Sm4 {
        /// The new set.
        set: SetToken,
        /// The private identity, empty when the UE gave none.
        impi: Arc<str>,
        /// The choice.
        suite: Suite,
        /// By the NAT test.
        mode: Mode,
    },
    /// The challenge goes to the UE.
    Sm6 {
        /// The new set.
        set: SetToken,
        /// Where it goes.
        ue: SocketAddr,
    },
    /// The answer came over the new set and its lists compared equal.
    Sm7 {
        /// The new set.
        set: SetToken,
        /// Where it came from.
        ue: SocketAddr,
    },
    /// The answer goes on, marked as integrity-protected.
    Sm8 {
        /// The new set.
        set: SetToken,
    },
    /// Success goes to the UE through the new set.
    Sm12 {
        /// The new set.
        set: SetToken,
        /// Where it goes.
        ue: SocketAddr,
        /// Granted registration in seconds.
        expires: u32,
    },
    /// A registration was refreshed without a challenge.
    Refreshed {
        /// The set whose life is longer now.
        set: SetToken,
        /// Granted registration in seconds.
        expires: u32,
    },
    /// The last identity of a contact is gone; its sets follow.
    Deregistered {
        /// The private identity.
        impi: Arc<str>,
    },
    /// Outbound traffic changes to the new set.
    SwitchedOver {
        /// Before.
        from: SetToken,
        /// From now on.
        to: SetToken,
    },
    /// A set goes.
    Removed {
        /// The set.
        set: SetToken,
        /// Why.
        why: RemoveReason,
    },
    /// A message was not forwarded.
    Refused {
        /// Who sent it.
        from: SocketAddr,
        /// Why; [`Refusal::explain`] says it to the operator.
        why: Refusal,
        /// What the phone offered, where that is the matter: [`super::offered`].
        offered: Option<String>,
    },
}
