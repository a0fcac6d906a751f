//! What the kernel has counted, under the names that the reasons have here.

use std::collections::{BTreeMap, HashMap, HashSet};

use gm_dataplane::{Reason, SaStatus, SetId};
use gm_xfrm::kernel::{State, StateId};

use super::control::Control;
use super::guard;

/// The SAs of one set or of all, with what the kernel knows of them.
pub fn rows(control: &Control, states: Vec<State>, of: Option<SetId>) -> Vec<SaStatus> {
    let states: HashMap<StateId, State> = states.into_iter().map(|s| (s.id, s)).collect();
    let now = crate::events::now_ms();
    let rows = control.sadb.list();
    rows.filter(|row| of.is_none_or(|set| set == row.set))
        .map(|row| {
            let id = StateId::esp(row.spec.destination(), row.spec.spi);
            let state = states.get(&id);
            let counters = state.map(|state| state.counters).unwrap_or_default();
            let numbers = state.map(|state| &state.numbers);
            let used = counters.last_used.unwrap_or(counters.first_used);
            let out = row.dir == gm_dataplane::Dir::Out;
            let drops = [
                (Reason::Replay, counters.replay),
                (Reason::Stale, counters.stale),
                (Reason::BadIcv, counters.icv_failed),
            ];
            SaStatus {
                age_ms: control.past.age_ms(row.set),
                set: row.set,
                slot: row.slot,
                dir: row.dir,
                spec: row.spec,
                state: row.state,
                seq: numbers.filter(|_| out).map_or(row.seq, |n| n.seq),
                top: numbers.filter(|_| !out).map_or(row.top, |n| n.top),
                packets: counters.packets,
                bytes: counters.bytes,
                drops: drops
                    .into_iter()
                    .filter(|(_, n)| *n > 0)
                    .map(|(reason, n)| (reason, u64::from(n)))
                    .collect(),
                encap_port: row.encap_port.filter(|_| out),
                idle_ms: (used > 0).then(|| now.saturating_sub(used.saturating_mul(1000))),
            }
        })
        .collect()
}

/// The SAs that are in the book and not in the kernel.
pub fn missing(control: &Control, states: &[State]) -> HashSet<StateId> {
    let there: HashSet<StateId> = states.iter().map(|s| s.id).collect();
    let all = control.book.all().map(|(_, entry)| entry.plan.state.id);
    all.filter(|id| !there.contains(id)).collect()
}

/// What SAs have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    opened: u64,
    sealed: u64,
    replay: u64,
    stale: u64,
    bad_icv: u64,
}

impl Totals {
    /// These too.
    pub fn add(&mut self, rows: &[SaStatus]) {
        for row in rows {
            match row.dir {
                gm_dataplane::Dir::In => self.opened += row.packets,
                gm_dataplane::Dir::Out => self.sealed += row.packets,
            }
            for (reason, n) in &row.drops {
                match reason {
                    Reason::Replay => self.replay += n,
                    Reason::Stale => self.stale += n,
                    Reason::BadIcv => self.bad_icv += n,
                    _ => {}
                }
            }
        }
    }
}

/// The kernel's counters of XFRM, of all that use it in this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XfrmStat(BTreeMap<String, u64>);

impl XfrmStat {
    /// As they are now; none where the kernel counts none.
    pub fn read() -> XfrmStat {
        let text = std::fs::read_to_string("/proc/thread-self/net/xfrm_stat");
        XfrmStat::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> XfrmStat {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let (name, count) = (words.next()?, words.next()?);
            Some((name.to_owned(), count.parse().ok()?))
        };
        XfrmStat(text.lines().filter_map(line).collect())
    }

    /// What was counted since.
    fn since(&self, before: &XfrmStat, name: &str) -> Option<u64> {
        let now = self.0.get(name)?;
        Some(now.saturating_sub(before.0.get(name).copied().unwrap_or(0)))
    }
}

/// All counters that mean the same as one of ours. What has none is left out.
pub fn reasons(
    totals: &Totals,
    guard: &guard::Counts,
    (before, now): (&XfrmStat, &XfrmStat),
) -> BTreeMap<Reason, u64> {
    let mut all = BTreeMap::from([
        (Reason::Ok, totals.opened),
        (Reason::Sealed, totals.sealed),
        (Reason::Replay, totals.replay),
        (Reason::Stale, totals.stale),
        (Reason::BadIcv, totals.bad_icv),
        (Reason::CleartextProtected, guard.cleartext_protected),
        (Reason::OutNoSa, guard.out_no_sa),
        (Reason::ClearIcmp, guard.clear_icmp),
    ]);
    for (reason, name) in [
        (Reason::UnknownSpi, "XfrmInNoStates"),
        // The policies come before the guard on the way out.
        (Reason::OutNoSa, "XfrmOutPolBlock"),
        (Reason::OutSeqExhausted, "XfrmOutStateSeqError"),
    ] {
        if let Some(n) = now.since(before, name) {
            *all.entry(reason).or_default() += n;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_counter_is_left_out() {
        let before = XfrmStat::parse("XfrmInError             \t1\nXfrmInNoStates \t7\n");
        let now = XfrmStat::parse(
            "XfrmInNoStates          \t10\nXfrmOutPolBlock \t4\njunk\nXfrmInBufferError x\n",
        );
        let totals = Totals {
            opened: 5,
            ..Totals::default()
        };
        let guard = guard::Counts {
            out_no_sa: 2,
            ..guard::Counts::default()
        };
        let all = reasons(&totals, &guard, (&before, &now));
        assert_eq!(all[&Reason::Ok], 5);
        assert_eq!(all[&Reason::UnknownSpi], 3);
        assert_eq!(all[&Reason::OutNoSa], 6);
        assert!(
            !all.contains_key(&Reason::OutSeqExhausted),
            "not in the file"
        );
        assert!(!all.contains_key(&Reason::SelectorMismatch));
        let none = reasons(
            &totals,
            &guard,
            (&XfrmStat::default(), &XfrmStat::default()),
        );
        assert_eq!(none[&Reason::OutNoSa], 2);
        assert!(!none.contains_key(&Reason::UnknownSpi));
    }
}
