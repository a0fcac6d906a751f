//! Saying no: which refusal gets an answer and which silence, what the answer
//! carries, and the words for whoever runs the network.

use crate::aka::ChallengeError;
use crate::lifecycle::TableError;
use crate::message::ParseError;
use crate::sec_agree::{self, OfferError, Policy, SECURITY_SERVER, SecList};

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
    /// A name in the Via that has no address.
    #[error("Via names a host without a known address")]
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
    /// [`super::Limits::contacts_per_user`].
    #[error("too many registered contacts of this user")]
    TooManyContacts,
    /// No protected client port of ours is free for this UE.
    #[error("no protected client port is free")]
    NoClientPort,
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
    /// The core lets a phone in that was not challenged.
    #[error("registered without a challenge")]
    Unchallenged,
    /// The data plane did not install the set.
    #[error("SAs could not be installed")]
    NotInstalled,
    /// Not from the core's addresses.
    #[error("not from the core")]
    CoreUntrusted,
    /// A response that belongs to no transaction.
    #[error("response to no request")]
    NoTransaction,
    /// Proxy-Require names what the edge does not know (RFC 3261 clause 16.3).
    #[error("an extension is required that is not known here")]
    Extension,
    /// Routes that are not the Service-Route of the registration (RFC 3608).
    #[error("Route is not the Service-Route")]
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

impl From<TableError> for Refusal {
    fn from(error: TableError) -> Refusal {
        match error {
            TableError::TooManySets => Refusal::TooManySets,
            TableError::TooManyContacts => Refusal::TooManyContacts,
            TableError::Full => Refusal::Overload,
            TableError::Collision => Refusal::Collision,
        }
    }
}

impl Refusal {
    /// The status that the sender gets; `None`: silence.
    pub fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Refusal::Headers | Refusal::ViaName | Refusal::ServiceRoute => {
                Some((400, "Bad Request"))
            }
            Refusal::Collision => Some((400, "Protected Port Or SPI In Use")),
            Refusal::Unprotected | Refusal::ViaMismatch | Refusal::ForeignUser => {
                Some((403, "Forbidden"))
            }
            Refusal::Extension => Some((420, "Bad Extension")),
            Refusal::NoSecurityClient => Some((421, "Extension Required")),
            Refusal::NoContact => Some((480, "Temporarily Unavailable")),
            Refusal::Hops => Some((483, "Too Many Hops")),
            Refusal::Offer(_) | Refusal::SecurityVerify | Refusal::SecurityClient => {
                Some((494, "Security Agreement Required"))
            }
            Refusal::Challenge(_) | Refusal::Unchallenged | Refusal::NotInstalled => {
                Some((500, "Server Internal Error"))
            }
            Refusal::Overload
            | Refusal::NoSpi
            | Refusal::NoClientPort
            | Refusal::TooManyContacts
            | Refusal::TooManySets => Some((503, "Service Unavailable")),
            Refusal::Malformed
            | Refusal::NatWithoutTunnel
            | Refusal::NoSa
            | Refusal::WrongSa
            | Refusal::NotAnAnswer
            | Refusal::CoreUntrusted
            | Refusal::Unreachable
            | Refusal::NoTransaction => None,
        }
    }

    /// Header lines of the answer, name and value: what the server wants
    /// (RFC 3329 clause 2.3.1), when to come again, what to choose anew.
    pub fn headers(&self, policy: &Policy) -> Vec<(&'static str, String)> {
        let warning = |text: &str| ("Warning", format!("399 gmesp \"{text}\""));
        let mut lines = Vec::new();
        match self.status() {
            Some((421 | 494, _)) => {
                lines.push(("Require", "sec-agree".to_owned()));
                lines.push((SECURITY_SERVER, sec_agree::error_list(policy)));
            }
            Some((503, _)) => lines.push(("Retry-After", "30".to_owned())),
            _ => {}
        }
        match self {
            Refusal::Collision => {
                lines.push(warning("protected port or SPI is in use, choose others"))
            }
            Refusal::Offer(why) => lines.push(warning(&why.to_string().replace('"', "'"))),
            _ => {}
        }
        lines
    }

    /// The reason as one word in kebab case, for counters and programs.
    pub fn word(&self) -> String {
        let name = format!("{self:?}");
        let end = name.find(|c: char| !c.is_alphanumeric());
        let mut word = String::with_capacity(name.len() + 4);
        for (at, letter) in name[..end.unwrap_or(name.len())].char_indices() {
            if letter.is_uppercase() && at > 0 {
                word.push('-');
            }
            word.push(letter.to_ascii_lowercase());
        }
        word
    }

    /// For the operator: what it means and which setting or place matters. No
    /// secrets, nothing that the sender wrote.
    pub fn explain(&self) -> String {
        let hint = match self {
            Refusal::Malformed => "dropped; something that is not SIP reaches this port",
            Refusal::Headers => {
                "the message lacks a header, has one twice, or can be read in two ways"
            }
            Refusal::Hops => "a loop: look at the routes between edge and core (edge.next_hop)",
            Refusal::Unprotected => {
                "the phone has to register and then use its protected ports; \
                 emergency calls in clear: edge.emergency_in_clear"
            }
            Refusal::NoSecurityClient => {
                "the phone does not ask for IPsec: switch on IMS AKA with IPsec in its profile; \
                 other schemes are not served here"
            }
            Refusal::Offer(why) => {
                return match why.advice() {
                    Some(advice) => format!("{self}; {advice}"),
                    None => format!("{self}; see edge.suites and edge.confidentiality"),
                };
            }
            Refusal::NatWithoutTunnel => {
                "dropped in silence as TS 33.203 M.7.2 wants: ESP without UDP does not pass the \
                 NAT; give the phone an address of its own (no NAT between it and the edge), or \
                 set edge.nat_traversal = true if it is off and the phone offers UDP-enc-tun"
            }
            Refusal::ViaName => {
                "the name was not resolved in time or has no address: see edge.resolve_via and \
                 the host's DNS"
            }
            Refusal::ViaMismatch => {
                "TS 33.203 7.1 rule 2: a protected REGISTER names its own address; did a NAT or \
                 SIP ALG between phone and edge change it?"
            }
            Refusal::Collision => {
                "TS 33.203 7.1 rule 3: another SA of this address has the port or SPI, perhaps of the \
                 phone itself before it was restarted, perhaps of \
                 a second phone behind the same NAT; the phone chooses others and tries again"
            }
            Refusal::TooManySets => {
                "TS 33.203 7.1 rule 3: six SAs per direction; it ends with edge.timers.await_auth_s"
            }
            Refusal::TooManyContacts => {
                "many phones with this private identity, or one with a new instance each time; \
                 the oldest ones end with their registrations"
            }
            Refusal::NoClientPort => {
                "all of edge.port_pc are taken for this phone: make the range larger"
            }
            Refusal::Overload => {
                "a bound is reached: gm.max_sas, or too many unfinished registrations of one \
                 source"
            }
            Refusal::NoSpi => "all SAs are taken: gm.max_sas is too small",
            Refusal::NoSa => {
                "the SA has expired or the edge was restarted; the phone registers again in clear"
            }
            Refusal::WrongSa => {
                "dropped as TS 33.203 7.4.2a wants: this message goes over another SA"
            }
            Refusal::SecurityVerify => {
                "TS 33.203 7.2: somebody changed Security-Server on its way (bidding down), or \
                 the phone writes the list back wrongly; the attempt is aborted"
            }
            Refusal::SecurityClient => {
                "Annex H: the phone changed its offer between its first and second REGISTER; the \
                 attempt is aborted"
            }
            Refusal::NotAnAnswer => "dropped: over an unconfirmed SA only the answer may come",
            Refusal::ForeignUser => {
                "TS 33.203 7.1 rule 4: the user of the message is not the one who was \
                 authenticated for this SA"
            }
            Refusal::Challenge(_) => {
                "the core has to send AKAv1-MD5 with ik and ck in its 401 to this address: look \
                 at its configuration"
            }
            Refusal::Unchallenged => {
                "the core answered 200 to a REGISTER in clear: make it challenge unprotected ones"
            }
            Refusal::NotInstalled => "the data plane refused them: see the log line before",
            Refusal::CoreUntrusted => {
                "dropped: add the address to edge.core_trusted if it is the core's"
            }
            Refusal::NoTransaction => "dropped: it came too late or belongs to somebody else",
            Refusal::Extension => {
                "Proxy-Require has an option tag besides sec-agree and privacy: who wrote it \
                 insists that every proxy knows it"
            }
            Refusal::ServiceRoute => "edge.service_route says what becomes of such Routes",
            Refusal::Unreachable => {
                "the other end takes no TCP connection: is it there, and does something between \
                 filter it? edge.tcp_above says when TCP is tried"
            }
            Refusal::NoContact => "the phone is not registered here (any more)",
        };
        format!("{self}; {hint}")
    }
}

/// What a phone offers in a few words for the operator, at most 400 bytes: each
/// algorithm pair with its mode once. Values that are no plain words are left out.
pub fn offered(list: &SecList) -> String {
    const MOST: usize = 12;
    let word = |text: String| {
        let plain = !text.is_empty()
            && text.len() <= 24
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if plain { text } else { "?".to_owned() }
    };
    let mut seen: Vec<String> = Vec::new();
    for entry in list.mechanisms().take(64) {
        let get = |name: &str, default: &str| {
            let value = entry.get(name);
            word(value.map_or_else(|| default.to_owned(), |value| value.into_owned()))
        };
        let text = if entry.is_ipsec() {
            let (alg, ealg) = (get("alg", "?"), get("ealg", "null"));
            format!("{alg}/{ealg} {}", get("mod", "trans"))
        } else {
            word(entry.name().to_owned())
        };
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    if seen.is_empty() {
        return "nothing".to_owned();
    }
    let more = if seen.len() > MOST { ", ..." } else { "" };
    seen.truncate(MOST);
    let mut text = seen.join(", ");
    text.truncate(390);
    text + more
}
