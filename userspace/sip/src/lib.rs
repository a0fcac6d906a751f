//! The SIP security agent of the Gm link, without I/O.
//!
//! Time, randomness and reserved SPIs are arguments; datagrams to send and SAs to
//! install come back as outputs, to be carried out in order. Two roles over one
//! set of parts:
//!
//! ```text
//!            UE                                   P-CSCF's edge
//! ue::Ue ---------- SM1 (clear) ----------> edge::Edge ---- SM2 ---> core
//!        <--------- SM6, Security-Server --  Install, Activate  <--- SM4 with ik, ck
//! Install ========= SM7, Security-Verify => checked        --- SM8 -->
//!        <========= SM12 ================== confirmed      <-- SM10
//! ```
//!
//! [`agent`] is what the edge decides about SAs, without messages: the engine that an
//! interface for other SIP proxies uses too. [`message`] keeps what it does not touch byte for byte; [`sec_agree`] reads,
//! compares and chooses; [`aka`] is the digest of RFC 3310; [`lifecycle`] is the
//! SA table of TS 33.203 clause 7.1 with the rules of 7.4.
#![forbid(unsafe_code)]

pub mod agent;
pub mod aka;
pub mod edge;
pub mod framing;
pub mod header;
pub mod lifecycle;
pub mod message;
mod numbered;
pub mod rand;
pub mod sa_set;
pub mod sec_agree;
pub mod ue;

use std::net::SocketAddr;

pub use message::Message;
pub use rand::Randomness;
pub use sa_set::{Role, SaSetRequest, SetToken};

/// What carries SIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One message a datagram.
    Udp,
    /// A connection; messages cut out by [`framing`].
    Tcp,
}

impl Transport {
    /// The name in a Via.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        }
    }
}

/// One SIP message on the Gm link with its addresses: of the inner header where
/// there is an outer one, of the connection for TCP.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// UDP or TCP.
    pub transport: Transport,
    /// One whole message.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Packet({} {} -> {}, {} bytes)",
            self.transport.name(),
            self.local,
            self.remote,
            self.bytes.len()
        )
    }
}
