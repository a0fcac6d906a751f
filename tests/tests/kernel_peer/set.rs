//! A set of four SAs, written for gmespd and gm-xfrm (SAD.toml) and for iproute2.

use std::fmt::Write as _;
use std::net::IpAddr;

use gm_esp::{Ck, EspKeys, Ik, Mode, Suite};

use crate::gm::{PORT_PC, PORT_PS};

/// UDP port of ESP in UDP, at both ends until a NAT changes the phone's.
pub const ENCAP: u16 = 4500;

/// An end of the Gm link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    PCscf,
    Ue,
}

impl End {
    pub fn other(self) -> End {
        match self {
            End::PCscf => End::Ue,
            End::Ue => End::PCscf,
        }
    }
}

/// A set. Addresses and ports are those of TS 33.203 7.1; in a tunnel also of its outside.
#[derive(Clone, Debug)]
pub struct Set {
    /// Its number at gmespd; SPIs and keys follow from it.
    pub number: u32,
    pub suite: Suite,
    pub mode: Mode,
    pub p: IpAddr,
    pub ue: IpAddr,
    /// The phone's own address where there is a NAT before it.
    pub private: IpAddr,
    /// port_uc and port_us.
    pub ports: [u16; 2],
    pub esn: bool,
    pub window: u32,
    /// First sequence number of every SA.
    pub first: u64,
    /// The P-CSCF is told the phone's port of ESP in UDP; else it learns it.
    pub port_known: bool,
}

/// One SA of the four, without regard to who looks.
pub struct Sa {
    pub spi: u32,
    pub from: End,
    pub src: (IpAddr, u16),
    pub dst: (IpAddr, u16),
}

impl Set {
    /// In transport mode, or in UDP without a NAT, with port_uc and port_us of its own.
    pub fn new(number: u32, suite: Suite, mode: Mode, [p, ue]: [IpAddr; 2]) -> Set {
        let n = number as u16;
        Set {
            number,
            suite,
            mode,
            p,
            ue,
            private: ue,
            ports: [6100 + n, 6200 + n],
            esn: false,
            window: 64,
            first: 1,
            port_known: false,
        }
    }

    /// The same selectors with other keys and SPIs, as a renewal makes: the phone has been heard.
    pub fn renewed(&self, number: u32, suite: Suite) -> Set {
        Set {
            number,
            suite,
            port_known: true,
            ..self.clone()
        }
    }

    /// Its SAs: to port_ps, from port_ps, to port_us, from port_us.
    pub fn four(&self) -> [Sa; 4] {
        let [uc, us] = self.ports.map(|port| (self.ue, port));
        let (ps, pc) = ((self.p, PORT_PS), (self.p, PORT_PC));
        let mut spi = 0x10_0000 + self.number * 4;
        [
            (End::Ue, uc, ps),
            (End::PCscf, ps, uc),
            (End::PCscf, pc, us),
            (End::Ue, us, pc),
        ]
        .map(|(from, src, dst)| {
            spi += 1;
            Sa {
                spi,
                from,
                src,
                dst,
            }
        })
    }

    /// IK and CK.
    fn secrets(&self) -> [[u8; 16]; 2] {
        [0x60, 0x90].map(|first| {
            let mut key = [first; 16];
            key[12..].copy_from_slice(&self.number.to_be_bytes());
            key
        })
    }

    /// Outer source and destination as an end sees them.
    fn outside(&self, sa: &Sa, seen_by: End) -> [IpAddr; 2] {
        let ue = match seen_by {
            End::PCscf => self.ue,
            End::Ue => self.private,
        };
        match sa.from {
            End::PCscf => [self.p, ue],
            End::Ue => [ue, self.p],
        }
    }

    /// `[[sa]]` tables for gmespd or gm-xfrm at this end.
    pub fn sad(&self, at: End) -> String {
        let mut text = String::new();
        let [ik, ck] = self.secrets().map(|key| hex(&key));
        for sa in self.four() {
            let dir = if sa.from == at { "out" } else { "in" };
            let _ = write!(
                text,
                "[[sa]]\nset = {}\ndir = \"{dir}\"\nspi = {}\nsrc = \"{}\"\ndst = \"{}\"\nsrc_port = {}\n\
                 dst_port = {}\nalg = \"{}\"\nealg = \"{}\"\nik = \"{ik}\"\nck = \"{ck}\"\n\
                 replay_window = {}\nesn = {}\nseq = {}\n",
                self.number,
                sa.spi,
                sa.src.0,
                sa.dst.0,
                sa.src.1,
                sa.dst.1,
                self.suite.alg(),
                self.suite.ealg(),
                self.window,
                self.esn,
                self.first,
            );
            if self.mode == Mode::Trans {
                text += "mode = \"trans\"\n";
                continue;
            }
            let [src, dst] = self.outside(&sa, at);
            let _ = write!(
                text,
                "mode = \"udp-enc-tun\"\nouter_src = \"{src}\"\nouter_dst = \"{dst}\"\n"
            );
            let both = at == End::Ue || self.port_known;
            if both || sa.from == End::PCscf {
                let _ = writeln!(text, "encap_sport = {ENCAP}");
            }
            if both || sa.from == End::Ue {
                let _ = writeln!(text, "encap_dport = {ENCAP}");
            }
        }
        text
    }

    /// The kernel's states at this end.
    pub fn states(&self, at: End) -> String {
        let mut text = String::new();
        for sa in self.four() {
            let [src, dst] = self.outside(&sa, at);
            let (mode, encap) = match self.mode {
                Mode::Trans => ("transport", String::new()),
                Mode::UdpEncTun => ("tunnel", format!("encap espinudp {ENCAP} {ENCAP} 0.0.0.0")),
            };
            let _ = write!(
                text,
                "xfrm state add src {src} dst {dst} proto esp spi {} reqid {} mode {mode} \
                 replay-window {} {} {encap} sel {}",
                sa.spi,
                self.number,
                self.window,
                self.algorithms(),
                selector(&sa, 0)
            );
            let (low, high) = (
                (self.first - 1) & u64::from(u32::MAX),
                (self.first - 1) >> 32,
            );
            if self.esn {
                text += " flag esn";
            }
            if sa.from == at && self.first > 1 {
                let _ = write!(text, " replay-oseq {low:#x}");
                if self.esn {
                    let _ = write!(text, " replay-oseq-hi {high:#x}");
                }
            }
            text.push('\n');
        }
        text
    }

    /// Takes the kernel's states away.
    pub fn no_states(&self, at: End) -> String {
        let mut text = String::new();
        for sa in self.four() {
            let [src, dst] = self.outside(&sa, at);
            let spi = sa.spi;
            let _ = writeln!(
                text,
                "xfrm state delete src {src} dst {dst} proto esp spi {spi}"
            );
        }
        text
    }

    /// The kernel's policies at this end, or changes of them (`update`): inbound of the set's
    /// mode, whichever SA it came on, outbound of this set.
    pub fn policies(&self, at: End, verb: &str) -> String {
        let mut text = String::new();
        for sa in self.four() {
            let mode = match self.mode {
                Mode::Trans => "transport".to_owned(),
                Mode::UdpEncTun => "tunnel".to_owned(),
            };
            let [src, dst] = self.outside(&sa, at);
            for proto in [6, 17] {
                let _ = write!(text, "xfrm policy {verb} {} ", selector(&sa, proto));
                let _ = match sa.from == at {
                    true => writeln!(
                        text,
                        "dir out tmpl src {src} dst {dst} proto esp spi {} reqid {} mode {mode}",
                        sa.spi, self.number
                    ),
                    false => writeln!(
                        text,
                        "dir in tmpl src {src} dst {dst} proto esp mode {mode}"
                    ),
                };
            }
        }
        text
    }

    fn algorithms(&self) -> String {
        let [ik, ck] = self.secrets();
        let keys = EspKeys::expand(self.suite, &Ik::from_bytes(ik), &Ck::from_bytes(ck));
        let integrity = keys.integrity().map(hex).unwrap_or_default();
        let encryption = keys.encryption().map(hex).unwrap_or_default();
        let salt = keys.salt().map(|salt| hex(&salt)).unwrap_or_default();
        match self.suite {
            Suite::HmacSha1Null => {
                format!("auth-trunc hmac(sha1) 0x{integrity} 96 enc ecb(cipher_null) \"\"")
            }
            Suite::HmacSha1AesCbc => {
                format!("auth-trunc hmac(sha1) 0x{integrity} 96 enc cbc(aes) 0x{encryption}")
            }
            Suite::AesGmacNull => format!("aead rfc4543(gcm(aes)) 0x{integrity}{salt} 128"),
            Suite::NullAesGcm => format!("aead rfc4106(gcm(aes)) 0x{encryption}{salt} 128"),
            suite => unreachable!("{suite} is of older releases"),
        }
    }
}

/// A selector in iproute2's words; protocol 0 for any, with ports all the same.
fn selector(sa: &Sa, proto: u8) -> String {
    let length = if sa.src.0.is_ipv4() { 32 } else { 128 };
    format!(
        "src {}/{length} dst {}/{length} proto {proto} sport {} dport {}",
        sa.src.0, sa.dst.0, sa.src.1, sa.dst.1
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
