//! Facts to judge.

use std::net::IpAddr;

use gm_api::control::{FlowEvent, SaStatus};
use gm_api::sad::{Dir, SaRow};
use gm_dataplane::{DropSample, Reason, Station};

use super::super::facts::{Facts, Seen, Step, prefix};

pub const UE: &str = "198.51.100.7";
pub const US: &str = "192.0.2.1";

pub fn facts(address: &str) -> Facts {
    let address = address.parse().unwrap();
    Facts {
        address,
        uptime_ms: 3_600_000,
        encap_port: 4500,
        is_blind: false,
        sas: Vec::new(),
        gone: Vec::new(),
        remembered_ms: None,
        samples: Vec::new(),
        counts: Vec::new(),
        prefix: prefix(address),
        host: Vec::new(),
        steps: Vec::new(),
        uplink_gone_ms: None,
    }
}

/// A set's two SAs that matter here: phone to port_ps, port_ps to phone. They
/// are a minute old and have carried nothing.
pub fn sas(udp: bool) -> Vec<SaStatus> {
    [(Dir::In, UE, US, 1_000_000_001), (Dir::Out, US, UE, 77)]
        .map(|(dir, src, dst, spi)| {
            let ports = if dir == Dir::In {
                (6064, 5063)
            } else {
                (5063, 6064)
            };
            let row: SaRow = serde_json::from_value(serde_json::json!({
                "set": 3, "dir": dir, "spi": spi, "mode": if udp { "udp-enc-tun" } else { "trans" },
                "src": src, "dst": dst, "src_port": ports.0, "dst_port": ports.1,
                "alg": "null", "ealg": "aes-gcm", "replay_window": 64, "proto": "any", "esn": false,
            }))
            .unwrap();
            SaStatus {
                sa: row,
                state: "live".into(),
                top: 0,
                packets: 0,
                bytes: 0,
                drops: Default::default(),
                idle_ms: None,
                age_ms: Some(60_000),
            }
        })
        .into()
}

/// Both directions have carried packets, last so long ago.
pub fn carried(mut sas: Vec<SaStatus>, inbound: u64, outbound: u64) -> Vec<SaStatus> {
    for (row, idle) in sas.iter_mut().zip([inbound, outbound]) {
        (row.packets, row.top, row.idle_ms) = (500, 500, Some(idle));
    }
    sas
}

pub fn seen(reason: Reason, ago_ms: u64) -> Seen {
    let (src, dst): (IpAddr, IpAddr) = (UE.parse().unwrap(), US.parse().unwrap());
    Seen {
        ago_ms,
        sample: DropSample {
            at: 0,
            reason,
            station: Station::Uplink,
            outbound: false,
            interface: 0,
            proto: 50,
            src,
            dst,
            src_port: None,
            dst_port: None,
            spi: Some(1_000_000_001),
            seq: Some(8),
            len: 120,
        },
    }
}

pub fn clear(ago_ms: u64, port: u16) -> Seen {
    let mut seen = seen(Reason::CleartextProtected, ago_ms);
    let s = &mut seen.sample;
    (s.proto, s.spi, s.seq) = (17, None, None);
    (s.src_port, s.dst_port) = (Some(5060), Some(port));
    seen
}

pub fn outbound(reason: Reason, ago_ms: u64) -> Seen {
    let mut seen = clear(ago_ms, 6064);
    let s = &mut seen.sample;
    std::mem::swap(&mut s.src, &mut s.dst);
    (s.reason, s.outbound, s.src_port) = (reason, true, Some(5063));
    seen
}

pub fn step(name: &str, ago_ms: u64) -> Step {
    Step {
        ago_ms,
        event: FlowEvent {
            step: name.into(),
            impi: Some("alice@ims".into()),
            set: Some(3),
            ..FlowEvent::default()
        },
    }
}
