//! Which active outbound SA protects a packet, and which one has sent the
//! packet that an ICMP error quotes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use gm_esp::{InnerFlow, SaSpec, SelProto, Selector};

/// Addresses and ports of a SIP flow; both transports share the SA.
type FlowKey = (IpAddr, u16, IpAddr, u16);

/// The active outbound SAs, by selector and by what names them outside.
///
/// SAs with exact ports, which is what SIP negotiates, are found by hash.
/// Those that were set up by hand may leave ports open; they are few and stand
/// in a list. Where several fit, the one activated last wins, so that a new
/// set takes over from the old one that has the same selectors.
#[derive(Default)]
pub(crate) struct Flows {
    exact: HashMap<FlowKey, Vec<u32>>,
    open: Vec<(Selector, u32)>,
    /// By outer destination and SPI, which phones choose: of two the newer one.
    outside: HashMap<(IpAddr, u32), Vec<u32>>,
}

fn key(s: &Selector) -> Option<FlowKey> {
    (s.proto == SelProto::UdpTcp).then_some((s.src, s.src_port?, s.dst, s.dst_port?))
}

impl Flows {
    /// Makes the SA in `slot` the one for its selector. Idempotent.
    pub(crate) fn add(&mut self, sa: &SaSpec, slot: u32) {
        self.remove(sa, slot);
        match key(&sa.selector) {
            Some(k) => self.exact.entry(k).or_default().push(slot),
            None => self.open.push((sa.selector, slot)),
        }
        let outside = (sa.destination(), sa.spi);
        self.outside.entry(outside).or_default().push(slot);
    }

    /// Takes the SA in `slot` out. Idempotent.
    pub(crate) fn remove(&mut self, sa: &SaSpec, slot: u32) {
        match key(&sa.selector) {
            Some(k) => take(&mut self.exact, &k, slot),
            None => self.open.retain(|(_, s)| *s != slot),
        }
        take(&mut self.outside, &(sa.destination(), sa.spi), slot);
    }

    /// The slot of the SA whose packets go to `dst` with this SPI.
    pub(crate) fn by_spi(&self, dst: IpAddr, spi: u32) -> Option<u32> {
        self.outside.get(&(dst, spi))?.last().copied()
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

fn take<K: Eq + Hash>(map: &mut HashMap<K, Vec<u32>>, key: &K, slot: u32) {
    if let Some(slots) = map.get_mut(key) {
        slots.retain(|s| *s != slot);
        if slots.is_empty() {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use gm_esp::{Mode, Suite};

    use super::*;

    fn sa(ports: Option<(u16, u16)>, spi: u32) -> SaSpec {
        SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src: "10.0.0.1".parse().unwrap(),
                dst: "10.0.0.2".parse().unwrap(),
                src_port: ports.map(|p| p.0),
                dst_port: ports.map(|p| p.1),
                proto: SelProto::UdpTcp,
            },
            suite: Suite::HmacSha1Null,
            outer: None,
            esn: false,
            replay_window: 64,
        }
    }

    fn flow(ports: (u16, u16)) -> InnerFlow {
        let s = sa(None, 256).selector;
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
        let s = sa(Some((5060, 5061)), 256);
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
    fn what_has_been_sent_is_found_by_destination_and_spi() {
        let mut flows = Flows::default();
        let (a, b) = (sa(Some((1, 2)), 300), sa(Some((3, 4)), 300));
        let dst = a.destination();
        flows.add(&a, 1);
        flows.add(&b, 2);
        assert_eq!(flows.by_spi(dst, 300), Some(2));
        flows.remove(&b, 2);
        assert_eq!(flows.by_spi(dst, 300), Some(1));
        assert_eq!(flows.by_spi(dst, 301), None);
        assert_eq!(flows.by_spi("10.0.0.3".parse().unwrap(), 300), None);
        flows.remove(&a, 1);
        flows.remove(&a, 1);
        assert!(flows.outside.is_empty());
    }

    #[test]
    fn open_selectors_come_after_exact_ones() {
        let mut flows = Flows::default();
        flows.add(&sa(None, 256), 7);
        flows.add(&sa(Some((1, 2)), 257), 8);
        assert_eq!(flows.find(&flow((1, 2))), Some(8));
        assert_eq!(flows.find(&flow((1, 3))), Some(7));
        let other = InnerFlow {
            proto: 132,
            ..flow((1, 3))
        };
        assert_eq!(flows.find(&other), None);
    }
}
