//! Authorization of a request: read, held to one user, checked.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{AuthParams, DigestInput, Qop, Res, base64};
use crate::message::Message;

/// The Authorization of a request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The private identity.
    pub username: String,
    /// The realm.
    pub realm: String,
    /// Empty in a first REGISTER.
    pub nonce: String,
    /// The digest URI.
    pub uri: String,
    /// Empty in a first REGISTER.
    pub response: String,
    /// RFC 3310 clause 3.4, decoded; `Some(None)` when it cannot be. An empty one is none.
    pub auts: Option<Option<[u8; 14]>>,
    qop: Option<String>,
    nc: String,
    cnonce: String,
}

impl Credentials {
    /// The first Digest credentials of a request.
    pub fn from_message(message: &Message) -> Option<Credentials> {
        let read = |value: &str| AuthParams::parse(value).map(|params| Credentials::read(&params));
        message
            .lines("Authorization")
            .find_map(|line| read(&line.value()))
    }

    /// The same of a request that may have them once and readable in one way only: what the
    /// SA vouches for must be what the core looks up. `Err`: it has others.
    pub(crate) fn of_one_user(message: &Message) -> Result<Option<Credentials>, ()> {
        one_user(message, |params| params.map(Credentials::read))
    }

    fn read(params: &AuthParams<'_>) -> Credentials {
        let get = |name: &str| params.get(name).unwrap_or_default();
        let auts = params
            .get("auts")
            .filter(|a| !a.is_empty())
            .map(|a| base64::decode(&a).and_then(|b| b.try_into().ok()));
        Credentials {
            username: get("username"),
            realm: get("realm"),
            nonce: get("nonce"),
            uri: get("uri"),
            response: get("response"),
            auts,
            qop: params.get("qop"),
            nc: get("nc"),
            cnonce: get("cnonce"),
        }
    }

    /// Whether this answers a challenge with a response: not the empty one of a
    /// first REGISTER, not a synchronisation failure (ARCHITECTURE, reading A-31).
    pub fn answers(&self) -> bool {
        !self.nonce.is_empty() && !self.response.is_empty() && self.auts.is_none()
    }

    /// Checks the response in constant time. False too for a qop that is not known.
    pub fn check(&self, method: &str, body: &[u8], res: &Res) -> bool {
        let qop = match self.qop.as_deref() {
            None => Qop::None,
            Some(q) if q.eq_ignore_ascii_case("auth") => Qop::Auth,
            Some(q) if q.eq_ignore_ascii_case("auth-int") => Qop::AuthInt,
            Some(_) => return false,
        };
        let input = DigestInput {
            username: &self.username,
            realm: &self.realm,
            nonce: &self.nonce,
            uri: &self.uri,
            method,
            qop,
            nc: &self.nc,
            cnonce: &self.cnonce,
            body,
        };
        let want = Zeroizing::new(input.response(Some(res)));
        let got = self.response.to_ascii_lowercase();
        got.len() == want.len() && bool::from(got.as_bytes().ct_eq(want.as_bytes()))
    }
}

/// Whether a REGISTER names one user at most, and so that every reader finds the
/// same one: what the SA vouches for must be what the core looks up.
pub fn names_one_user(message: &Message) -> bool {
    one_user(message, |_| ()).is_ok()
}

fn one_user<T>(
    message: &Message,
    read: impl FnOnce(Option<&AuthParams<'_>>) -> T,
) -> Result<T, ()> {
    let mut lines = message.lines("Authorization");
    match (lines.next(), lines.next()) {
        (None, _) => Ok(read(None)),
        (Some(one), None) => {
            let value = one.value();
            let params = AuthParams::unambiguous(&value).ok_or(())?;
            Ok(read(Some(&params)))
        }
        (Some(_), Some(_)) => Err(()),
    }
}
