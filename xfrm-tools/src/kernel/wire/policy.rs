//! Policies: `xfrm_userpolicy_info`, templates, and what else they have.

use netlink_packet_xfrm as nl;

use super::attrs::{Attrs, align};
use super::state::{mark_in, mark_out};
use super::{Damaged, Request, address, family, is_v6, limits_in, limits_out, mode};
use super::{selector_in, selector_out, wrap};
use crate::kernel::policy::{Action, Policy, PolicyDir, PolicyId, Template};

/// Templates that the kernel takes at most (XFRM_MAX_DEPTH).
const TEMPLATES: usize = 6;

fn dir_out(dir: PolicyDir) -> u8 {
    match dir {
        PolicyDir::In => nl::XFRM_POLICY_IN,
        PolicyDir::Out => nl::XFRM_POLICY_OUT,
        PolicyDir::Forward => nl::XFRM_POLICY_FWD,
    }
}

/// A direction; `None`: one of a socket's own policy, which has higher numbers.
fn dir_in(dir: u8) -> Option<PolicyDir> {
    match dir {
        nl::XFRM_POLICY_IN => Some(PolicyDir::In),
        nl::XFRM_POLICY_OUT => Some(PolicyDir::Out),
        nl::XFRM_POLICY_FWD => Some(PolicyDir::Forward),
        _ => None,
    }
}

/// NEWPOLICY or UPDPOLICY.
pub(crate) fn out(policy: &Policy, kind: u16, flags: u16) -> Request {
    let mut request = Request::new(kind, flags);
    request.fixed(&nl::UserPolicyInfo {
        selector: selector_out(&policy.id.selector),
        lifetime_cfg: limits_out(&policy.limits),
        priority: policy.priority,
        index: policy.index,
        direction: dir_out(policy.id.dir),
        action: match policy.action {
            Action::Allow => nl::XFRM_POLICY_ALLOW,
            Action::Block => nl::XFRM_POLICY_BLOCK,
        },
        flags: policy.flags,
        ..Default::default()
    });
    let templates: Vec<u8> = policy.templates.iter().flat_map(template_out).collect();
    if !templates.is_empty() {
        request.attr(nl::XFRMA_TMPL, &templates);
    }
    mark_out(&mut request, policy.id.mark, policy.id.if_id);
    request
}

fn template_out(template: &Template) -> Vec<u8> {
    use netlink_packet_core::Emitable;
    let raw = nl::UserTemplate {
        id: nl::Id {
            daddr: nl::Address::from_ip(&template.dst),
            spi: template.spi,
            proto: template.proto,
        },
        family: family(template.dst.is_ipv6()),
        saddr: nl::Address::from_ip(&template.src),
        reqid: template.reqid,
        mode: mode(template.wrap),
        share: nl::XFRM_SHARE_ANY,
        optional: template.optional.into(),
        // Any algorithm: the state has the right one.
        aalgos: u32::MAX,
        ealgos: u32::MAX,
        calgos: u32::MAX,
    };
    let mut bytes = vec![0; raw.buffer_len()];
    raw.emit(&mut bytes);
    bytes
}

/// GETPOLICY and DELPOLICY.
pub(crate) fn by_id(id: &PolicyId, kind: u16, flags: u16) -> Request {
    let mut request = Request::new(kind, flags);
    request.fixed(&nl::UserPolicyId {
        selector: selector_out(&id.selector),
        index: 0,
        direction: dir_out(id.dir),
    });
    mark_out(&mut request, id.mark, id.if_id);
    request
}

/// NEWPOLICY and what else begins with `xfrm_userpolicy_info`. `None`: a
/// policy of a socket or of the sub type, which are nobody's here.
pub(crate) fn parse(payload: &[u8], fixed: usize) -> Result<Option<Policy>, Damaged> {
    let raw = nl::UserPolicyInfo::parse(payload).map_err(|_| Damaged("half a policy"))?;
    let Some(dir) = dir_in(raw.direction) else {
        return Ok(None);
    };
    let mut policy = Policy {
        id: PolicyId {
            dir,
            selector: selector_in(&raw.selector, None)?,
            mark: None,
            if_id: 0,
        },
        action: match raw.action {
            nl::XFRM_POLICY_ALLOW => Action::Allow,
            nl::XFRM_POLICY_BLOCK => Action::Block,
            _ => return Err(Damaged("a policy that neither allows nor blocks")),
        },
        priority: raw.priority,
        templates: Vec::new(),
        index: raw.index,
        limits: limits_in(&raw.lifetime_cfg),
        flags: raw.flags,
        added: raw.lifetime_cur.add_time,
        first_used: raw.lifetime_cur.use_time,
    };
    for attr in Attrs::after(payload, fixed) {
        let (kind, value) = attr?;
        match kind {
            nl::XFRMA_TMPL => policy.templates = templates_in(value)?,
            nl::XFRMA_MARK => policy.id.mark = mark_in(value)?,
            nl::XFRMA_IF_ID => {
                policy.id.if_id = super::attrs::u32_at(value, 0).ok_or(Damaged("half a number"))?;
            }
            nl::XFRMA_POLICY_TYPE if value.first() != Some(&nl::XFRM_POLICY_TYPE_MAIN) => {
                return Ok(None);
            }
            _ => {}
        }
    }
    Ok(Some(policy))
}

/// Bytes of `xfrm_userpolicy_info`.
pub(crate) const FIXED: usize = align(nl::XFRM_USER_POLICY_INFO_LEN);

fn templates_in(value: &[u8]) -> Result<Vec<Template>, Damaged> {
    let len = nl::XFRM_USER_TEMPLATE_LEN;
    if !value.len().is_multiple_of(len) || value.len() / len > TEMPLATES {
        return Err(Damaged("half a template, or too many"));
    }
    value
        .chunks_exact(len)
        .map(|bytes| {
            let raw = nl::UserTemplate::parse(bytes).map_err(|_| Damaged("half a template"))?;
            let v6 = is_v6(raw.family)?;
            Ok(Template {
                src: address(&raw.saddr, v6),
                dst: address(&raw.id.daddr, v6),
                spi: raw.id.spi,
                proto: raw.id.proto,
                wrap: wrap(raw.mode),
                reqid: raw.reqid,
                optional: raw.optional != 0,
            })
        })
        .collect()
}

/// What a DELPOLICY event is about.
pub(crate) fn id_in(payload: &[u8]) -> Result<Option<PolicyId>, Damaged> {
    let raw = nl::UserPolicyId::parse(payload).map_err(|_| Damaged("half a policy's name"))?;
    let Some(dir) = dir_in(raw.direction) else {
        return Ok(None);
    };
    let (mut whole, mut mark) = (None, None);
    for attr in Attrs::after(payload, nl::XFRM_USER_POLICY_ID_LEN) {
        match attr? {
            (nl::XFRMA_POLICY, value) => whole = parse(value, value.len())?,
            (nl::XFRMA_MARK, value) => mark = mark_in(value)?,
            _ => {}
        }
    }
    let selector = match whole {
        // One that was removed by its number has no selector in its name.
        Some(policy) => policy.id.selector,
        None => selector_in(&raw.selector, None)?,
    };
    Ok(Some(PolicyId {
        dir,
        selector,
        mark,
        if_id: 0,
    }))
}
