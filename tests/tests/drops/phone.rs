//! Phones: their addresses, their sets, and raw frames of theirs.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

/// Protected ports of gmespd's side and of the phones'.
pub const PORT_PS: u16 = 5063;
pub const PORT_PC: u16 = 5064;
pub const PORT_US: u16 = 6063;
pub const PORT_UC: u16 = 6064;

const ESP: u8 = 50;
const UDP: u8 = 17;

/// A phone by number: its address, the SPIs of its set.
#[derive(Clone, Copy)]
pub struct Phone {
    pub address: IpAddr,
    pub pcscf: IpAddr,
    pub number: u32,
}

/// Phone `n`, from 10 on, IPv4.
pub fn phone(n: u8) -> Phone {
    Phone {
        address: [10, 77, 0, n].into(),
        pcscf: [10, 77, 0, 1].into(),
        number: n.into(),
    }
}

/// The same over IPv6, each in a /64 of its own.
pub fn phone6(n: u8) -> Phone {
    Phone {
        address: format!("fd77:0:0:{n}::2").parse().unwrap(),
        pcscf: "fd77::1".parse().unwrap(),
        number: 1000 + u32::from(n),
    }
}

/// Numbers of the phones that have an address.
pub const PHONES: std::ops::Range<u8> = 10..20;

impl Phone {
    /// SPI of phone to port_ps.
    pub fn spi(self) -> u32 {
        0x10_0000 + self.number * 4
    }

    /// The set's number.
    pub fn set(self) -> u64 {
        self.number.into()
    }

    /// The four SAs of a set, as gmespd's SAD.toml has them. `keys`: IK and CK.
    pub fn sad(self, mode: &str, [ik, ck]: [&str; 2]) -> String {
        let (u, p) = (self.address, self.pcscf);
        let four = [
            (u, PORT_UC, p, PORT_PS, 0),
            (p, PORT_PS, u, PORT_UC, 1),
            (p, PORT_PC, u, PORT_US, 2),
            (u, PORT_US, p, PORT_PC, 3),
        ];
        let mut text = String::new();
        for (src, src_port, dst, dst_port, n) in four {
            let (set, spi) = (self.set(), self.spi() + n);
            let _ = write!(
                text,
                "[[sa]]\nset = {set}\nspi = {spi}\nmode = \"{mode}\"\nsrc = \"{src}\"\n\
                 dst = \"{dst}\"\nsrc_port = {src_port}\ndst_port = {dst_port}\n\
                 alg = \"hmac-sha-1-96\"\nealg = \"aes-cbc\"\nik = \"{ik}\"\nck = \"{ck}\"\n"
            );
            if mode != "trans" {
                let _ = writeln!(text, "outer_src = \"{src}\"\nouter_dst = \"{dst}\"");
                if dst == p {
                    text += "encap_dport = 4500\n";
                } else {
                    text += "encap_sport = 4500\n";
                }
            }
        }
        text
    }

    /// A frame from the phone.
    pub fn frame(self, proto: u8, payload: &[u8]) -> Vec<u8> {
        let mut b = vec![0xff; 6];
        b.extend([2, 0, 0, 0, 0, 2]);
        match (self.address, self.pcscf) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                b.extend([8, 0, 0x45, 0]);
                b.extend((20 + payload.len() as u16).to_be_bytes());
                b.extend([0x12, 0x34, 0, 0, 64, proto, 0, 0]);
                b.extend(src.octets());
                b.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                b.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                b.extend((payload.len() as u16).to_be_bytes());
                b.extend([proto, 64]);
                b.extend(src.octets());
                b.extend(dst.octets());
            }
            _ => unreachable!("one family"),
        }
        b.extend(payload);
        b
    }

    /// Raw ESP, of which the ICV is none.
    pub fn esp(self, spi: u32, seq: u32) -> Vec<u8> {
        self.frame(ESP, &esp(spi, seq))
    }

    /// UDP in clear.
    pub fn udp(self, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut b = Vec::new();
        b.extend(from.to_be_bytes());
        b.extend(to.to_be_bytes());
        b.extend((8 + payload.len() as u16).to_be_bytes());
        b.extend([0, 0]);
        b.extend(payload);
        self.frame(UDP, &b)
    }

    /// How counters name it.
    pub fn prefix(self) -> String {
        match self.address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
        }
    }
}

/// ESP of which the ICV is none: header and 56 bytes.
pub fn esp(spi: u32, seq: u32) -> Vec<u8> {
    let mut b = spi.to_be_bytes().to_vec();
    b.extend(seq.to_be_bytes());
    b.resize(64, 0xa5);
    b
}
