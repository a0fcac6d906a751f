//! Digest AKAv1-MD5 (RFC 3310) and what the P-CSCF does to it on the way: IK and
//! CK come out of the 401 (TS 33.203 clause 6.1.1), `integrity-protected` goes
//! into the REGISTER (clause 6.1.5).

use std::fmt;

use gm_esp::keys::{Ck, Ik};
use md5::{Digest, Md5};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::header::list;
use crate::message::Message;
use crate::rand::hex;

pub mod base64;
mod credentials;
mod params;
pub use credentials::{Credentials, names_one_user};
use params::purge;
pub use params::{AuthParams, Edit, edit};

/// RES: 4 to 16 bytes, the digest's password as it is, not as text.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Res(Vec<u8>);

impl Res {
    /// Wraps RES of 4 to 16 bytes (TS 33.102 clause 6.3.7).
    pub fn new(bytes: &[u8]) -> Option<Res> {
        (4..=16).contains(&bytes.len()).then(|| Res(bytes.to_vec()))
    }
}

impl fmt::Debug for Res {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Res(..)")
    }
}

/// Why a challenge or its keys are refused. Shows neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ChallengeError {
    /// No WWW-Authenticate with Digest AKAv1-MD5.
    #[error("no AKAv1-MD5 challenge")]
    NotAka,
    /// The nonce is no base64 of RAND and AUTN.
    #[error("nonce is not base64 of at least 32 bytes")]
    Nonce,
    /// `ik` or `ck` is missing.
    #[error("ik or ck is missing")]
    KeysMissing,
    /// `ik` or `ck` is not 32 hex digits.
    #[error("ik or ck is not 32 hex digits")]
    KeysMalformed,
    /// qop lists neither auth nor auth-int.
    #[error("no qop that is known")]
    Qop,
}

/// Quality of protection (RFC 2617 clause 3.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qop {
    /// No qop parameter (RFC 2069).
    None,
    /// `auth`.
    Auth,
    /// `auth-int`: the body counts too.
    AuthInt,
}

impl Qop {
    fn token(self) -> &'static str {
        match self {
            Qop::None => "",
            Qop::Auth => "auth",
            Qop::AuthInt => "auth-int",
        }
    }
}

/// A challenge as the UE reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The realm.
    pub realm: String,
    /// The nonce as written.
    pub nonce: String,
    /// RAND out of the nonce.
    pub rand: [u8; 16],
    /// AUTN out of the nonce.
    pub autn: [u8; 16],
    /// auth is taken before auth-int.
    pub qop: Qop,
    /// To be sent back.
    pub opaque: Option<String>,
}

impl Challenge {
    /// The first AKAv1-MD5 challenge of a 401.
    pub fn from_message(message: &Message) -> Result<Challenge, ChallengeError> {
        aka_params(message, |params| {
            let nonce = params.get("nonce").unwrap_or_default();
            let (rand, autn) = split_nonce(&nonce).ok_or(ChallengeError::Nonce)?;
            let realm = params.get("realm").unwrap_or_default();
            Ok(Challenge {
                realm,
                nonce,
                rand,
                autn,
                qop: qop_of(params)?,
                opaque: params.get("opaque"),
            })
        })
    }
}

fn qop_of(params: &AuthParams<'_>) -> Result<Qop, ChallengeError> {
    match params.find("qop") {
        None => Ok(Qop::None),
        Some(list) if lists(&list, "auth") => Ok(Qop::Auth),
        Some(list) if lists(&list, "auth-int") => Ok(Qop::AuthInt),
        Some(_) => Err(ChallengeError::Qop),
    }
}

fn lists(list: &str, want: &str) -> bool {
    list::split(list, ',').any(|q| q.eq_ignore_ascii_case(want))
}

/// What `read` makes of the first AKAv1-MD5 challenge.
fn aka_params<T>(
    message: &Message,
    read: impl FnOnce(&AuthParams<'_>) -> Result<T, ChallengeError>,
) -> Result<T, ChallengeError> {
    let mut read = Some(read);
    let mut lines = message.lines("WWW-Authenticate");
    let done = lines.find_map(|line| {
        line.with_secret(|value| {
            let params = AuthParams::parse(value)?;
            let algorithm = params.find("algorithm")?;
            let aka = algorithm.eq_ignore_ascii_case("AKAv1-MD5");
            let read = read.take_if(|_| aka)?;
            Some(read(&params))
        })
    });
    done.unwrap_or(Err(ChallengeError::NotAka))
}

/// base64(RAND || AUTN || more), RFC 3310 clause 3.2.
pub fn nonce(rand: &[u8; 16], autn: &[u8; 16]) -> String {
    base64::encode(&[&rand[..], &autn[..]].concat())
}

/// RAND and AUTN out of a nonce; what follows them is the server's business.
pub fn split_nonce(nonce: &str) -> Option<([u8; 16], [u8; 16])> {
    let bytes = base64::decode(nonce)?;
    let rand = bytes.get(..16)?.try_into().ok()?;
    let autn = bytes.get(16..32)?.try_into().ok()?;
    Some((rand, autn))
}

/// What goes into the digest of RFC 2617 clause 3.2.2.
#[derive(Debug, Clone)]
pub struct DigestInput<'a> {
    /// The private identity.
    pub username: &'a str,
    /// The realm.
    pub realm: &'a str,
    /// The nonce as written.
    pub nonce: &'a str,
    /// The digest URI.
    pub uri: &'a str,
    /// The request's method.
    pub method: &'a str,
    /// qop, with nonce count and client nonce when it is not [`Qop::None`].
    pub qop: Qop,
    /// Eight hex digits.
    pub nc: &'a str,
    /// The client's nonce.
    pub cnonce: &'a str,
    /// The body, for auth-int.
    pub body: &'a [u8],
}

impl DigestInput<'_> {
    /// The response's 32 hex digits with RES as password; `None` for the empty
    /// password that goes with AUTS (RFC 3310 clause 3.4).
    pub fn response(&self, res: Option<&Res>) -> String {
        let password: &[u8] = res.map_or(&[], |r| &r.0);
        let head = format!("{}:{}:", self.username, self.realm);
        let a1 = Zeroizing::new(md5_hex(&[head.as_bytes(), password]));
        let mut a2 = format!("{}:{}", self.method, self.uri);
        if self.qop == Qop::AuthInt {
            a2 = format!("{a2}:{}", md5_hex(&[self.body]));
        }
        let a2 = md5_hex(&[a2.as_bytes()]);
        match self.qop {
            Qop::None => md5_hex(&[format!("{}:{}:{a2}", *a1, self.nonce).as_bytes()]),
            qop => {
                let tail = format!(
                    ":{}:{}:{}:{}:{a2}",
                    self.nonce,
                    self.nc,
                    self.cnonce,
                    qop.token()
                );
                md5_hex(&[a1.as_bytes(), tail.as_bytes()])
            }
        }
    }
}

fn md5_hex(parts: &[&[u8]]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// Builds the Authorization value that answers `challenge`. With `auts` instead of
/// `res` the response is that of an empty password.
pub fn authorization(
    challenge: &Challenge,
    username: &str,
    uri: &str,
    cnonce: &str,
    answer: Result<&Res, &[u8; 14]>,
) -> String {
    let input = DigestInput {
        username,
        realm: &challenge.realm,
        nonce: &challenge.nonce,
        uri,
        method: "REGISTER",
        qop: if challenge.qop == Qop::AuthInt {
            Qop::AuthInt
        } else {
            challenge.qop
        },
        nc: "00000001",
        cnonce,
        body: b"",
    };
    let mut out = format!(
        "Digest username=\"{username}\",realm=\"{}\",nonce=\"{}\",uri=\"{uri}\",response=\"{}\",algorithm=AKAv1-MD5",
        challenge.realm,
        challenge.nonce,
        input.response(answer.ok())
    );
    if challenge.qop != Qop::None {
        out.push_str(&format!(
            ",qop={},nc=00000001,cnonce=\"{cnonce}\"",
            challenge.qop.token()
        ));
    }
    if let Some(opaque) = &challenge.opaque {
        out.push_str(&format!(",opaque=\"{opaque}\""));
    }
    if let Err(auts) = answer {
        out.push_str(&format!(",auts=\"{}\"", base64::encode(auts)));
    }
    out
}

/// Takes `ik` and `ck` out of every challenge of a response and gives those of the
/// AKA one. All other bytes stay. No line of the message has a key afterwards, in the
/// error case too; the bytes that it came in are wiped with the last copy of it.
pub fn take_keys(message: &mut Message) -> Result<(Ik, Ck), ChallengeError> {
    take(message, |_| Ok(())).map(|(_, ik, ck)| (ik, ck))
}

/// The same of a challenge that a UE can answer, with its nonce.
pub(crate) fn take_challenge(message: &mut Message) -> Result<(String, Ik, Ck), ChallengeError> {
    take(message, |params| qop_of(params).map(|_| ()))
}

fn take(
    message: &mut Message,
    check: impl FnOnce(&AuthParams<'_>) -> Result<(), ChallengeError>,
) -> Result<(String, Ik, Ck), ChallengeError> {
    let found = aka_params(message, |params| {
        let nonce = params.get("nonce").unwrap_or_default();
        split_nonce(&nonce).ok_or(ChallengeError::Nonce)?;
        check(params)?;
        let key = |name: &str| {
            let key = params.get(name).map(Zeroizing::new);
            key.ok_or(ChallengeError::KeysMissing)
        };
        let (ik, ck) = (key("ik")?, key("ck")?);
        let ik = Ik::from_hex(&ik).map_err(|_| ChallengeError::KeysMalformed)?;
        let ck = Ck::from_hex(&ck).map_err(|_| ChallengeError::KeysMalformed)?;
        Ok((nonce, ik, ck))
    });
    strip_keys(message);
    found
}

/// Removes `ik` and `ck` wherever a response could carry them to the UE.
pub fn strip_keys(message: &mut Message) {
    for name in [
        "WWW-Authenticate",
        "Proxy-Authenticate",
        "Authentication-Info",
        "Proxy-Authentication-Info",
    ] {
        message.rewrite(name, |value| purge(value, &["ik", "ck"]));
    }
}

/// Writes `integrity-protected` into every Authorization; one that the UE wrote is
/// overwritten. A request without Authorization stays as it is.
pub fn set_integrity_protected(message: &mut Message, yes: bool) {
    let value = if yes { "\"yes\"" } else { "\"no\"" };
    let edits = [
        Edit::Remove("integrity-protected"),
        Edit::Append("integrity-protected", value),
    ];
    message.rewrite("Authorization", |text| edit(text, &edits));
}

#[cfg(test)]
#[path = "aka/tests.rs"]
mod tests;
