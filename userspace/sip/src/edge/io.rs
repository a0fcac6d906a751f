//! What goes into an edge and what comes out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::agent::FlowEvent;
use crate::sa_set::{SaSetRequest, SetToken};
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
    /// The answer to [`Output::Resolve`].
    Resolved {
        /// As in the question.
        id: u64,
        /// The name's addresses; none: it has none, or there was no time for it.
        addresses: &'a [IpAddr],
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
            Input::Resolved { id, addresses } => write!(f, "Resolved({id}, {addresses:?})"),
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
    /// Look a name of a Via up (clause 7.1 rule 2) and answer with [`Input::Resolved`].
    Resolve {
        /// For the answer.
        id: u64,
        /// A host name: letters, digits, hyphens, dots and underscores.
        name: String,
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
