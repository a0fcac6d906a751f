//! The past of the SAs: since when sets are installed, and the last ones that
//! were removed. What still arrives for those is told apart from what nobody
//! has ever known.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use gm_sadb::{Dir, SetId};

use crate::drops::monotonic_ns;
use crate::{DataPlane, SaStatus};

/// Removed SAs that are remembered.
pub(crate) const REMEMBERED: usize = 4096;

/// An SA that was removed.
#[derive(Clone, Debug, PartialEq)]
pub struct GoneSa {
    /// When, nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// What it was and had counted at the end.
    pub sa: SaStatus,
}

/// What was; for other data planes too.
#[derive(Debug, Default)]
pub struct Past {
    /// When the sets that there are were installed.
    installed: HashMap<SetId, u64>,
    /// Oldest first.
    gone: VecDeque<GoneSa>,
}

impl Past {
    /// A set was installed, or installed again.
    pub fn installed(&mut self, set: SetId) {
        self.installed.entry(set).or_insert_with(monotonic_ns);
    }

    /// Milliseconds since a set was installed.
    pub fn age_ms(&self, set: SetId) -> Option<u64> {
        let at = self.installed.get(&set)?;
        Some(monotonic_ns().saturating_sub(*at) / 1_000_000)
    }

    /// The last 4096 SAs that were removed and that `wanted` wants, the newest first.
    pub fn gone(&self, wanted: impl Fn(&GoneSa) -> bool) -> Vec<GoneSa> {
        let newest = self.gone.iter().rev();
        newest.filter(|gone| wanted(gone)).cloned().collect()
    }

    /// Since when nothing is forgotten of what was removed, nanoseconds of
    /// CLOCK_MONOTONIC; `None`: nothing ever was.
    pub fn since(&self) -> Option<u64> {
        let is_full = self.gone.len() >= REMEMBERED;
        self.gone.front().filter(|_| is_full).map(|gone| gone.at)
    }

    /// A set was removed; these were its SAs.
    pub fn removed(&mut self, set: SetId, sas: impl IntoIterator<Item = SaStatus>) {
        self.installed.remove(&set);
        let at = monotonic_ns();
        for sa in sas {
            if self.gone.len() >= REMEMBERED {
                self.gone.pop_front();
            }
            self.gone.push_back(GoneSa { at, sa });
        }
    }
}

/// The two ends of an SA's packets on the wire: local, peer.
fn ends(sa: &SaStatus) -> (IpAddr, IpAddr) {
    let selector = &sa.spec.selector;
    let (src, dst) = sa
        .spec
        .outer
        .as_ref()
        .map_or((selector.src, selector.dst), |o| (o.src, o.dst));
    match sa.dir {
        Dir::In => (dst, src),
        Dir::Out => (src, dst),
    }
}

impl GoneSa {
    /// The local end of its packets on the wire, and the phone's.
    pub fn ends(&self) -> (IpAddr, IpAddr) {
        ends(&self.sa)
    }

    /// Whether `address` is the phone's, inside or outside.
    pub fn is_peer(&self, address: IpAddr) -> bool {
        let inner = match self.sa.dir {
            Dir::In => self.sa.spec.selector.src,
            Dir::Out => self.sa.spec.selector.dst,
        };
        inner == address || self.ends().1 == address
    }
}

impl DataPlane {
    /// The last 4096 SAs that were removed and that `wanted` wants, the newest
    /// first. Empty when the data plane is down.
    pub fn gone(&self, wanted: impl Fn(&GoneSa) -> bool) -> Vec<GoneSa> {
        self.with(|c| Ok(c.past.gone(wanted))).unwrap_or_default()
    }

    /// Since when all SAs that were removed are remembered, nanoseconds of
    /// CLOCK_MONOTONIC. `None`: since the start.
    pub fn gone_since(&self) -> Option<u64> {
        self.with(|c| Ok(c.past.since())).ok().flatten()
    }

    /// Those of the phone with this address.
    pub fn gone_of(&self, address: IpAddr) -> Vec<GoneSa> {
        self.gone(|gone| gone.is_peer(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_esp::{Mode, Outer, SaSpec, SelProto, Selector, Suite};
    use gm_sadb::SlotState;

    fn sa(set: u64, dir: Dir, outer: Option<Outer>) -> SaStatus {
        let selector = Selector {
            src: [10, 0, 0, 7].into(),
            dst: [10, 0, 0, 1].into(),
            src_port: None,
            dst_port: None,
            proto: SelProto::UdpTcp,
        };
        SaStatus {
            set: SetId(set),
            slot: 0,
            dir,
            spec: SaSpec {
                spi: u32::try_from(set).unwrap(),
                mode: if outer.is_some() {
                    Mode::UdpEncTun
                } else {
                    Mode::Trans
                },
                selector,
                suite: Suite::NullAesGcm,
                outer,
                esn: false,
                replay_window: 64,
            },
            state: SlotState::Removing,
            seq: 0,
            top: 0,
            packets: 3,
            bytes: 0,
            drops: Vec::new(),
            encap_port: None,
            idle_ms: None,
            age_ms: None,
        }
    }

    #[test]
    fn the_last_removed_sas_are_remembered_and_no_more() {
        let mut past = Past::default();
        for set in 1..=3000 {
            assert_eq!(past.since().is_some(), past.gone.len() == REMEMBERED);
            past.installed(SetId(set));
            assert!(past.age_ms(SetId(set)).is_some());
            past.removed(
                SetId(set),
                [sa(set, Dir::In, None), sa(set, Dir::Out, None)],
            );
            assert_eq!(past.age_ms(SetId(set)), None);
        }
        assert_eq!(past.gone.len(), REMEMBERED);
        assert!(past.installed.is_empty());
        assert_eq!(past.since(), past.gone.front().map(|gone| gone.at));
        let (oldest, newest) = (past.gone.front().unwrap(), past.gone.back().unwrap());
        assert_eq!((oldest.sa.set, newest.sa.set), (SetId(953), SetId(3000)));
        assert!(oldest.at <= newest.at && newest.sa.packets == 3);
    }

    #[test]
    fn a_removed_sa_is_the_phones_by_its_inner_and_its_outer_address() {
        let outer = Outer {
            src: [203, 0, 113, 9].into(),
            dst: [192, 0, 2, 1].into(),
            sport: None,
            dport: Some(4500),
        };
        let gone = GoneSa {
            at: 0,
            sa: sa(1, Dir::In, Some(outer)),
        };
        for (address, is) in [
            ("10.0.0.7", true),
            ("203.0.113.9", true),
            ("10.0.0.1", false),
        ] {
            assert_eq!(gone.is_peer(address.parse().unwrap()), is, "{address}");
        }
        assert_eq!(
            gone.ends(),
            ([192, 0, 2, 1].into(), [203, 0, 113, 9].into())
        );
    }
}
