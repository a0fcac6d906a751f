//! The four SAs of one authentication, as both roles ask for them (TS 33.203 clause 7.1).

use std::net::IpAddr;

use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Selector, Suite};

use crate::sec_agree::Ends;

/// Names a set between the SIP side and whoever executes its commands. Never reused
/// by one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetToken(pub u64);

/// Which end of the link installs the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The network's end.
    Pcscf,
    /// The phone's end.
    Ue,
}

/// Addresses of the outer headers of UDP-enc-tun, as this end sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Our address on the wire: private for a UE behind a NAT.
    pub local: IpAddr,
    /// The peer's address on the wire.
    pub remote: IpAddr,
    /// The port of UDP encapsulation, 4500.
    pub port: u16,
}

/// What both ends know of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetParams {
    /// The UE's address: the public one behind a NAT.
    pub ue: IpAddr,
    /// The P-CSCF's address.
    pub pcscf: IpAddr,
    /// spi_uc, spi_us, port_uc, port_us.
    pub ue_ends: Ends,
    /// spi_pc, spi_ps, port_pc, port_ps.
    pub pcscf_ends: Ends,
    /// alg and ealg.
    pub suite: Suite,
    /// There for UDP-enc-tun and only there.
    pub tunnel: Option<Tunnel>,
    /// Numbers in the replay window of the inbound SAs.
    pub replay_window: u32,
}

impl SetParams {
    /// Transport, or UDP-enc-tun where there is a tunnel.
    pub fn mode(&self) -> Mode {
        if self.tunnel.is_some() {
            Mode::UdpEncTun
        } else {
            Mode::Trans
        }
    }
}

/// Install: four SAs, all or none; inbound live at once, outbound standing by
/// until Activate. Holds IK and CK, which are wiped on drop and shown nowhere.
#[derive(Debug, Clone, PartialEq)]
pub struct SaSetRequest {
    /// The name for all later commands and for the answer.
    pub token: SetToken,
    /// Which end this is.
    pub role: Role,
    /// Addresses, ports and SPIs by their names.
    pub params: SetParams,
    /// The two SAs towards us; their SPIs are the reserved ones.
    pub inbound: [SaSpec; 2],
    /// The two SAs from us.
    pub outbound: [SaSpec; 2],
    /// IK_IM.
    pub ik: Ik,
    /// CK_IM.
    pub ck: Ck,
}

impl SaSetRequest {
    /// Lays out the four SAs:
    ///
    /// ```text
    /// UE:port_uc -> P:port_ps  spi_ps      P:port_pc -> UE:port_us  spi_us
    /// UE:port_us -> P:port_pc  spi_pc      P:port_ps -> UE:port_uc  spi_uc
    /// ```
    pub fn new(token: SetToken, role: Role, params: SetParams, ik: Ik, ck: Ck) -> SaSetRequest {
        let (u, p) = (params.ue_ends, params.pcscf_ends);
        let up = |ports: (u16, u16), spi| spec(&params, role, true, ports, spi);
        let down = |ports: (u16, u16), spi| spec(&params, role, false, ports, spi);
        let to_pcscf = [
            up((u.port_c, p.port_s), p.spi_s),
            up((u.port_s, p.port_c), p.spi_c),
        ];
        let to_ue = [
            down((p.port_c, u.port_s), u.spi_s),
            down((p.port_s, u.port_c), u.spi_c),
        ];
        let (inbound, outbound) = match role {
            Role::Pcscf => (to_pcscf, to_ue),
            Role::Ue => (to_ue, to_pcscf),
        };
        SaSetRequest {
            token,
            role,
            params,
            inbound,
            outbound,
            ik,
            ck,
        }
    }

    /// The ESP keys of all four SAs (Annex I).
    pub fn keys(&self) -> EspKeys {
        EspKeys::expand(self.params.suite, &self.ik, &self.ck)
    }
}

fn spec(params: &SetParams, role: Role, to_pcscf: bool, ports: (u16, u16), spi: u32) -> SaSpec {
    let (src, dst) = if to_pcscf {
        (params.ue, params.pcscf)
    } else {
        (params.pcscf, params.ue)
    };
    let inbound = to_pcscf == (role == Role::Pcscf);
    let outer = params.tunnel.map(|t| {
        // The P-CSCF learns port_Uenc from the first packet that verifies; a UE knows all ports (M.7.1).
        let peer = (role == Role::Ue).then_some(t.port);
        if inbound {
            Outer {
                src: t.remote,
                dst: t.local,
                sport: peer,
                dport: Some(t.port),
            }
        } else {
            Outer {
                src: t.local,
                dst: t.remote,
                sport: Some(t.port),
                dport: peer,
            }
        }
    });
    SaSpec {
        spi,
        mode: params.mode(),
        selector: Selector {
            src,
            dst,
            src_port: Some(ports.0),
            dst_port: Some(ports.1),
            proto: SelProto::UdpTcp,
        },
        suite: params.suite,
        outer,
        esn: false,
        replay_window: params.replay_window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(role: Role, tunnel: Option<Tunnel>) -> SaSetRequest {
        let params = SetParams {
            ue: [192, 0, 2, 1].into(),
            pcscf: [203, 0, 113, 1].into(),
            ue_ends: Ends {
                spi_c: 1001,
                spi_s: 1002,
                port_c: 31100,
                port_s: 31800,
            },
            pcscf_ends: Ends {
                spi_c: 2001,
                spi_s: 2002,
                port_c: 5064,
                port_s: 5063,
            },
            suite: Suite::NullAesGcm,
            tunnel,
            replay_window: 64,
        };
        SaSetRequest::new(
            SetToken(1),
            role,
            params,
            Ik::from_bytes([1; 16]),
            Ck::from_bytes([2; 16]),
        )
    }

    #[test]
    fn both_ends_mean_the_same_four() {
        let (p, u) = (request(Role::Pcscf, None), request(Role::Ue, None));
        assert_eq!(p.inbound, u.outbound);
        assert_eq!(p.outbound, u.inbound);
        let flow = |s: &SaSpec| (s.selector.src_port, s.selector.dst_port, s.spi);
        assert_eq!(
            p.inbound.map(|s| flow(&s)),
            [
                (Some(31100), Some(5063), 2002),
                (Some(31800), Some(5064), 2001)
            ]
        );
        assert_eq!(
            p.outbound.map(|s| flow(&s)),
            [
                (Some(5064), Some(31800), 1002),
                (Some(5063), Some(31100), 1001)
            ]
        );
    }

    #[test]
    fn every_sa_is_one_that_the_engine_takes() {
        let tunnel = Tunnel {
            local: [203, 0, 113, 1].into(),
            remote: [192, 0, 2, 1].into(),
            port: 4500,
        };
        for request in [
            request(Role::Pcscf, None),
            request(Role::Pcscf, Some(tunnel)),
            request(Role::Ue, Some(tunnel)),
        ] {
            for spec in request.inbound.iter().chain(&request.outbound) {
                assert!(gm_esp::Sa::new(*spec, &request.keys()).is_ok(), "{spec:?}");
            }
        }
    }

    #[test]
    fn the_network_does_not_know_port_uenc_yet() {
        let tunnel = Tunnel {
            local: [203, 0, 113, 1].into(),
            remote: [192, 0, 2, 1].into(),
            port: 4500,
        };
        let outer = request(Role::Pcscf, Some(tunnel)).outbound[0]
            .outer
            .expect("tunnel");
        assert_eq!((outer.sport, outer.dport), (Some(4500), None));
    }

    #[test]
    fn debug_hides_keys() {
        let shown = format!("{:?}", request(Role::Ue, None));
        assert!(
            !shown.contains("0101") && !shown.contains("[1, 1"),
            "{shown}"
        );
    }
}
