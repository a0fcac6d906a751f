//! What the uplink program has to answer, by the parser in user space.

use gm_abi::maps::{MODE_TRANS, MODE_UDP_ENC_TUN};
use gm_abi::verdict::{Action, Reason};
use gm_abi::wire::{self, Class, EncapPort, L3};

use super::lab::{ENCAP_PORT, Lab, OURS_V4, OURS_V6, XDP_DROP, XDP_PASS, XDP_REDIRECT};

fn is_protected(port: u16) -> bool {
    (5100..=5107).contains(&port)
}

/// The reason for what happens to `frame` on the uplink.
pub fn uplink(lab: &Lab, frame: &[u8]) -> Reason {
    let L3::Ip(ip) = wire::parse_frame(frame) else {
        return Reason::PassOther;
    };
    if ip.dst != OURS_V4 && ip.dst != OURS_V6 {
        return Reason::PassOther;
    }
    let (spi, seq, mode, steer) = match wire::classify(frame, &ip, EncapPort::Dst(ENCAP_PORT)) {
        Class::Esp { spi, seq, .. } => (spi, seq, MODE_TRANS, Reason::SteerEsp),
        Class::UdpEsp { spi, seq, .. } => (spi, seq, MODE_UDP_ENC_TUN, Reason::SteerUdpEsp),
        Class::Keepalive => return Reason::Keepalive,
        Class::NonEspMarker => return Reason::PassNonEspMarker,
        Class::Fragment => return Reason::SteerFragment,
        Class::Malformed { .. } => return Reason::Malformed,
        Class::Other => {
            return match ip.ports {
                Some((_, dst)) if is_protected(dst) => Reason::CleartextProtected,
                None if ip.hides_ports() => Reason::Malformed,
                _ => Reason::PassOther,
            };
        }
    };
    let Some((_, sa)) = lab.sas.get(&(ip.dst, spi)) else {
        return Reason::UnknownSpi;
    };
    if sa.mode != mode {
        return Reason::ModeMismatch;
    }
    let Some((top, window, cells)) = sa.window else {
        return steer;
    };
    let block = seq / 32;
    let cell = cells[block as usize % cells.len()];
    if seq == 0 {
        Reason::Replay
    } else if seq > top {
        steer
    } else if top - seq >= window {
        Reason::Stale
    } else if cell >> 32 == u64::from(block) && cell >> (seq % 32) & 1 == 1 {
        Reason::Replay
    } else {
        steer
    }
}

/// The XDP action for a reason.
pub fn action(reason: Reason) -> u32 {
    match reason.action() {
        Action::Pass => XDP_PASS,
        Action::Steer => XDP_REDIRECT,
        Action::Deliver | Action::Drop => XDP_DROP,
    }
}
