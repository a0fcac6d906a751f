//! What the uplink program has to answer, by the parser in user space.

use gm_abi::maps::{LIMITED_AHEAD, MODE_TRANS, MODE_UDP_ENC_TUN};
use gm_abi::source::tag_of;
use gm_abi::verdict::{Action, Reason};
use gm_abi::wire::{self, About, Class, EncapPort, IpPacket, L3, Quoted};

use super::lab::{ENCAP_PORT, Lab, OURS_V4, OURS_V6, SEED, XDP_DROP, XDP_PASS, XDP_REDIRECT};

pub fn is_protected(port: u16) -> bool {
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
                _ => icmp(frame, &ip),
            };
        }
    };
    let Some((_, sa)) = lab.sas.get(&(ip.dst, spi)) else {
        return Reason::UnknownSpi;
    };
    if sa.mode != mode {
        return Reason::ModeMismatch;
    }
    let port = ip.ports.map_or(0, |(port, _)| port);
    let elsewhere = sa.tag != 0 && sa.tag != tag_of(&ip.src, port, SEED);
    let Some((top, window, cells)) = sa.window else {
        return if sa.limited && elsewhere {
            Reason::IcvLimited
        } else {
            steer
        };
    };
    let far = top != 0 && seq > top && seq - top > LIMITED_AHEAD;
    let steer = if sa.limited && (elsewhere || far) {
        Reason::IcvLimited
    } else {
        steer
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

/// Cleartext without ports.
fn icmp(frame: &[u8], ip: &IpPacket) -> Reason {
    let mut quoted = Quoted::EMPTY;
    if !wire::is_icmp_error(frame, ip) || !wire::read_quoted(frame, ip, &mut quoted) {
        return Reason::PassOther;
    }
    let is_ours = |addr: &_| [OURS_V4, OURS_V6].contains(addr);
    match wire::about(frame, &quoted, ENCAP_PORT, is_ours, is_protected) {
        About::Esp => Reason::SteerIcmp,
        About::Protected => Reason::ClearIcmp,
        About::Other => Reason::PassOther,
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
