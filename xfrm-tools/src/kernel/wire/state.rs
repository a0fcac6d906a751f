//! States: `xfrm_usersa_info` and its attributes.

use netlink_packet_xfrm as nl;

use super::attrs::{Attrs, align, u32_at, u64_at};
use super::{Damaged, Request, address, family, is_v6, mode, replay, wrap};
use super::{limits_in, limits_out, selector_in, selector_out};
use crate::kernel::numbers::Numbers;
use crate::kernel::state::{Algorithm, Algorithms, Counters, Encap, Mark, Secret, State, StateId};

/// Bytes of an algorithm's name.
const NAME: usize = 64;
/// Names are shown; longer ones than this the kernel has not got.
const KEY_MAX: usize = 512;

/// NEWSA or UPDSA.
pub(crate) fn out(state: &State, kind: u16, flags: u16) -> Request {
    let mut request = Request::new(kind, flags);
    let numbers = &state.numbers;
    request.fixed(&nl::UserSaInfo {
        selector: selector_out(&state.selector),
        id: nl::Id {
            daddr: nl::Address::from_ip(&state.id.dst),
            spi: state.id.spi,
            proto: state.id.proto,
        },
        saddr: nl::Address::from_ip(&state.src),
        lifetime_cfg: limits_out(&state.limits),
        reqid: state.reqid,
        family: family(state.id.dst.is_ipv6()),
        mode: mode(state.wrap),
        replay_window: match numbers.legacy {
            true => u8::try_from(numbers.window).unwrap_or(0),
            false => 0,
        },
        flags: match numbers.esn {
            true => state.flags | nl::XFRM_STATE_ESN,
            false => state.flags,
        },
        ..Default::default()
    });
    algorithms_out(&mut request, &state.algorithms);
    if let Some(encap) = &state.encap {
        let mut value = [0; 24];
        put(&mut value, 0, &encap.kind.to_ne_bytes());
        put(&mut value, 2, &encap.sport.to_be_bytes());
        put(&mut value, 4, &encap.dport.to_be_bytes());
        request.attr(nl::XFRMA_ENCAP, &value);
    }
    numbers_out(&mut request, numbers);
    if state.extra_flags != 0 {
        request.attr(nl::XFRMA_SA_EXTRA_FLAGS, &state.extra_flags.to_ne_bytes());
    }
    mark_out(&mut request, state.mark, state.if_id);
    request
}

pub(crate) fn numbers_out(request: &mut Request, numbers: &Numbers) {
    if numbers.legacy {
        request.attr(nl::XFRMA_REPLAY_VAL, &replay::legacy_out(numbers));
    } else {
        request.attr(nl::XFRMA_REPLAY_ESN_VAL, &replay::esn_out(numbers));
    }
}

pub(crate) fn mark_out(request: &mut Request, mark: Option<Mark>, if_id: u32) {
    if let Some(mark) = mark {
        let mut value = [0; 8];
        put(&mut value, 0, &mark.value.to_ne_bytes());
        put(&mut value, 4, &mark.mask.to_ne_bytes());
        request.attr(nl::XFRMA_MARK, &value);
    }
    if if_id != 0 {
        request.attr(nl::XFRMA_IF_ID, &if_id.to_ne_bytes());
    }
}

fn algorithms_out(request: &mut Request, algorithms: &Algorithms) {
    let Algorithms { auth, crypt, aead } = algorithms;
    for (algorithm, kind) in [
        (auth, nl::XFRMA_ALG_AUTH_TRUNC),
        (crypt, nl::XFRMA_ALG_CRYPT),
        (aead, nl::XFRMA_ALG_AEAD),
    ] {
        if let Some(algorithm) = algorithm {
            // The kernel's default for the ICV is asked for by the older form.
            let plain = kind == nl::XFRMA_ALG_AUTH_TRUNC && algorithm.icv_bits == 0;
            let kind = if plain { nl::XFRMA_ALG_AUTH } else { kind };
            algorithm_out(request, kind, algorithm);
        }
    }
}

fn algorithm_out(request: &mut Request, kind: u16, algorithm: &Algorithm) {
    let key = algorithm.key.bytes();
    let mut value = zeroize::Zeroizing::new(Vec::with_capacity(NAME + 8 + key.len()));
    // The last byte of the name ends it.
    value.extend(algorithm.name.bytes().take(NAME - 1));
    value.resize(NAME, 0);
    value.extend_from_slice(&(8 * key.len() as u32).to_ne_bytes());
    if matches!(kind, nl::XFRMA_ALG_AUTH_TRUNC | nl::XFRMA_ALG_AEAD) {
        value.extend_from_slice(&algorithm.icv_bits.to_ne_bytes());
    }
    value.extend_from_slice(key);
    request.attr(kind, &value);
}

fn algorithm_in(value: &[u8], icv: bool) -> Result<Algorithm, Damaged> {
    let half = Damaged("half an algorithm");
    let name = value.get(..NAME).ok_or(half)?;
    let name = name.split(|b| *b == 0).next().unwrap_or_default();
    let name = name
        .iter()
        .map(|b| match b.is_ascii_graphic() {
            true => char::from(*b),
            false => '?',
        })
        .collect();
    let bits = u32_at(value, NAME).ok_or(half)?;
    let icv_bits = match icv {
        true => u32_at(value, NAME + 4).ok_or(half)?,
        false => 0,
    };
    let at = NAME + if icv { 8 } else { 4 };
    let len = bits.div_ceil(8) as usize;
    if len > KEY_MAX {
        return Err(Damaged("a key longer than any algorithm's"));
    }
    let key = value.get(at..at + len).ok_or(half)?;
    Ok(Algorithm {
        name,
        key: Secret::new(key),
        icv_bits,
    })
}

/// NEWSA, UPDSA and what else begins with `xfrm_usersa_info` and has its
/// attributes behind `fixed` bytes.
pub(crate) fn parse(payload: &[u8], fixed: usize) -> Result<State, Damaged> {
    parse_parts(payload, || Attrs::after(payload, fixed))
}

/// DELSA: the name, and the state that it was in an attribute among its own.
pub(crate) fn parse_removed(payload: &[u8]) -> Result<(StateId, Option<State>), Damaged> {
    let raw = nl::UserSaId::parse(payload).map_err(|_| Damaged("half a name"))?;
    let attrs = || Attrs::after(payload, nl::XFRM_USER_SA_ID_LEN);
    for attr in attrs() {
        if let (nl::XFRMA_SA, info) = attr? {
            return Ok((id_in(&raw)?, Some(parse_parts(info, attrs)?)));
        }
    }
    Ok((id_in(&raw)?, None))
}

fn parse_parts<'a>(info: &[u8], attrs: impl Fn() -> Attrs<'a>) -> Result<State, Damaged> {
    let raw = nl::UserSaInfo::parse(info).map_err(|_| Damaged("half a state"))?;
    let v6 = is_v6(raw.family)?;
    let esn = raw.flags & nl::XFRM_STATE_ESN != 0;
    let mut state = State {
        id: StateId {
            dst: address(&raw.id.daddr, v6),
            spi: raw.id.spi,
            proto: raw.id.proto,
        },
        src: address(&raw.saddr, v6),
        wrap: wrap(raw.mode),
        reqid: raw.reqid,
        selector: selector_in(&raw.selector, Some(v6))?,
        algorithms: Algorithms::default(),
        encap: None,
        numbers: Numbers {
            legacy: true,
            esn,
            ..Numbers::default()
        },
        counters: Counters {
            bytes: raw.lifetime_cur.bytes,
            packets: raw.lifetime_cur.packets,
            added: raw.lifetime_cur.add_time,
            first_used: raw.lifetime_cur.use_time,
            last_used: None,
            stale: raw.stats.replay_window,
            replay: raw.stats.replay,
            icv_failed: raw.stats.integrity_failed,
        },
        limits: limits_in(&raw.lifetime_cfg),
        flags: raw.flags & !nl::XFRM_STATE_ESN,
        extra_flags: 0,
        mark: None,
        if_id: 0,
    };
    for attr in attrs() {
        let (kind, value) = attr?;
        let number = || u32_at(value, 0).ok_or(Damaged("half a number"));
        match kind {
            nl::XFRMA_ALG_AEAD => state.algorithms.aead = Some(algorithm_in(value, true)?),
            nl::XFRMA_ALG_AUTH_TRUNC => state.algorithms.auth = Some(algorithm_in(value, true)?),
            // The same once more, without the ICV's length.
            nl::XFRMA_ALG_AUTH if state.algorithms.auth.is_none() => {
                state.algorithms.auth = Some(algorithm_in(value, false)?);
            }
            nl::XFRMA_ALG_CRYPT => state.algorithms.crypt = Some(algorithm_in(value, false)?),
            nl::XFRMA_ENCAP => state.encap = Some(encap_in(value)?),
            nl::XFRMA_REPLAY_ESN_VAL => state.numbers = replay::esn_in(value, esn)?,
            nl::XFRMA_REPLAY_VAL => state.numbers = replay::legacy_in(value, raw.replay_window)?,
            nl::XFRMA_LASTUSED => {
                state.counters.last_used = Some(u64_at(value, 0).ok_or(Damaged("half a time"))?);
            }
            nl::XFRMA_SA_EXTRA_FLAGS => state.extra_flags = number()?,
            nl::XFRMA_IF_ID => state.if_id = number()?,
            nl::XFRMA_MARK => state.mark = mark_in(value)?,
            _ => {}
        }
    }
    Ok(state)
}

/// Bytes of `xfrm_usersa_info`.
pub(crate) const FIXED: usize = align(nl::XFRM_USER_SA_INFO_LEN);

pub(crate) fn mark_in(value: &[u8]) -> Result<Option<Mark>, Damaged> {
    let (Some(value), Some(mask)) = (u32_at(value, 0), u32_at(value, 4)) else {
        return Err(Damaged("half a mark"));
    };
    Ok((value != 0 || mask != 0).then_some(Mark { value, mask }))
}

fn encap_in(value: &[u8]) -> Result<Encap, Damaged> {
    let raw = nl::EncapTmpl::parse(value).map_err(|_| Damaged("half an encapsulation"))?;
    Ok(Encap {
        kind: raw.encap_type,
        sport: raw.encap_sport,
        dport: raw.encap_dport,
    })
}

fn put(room: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = room.get_mut(at..at + value.len()) {
        room.copy_from_slice(value);
    }
}

/// DELSA and GETSA.
pub(crate) fn by_id(id: &StateId, mark: Option<Mark>, kind: u16, flags: u16) -> Request {
    let mut request = Request::new(kind, flags);
    request.fixed(&user_sa_id(id));
    mark_out(&mut request, mark, 0);
    request
}

fn user_sa_id(id: &StateId) -> nl::UserSaId {
    nl::UserSaId {
        daddr: nl::Address::from_ip(&id.dst),
        spi: id.spi,
        family: family(id.dst.is_ipv6()),
        proto: id.proto,
    }
}

/// NEWAE: sets the numbers of a state that is there.
pub(crate) fn numbers_of(
    id: &StateId,
    mark: Option<Mark>,
    numbers: &Numbers,
    flags: u16,
) -> Request {
    let mut request = Request::new(
        nl::XFRM_MSG_NEWAE,
        flags | netlink_packet_core::NLM_F_REPLACE,
    );
    request.fixed(&nl::AsyncEventId {
        sa_id: user_sa_id(id),
        flags: nl::XFRM_AE_RVAL,
        ..Default::default()
    });
    numbers_out(&mut request, numbers);
    mark_out(&mut request, mark, 0);
    request
}

/// The state's name in what begins with `xfrm_usersa_id`.
pub(crate) fn id_in(raw: &nl::UserSaId) -> Result<StateId, Damaged> {
    Ok(StateId {
        dst: address(&raw.daddr, is_v6(raw.family)?),
        spi: raw.spi,
        proto: raw.proto,
    })
}

/// GETAE: asks for the numbers.
pub(crate) fn get_numbers(id: &StateId, flags: u16) -> Request {
    let mut request = Request::new(nl::XFRM_MSG_GETAE, flags);
    request.fixed(&nl::AsyncEventId {
        sa_id: user_sa_id(id),
        flags: nl::XFRM_AE_RVAL,
        ..Default::default()
    });
    request
}
