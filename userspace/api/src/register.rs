//! The second door: registration security for a SIP proxy that keeps its own SIP.
//!
//! The proxy tells what a REGISTER or its answer says and is told what to do with
//! it; gmesp chooses, compares, installs and removes the SAs.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /v1/register` | [`RegisterRequest`] | [`RegisterReply`] |
//! | `POST /v1/register/{id}/response` | [`ResponseRequest`] | [`ResponseReply`] |
//! | `DELETE /v1/register/{id}` | | [`EndReply`] |
//! | `POST /v1/flow` | [`FlowRequest`] | [`Flow`] |
//! | `GET /v1/way?to=A:P` or `?impi=I` | | [`Way`] |
//! | `GET /v1/registrations` | | array of [`Registration`] |
//! | `DELETE /v1/registrations?impi=I` | | [`EndReply`] |
//!
//! ```text
//! phone            proxy                                         gmesp
//! SM1 ------------> POST /v1/register ----------------------------> offer
//!                   <-- forward, integrity_protected "no", id -----
//!      to the core, back comes SM4: 401 with ik and ck
//!                   POST /v1/register/{id}/response {status 401} --> keys, SAs
//!                   <-- www_authenticate without keys, security_server
//! <------ SM6 -----
//! SM7 == through the SA ==> POST /v1/register ---------------------> verify
//!                   <-- forward, integrity_protected "yes", id ----
//!      to the core, back comes 200
//!                   POST /v1/register/{id}/response {status 200} --> lifetimes
//! <====== SM12 ==== sent from way.local to way.remote
//! ```
//!
//! A refusal is not an HTTP error: its `action` is `reply` or `drop`. HTTP errors
//! are for requests that make no sense, with an
//! [`ErrorBody`](crate::control::ErrorBody). Keys travel in one direction only, in
//! [`ResponseRequest`].

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The paths.
pub mod path {
    /// A REGISTER that came (`POST`).
    pub const REGISTER: &str = "/v1/register";
    /// The core's answer to it (`POST`).
    pub const RESPONSE: &str = "/v1/register/{id}/response";
    /// It comes to nothing (`DELETE`).
    pub const REGISTER_ID: &str = "/v1/register/{id}";
    /// Who may speak over an SA (`POST`).
    pub const FLOW: &str = "/v1/flow";
    /// From where to where a request to a phone goes (`GET`).
    pub const WAY: &str = "/v1/way";
    /// Contacts that have SAs (`GET`), their end (`DELETE`).
    pub const REGISTRATIONS: &str = "/v1/registrations";
    /// The description of all this (`GET`).
    pub const OPENAPI: &str = "/v1/openapi.json";
}

/// What carried or carries a SIP message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A datagram.
    #[default]
    Udp,
    /// A connection.
    Tcp,
}

/// A REGISTER that the proxy has received, in clear or through an SA. Either the
/// whole message in `sip`, or what of it is needed in the fields below that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// Address and port of the phone, as the proxy's socket saw it. Always there.
    pub source: Option<SocketAddr>,
    /// Address and port of ours on which it came: this tells the SA. Always there.
    pub destination: Option<SocketAddr>,
    /// What carried it.
    #[serde(default)]
    pub transport: Transport,
    /// The whole message, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<String>,
    /// The topmost Via.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Addresses of the host in that Via, where it is a name that the proxy has
    /// looked up (clause 7.1). Empty: only an address in Via is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via_addresses: Vec<IpAddr>,
    /// To.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The first Contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// Expires, where the Contact has no `expires`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    /// Authorization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<String>,
    /// Values of Security-Client, one an element or joined by commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_client: Vec<String>,
    /// Values of Security-Verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_verify: Vec<String>,
}

/// What the proxy does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It goes on, with the changes that the answer names.
    Forward,
    /// The phone gets an answer of `status`.
    Reply,
    /// Nothing: the specification wants silence.
    Drop,
}

/// Which step of a registration a REGISTER is (TS 33.203 clause 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// SM1 in clear.
    First,
    /// SM7: the answer to a challenge, through the new SA.
    Answer,
    /// Through an established SA.
    Again,
}

/// What to do with a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegisterReply {
    /// What to do.
    pub action: Action,
    /// Names the REGISTER in `POST /v1/register/{id}/response`; with `forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Which step it is; with `forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// `yes` or `no`: to be set as `integrity-protected` in Authorization, in
    /// place of one that the phone wrote (clause 6.1.5); with `forward`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integrity_protected: Option<String>,
    /// Header fields that do not go on: those of the security agreement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Option tags that come off Require, Proxy-Require and Supported.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_options: Vec<String>,
    /// Private identity that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impi: Option<String>,
    /// Where answers to the phone leave and go over UDP; absent: as it came.
    /// Over TCP they go back on the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Why not, and what the phone gets; with `reply` and `drop`.
    #[serde(flatten)]
    pub refusal: Option<RefusalBody>,
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RefusalBody {
    /// Status of the answer; absent: silence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Its reason phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phrase: Option<String>,
    /// Header lines of the answer, such as `Security-Server: ipsec-3gpp;…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Stable word in kebab case.
    pub reason: String,
    /// The same for people: what happened, and which setting matters.
    pub explain: String,
}

/// The core's answer to a REGISTER: the whole message in `sip`, or what of it is
/// needed. For a challenge that is either the whole header field in
/// `www_authenticate`, or `nonce`, `ik` and `ck`.
#[derive(Clone, Default, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ResponseRequest {
    /// Its status; 408 when none came.
    pub status: u16,
    /// The whole message, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sip: Option<String>,
    /// WWW-Authenticate of a 401, with ik and ck.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub www_authenticate: Option<String>,
    /// The challenge's nonce as the phone gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// IK, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ik: Option<String>,
    /// CK, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ck: Option<String>,
    /// Seconds granted to the phone's contact; with 2xx. 0: it is de-registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u32>,
    /// Values of P-Associated-URI, the default identity first; with 2xx.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub associated: Vec<String>,
}

impl fmt::Debug for ResponseRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseRequest")
            .field("status", &self.status)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What to do with the core's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ResponseReply {
    /// `forward` it with the changes below, or `reply` with an error in its place.
    pub action: Action,
    /// WWW-Authenticate for the phone, in place of the core's, which has keys; with any
    /// answer that was given with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub www_authenticate: Option<String>,
    /// Security-Server for the phone; with a challenge. The SAs are installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_server: Option<String>,
    /// Number of the set of SAs, as `gmespctl sa list` shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// Suite and mode; with a challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// `trans` or `UDP-enc-tun`; with a challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Where the answer to the phone leaves and goes over UDP; absent: as the
    /// REGISTER came. Over TCP it goes back on the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// Why not; with `reply`.
    #[serde(flatten)]
    pub refusal: Option<RefusalBody>,
}

/// From where to where messages to a phone go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Way {
    /// Number of the set of SAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// Address and port of ours: port_pc.
    pub local: SocketAddr,
    /// Address and port of the phone: port_us.
    pub remote: SocketAddr,
}

/// Another message than REGISTER came through an SA: whose is it? Being told is also
/// how gmesp learns that the phone uses a new set (clause 7.4.2a), so it is to be
/// asked for every message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FlowRequest {
    /// Address and port of the phone, as the proxy's socket saw it.
    pub source: SocketAddr,
    /// Address and port of ours on which it came.
    pub destination: SocketAddr,
}

/// Who may speak over the SA that a message came through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Flow {
    /// Number of the set of SAs.
    pub set: u64,
    /// `registration`, `established`, `replaced` or `lingering`.
    pub state: String,
    /// Only with `true` may other requests than REGISTER pass.
    pub established: bool,
    /// Private identity.
    pub impi: String,
    /// Public identities for P-Asserted-Identity, the default one first.
    pub identities: Vec<String>,
    /// Where requests and UDP answers to it go.
    pub way: Way,
}

/// A contact that has SAs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Registration {
    /// Private identity.
    pub impi: String,
    /// Instance id, reg-id and emergency mark, where the phone writes them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
    /// Public identities.
    pub identities: Vec<String>,
    /// Its sets, oldest first.
    pub sets: Vec<RegistrationSet>,
}

/// A set of SAs of a contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RegistrationSet {
    /// Its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<u64>,
    /// `registration`, `established`, `replaced` or `lingering`.
    pub state: String,
    /// Whether requests to the phone use it.
    pub current: bool,
    /// Address of the phone.
    pub ue: IpAddr,
    /// `alg/ealg` by Annex H's names.
    pub suite: String,
    /// `trans` or `UDP-enc-tun`.
    pub mode: String,
    /// Seconds that it has left.
    pub left_s: u64,
}

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EndReply {
    /// Contacts or attempts that have ended.
    pub ended: usize,
}

#[cfg(test)]
mod tests;
