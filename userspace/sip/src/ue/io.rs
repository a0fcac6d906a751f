//! What goes into a UE and what comes out.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use gm_esp::{Ck, Ik, Mode, Suite};

use crate::aka::{ChallengeError, Res};
use crate::sa_set::{SaSetRequest, SetToken};
use crate::sec_agree::OfferError;
use crate::{Packet, Transport};

/// What a SIM answers to a challenge. Keys and RES are wiped on drop.
#[derive(Debug, Clone)]
pub struct AkaAnswer {
    /// The digest's password.
    pub res: Res,
    /// IK_IM.
    pub ik: Ik,
    /// CK_IM.
    pub ck: Ck,
}

/// Why a SIM does not answer (TS 33.102 clause 6.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AkaFailure {
    /// The sequence number is out of range; AUTS for the network.
    Synchronisation([u8; 14]),
    /// The network's MAC is wrong.
    Mac,
}

/// The SIM: AKA with the key that it shares with the home network.
pub trait Aka {
    /// Answers RAND and AUTN.
    fn answer(&mut self, rand: &[u8; 16], autn: &[u8; 16]) -> Result<AkaAnswer, AkaFailure>;

    /// Is as if it had seen higher sequence numbers than the network's, for
    /// [`Fault::StaleSqn`](super::Fault::StaleSqn).
    fn run_ahead(&mut self) {}
}

/// Something that happened outside.
#[derive(Clone, Copy)]
pub enum UeInput<'a> {
    /// A message came, in clear or through an SA.
    FromNetwork {
        /// Our address and port; behind a NAT the public address for protected ones.
        local: SocketAddr,
        /// The P-CSCF's address and port.
        remote: SocketAddr,
        /// UDP or TCP.
        transport: Transport,
        /// One whole message.
        bytes: &'a [u8],
    },
    /// A message over TCP did not go: no connection came up, or there was none to
    /// answer on.
    Unreachable {
        /// The packet's `local`.
        local: SocketAddr,
        /// The packet's `remote`.
        remote: SocketAddr,
    },
    /// A TCP connection has ended. What is sent next opens another one.
    Closed {
        /// Our address and port.
        local: SocketAddr,
        /// The P-CSCF's address and port.
        remote: SocketAddr,
    },
    /// The answer to [`UeOutput::Install`].
    Installed {
        /// The set.
        set: SetToken,
        /// False: nothing of it is installed.
        ok: bool,
    },
}

impl fmt::Debug for UeInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UeInput::FromNetwork {
                local,
                remote,
                bytes,
                ..
            } => {
                write!(f, "FromNetwork({remote} -> {local}, {} bytes)", bytes.len())
            }
            UeInput::Unreachable { local, remote } => {
                write!(f, "Unreachable({local} -> {remote})")
            }
            UeInput::Closed { local, remote } => write!(f, "Closed({local} -> {remote})"),
            UeInput::Installed { set, ok } => write!(f, "Installed({set:?}, {ok})"),
        }
    }
}

/// Something to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum UeOutput {
    /// Send from `local`. The caller opens sockets by local address as needed, and
    /// listens on port_us and port_uc of each installed set; behind a NAT the local
    /// address of protected packets is the public one (lo can have it).
    Send(Packet),
    /// Install four SAs and answer with [`UeInput::Installed`].
    Install(Box<SaSetRequest>),
    /// Outbound of the set goes live.
    Activate {
        /// The set.
        set: SetToken,
    },
    /// Outbound of the set ends.
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
    Event(UeEvent),
}

/// Names a request of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What a UE has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UeEvent {
    /// The first REGISTER of a procedure left.
    Sm1 {
        /// Whether it left through an SA.
        protected: bool,
    },
    /// The challenge came and a suite is chosen.
    Sm6 {
        /// The new set.
        set: SetToken,
        /// The choice.
        suite: Suite,
        /// Transport, or UDP-enc-tun behind a NAT.
        mode: Mode,
        /// Our address as the P-CSCF sees it.
        public: IpAddr,
    },
    /// The answer left through the new set.
    Sm7 {
        /// The new set.
        set: SetToken,
    },
    /// SM12: registered.
    Registered {
        /// The set in use.
        set: SetToken,
        /// Granted time in seconds.
        expires: u32,
        /// Whether there was a challenge.
        authenticated: bool,
    },
    /// De-registered; the SAs follow.
    Deregistered,
    /// A registration or de-registration ended without success.
    Failed(UeFailure),
    /// The SIM refused AUTN for its sequence number; AUTS goes to the network.
    Resynchronising,
    /// Our protected messages stay without answer: the SAs count as dead, and the
    /// next REGISTER goes in clear (clause 7.4.0).
    Lost,
    /// The next attempt begins by itself.
    Again {
        /// In how many milliseconds.
        wait: u64,
    },
    /// A request of the network came and was answered with this status.
    Request {
        /// MESSAGE, OPTIONS, NOTIFY or another.
        method: String,
        /// From as it stands.
        from: String,
        /// The body.
        body: Vec<u8>,
        /// What we answered.
        status: u16,
        /// What it came over; the answer goes back the same way.
        transport: Transport,
    },
    /// A final response to a request of ours.
    Answered {
        /// The request.
        id: RequestId,
        /// Its status; 408 when none came.
        status: u16,
        /// The body.
        body: Vec<u8>,
    },
    /// Something came that is not for us or not over the right SA.
    Ignored {
        /// Why.
        why: Ignored,
    },
}

/// Why a registration failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UeFailure {
    /// A final answer other than 2xx and 401.
    #[error("the network answered {0}")]
    Status(u16),
    /// No answer.
    #[error("no answer")]
    Timeout,
    /// No TCP connection, or it ended twice without an answer.
    #[error("no TCP connection to the P-CSCF")]
    Unreachable,
    /// The challenge cannot be read.
    #[error("challenge: {0}")]
    Challenge(ChallengeError),
    /// Nothing in Security-Server that we support (clause 7.3.2.2).
    #[error("Security-Server not acceptable: {0}")]
    SecurityServer(OfferError),
    /// Behind a NAT, and the P-CSCF does not say UDP-enc-tun (M.7.2).
    #[error("behind a NAT, and the P-CSCF did not choose UDP-enc-tun")]
    Nat,
    /// `received` of the challenge's Via is nobody's, or the P-CSCF's.
    #[error("the P-CSCF says that we are at an address that cannot be ours")]
    PublicAddress,
    /// The network failed to authenticate itself (clause 6.1.2.2).
    #[error("the network's authentication failed")]
    NetworkAuthentication,
    /// More challenges than a sane network sends.
    #[error("too many challenges")]
    TooManyChallenges,
    /// The SAs could not be installed.
    #[error("SAs could not be installed")]
    NotInstalled,
    /// No SPIs reserved: call `add_spis` first.
    #[error("no SPI is reserved")]
    NoSpi,
    /// No port in `client_ports` is free.
    #[error("no client port is free")]
    NoPort,
    /// Not registered.
    #[error("not registered")]
    NotRegistered,
    /// Another procedure is running: one at a time (clause 7.4.1a).
    #[error("a registration is running")]
    Busy,
    /// Our address changed meanwhile (clause 7.5).
    #[error("the address has changed")]
    Moved,
}

/// Why a message was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Ignored {
    /// Not SIP, or without the headers that every message has.
    #[error("no SIP message")]
    Malformed,
    /// A response to nothing that we sent.
    #[error("response to no request")]
    NoTransaction,
    /// In clear where it must be protected, or over the wrong SA (clauses 7.1, 7.4.1a).
    #[error("not protected as it must be")]
    WrongSa,
    /// Not from the P-CSCF.
    #[error("not from the P-CSCF")]
    Stranger,
}
