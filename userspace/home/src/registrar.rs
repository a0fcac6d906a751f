//! S-CSCF and HSS in one: challenges REGISTER, checks the answer, keeps contacts
//! (TS 33.203 clauses 6.1.1 to 6.1.3; RFC 3310, RFC 3327, RFC 3608).

use std::collections::HashMap;

use gm_sip::aka::{self, AuthParams, Credentials};
use gm_sip::header::{NameAddr, Uri};
use gm_sip::message::Message;
use gm_sip::rand::Randomness;
use zeroize::Zeroizing;

use crate::vectors::{Subscriber, Vector};

/// A challenge is good for this long, in milliseconds (await timer, 4 min).
pub const CHALLENGE_LIFE: u64 = 240_000;
/// Contacts of one public identity that are kept.
const MAX_BINDINGS: usize = 10;

/// Where a public identity can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The contact's URI: Request-URI of requests to it.
    pub contact: String,
    /// Path, topmost first: Route of requests to it.
    pub path: Vec<String>,
    /// When it ends, in milliseconds.
    pub until: u64,
    impi: String,
}

struct Challenge {
    vector: Vector,
    nonce: String,
    until: u64,
}

/// What a REGISTER came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 401 with a fresh vector.
    Challenged,
    /// 401 with a vector after AUTS.
    Resynchronised,
    /// 200; seconds granted.
    Registered(u32),
    /// 200; the contact is gone.
    Deregistered,
    /// Refused with this status.
    Refused(u16),
}

/// Subscribers and their registrations.
#[derive(Default)]
pub struct Registrar {
    domain: String,
    max_expires: u32,
    subscribers: HashMap<String, Subscriber>,
    /// Private identity by public one.
    owners: HashMap<String, String>,
    challenges: HashMap<String, Challenge>,
    bindings: HashMap<String, Vec<Binding>>,
    /// Whether a protected REGISTER without an answer is challenged again.
    pub always_challenge: bool,
}

impl Registrar {
    /// A registrar of a domain that grants at most `max_expires` seconds.
    pub fn new(domain: &str, max_expires: u32) -> Registrar {
        Registrar {
            domain: domain.to_owned(),
            max_expires,
            ..Registrar::default()
        }
    }

    /// Adds or replaces a subscriber.
    pub fn add(&mut self, subscriber: Subscriber) {
        for impu in subscriber.impus.iter().filter_map(|i| Uri::parse(i)) {
            self.owners.insert(identity(&impu), subscriber.impi.clone());
        }
        self.subscribers.insert(subscriber.impi.clone(), subscriber);
    }

    /// A subscriber by private identity.
    pub fn subscriber_mut(&mut self, impi: &str) -> Option<&mut Subscriber> {
        self.subscribers.get_mut(impi)
    }

    /// Live bindings of a public identity, or of another one of the same subscriber
    /// (implicit registration, TS 23.228 clause 4.3.3.4).
    pub fn bindings(&self, impu: &str, now: u64) -> Vec<&Binding> {
        let Some(uri) = Uri::parse(impu) else {
            return Vec::new();
        };
        let all = self
            .owners
            .get(&identity(&uri))
            .and_then(|impi| self.bindings.get(impi));
        all.into_iter()
            .flatten()
            .filter(|b| b.until > now)
            .collect()
    }

    /// Answers a REGISTER.
    pub fn register(
        &mut self,
        now: u64,
        request: &Message,
        random: &mut dyn Randomness,
    ) -> (Message, Outcome) {
        let (code, reason) = match self.try_register(now, request, random) {
            Ok(done) => return done,
            Err(refused) => refused,
        };
        let response =
            Message::response(request, code, reason, &random.token(6)).with("Content-Length", "0");
        (response, Outcome::Refused(code))
    }

    fn try_register(
        &mut self,
        now: u64,
        request: &Message,
        random: &mut dyn Randomness,
    ) -> Result<(Message, Outcome), (u16, &'static str)> {
        const FORBIDDEN: (u16, &str) = (403, "Forbidden");
        let to = request
            .value("To")
            .and_then(|t| NameAddr::parse(&t))
            .ok_or((400, "Bad Request"))?;
        let aor = Uri::parse(&to.uri).ok_or((400, "Bad Request"))?;
        let credentials = Credentials::from_message(request);
        let impi = match &credentials {
            Some(credentials) => credentials.username.clone(),
            None => self.owners.get(&identity(&aor)).cloned().ok_or(FORBIDDEN)?,
        };
        let subscriber = self.subscribers.get_mut(&impi).ok_or(FORBIDDEN)?;
        let own = |impu: &String| Uri::parse(impu).is_some_and(|i| i.same_identity(&aor));
        if !subscriber.impus.iter().any(own) {
            return Err(FORBIDDEN);
        }
        let mut resynchronised = false;
        if let Some(credentials) = credentials.as_ref().filter(|c| !c.nonce.is_empty()) {
            let open = self
                .challenges
                .get(&impi)
                .filter(|c| c.nonce == credentials.nonce && c.until > now);
            match (&credentials.auts, open) {
                (Some(auts), Some(open)) => {
                    let auts = auts.ok_or(FORBIDDEN)?;
                    if !subscriber.resynchronise(&open.vector.rand, &auts) {
                        return Err(FORBIDDEN);
                    }
                    self.challenges.remove(&impi);
                    resynchronised = true;
                }
                (None, Some(open)) => {
                    let good = credentials.check("REGISTER", request.body(), &open.vector.xres);
                    // One vector, one answer (clause 6.1.1).
                    self.challenges.remove(&impi);
                    // A registered user stays registered when someone fails (clause 6.1.1).
                    return if good {
                        Ok(self.accept(now, request, &impi, random))
                    } else {
                        Err(FORBIDDEN)
                    };
                }
                // Late or unknown: a new challenge says so better than a refusal.
                (_, None) => {}
            }
        }
        if credentials.is_some()
            && protected(request)
            && !self.always_challenge
            && self.is_bound(now, request, &impi)
        {
            return Ok(self.accept(now, request, &impi, random));
        }
        let outcome = if resynchronised {
            Outcome::Resynchronised
        } else {
            Outcome::Challenged
        };
        self.challenge(now, request, &impi, random)
            .map(|response| (response, outcome))
            .ok_or(FORBIDDEN)
    }

    /// 401 with RAND, AUTN, IK and CK; the P-CSCF takes the keys out.
    fn challenge(
        &mut self,
        now: u64,
        request: &Message,
        impi: &str,
        random: &mut dyn Randomness,
    ) -> Option<Message> {
        let mut rand = [0; 16];
        random.fill(&mut rand);
        let vector = self.subscribers.get_mut(impi)?.vector(rand);
        let nonce = aka::nonce(&vector.rand, &vector.autn);
        let (ik, ck) = (hex(&vector.keys.ik), hex(&vector.keys.ck));
        let value = Zeroizing::new(format!(
            "Digest realm=\"{}\",nonce=\"{nonce}\",algorithm=AKAv1-MD5,qop=\"auth\",ik=\"{}\",ck=\"{}\"",
            self.domain, *ik, *ck
        ));
        self.challenges.insert(
            impi.to_owned(),
            Challenge {
                vector,
                nonce,
                until: now + CHALLENGE_LIFE,
            },
        );
        let response = Message::response(request, 401, "Unauthorized", &random.token(6));
        Some(
            response
                .with("WWW-Authenticate", &value)
                .with("Content-Length", "0"),
        )
    }

    /// 200: contacts stored or removed, all of them listed.
    fn accept(
        &mut self,
        now: u64,
        request: &Message,
        impi: &str,
        random: &mut dyn Randomness,
    ) -> (Message, Outcome) {
        let mut response = Message::response(request, 200, "OK", &random.token(6));
        let path = request.elements("Path");
        let bindings = self.bindings.entry(impi.to_owned()).or_default();
        bindings.retain(|b| b.until > now);
        let general = request
            .value("Expires")
            .and_then(|e| e.trim().parse().ok())
            .unwrap_or(3600);
        let mut granted = 0;
        for contact in request
            .elements("Contact")
            .iter()
            .filter_map(|c| NameAddr::parse(c))
        {
            let asked = contact
                .param("expires")
                .and_then(|e| e.parse().ok())
                .unwrap_or(general);
            let expires = asked.min(self.max_expires);
            granted = granted.max(expires);
            bindings.retain(|b| contact.uri != "*" && b.contact != contact.uri);
            if expires > 0 && bindings.len() < MAX_BINDINGS {
                let until = now + u64::from(expires) * 1000;
                bindings.push(Binding {
                    contact: contact.uri,
                    path: path.clone(),
                    until,
                    impi: impi.to_owned(),
                });
            }
        }
        for binding in bindings.iter() {
            let left = (binding.until - now) / 1000;
            response.push("Contact", &format!("<{}>;expires={left}", binding.contact));
        }
        for line in &path {
            response.push("Path", line);
        }
        if granted > 0 {
            response.push("Service-Route", &format!("<sip:orig@{};lr>", self.domain));
            let impus = self
                .subscribers
                .get(impi)
                .map(|s| s.impus.clone())
                .unwrap_or_default();
            let list: Vec<_> = impus.iter().map(|i| format!("<{i}>")).collect();
            response.push("P-Associated-URI", &list.join(", "));
        }
        response.push("Content-Length", "0");
        let outcome = if granted > 0 {
            Outcome::Registered(granted)
        } else {
            Outcome::Deregistered
        };
        (response, outcome)
    }

    fn is_bound(&self, now: u64, request: &Message, impi: &str) -> bool {
        let contacts: Vec<_> = request
            .elements("Contact")
            .iter()
            .filter_map(|c| NameAddr::parse(c))
            .collect();
        let bound = self
            .bindings
            .get(impi)
            .into_iter()
            .flatten()
            .filter(|b| b.until > now && b.impi == impi);
        bound
            .into_iter()
            .any(|b| contacts.iter().any(|c| c.uri == b.contact || c.uri == "*"))
    }
}

/// Whether the P-CSCF says that the REGISTER came through an SA (clause 6.1.5).
fn protected(request: &Message) -> bool {
    let mark = |value: &str| Some(AuthParams::parse(value)?.get("integrity-protected"));
    let mark = request
        .lines("Authorization")
        .find_map(|line| mark(&line.value()));
    mark.flatten()
        .is_some_and(|v| v.eq_ignore_ascii_case("yes"))
}

/// A public identity as a key: what [`Uri::same_identity`] compares.
fn identity(uri: &Uri) -> String {
    let host = uri
        .host
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    format!(
        "{}:{}@{host}:{:?}",
        uri.scheme,
        uri.user.as_deref().unwrap_or_default(),
        uri.port
    )
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests;
