//! Phones as text: four shapes of today's handsets, each with the header fields and sizes
//! that they have in captures. Every value is made up.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use gm_sip::Message;
use gm_sip::sec_agree::{Ends, SECURITY_SERVER};

/// Where the edge listens.
pub const EDGE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// Unprotected and protected server port.
pub const CLEAR: SocketAddr = SocketAddr::new(EDGE, 5060);
pub const PROTECTED: SocketAddr = SocketAddr::new(EDGE, 5063);

const REALM: &str = "ims.mnc001.mcc001.3gppnetwork.org";

/// How a kind of phone writes an entry of its offer.
type Entry = fn(&str, &str, &Ends) -> String;

const HUAWEI: Entry = |alg, ealg, e| {
    format!(
        "ipsec-3gpp;alg={alg};prot=esp;mod=trans;ealg={ealg};spi-c={};spi-s={};port-c={};port-s={}",
        e.spi_c, e.spi_s, e.port_c, e.port_s
    )
};
const SAMSUNG: Entry = |alg, ealg, e| {
    format!(
        "ipsec-3gpp;prot=esp;mod=trans;spi-c={};spi-s={};port-c={};port-s={};alg={alg};ealg={ealg}",
        e.spi_c, e.spi_s, e.port_c, e.port_s
    )
};
const IPHONE: Entry = |alg, ealg, e| {
    format!(
        "ipsec-3gpp;alg={alg};ealg={ealg};mod=trans;port-c={};port-s={};prot=esp;spi-c={};spi-s={}",
        e.port_c, e.port_s, e.spi_c, e.spi_s
    )
};
/// Entry, algorithms, ciphers: with Pixel's and iPhone's six, Huawei's and Samsung's three.
const KINDS: [(Entry, &[&str], &[&str]); 4] = [
    (
        HUAWEI,
        &["hmac-sha-1-96"],
        &["des-ede3-cbc", "aes-cbc", "null"],
    ),
    (
        HUAWEI,
        &["hmac-md5-96", "hmac-sha-1-96"],
        &["aes-cbc", "des-ede3-cbc", "null"],
    ),
    (
        SAMSUNG,
        &["hmac-sha-1-96"],
        &["null", "aes-cbc", "des-ede3-cbc"],
    ),
    (
        IPHONE,
        &["hmac-md5-96", "hmac-sha-1-96"],
        &["aes-cbc", "des-ede3-cbc", "null"],
    ),
];

/// One phone, by its number.
pub struct Phone {
    n: u32,
    address: IpAddr,
    ends: Ends,
    offer: String,
    /// Security-Server as it came.
    server: String,
    nonce: String,
}

impl Phone {
    pub fn new(n: u32) -> Phone {
        let ends = Ends {
            spi_c: 300 + n.wrapping_mul(2_654_435_761) % 900_000_000,
            spi_s: 900_000_300 + n % 90_000_000,
            port_c: 31_100 + (n % 400) as u16,
            port_s: 31_800,
        };
        let (entry, algs, ealgs) = KINDS[n as usize % KINDS.len()];
        let entries = algs
            .iter()
            .flat_map(|alg| ealgs.iter().map(move |ealg| entry(alg, ealg, &ends)));
        Phone {
            n,
            address: Ipv4Addr::from(0x0a00_0000 + n).into(),
            ends,
            offer: entries.collect::<Vec<_>>().join(","),
            server: String::new(),
            nonce: String::new(),
        }
    }

    pub fn n(&self) -> u32 {
        self.n
    }

    /// Where cleartext comes from.
    pub fn clear(&self) -> SocketAddr {
        SocketAddr::new(self.address, 5060)
    }

    /// Where protected requests come from.
    pub fn protected(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.ends.port_c)
    }

    fn impi(&self) -> String {
        format!("00101{:010}@{REALM}", self.n)
    }

    pub fn impu(&self) -> String {
        format!("sip:{}", self.impi())
    }

    /// SM1.
    pub fn sm1(&self) -> Vec<u8> {
        let authorization = "nonce=\"\",response=\"\"".to_owned();
        self.register(1, self.clear(), &authorization, "", 600_000)
    }

    /// Remembers what SM6 says.
    pub fn challenged(&mut self, sm6: &[u8]) {
        let message = Message::parse(sm6).expect("SM6");
        self.server = message
            .value(SECURITY_SERVER)
            .expect("Security-Server")
            .into_owned();
        let value = message.value("WWW-Authenticate").expect("a challenge");
        let nonce = value.split("nonce=\"").nth(1).expect("a nonce");
        self.nonce = nonce.split('"').next().unwrap_or_default().to_owned();
    }

    /// SM7.
    pub fn sm7(&self) -> Vec<u8> {
        self.answer(2, 600_000)
    }

    /// The de-REGISTER over the same set.
    pub fn leave(&self) -> Vec<u8> {
        self.answer(3, 0)
    }

    fn answer(&self, cseq: u32, expires: u32) -> Vec<u8> {
        let at = SocketAddr::new(self.address, self.ends.port_s);
        let authorization = format!(
            "nonce=\"{}\",response=\"{:032x}\",algorithm=AKAv1-MD5,cnonce=\"{:016x}\",qop=auth,nc={cseq:08}",
            self.nonce,
            u128::from(self.n) << 64 | 0x0123_4567_89ab_cdef,
            u64::from(self.n) | 0x5a00_0000_0000_0000,
        );
        let verify = format!("Security-Verify: {}\r\n", self.server);
        self.register(cseq, at, &authorization, &verify, expires)
    }

    fn register(
        &self,
        cseq: u32,
        at: SocketAddr,
        authorization: &str,
        verify: &str,
        expires: u32,
    ) -> Vec<u8> {
        let (n, impi, impu, offer) = (self.n, self.impi(), self.impu(), &self.offer);
        let mut out = String::with_capacity(2048);
        let _ = write!(
            out,
            "REGISTER sip:{REALM} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {at};branch=z9hG4bK-524287-{cseq}---{n:016x};rport\r\n\
             Max-Forwards: 70\r\n\
             Route: <sip:{PROTECTED};lr>\r\n\
             From: <{impu}>;tag={n:08x}\r\n\
             To: <{impu}>\r\n\
             Call-ID: {n:032x}@{}\r\n\
             CSeq: {cseq} REGISTER\r\n\
             Contact: <sip:{n:08x}-1111-4a4a-8888-0123456789ab@{}:{}>;expires={expires};\
             +sip.instance=\"<urn:gsma:imei:35{n:06}-{n:06}-0>\";q=1.0;\
             +g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.mmtel\";+g.3gpp.smsip;audio\r\n\
             Expires: {expires}\r\n\
             Require: sec-agree\r\n\
             Proxy-Require: sec-agree\r\n\
             Supported: path,sec-agree,gruu\r\n\
             Allow: INVITE,BYE,CANCEL,ACK,NOTIFY,UPDATE,PRACK,INFO,MESSAGE,OPTIONS,REFER\r\n\
             Authorization: Digest username=\"{impi}\",realm=\"{REALM}\",uri=\"sip:{REALM}\",{authorization}\r\n\
             Security-Client: {offer}\r\n\
             {verify}\
             P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=00101000100000001\r\n\
             User-Agent: Handset_{}/1.0 Release/14\r\n\
             Content-Length: 0\r\n\r\n",
            self.address,
            self.address,
            self.ends.port_s,
            n % 4,
        );
        out.into_bytes()
    }
}
