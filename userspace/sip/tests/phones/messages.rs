//! Messages of phones and cores.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use gm_sip::Message;
use gm_sip::sec_agree::Ends;

use crate::models::Model;

/// A phone of a kind: who and where it is, and what it offers.
#[derive(Clone)]
pub struct Phone {
    pub model: Model,
    pub user: &'static str,
    /// Where its cleartext comes from.
    pub source: SocketAddr,
    pub ends: Ends,
    pub cseq: u32,
}

/// What may be otherwise in one REGISTER; all of it as text of header values.
#[derive(Clone)]
pub struct Shape {
    pub via: String,
    pub call_id: String,
    pub contact: String,
    pub expires: u32,
    pub authorization: String,
    pub verify: Option<String>,
    pub more: String,
    pub body: String,
}

impl Phone {
    pub fn new(model: Model) -> Phone {
        Phone {
            model,
            user: "alice",
            source: "192.0.2.1:5060".parse().expect("an address"),
            ends: Ends {
                spi_c: 19_500_101,
                spi_s: 69_500_202,
                port_c: 31_100,
                port_s: 31_800,
            },
            cseq: 1,
        }
    }

    /// Its next procedure: other SPIs and port-c, the same port-s.
    #[must_use]
    pub fn next(&self) -> Phone {
        let mut next = self.clone();
        next.ends.spi_c += 2;
        next.ends.spi_s += 2;
        next.ends.port_c += 1;
        next.cseq += 1;
        next
    }

    /// Where its protected messages come from.
    pub fn protected(&self) -> SocketAddr {
        SocketAddr::new(self.source.ip(), self.ends.port_c)
    }

    /// What its Via and Contact name over an SA.
    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.source.ip(), self.ends.port_s)
    }

    fn shape(&self, sent_by: SocketAddr, authorization: String) -> Shape {
        // One branch for one message, the same when it is repeated.
        let mut hasher = DefaultHasher::new();
        (self.cseq, &authorization).hash(&mut hasher);
        Shape {
            via: format!("SIP/2.0/UDP {sent_by};branch=z9hG4bK{:x}", hasher.finish()),
            call_id: format!("call-{}", self.user),
            contact: format!("<sip:{}@{}>", self.user, self.server()),
            expires: 600_000,
            authorization,
            verify: None,
            more: String::new(),
            body: String::new(),
        }
    }

    fn credentials(&self, rest: &str) -> String {
        let user = self.user;
        let uri = if rest.contains("uri=") {
            ""
        } else {
            "uri=\"sip:home.example\","
        };
        format!("Digest username=\"{user}@home.example\",{uri}{rest}")
    }

    /// SM1 in clear.
    pub fn sm1(&self) -> Shape {
        self.shape(self.source, self.credentials(self.model.first))
    }

    /// SM7: the answer to a challenge.
    pub fn sm7(&self, nonce: &str, server: &str) -> Shape {
        let answer = format!(
            "realm=\"home.example\",nonce=\"{nonce}\",response=\"0123456789abcdef0123456789abcdef\",algorithm=AKAv1-MD5,qop=auth,nc=00000001,cnonce=\"c\""
        );
        let mut shape = self.shape(self.server(), self.credentials(&answer));
        shape.verify = Some((self.model.verify)(server));
        shape
    }

    /// A REGISTER over the set of `nonce`, with nc + 1.
    pub fn again(&self, nonce: &str, server: &str) -> Shape {
        let mut shape = self.sm7(nonce, server);
        shape.authorization = shape.authorization.replace("nc=00000001", "nc=00000002");
        shape
    }

    /// The message's text.
    pub fn text(&self, shape: &Shape) -> String {
        let (user, n) = (self.user, self.cseq);
        let name = |long: &'static str, short: &'static str| match self.model.compact {
            true => short,
            false => long,
        };
        let verify = match &shape.verify {
            Some(list) => format!("Security-Verify: {list}\r\n"),
            None => String::new(),
        };
        format!(
            "REGISTER sip:home.example SIP/2.0\r\n\
             {}: {}\r\nMax-Forwards: 70\r\n\
             {}: <sip:{user}@home.example>;tag=7\r\n{}: <sip:{user}@home.example>\r\n\
             {}: {}\r\nCSeq: {n} REGISTER\r\n{}: {}\r\nExpires: {}\r\n\
             Require: sec-agree\r\nProxy-Require: sec-agree\r\n{}: path\r\n\
             Authorization: {}\r\nSecurity-Client: {}\r\n{verify}{}{}{}: {}\r\n\r\n{}",
            name("Via", "v"),
            shape.via,
            name("From", "f"),
            name("To", "t"),
            name("Call-ID", "i"),
            shape.call_id,
            name("Contact", "m"),
            shape.contact,
            shape.expires,
            name("Supported", "k"),
            shape.authorization,
            (self.model.offer)(&self.ends),
            self.model.own,
            shape.more,
            name("Content-Length", "l"),
            shape.body.len(),
            shape.body,
        )
    }
}

/// The nonce of a challenge by number.
pub fn nonce(n: u8) -> String {
    gm_sip::aka::nonce(&[n; 16], &[2; 16])
}

/// SM4: the core's 401 with these parameters behind the nonce.
pub fn challenge(up: &Message, n: u8, params: &str) -> Message {
    let value = format!(
        "Digest realm=\"home.example\", nonce=\"{}\", algorithm=AKAv1-MD5{params}",
        nonce(n)
    );
    Message::response(up, 401, "Unauthorized", "c").with("WWW-Authenticate", &value)
}

/// SM10: the core's 200.
pub fn success(up: &Message, expires: u32) -> Message {
    let contact = up.value("Contact").expect("a Contact").into_owned();
    Message::response(up, 200, "OK", "c")
        .with("Contact", &format!("{contact};expires={expires}"))
        .with(
            "P-Associated-URI",
            "<sip:alice@home.example>, <tel:+15550100>",
        )
        .with("Service-Route", "<sip:orig@scscf.home.example;lr>")
}
