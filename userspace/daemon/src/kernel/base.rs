//! The base policies: what is protected is blocked in both directions wherever no SA has a
//! policy of its own. They are there before the first SA, and like the guard they stay
//! when the process is killed.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use gm_xfrm::kernel::plan::{self, BASE_PRIORITY, is_our_policy, is_our_state};
use gm_xfrm::kernel::{Policy, PolicyDir, Xfrm, XfrmError};

use super::ports;

const UDP: u8 = 17;
const TCP: u8 = 6;

/// For each address, block of ports, transport and direction one.
pub fn policies(
    addresses: &[IpAddr],
    protected: impl IntoIterator<Item = RangeInclusive<u16>>,
) -> Vec<Policy> {
    let blocks: Vec<_> = ports::merged(protected)
        .into_iter()
        .flat_map(|range| plan::blocks(*range.start(), *range.end()))
        .collect();
    let mut policies = Vec::new();
    for address in addresses {
        for block in &blocks {
            for proto in [UDP, TCP] {
                for dir in [PolicyDir::In, PolicyDir::Out] {
                    policies.push(plan::base(*address, *block, proto, dir));
                }
            }
        }
    }
    policies
}

/// Puts one in force. One of a predecessor is replaced in one step.
///
/// # Errors
/// [`XfrmError::Exists`] where somebody else has a policy for exactly the same.
pub fn put(xfrm: &mut Xfrm, policy: &Policy) -> Result<(), XfrmError> {
    match xfrm.add_policy(policy) {
        Err(error) if error.is_exists() => {
            let there = xfrm.policy(&policy.id)?;
            match there.is_same(policy) {
                true => Ok(()),
                false if is_our_policy(&there) => xfrm.update_policy(policy),
                false => Err(error),
            }
        }
        done => done,
    }
}

/// Takes away what a killed predecessor has left, but for `keep`: first the policies of
/// its SAs, outbound ones before inbound ones, then its states. What is not marked as
/// ours is not touched. How many states that were.
///
/// # Errors
/// The kernel's.
pub fn clear(xfrm: &mut Xfrm, keep: &[Policy]) -> Result<usize, XfrmError> {
    let mut old: Vec<Policy> = xfrm.policies()?;
    old.retain(|policy| is_our_policy(policy) && !keep.iter().any(|k| k.id == policy.id));
    // What blocks goes last.
    old.sort_by_key(|policy| {
        (
            policy.priority == BASE_PRIORITY,
            policy.id.dir == PolicyDir::In,
        )
    });
    for policy in &old {
        gone(xfrm.delete_policy(&policy.id))?;
    }
    let mut states = 0;
    for state in xfrm.states()?.iter().filter(|state| is_our_state(state)) {
        gone(xfrm.delete_state_with(state.id, state.mark))?;
        states += 1;
    }
    Ok(states)
}

/// Takes one away, where it is ours: somebody else's with this selector stays.
///
/// # Errors
/// The kernel's; that there is none is no error.
pub fn take_away(xfrm: &mut Xfrm, policy: &Policy) -> Result<(), XfrmError> {
    match xfrm.policy(&policy.id) {
        Ok(there) if !is_our_policy(&there) => Ok(()),
        Ok(_) => gone(xfrm.delete_policy(&policy.id)),
        Err(error) => gone(Err(error)),
    }
}

/// What is gone already is no error.
pub fn gone(result: Result<(), XfrmError>) -> Result<(), XfrmError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_transports_of_every_protected_port_are_blocked() {
        let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let all = policies(&addresses, [5066..=5066, 5067..=5074, 6000..=6000]);
        // 5066-5074 is 5066/2, 5068/4, 5072/2, 5074; and 6000.
        assert_eq!(all.len(), 2 * 5 * 2 * 2);
        for (address, port, proto, dir) in addresses.iter().flat_map(|address| {
            [5066, 5067, 5074, 6000].into_iter().flat_map(move |port| {
                [UDP, TCP].into_iter().flat_map(move |proto| {
                    [PolicyDir::In, PolicyDir::Out].map(|dir| (address, port, proto, dir))
                })
            })
        }) {
            let of = all.iter().filter(|policy| {
                let s = &policy.id.selector;
                let (end, ports) = match dir {
                    PolicyDir::In => (s.dst, s.dport),
                    _ => (s.src, s.sport),
                };
                policy.id.dir == dir
                    && s.proto == proto
                    && end.addr == *address
                    && end.is_host()
                    && port & ports.mask == ports.port
            });
            assert_eq!(of.count(), 1, "{address} {port} {proto} {dir}");
        }
    }
}
