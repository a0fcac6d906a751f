//! Which active outbound SA protects a packet.

use std::collections::HashMap;
use std::net::IpAddr;

use gm_esp::{InnerFlow, SelProto, Selector};

/// Addresses and ports of a SIP flow; both transports share the SA.
type FlowKey = (IpAddr, u16, IpAddr, u16);

/// The active outbound SAs, by selector.
///
/// SAs with exact ports, which is what SIP negotiates, are found by hash.
/// Those that were set up by hand may leave ports open; they are few and stand
/// in a list. Where several fit, the one activated last wins, so that a new
/// set takes over from the old one that has the same selectors.
#[derive(Default)]
pub(crate) struct Flows {
    exact: HashMap<FlowKey, Vec<u32>>,
    open: Vec<(Selector, u32)>,
}

fn key(s: &Selector) -> Option<FlowKey> {
    (s.proto == SelProto::UdpTcp).then_some((s.src, s.src_port?, s.dst, s.dst_port?))
}

impl Flows {
    /// Makes the SA in `slot` the one for its selector. Idempotent.
    pub(crate) fn add(&mut self, selector: &Selector, slot: u32) {
        self.remove(selector, slot);
        match key(selector) {
            Some(k) => self.exact.entry(k).or_default().push(slot),
            None => self.open.push((*selector, slot)),
        }
    }

    /// Takes the SA in `slot` out. Idempotent.
    pub(crate) fn remove(&mut self, selector: &Selector, slot: u32) {
        match key(selector) {
            Some(k) => {
                if let Some(slots) = self.exact.get_mut(&k) {
                    slots.retain(|s| *s != slot);
                    if slots.is_empty() {
                        self.exact.remove(&k);
                    }
                }
            }
            None => self.open.retain(|(_, s)| *s != slot),
        }
    }

    /// The slot of the SA for a packet.
    pub(crate) fn find(&self, flow: &InnerFlow) -> Option<u32> {
        let exact = flow
            .ports
            .and_then(|(sport, dport)| self.exact.get(&(flow.src, sport, flow.dst, dport)))
            .and_then(|slots| slots.last().copied());
        exact.or_else(|| {
            self.open
                .iter()
                .rev()
                .find(|(s, _)| s.matches(flow))
                .map(|(_, slot)| *slot)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(ports: Option<(u16, u16)>) -> Selector {
        Selector {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            src_port: ports.map(|p| p.0),
            dst_port: ports.map(|p| p.1),
            proto: SelProto::UdpTcp,
        }
    }

    fn flow(ports: (u16, u16)) -> InnerFlow {
        let s = selector(None);
        InnerFlow {
            src: s.src,
            dst: s.dst,
            proto: 17,
            ports: Some(ports),
        }
    }

    #[test]
    fn the_set_activated_last_wins_and_the_old_one_comes_back() {
        let mut flows = Flows::default();
        let s = selector(Some((5060, 5061)));
        flows.add(&s, 1);
        flows.add(&s, 2);
        assert_eq!(flows.find(&flow((5060, 5061))), Some(2));
        flows.add(&s, 2);
        flows.remove(&s, 2);
        assert_eq!(flows.find(&flow((5060, 5061))), Some(1));
        flows.remove(&s, 1);
        assert_eq!(flows.find(&flow((5060, 5061))), None);
        assert!(flows.exact.is_empty());
    }

    #[test]
    fn open_selectors_come_after_exact_ones() {
        let mut flows = Flows::default();
        flows.add(&selector(None), 7);
        flows.add(&selector(Some((1, 2))), 8);
        assert_eq!(flows.find(&flow((1, 2))), Some(8));
        assert_eq!(flows.find(&flow((1, 3))), Some(7));
        let other = InnerFlow {
            proto: 132,
            ..flow((1, 3))
        };
        assert_eq!(flows.find(&other), None);
    }
}
