//! What one state is: its traffic, its direction, its policies.

use std::collections::HashMap;
use std::net::IpAddr;

use gm_api::sad::Dir;
use gm_esp::SelProto;

use super::{LeftOut, Member, Why, direction};
use crate::kernel::plan::{self, Unfit};
use crate::kernel::{Action, ESP, Net, Policy, PolicyDir, Ports, Selector, State, Template, Wrap};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a policy is looked for by; first the reqid of its template.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    /// Exactly this traffic.
    Traffic(u32, Hosts, (u16, u16)),
    /// Between these two hosts, but not between one port each.
    PortsOpen(u32, Hosts),
    /// Between these two hosts.
    Between(u32, Hosts),
    /// Not between two hosts.
    HostsOpen(u32),
    /// Any.
    Reqid(u32),
}

/// Source and destination.
type Hosts = (IpAddr, IpAddr);

/// Policies that protect something, so that those of a state are found without
/// looking at all: many states may share a reqid, or their hosts.
pub(super) struct Index<'p>(HashMap<Key, Vec<&'p Policy>>);

impl<'p> Index<'p> {
    pub(super) fn new(policies: &'p [Policy]) -> Index<'p> {
        let mut index: HashMap<Key, Vec<&'p Policy>> = HashMap::new();
        for policy in policies {
            // Gm has one transformation (ESP), never a chain of several.
            let ([template], Action::Allow) = (policy.templates.as_slice(), policy.action) else {
                continue;
            };
            if policy.id.dir == PolicyDir::Forward || template.proto != ESP {
                continue;
            }
            let reqid = template.reqid;
            let keys = match (hosts(&policy.id.selector), ports(&policy.id.selector)) {
                (Some(hosts), Some(ports)) => [
                    Some(Key::Between(reqid, hosts)),
                    Some(Key::Traffic(reqid, hosts, ports)),
                ],
                (Some(hosts), None) => [
                    Some(Key::Between(reqid, hosts)),
                    Some(Key::PortsOpen(reqid, hosts)),
                ],
                (None, _) => [Some(Key::HostsOpen(reqid)), None],
            };
            for key in keys.into_iter().flatten().chain([Key::Reqid(reqid)]) {
                index.entry(key).or_default().push(policy);
            }
        }
        Index(index)
    }

    /// The state as an SA of Gm. Policies that name a state (its reqid or its
    /// SPI) say more of it than those that take any.
    pub(super) fn member(
        &self,
        state: &State,
        is_local: &impl Fn(IpAddr) -> bool,
    ) -> Result<Member, Box<LeftOut>> {
        let left = |why: Why, sa: Option<Member>| {
            Box::new(LeftOut {
                id: state.id,
                why,
                sa: sa.map(Box::new),
            })
        };
        let (naming, any): (Vec<_>, Vec<_>) =
            self.policies(state).into_iter().partition(|policy| {
                let names = |template: &Template| template.reqid != 0 || template.spi != 0;
                policy.templates.first().is_some_and(names)
            });
        let narrow = traffic(state, if naming.is_empty() { &any } else { &naming });
        let narrow = narrow.map_err(|why| left(why, None))?;
        let traffic = exact(&narrow).map_err(|why| left(why, None))?;
        let found = plan::found_with(state, traffic).map_err(|why| left(why.into(), None))?;
        let dir = dir(state, &naming, &any, is_local);
        let policies = naming
            .into_iter()
            .chain(any)
            .filter(|policy| meet(&policy.id.selector, &narrow))
            .filter(|policy| dir.is_none_or(|dir| direction(policy) == dir))
            .cloned()
            .collect();
        let member = Member {
            found,
            dir,
            state: state.clone(),
            policies,
        };
        if traffic.src_port.is_none() || traffic.dst_port.is_none() {
            return Err(left(Why::Traffic, Some(member)));
        }
        if dir.is_none() {
            return Err(left(Why::Direction, Some(member)));
        }
        Ok(member)
    }

    /// The policies that take this state.
    fn policies(&self, state: &State) -> Vec<&'p Policy> {
        // In transport mode the packets have the state's own addresses.
        let between = match state.wrap {
            Wrap::Transport => Some((state.src, state.id.dst)),
            _ => hosts(&state.selector),
        };
        let keys = |reqid| match (between, ports(&state.selector)) {
            (Some(hosts), Some(ports)) => vec![
                Key::Traffic(reqid, hosts, ports),
                Key::PortsOpen(reqid, hosts),
                Key::HostsOpen(reqid),
            ],
            (Some(hosts), None) => vec![Key::Between(reqid, hosts), Key::HostsOpen(reqid)],
            (None, _) => vec![Key::Reqid(reqid)],
        };
        // A template's reqid 0 is any.
        let mut all = keys(state.reqid);
        if state.reqid != 0 {
            all.extend(keys(0));
        }
        all.iter()
            .filter_map(|key| self.0.get(key))
            .flatten()
            .filter(|policy| takes(policy, state))
            .copied()
            .collect()
    }
}

/// The two hosts that a selector is between.
fn hosts(of: &Selector) -> Option<Hosts> {
    (of.src.is_host() && of.dst.is_host()).then_some((of.src.addr, of.dst.addr))
}

/// The two ports that a selector is between.
fn ports(of: &Selector) -> Option<(u16, u16)> {
    Some((of.sport.exact()?, of.dport.exact()?))
}

/// Whether a policy's template and traffic are this state's.
fn takes(policy: &Policy, state: &State) -> bool {
    let Some(template) = policy.templates.first() else {
        return false;
    };
    let of = &policy.id.selector;
    let any_or = |addr: IpAddr, is: IpAddr| addr.is_unspecified() || addr == is;
    let outside = any_or(template.src, state.src) && any_or(template.dst, state.id.dst);
    let inside = match state.wrap {
        Wrap::Transport => covers(&of.src, state.src) && covers(&of.dst, state.id.dst),
        _ => true,
    };
    template.wrap == state.wrap
        && (template.reqid == 0 || template.reqid == state.reqid)
        && (template.spi == 0 || template.spi == state.id.spi)
        && policy.id.mark == state.mark
        && policy.id.if_id == state.if_id
        && outside
        && inside
        && meet(of, &state.selector)
}

/// Whether there is a packet that both are for.
fn meet(a: &Selector, b: &Selector) -> bool {
    let nets = |a: &Net, b: &Net| {
        is_any(a) || is_any(b) || {
            let (wide, narrow) = if a.prefix <= b.prefix { (a, b) } else { (b, a) };
            covers(wide, narrow.addr)
        }
    };
    let ports = |a: &Ports, b: &Ports| (a.port ^ b.port) & a.mask & b.mask == 0;
    nets(&a.src, &b.src)
        && nets(&a.dst, &b.dst)
        && ports(&a.sport, &b.sport)
        && ports(&a.dport, &b.dport)
        && (a.proto == 0 || b.proto == 0 || a.proto == b.proto)
}

/// Whether the address is of the net.
fn covers(net: &Net, addr: IpAddr) -> bool {
    let same = |a: u128, b: u128, width: u32| {
        let rest = width.saturating_sub(net.prefix.into());
        (a ^ b).checked_shr(rest).unwrap_or(0) == 0
    };
    match (net.addr, addr) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        // A selector that was left out is one of IPv4 with no bits.
        _ => is_any(net),
    }
}

fn is_any(net: &Net) -> bool {
    net.prefix == 0
}

/// The hosts and ports of an SA: what the state says, and what it leaves open
/// as all these policies say it. Where nobody names ports they stay any.
fn traffic(state: &State, policies: &[&Policy]) -> Result<Selector, Why> {
    if !matches!(state.selector.proto, 0 | TCP | UDP) {
        return Err(Why::Protocol);
    }
    let mut narrow = state.selector;
    if state.wrap == Wrap::Transport {
        // The packets of a transport mode SA have its addresses (RFC 4301 4.1).
        for (net, addr) in [
            (&mut narrow.src, state.src),
            (&mut narrow.dst, state.id.dst),
        ] {
            if is_any(net) {
                *net = Net::host(addr);
            }
        }
    }
    let own = narrow;
    for (at, policy) in policies.iter().enumerate() {
        let of = &policy.id.selector;
        let mut said = own;
        for (net, by) in [(&mut said.src, &of.src), (&mut said.dst, &of.dst)] {
            if is_any(net) {
                *net = *by;
            }
        }
        for (ports, by) in [(&mut said.sport, &of.sport), (&mut said.dport, &of.dport)] {
            if ports.mask == 0 {
                *ports = *by;
            }
        }
        if at > 0 && said != narrow {
            return Err(Why::Policies);
        }
        narrow = said;
    }
    Ok(narrow)
}

/// The same where it is between two hosts, each with one port or any.
fn exact(of: &Selector) -> Result<gm_esp::Selector, Why> {
    let one = |ports: &Ports| match (ports.mask, ports.exact()) {
        (0, _) => Ok(None),
        (_, Some(port)) => Ok(Some(port)),
        _ => Err(Why::Unfit(Unfit::Selector)),
    };
    let Some((src, dst)) = hosts(of) else {
        return Err(Why::Unfit(Unfit::Selector));
    };
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(Why::Unfit(Unfit::Selector));
    }
    Ok(gm_esp::Selector {
        src,
        dst,
        src_port: one(&of.sport)?,
        dst_port: one(&of.dport)?,
        proto: SelProto::UdpTcp,
    })
}

/// Inbound or outbound: by the policies that name the state, else by those that
/// take any, else by which end is this host.
fn dir(
    state: &State,
    naming: &[&Policy],
    any: &[&Policy],
    is_local: &impl Fn(IpAddr) -> bool,
) -> Option<Dir> {
    let one = |policies: &[&Policy]| {
        let first = direction(policies.first()?);
        let all = policies.iter().all(|policy| direction(policy) == first);
        all.then_some(first)
    };
    one(naming).or_else(|| one(any)).or_else(|| {
        match (is_local(state.src), is_local(state.id.dst)) {
            (true, false) => Some(Dir::Out),
            (false, true) => Some(Dir::In),
            _ => None,
        }
    })
}
