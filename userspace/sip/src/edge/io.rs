//! What goes into an edge and what comes out.

use std::fmt;
use std::net::SocketAddr;

use gm_esp::{Mode, Suite};

use crate::aka::ChallengeError;
use crate::lifecycle::RemoveReason;
use crate::message::ParseError;
use crate::sa_set::{SaSetRequest, SetToken};
use crate::sec_agree::OfferError;
use crate::{Packet, Transport};

/// Something that happened outside.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// A message on the Gm side, on an unprotected or a protected port. What comes
    /// to a protected port has come through an SA: the data plane's guard sees to it.
    FromUe {
        /// Our address (not the wildcard: IP_PKTINFO) and port.
        local: SocketAddr,
        /// The UE's address and port, of the inner header where there is a tunnel.
        remote: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// A message on the core side.
    FromCore {
        /// Who sent it: for TCP the other end of the connection.
        remote: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// What [`Output::ToUe`] wanted over TCP was not sent: there is no connection and
    /// none can be made, or it ended before the message was written. The message is
    /// back; the edge looks for another way, or answers.
    UnsentToUe {
        /// As in the packet.
        local: SocketAddr,
        /// As in the packet.
        remote: SocketAddr,
        /// One whole message, as it was given out.
        bytes: &'a [u8],
    },
    /// The same for [`Output::ToCore`] over TCP.
    UnsentToCore {
        /// As in the output.
        remote: SocketAddr,
        /// One whole message, as it was given out.
        bytes: &'a [u8],
    },
    /// The answer to [`Output::Install`].
    Installed {
        /// The set.
        set: SetToken,
        /// False: nothing of it is installed.
        ok: bool,
    },
}

impl fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::FromUe {
                local,
                remote,
                bytes,
                ..
            } => write!(f, "FromUe({remote} -> {local}, {} bytes)", bytes.len()),
            Input::FromCore { remote, bytes, .. } => {
                write!(f, "FromCore({remote}, {} bytes)", bytes.len())
            }
            Input::UnsentToUe { remote, bytes, .. } => {
                write!(f, "UnsentToUe({remote}, {} bytes)", bytes.len())
            }
            Input::UnsentToCore { remote, bytes } => {
                write!(f, "UnsentToCore({remote}, {} bytes)", bytes.len())
            }
            Input::Installed { set, ok } => write!(f, "Installed({set:?}, {ok})"),
        }
    }
}

/// Something to do, in this order. A command on a set is done before the next
/// output is carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send to a UE: from a protected port through the SA, else in clear. Over TCP on
    /// the connection with these two ends; from a protected client port one is opened
    /// where none is (clause 7.1).
    ToUe(Packet),
    /// Send to the core: over UDP from `core_local`, over TCP on a connection with
    /// `remote`, opened where none is.
    ToCore {
        /// `core` for requests; for responses the Via's address, or the connection's
        /// other end.
        remote: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// One whole message.
        bytes: Vec<u8>,
    },
    /// Install four SAs and answer with [`Input::Installed`].
    Install(Box<SaSetRequest>),
    /// Outbound of the set goes live.
    Activate {
        /// The set.
        set: SetToken,
    },
    /// Outbound of the set ends, inbound still accepts.
    Retire {
        /// The set.
        set: SetToken,
    },
    /// The set goes.
    Remove {
        /// The set.
        set: SetToken,
    },
    /// Something to show or log.
    Event(FlowEvent),
}

/// The flow as it happens (message numbers of TS 33.203 clause 6.1.1). No secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEvent {
    /// A REGISTER that opens a procedure came and goes on as SM2.
    Sm1 {
        /// The private identity, empty when the UE gave none.
        impi: String,
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
        impi: String,
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
        /// Why.
        why: Refusal,
    },
}

/// Why a message is refused. One reason, one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not SIP.
    #[error("no SIP message")]
    Malformed,
    /// Via, From, To, Call-ID or CSeq is missing or malformed.
    #[error("a header that every message has is missing or malformed")]
    Headers,
    /// Max-Forwards is 0.
    #[error("too many hops")]
    Hops,
    /// A method or response that unprotected ports do not take (clause 7.1).
    #[error("only REGISTER may come unprotected")]
    Unprotected,
    /// REGISTER without Security-Client.
    #[error("REGISTER without Security-Client")]
    NoSecurityClient,
    /// Nothing usable in Security-Client.
    #[error("offer not acceptable: {0}")]
    Offer(OfferError),
    /// Behind a NAT without UDP-enc-tun: discarded (M.7.2).
    #[error("behind a NAT and no UDP-enc-tun offered or configured")]
    NatWithoutTunnel,
    /// A name in the Via where an address is needed.
    #[error("Via names a host instead of an address")]
    ViaName,
    /// Via of a protected REGISTER is not the packet's source (clause 7.1 rule 2).
    #[error("Via is not the source address")]
    ViaMismatch,
    /// Ports or SPIs of another set (clause 7.1 rule 3).
    #[error("port or SPI is in use")]
    Collision,
    /// More than six SAs per direction (clause 7.1 rule 3).
    #[error("too many SAs for this contact")]
    TooManySets,
    /// A bound of [`super::Limits`].
    #[error("overload")]
    Overload,
    /// No SPIs reserved.
    #[error("no SPI is reserved")]
    NoSpi,
    /// To a protected port, and no set has this flow.
    #[error("no SA for this flow")]
    NoSa,
    /// Over a set that may not carry it (clause 7.4.2a).
    #[error("protected with the wrong SA")]
    WrongSa,
    /// Security-Verify is not what SM6 said (clause 7.2).
    #[error("Security-Verify differs from Security-Server")]
    SecurityVerify,
    /// Security-Client of SM7 is not that of SM1 (Annex H).
    #[error("Security-Client differs from the first one")]
    SecurityClient,
    /// SM7 does not answer the challenge.
    #[error("no answer to the challenge")]
    NotAnAnswer,
    /// Another user than the SA's (clause 7.1 rule 4).
    #[error("not the user of this SA")]
    ForeignUser,
    /// The 401 has no usable keys.
    #[error("challenge refused: {0}")]
    Challenge(ChallengeError),
    /// The data plane did not install the set.
    #[error("SAs could not be installed")]
    NotInstalled,
    /// Not from the core's addresses.
    #[error("not from the core")]
    CoreUntrusted,
    /// A response that belongs to no transaction.
    #[error("response to no request")]
    NoTransaction,
    /// Routes that are not the Service-Route of the registration (RFC 3608).
    #[error("Route is not the Service-Route; edge.service_route says what becomes of it")]
    ServiceRoute,
    /// Over TCP, and there is no connection.
    #[error("no TCP connection can be made")]
    Unreachable,
    /// A request of the core to nobody registered.
    #[error("no such contact")]
    NoContact,
}

impl From<ParseError> for Refusal {
    fn from(_: ParseError) -> Refusal {
        Refusal::Malformed
    }
}
