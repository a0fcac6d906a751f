//! What the kernel tells those who listen.

use netlink_packet_xfrm as nl;

use super::attrs::Attrs;
use super::reply::Reply;
use super::{Damaged, address, is_v6, policy, replay, state};
use crate::kernel::numbers::Numbers;
use crate::kernel::watch::Event;

/// The event that a message is; `None`: nothing that anybody here asks for.
pub(crate) fn parse(reply: &Reply<'_>) -> Result<Option<Event>, Damaged> {
    let payload = reply.payload;
    Ok(Some(match reply.kind {
        nl::XFRM_MSG_NEWSA => Event::StateAdded(Box::new(state::parse(payload, state::FIXED)?)),
        nl::XFRM_MSG_UPDSA => Event::StateUpdated(Box::new(state::parse(payload, state::FIXED)?)),
        nl::XFRM_MSG_DELSA => {
            let (id, state) = state::parse_removed(payload)?;
            let last = state.map(Box::new);
            Event::StateRemoved { id, last }
        }
        nl::XFRM_MSG_EXPIRE => {
            let raw = nl::UserExpire::parse(payload).map_err(|_| Damaged("half an expiry"))?;
            let state = state::parse(payload, nl::XFRM_USER_EXPIRE_LEN)?;
            Event::StateExpired {
                id: state.id,
                hard: raw.hard != 0,
            }
        }
        nl::XFRM_MSG_FLUSHSA => Event::StatesFlushed,
        nl::XFRM_MSG_FLUSHPOLICY => Event::PoliciesFlushed,
        nl::XFRM_MSG_NEWPOLICY => match policy::parse(payload, policy::FIXED)? {
            Some(policy) => Event::PolicyAdded(Box::new(policy)),
            None => return Ok(None),
        },
        nl::XFRM_MSG_UPDPOLICY => match policy::parse(payload, policy::FIXED)? {
            Some(policy) => Event::PolicyUpdated(Box::new(policy)),
            None => return Ok(None),
        },
        nl::XFRM_MSG_DELPOLICY => match policy::id_in(payload)? {
            Some(id) => Event::PolicyRemoved(id),
            None => return Ok(None),
        },
        nl::XFRM_MSG_MAPPING => {
            let raw = nl::UserMapping::parse(payload).map_err(|_| Damaged("half a mapping"))?;
            let v6 = is_v6(raw.id.family)?;
            Event::Mapping {
                id: state::id_in(&raw.id)?,
                reqid: raw.reqid,
                old: (address(&raw.old_saddr, v6), raw.old_sport),
                new: (address(&raw.new_saddr, v6), raw.new_sport),
            }
        }
        nl::XFRM_MSG_NEWAE => {
            let (id, numbers) = numbers(payload, None)?;
            Event::Numbers { id, numbers }
        }
        nl::XFRM_MSG_ACQUIRE => {
            let raw = nl::UserAcquire::parse(payload).map_err(|_| Damaged("half a wish"))?;
            Event::Wanted {
                selector: super::selector_in(&raw.selector, None)?,
            }
        }
        _ => return Ok(None),
    }))
}

/// State and numbers of a NEWAE. It does not say how large an old window is,
/// nor whether a new one is of 64 bits: `like` does, where there is one.
pub(crate) fn numbers(
    payload: &[u8],
    like: Option<&Numbers>,
) -> Result<(crate::kernel::StateId, Numbers), Damaged> {
    let raw = nl::AsyncEventId::parse(payload).map_err(|_| Damaged("half a replay event"))?;
    let id = state::id_in(&raw.sa_id)?;
    for attr in Attrs::after(payload, nl::XFRM_ASYNC_EVENT_ID_LEN) {
        match attr? {
            (nl::XFRMA_REPLAY_ESN_VAL, value) => {
                // The high halves of a state without ESN are zero.
                let esn = like.is_none_or(|numbers| numbers.esn);
                return Ok((id, replay::esn_in(value, esn)?));
            }
            (nl::XFRMA_REPLAY_VAL, value) => {
                let window = like.map_or(32, |numbers| numbers.window);
                let window = u8::try_from(window).unwrap_or(u8::MAX);
                return Ok((id, replay::legacy_in(value, window)?));
            }
            _ => {}
        }
    }
    Err(Damaged("a replay event without numbers"))
}
