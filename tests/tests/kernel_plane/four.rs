//! SAs as files, for both ends.

use std::fmt::Write as _;

use crate::lab::{PC, PCSCF, PCSCF6, PS, UC, UE, UE6, US};

/// The four SAs of a registration: seen from the P-CSCF, or by the phone. `base` is the
/// first of the four SPIs.
pub struct Four {
    pub set: u64,
    pub base: u32,
    pub v6: bool,
    pub suite: (&'static str, &'static str),
    /// UDP-enc-tun: the phone's port.
    pub encap: Option<u16>,
    /// First sequence number of what is sent.
    pub seq: u64,
}

impl Four {
    /// In transport mode.
    pub fn new(set: u64, base: u32) -> Four {
        Four {
            set,
            base,
            v6: false,
            suite: ("hmac-sha-1-96", "aes-cbc"),
            encap: None,
            seq: 1,
        }
    }

    /// As the P-CSCF has them.
    pub fn pcscf(&self) -> String {
        self.text(true)
    }

    /// As the phone has them.
    pub fn ue(&self) -> String {
        self.text(false)
    }

    fn text(&self, at_pcscf: bool) -> String {
        let (ue, pcscf) = match self.v6 {
            false => (UE, PCSCF),
            true => (UE6, PCSCF6),
        };
        let (alg, ealg) = self.suite;
        let mut text = String::new();
        for (n, up, ue_port, pcscf_port) in [
            (0, true, UC, PS),
            (1, true, US, PC),
            (2, false, UC, PS),
            (3, false, US, PC),
        ] {
            let (src, dst) = if up { (ue, pcscf) } else { (pcscf, ue) };
            let (sport, dport) = if up {
                (ue_port, pcscf_port)
            } else {
                (pcscf_port, ue_port)
            };
            let receives = up == at_pcscf;
            let dir = if receives { "in" } else { "out" };
            let _ = writeln!(
                text,
                "[[sa]]\nspi = {}\nset = {}\ndir = \"{dir}\"\nsrc = \"{src}\"\ndst = \"{dst}\"\n\
                 src_port = {sport}\ndst_port = {dport}\nalg = \"{alg}\"\nealg = \"{ealg}\"\n\
                 ik = \"00112233445566778899aabbccddeeff\"\nck = \"ffeeddccbbaa99887766554433221100\"",
                self.base + n,
                self.set,
            );
            if !receives {
                let _ = writeln!(text, "seq = {}", self.seq);
            }
            match self.encap {
                None => text += "mode = \"trans\"\n",
                Some(port) => {
                    let _ = writeln!(
                        text,
                        "mode = \"udp-enc-tun\"\nouter_src = \"{src}\"\nouter_dst = \"{dst}\""
                    );
                    // The P-CSCF has to learn the phone's port.
                    let (own, phones) = if up { ("d", "s") } else { ("s", "d") };
                    let _ = writeln!(text, "encap_{own}port = 4500");
                    if !at_pcscf {
                        let _ = writeln!(text, "encap_{phones}port = {port}");
                    }
                }
            }
        }
        text
    }
}
