//! A NAT of the demo's own: one private host behind one public address, UDP
//! only, port mapping by private port. It can forget its mappings when told
//! to, which is what makes a real NAT's rebinding so hard to test against.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::frame::{self, ETHERNET};
use super::links::Mac;
use super::wire::NatSpec;

/// The MAC address under which both sides know the NAT.
pub const NAT_MAC: Mac = [0x02, 0x67, 0x6d, 0x4e, 0x41, 0x54];
const FIRST_PORT: u16 = 40_001;

/// Mappings between private and public ports.
#[derive(Debug)]
pub struct Nat {
    spec: NatSpec,
    public_of: HashMap<u16, u16>,
    private_of: HashMap<u16, u16>,
    next: u16,
}

impl Nat {
    /// A NAT without mappings.
    pub fn new(spec: NatSpec) -> Nat {
        Nat {
            spec,
            public_of: HashMap::new(),
            private_of: HashMap::new(),
            next: FIRST_PORT,
        }
    }

    /// Forgets every mapping. The next packet of each private port gets
    /// another public port, and packets to an old one are lost.
    pub fn rebind(&mut self) {
        self.public_of.clear();
        self.private_of.clear();
    }

    /// Translates a frame from inside; false: it does not go on.
    pub fn outwards(&mut self, frame: &mut [u8]) -> bool {
        let Some(ip) = frame::ipv4(frame) else {
            return false;
        };
        if address(frame, 12) != Some(self.spec.private) {
            return false;
        }
        let port = match (ip.proto, ip.first) {
            (17, true) => {
                let Some(private) = frame::port(frame, ip.l4) else {
                    return false;
                };
                Some(self.map(private))
            }
            // A later fragment has no ports to translate.
            (17, false) => None,
            _ => return false,
        };
        frame::rewrite(frame, true, self.spec.public, port);
        frame[..6].copy_from_slice(&self.spec.pcscf_mac);
        frame[6..12].copy_from_slice(&NAT_MAC);
        true
    }

    /// Translates a frame from outside; false: no mapping, it does not go on.
    pub fn inwards(&mut self, frame: &mut [u8]) -> bool {
        let Some(ip) = frame::ipv4(frame) else {
            return false;
        };
        if address(frame, 16) != Some(self.spec.public) {
            return false;
        }
        let port = match (ip.proto, ip.first) {
            (17, true) => {
                let known = frame::port(frame, ip.l4 + 2).and_then(|p| self.private_of.get(&p));
                let Some(&private) = known else { return false };
                Some(private)
            }
            (17, false) => None,
            _ => return false,
        };
        frame::rewrite(frame, false, self.spec.private, port);
        frame[..6].copy_from_slice(&self.spec.ue_mac);
        frame[6..12].copy_from_slice(&NAT_MAC);
        true
    }

    fn map(&mut self, private: u16) -> u16 {
        *self.public_of.entry(private).or_insert_with(|| {
            let public = self.next;
            self.next = self.next.checked_add(1).unwrap_or(FIRST_PORT);
            self.private_of.insert(public, private);
            public
        })
    }
}

fn address(frame: &[u8], offset: usize) -> Option<Ipv4Addr> {
    let at = ETHERNET + offset;
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebinding_moves_the_public_port_and_cuts_the_old_one() {
        let mut nat = Nat::new(NatSpec {
            public: Ipv4Addr::new(192, 0, 2, 77),
            private: Ipv4Addr::new(10, 45, 0, 2),
            ue_mac: [2; 6],
            pcscf_mac: [4; 6],
        });
        let template = [0u8; 12].iter().copied().chain([8, 0]).collect::<Vec<_>>();
        let out = |nat: &mut Nat| {
            let mut f = frame::udp(
                &template,
                "10.45.0.2:4500".parse().unwrap(),
                "192.0.2.1:4500".parse().unwrap(),
                b"x",
            );
            assert!(nat.outwards(&mut f));
            assert_eq!(address(&f, 12), Some(Ipv4Addr::new(192, 0, 2, 77)));
            frame::port(&f, 34).unwrap()
        };
        let back = |nat: &mut Nat, port: u16| {
            let to = std::net::SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), port);
            let mut f = frame::udp(&template, "192.0.2.1:4500".parse().unwrap(), to, b"y");
            nat.inwards(&mut f).then(|| frame::port(&f, 36).unwrap())
        };
        let first = out(&mut nat);
        assert_eq!(first, out(&mut nat), "a mapping stays");
        assert_eq!(back(&mut nat, first), Some(4500));
        nat.rebind();
        assert_eq!(back(&mut nat, first), None);
        let second = out(&mut nat);
        assert_ne!(first, second);
        assert_eq!(back(&mut nat, second), Some(4500));
    }
}
