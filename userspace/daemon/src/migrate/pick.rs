//! Which sets of the kernel's may be taken over.
//!
//! What is taken over has to be steered and guarded afterwards as our own is:
//! an SA whose local port is not protected would leave in clear once its policy
//! is gone.

use std::collections::HashMap;

use gm_api::sad::Dir;
use gm_api::transfer::{LeftOut, TransferRequest};
use gm_dataplane::NewSa;
use gm_esp::Mode;
use gm_xfrm::group::{Grouped, Member, Set};
use gm_xfrm::kernel::PolicyId;

use super::{is_wanted, late};
use crate::config::Config;
use crate::live;

/// What may move, and what may not.
#[derive(Default)]
pub struct Picked {
    pub sets: Vec<Set>,
    pub left_out: Vec<LeftOut>,
    pub warnings: Vec<String>,
}

/// Chooses from what is in the kernel.
pub fn pick(config: &Config, grouped: Grouped, request: &TransferRequest) -> Picked {
    let mut picked = Picked::default();
    // Who uses a policy: it goes only with all of them.
    let mut users: HashMap<PolicyId, usize> = HashMap::new();
    for member in grouped.members() {
        for policy in &member.policies {
            *users.entry(policy.id).or_default() += 1;
        }
    }
    let all = request.phones.is_empty() && request.spis.is_empty();
    for left in &grouped.left_out {
        if all || request.spis.contains(&left.id.spi) {
            picked.left_out.push(LeftOut {
                spi: left.id.spi,
                dst: left.id.dst,
                why: left.why.to_string(),
            });
        }
    }
    // A migration that was killed may leave some, others their own.
    for id in grouped.other_policies.iter().filter(|_| all) {
        if [id.selector.src.addr, id.selector.dst.addr]
            .iter()
            .any(|a| config.is_local(*a))
        {
            picked.warnings.push(format!(
                "policy {id} has no SA: it stays, and its traffic is dropped"
            ));
        }
    }
    for set in grouped.sets {
        if !is_wanted(&set, request) {
            continue;
        }
        match refused(config, &set, &users) {
            Some(why) => picked.left_out.extend(set.sas.iter().map(|sa| LeftOut {
                spi: sa.found.spec.spi,
                dst: sa.found.spec.destination(),
                why: why.clone(),
            })),
            None => {
                warn(&set, &mut picked.warnings);
                picked.sets.push(set);
            }
        }
    }
    picked
}

/// Why a set may not move.
fn refused(config: &Config, set: &Set, users: &HashMap<PolicyId, usize>) -> Option<String> {
    let mut here: HashMap<PolicyId, usize> = HashMap::new();
    for sa in &set.sas {
        if let Some(why) = member(config, sa) {
            return Some(why);
        }
        for policy in &sa.policies {
            *here.entry(policy.id).or_default() += 1;
        }
    }
    if late::is_left(set) {
        return Some(
            "it was left for what is late, by a gmespd that has ended, and ends too".into(),
        );
    }
    let shared = here.iter().find(|(id, n)| users.get(id) != Some(n));
    shared.map(|(id, _)| format!("other SAs than this set's need its policy {id}"))
}

fn member(config: &Config, sa: &Member) -> Option<String> {
    let spec = &sa.found.spec;
    let (local, outside, port) = match sa.dir {
        None => return Some("nothing says its direction".into()),
        Some(Dir::In) => (
            spec.selector.dst,
            spec.destination(),
            spec.selector.dst_port,
        ),
        Some(Dir::Out) => (spec.selector.src, spec.source(), spec.selector.src_port),
    };
    if let Some(address) = [local, outside].into_iter().find(|a| !config.is_local(*a)) {
        return Some(format!("{address} is none of [gm] addresses"));
    }
    match port {
        Some(port) if config.is_protected(port) => {}
        Some(port) => {
            return Some(format!(
                "port {port} is in neither [gm] server_ports nor client_ports: without the kernel's \
                 policy its traffic would be in clear"
            ));
        }
        None => return Some("it is for any local port".into()),
    }
    let encap = match sa.dir {
        Some(Dir::In) => spec.outer.and_then(|o| o.dport),
        _ => spec.outer.and_then(|o| o.sport),
    };
    if spec.mode == Mode::UdpEncTun && encap.is_some_and(|p| p != config.gm.encap_port) {
        return Some("its UDP port is not [gm] encap_port".into());
    }
    None
}

fn warn(set: &Set, warnings: &mut Vec<String>) {
    let phone = set.remote;
    if !set.is_whole() {
        let n = set.sas.len();
        warnings.push(format!("{phone}: {n} SAs, a registration has four"));
    }
    if set.sas.iter().any(Member::is_unprotected) {
        warnings.push(format!(
            "{phone}: the kernel kept no replay window; what came before could come again until \
             the phone's next packet has come"
        ));
    }
}

/// The SAs as our data plane installs them, with windows of at most `window`.
pub fn sas(set: &Set, window: u32) -> Vec<NewSa> {
    let one = |sa: &Member| {
        let mut spec = sa.found.spec;
        spec.replay_window = spec.replay_window.min(window);
        Some(NewSa {
            spec,
            keys: sa.found.keys.clone(),
            dir: live::dir(sa.dir?),
            first_seq: None,
        })
    };
    set.sas.iter().filter_map(one).collect()
}
