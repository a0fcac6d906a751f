//! Which active outbound SA protects a packet, and which one has sent the
//! packet that an ICMP error quotes.

use std::net::IpAddr;

use gm_abi::maps::Addr;
use gm_esp::{InnerFlow, Sa, SelProto, Selector};
use gm_sadb::Finder;

use crate::config::map_addr;

/// The SAs that slots hold.
pub(crate) trait Sas {
    /// The traffic of the SA in a slot.
    fn selector(&self, slot: u32) -> Option<Selector>;
    /// What names it outside.
    fn outside(&self, slot: u32) -> Option<Outside>;
    /// When it was activated, by [`Flows::add`].
    fn since(&self, slot: u32) -> u64;
}

/// The active outbound SAs, by selector and by what names them outside.
///
/// SAs with exact ports, which is what SIP negotiates, are found by hash.
/// Those that were set up by hand may leave ports open; they are few and stand
/// in a list. Where several fit, the one activated last wins, so that a new
/// set takes over from the old one that has the same selectors.
pub(crate) struct Flows {
    exact: Finder,
    open: Vec<(Selector, u32)>,
    /// By outer destination and SPI, which phones choose: of two the newer one.
    outside: Finder,
    /// Activations so far.
    activations: u64,
}

/// Addresses and ports of a SIP flow; both transports share the SA. With the
/// families, so that an IPv4-mapped IPv6 address is not the IPv4 one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FlowKey {
    src: Addr,
    dst: Addr,
    rest: u64,
}

impl FlowKey {
    fn new((src, sport): (IpAddr, u16), (dst, dport): (IpAddr, u16)) -> FlowKey {
        let families = u64::from(src.is_ipv4()) | u64::from(dst.is_ipv4()) << 1;
        FlowKey {
            src: map_addr(src),
            dst: map_addr(dst),
            rest: u64::from(sport) << 48 | u64::from(dport) << 32 | families,
        }
    }

    /// That of a selector with exact ports.
    fn of(s: &Selector) -> Option<FlowKey> {
        (s.proto == SelProto::UdpTcp)
            .then(|| Some(FlowKey::new((s.src, s.src_port?), (s.dst, s.dst_port?))))?
    }
}

/// What names an SA outside.
pub(crate) type Outside = (Addr, u32);

/// The same of an SA.
pub(crate) fn outside(sa: &Sa) -> Outside {
    (map_addr(sa.destination()), sa.spi())
}

impl Flows {
    /// Room for `slots` SAs.
    pub(crate) fn new(slots: u32) -> Flows {
        Flows {
            exact: Finder::new(slots),
            open: Vec::new(),
            outside: Finder::new(slots),
            activations: 0,
        }
    }

    /// Makes the SA in `slot` the one for its selector; when that was, which
    /// [`Sas::since`] has to say from then on. Idempotent.
    pub(crate) fn add(&mut self, sas: &impl Sas, slot: u32) -> u64 {
        self.remove(sas, slot);
        if let (Some(selector), Some(outside)) = (sas.selector(slot), sas.outside(slot)) {
            match FlowKey::of(&selector) {
                Some(key) => self.exact.insert(&Some(key), slot),
                None => self.open.push((selector, slot)),
            }
            self.outside.insert(&Some(outside), slot);
        }
        self.activations += 1;
        self.activations
    }

    /// Takes the SA in `slot` out. Idempotent.
    pub(crate) fn remove(&mut self, sas: &impl Sas, slot: u32) {
        let (Some(selector), Some(outside)) = (sas.selector(slot), sas.outside(slot)) else {
            return;
        };
        let key = |s: u32| sas.selector(s).and_then(|s| FlowKey::of(&s));
        match FlowKey::of(&selector) {
            Some(own) => self.exact.remove(&Some(own), slot, key),
            None => self.open.retain(|(_, s)| *s != slot),
        }
        let name = |s: u32| sas.outside(s);
        self.outside.remove(&Some(outside), slot, name);
    }

    /// The slot of the SA whose packets go to `dst` with this SPI.
    pub(crate) fn by_spi(&self, sas: &impl Sas, dst: IpAddr, spi: u32) -> Option<u32> {
        let wanted = Some((map_addr(dst), spi));
        let is = |slot: &u32| sas.outside(*slot) == wanted;
        let all = self.outside.all(&wanted).filter(is);
        all.max_by_key(|slot| sas.since(*slot))
    }

    /// The slot of the SA for a packet.
    pub(crate) fn find(&self, sas: &impl Sas, flow: &InnerFlow) -> Option<u32> {
        let exact = flow.ports.and_then(|(sport, dport)| {
            let wanted = FlowKey::new((flow.src, sport), (flow.dst, dport));
            let is = |slot: &u32| {
                let key = sas.selector(*slot).and_then(|s| FlowKey::of(&s));
                key == Some(wanted)
            };
            let all = self.exact.all(&Some(wanted)).filter(is);
            all.max_by_key(|slot| sas.since(*slot))
        });
        exact.or_else(|| {
            self.open
                .iter()
                .rev()
                .find(|(s, _)| s.matches(flow))
                .map(|(_, slot)| *slot)
        })
    }

    /// Whether nothing is active.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.open.is_empty() && self.outside.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use gm_esp::{Mode, SaSpec, Suite};

    use super::*;

    /// SAs by slot, with when they were activated.
    #[derive(Default)]
    struct Given(Vec<(SaSpec, u64)>);

    impl Sas for Given {
        fn selector(&self, slot: u32) -> Option<Selector> {
            self.0.get(slot as usize).map(|(spec, _)| spec.selector)
        }

        fn outside(&self, slot: u32) -> Option<Outside> {
            let (spec, _) = self.0.get(slot as usize)?;
            Some((map_addr(spec.destination()), spec.spi))
        }

        fn since(&self, slot: u32) -> u64 {
            self.0.get(slot as usize).map_or(0, |(_, since)| *since)
        }
    }

    fn add(flows: &mut Flows, sas: &mut Given, slot: u32) {
        sas.0[slot as usize].1 = flows.add(sas, slot);
    }

    fn sas(given: &[(Option<(u16, u16)>, u32)]) -> Given {
        Given(given.iter().map(|(p, spi)| (sa(*p, *spi), 0)).collect())
    }

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
        let mut flows = Flows::new(8);
        let mut s = sas(&[(Some((5060, 5061)), 256); 3]);
        add(&mut flows, &mut s, 2);
        add(&mut flows, &mut s, 1);
        assert_eq!(flows.find(&s, &flow((5060, 5061))), Some(1));
        add(&mut flows, &mut s, 1);
        flows.remove(&s, 1);
        assert_eq!(flows.find(&s, &flow((5060, 5061))), Some(2));
        flows.remove(&s, 2);
        assert_eq!(flows.find(&s, &flow((5060, 5061))), None);
        assert!(flows.is_empty());
    }

    #[test]
    fn what_has_been_sent_is_found_by_destination_and_spi() {
        let mut flows = Flows::new(8);
        let mut s = sas(&[(Some((1, 2)), 300), (Some((3, 4)), 300)]);
        let dst = s.0[0].0.destination();
        add(&mut flows, &mut s, 0);
        add(&mut flows, &mut s, 1);
        assert_eq!(flows.by_spi(&s, dst, 300), Some(1));
        flows.remove(&s, 1);
        assert_eq!(flows.by_spi(&s, dst, 300), Some(0));
        assert_eq!(flows.by_spi(&s, dst, 301), None);
        assert_eq!(flows.by_spi(&s, "10.0.0.3".parse().unwrap(), 300), None);
        flows.remove(&s, 0);
        flows.remove(&s, 0);
        assert!(flows.is_empty());
    }

    #[test]
    fn open_selectors_come_after_exact_ones() {
        let mut flows = Flows::new(8);
        let mut s = sas(&[(None, 256), (Some((1, 2)), 257)]);
        add(&mut flows, &mut s, 0);
        add(&mut flows, &mut s, 1);
        assert_eq!(flows.find(&s, &flow((1, 2))), Some(1));
        assert_eq!(flows.find(&s, &flow((1, 3))), Some(0));
        let other = InnerFlow {
            proto: 132,
            ..flow((1, 3))
        };
        assert_eq!(flows.find(&s, &other), None);
    }
}
