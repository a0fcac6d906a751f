//! What the kernel's data plane does not have that XDP's has: told at the start, by
//! `gmespd check` and by the control interface.

use gm_api::control::ApiError;

/// One line each.
pub const LOST: [&str; 12] = [
    "why a packet was dropped is not known packet by packet: no samples, no counters by prefix, \
     and gmespctl explain has the SAs' counters alone",
    "cleartext to protected ports is dropped by nftables and by policies, in the kernel's stack: \
     nothing is shed before it under a flood",
    "bad ICVs are not limited, for an SA or a source: each is tried and costs its decryption",
    "workers: the kernel opens and seals where packets come and go",
    "gmespctl capture: tcpdump on the interface shows ESP as it is on the wire",
    "a static NAT in front of the host ([gm] advertised)",
    "IVs of AES-GCM and AES-GMAC begin at random for each SA, so that those of the SAs under one \
     key are apart by chance only: they meet with a probability of about 2^-64 for each number used",
    "fragments inside of a tunnel are put together by the kernel with fragments that come in clear",
    "dummies, malformed packets and mode mismatches are not counted for their SA",
    "a phone's port behind its NAT is learnt beside the way of the packet: what answers the first \
     one at once (TCP's SYN) finds the old port, or none, and is lost; SIP and TCP repeat it",
    "path MTUs are the kernel's: an ICMP error that quotes an SA of ours is believed without a \
     look at its sequence number, and there is no path-mtu event",
    "UDP 4500 is this daemon's alone: IKE (the non-ESP marker) finds nobody",
];

/// The answer to what this data plane cannot do; never an empty success.
pub fn unsupported(what: &str, instead: &str) -> ApiError {
    ApiError::new(
        "unsupported",
        format!("{what}: the kernel's data plane has nothing of the kind"),
    )
    .hint(instead)
}
