//! Any number of registrations by any writers, in any order, among things that
//! are none: every state is in exactly one place, and no set is torn or mixed.

use std::collections::HashSet;

use proptest::prelude::*;

use super::writers::{Registration, Writer};
use super::*;
use crate::kernel::StateId;

fn registration() -> impl Strategy<Value = (Writer, Registration)> {
    let writer = prop::sample::select(Writer::ALL.to_vec());
    let suites: Vec<gm_esp::Suite> = gm_esp::Suite::every().collect();
    (
        writer,
        prop::sample::select(suites),
        any::<[u8; 16]>(),
        0..3_u8,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(writer, suite, seed, ue, v6, behind_nat)| {
            let mut registration = Registration::example(1, suite);
            let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| seed[at + n]));
            // Few phones, so that many registrations are of one.
            registration.ue = [198, 51, 100, ue].into();
            if v6 {
                registration.pcscf = "2001:db8::1".parse().unwrap();
                registration.ue = format!("2001:db8:5::{ue}").parse().unwrap();
            }
            if behind_nat && !v6 {
                registration.nat = Some(([203, 0, 113, ue].into(), 40_000));
            }
            registration.ports =
                [5000, 6000, 31_000, 32_000].map(|port| port + (word(0) % 900) as u16);
            registration.spis = [0, 4, 8, 12].map(|at| word(at) | 0x100);
            registration.ik = gm_esp::keys::Ik::from_bytes(seed);
            registration.ck = gm_esp::keys::Ck::from_bytes(seed.map(|b| !b));
            (writer, registration)
        })
}

/// Registrations that can be in one kernel together.
fn together(all: Vec<(Writer, Registration)>) -> Vec<(Writer, Registration)> {
    let mut ids = HashSet::new();
    let mut traffic = HashSet::new();
    let mut reqids = HashSet::new();
    let mut kept = Vec::new();
    for (writer, registration) in all {
        let (states, policies) = writer.write(&registration);
        let mut own: Vec<StateId> = states.iter().map(|state| state.id).collect();
        own.sort();
        own.dedup();
        let fits = own.len() == 4
            && own.iter().all(|id| !ids.contains(id))
            && policies.iter().all(|policy| {
                let mut wide = policy.id.selector;
                (wide.proto, wide.user) = (0, 0);
                !traffic.contains(&wide)
            })
            // Writers with a reqid of their own choose one that is free.
            && states.iter().all(|s| s.reqid == 0 || !reqids.contains(&s.reqid) || writer == Writer::Gm);
        if fits {
            ids.extend(own);
            reqids.extend(states.iter().map(|state| state.reqid));
            traffic.extend(policies.iter().map(|policy| {
                let mut wide = policy.id.selector;
                (wide.proto, wide.user) = (0, 0);
                wide
            }));
            kept.push((writer, registration));
        }
    }
    kept
}

proptest! {
    #[test]
    fn sets_come_out_as_they_went_in(
        all in prop::collection::vec(registration(), 0..12),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        order in any::<u64>(),
    ) {
        let all = together(all);
        let (mut states, mut policies) = (Vec::new(), Vec::new());
        for (writer, registration) in &all {
            let (more, more_policies) = writer.write(registration);
            states.extend(more);
            policies.extend(more_policies);
        }
        // Some are not what Gm has, or their state is gone.
        let mut strange = HashSet::new();
        for (at, index) in gone.iter().enumerate() {
            if states.is_empty() {
                break;
            }
            let at_state = index.index(states.len());
            if at == 0 {
                states.remove(at_state);
            } else {
                states[at_state].id.proto = 51;
                strange.insert(states[at_state].id);
            }
        }
        shuffle(&mut states, order);
        shuffle(&mut policies, !order);

        let grouped = group(&states, &policies, |addr| {
            all.iter().any(|(_, registration)| registration.pcscf == addr)
        });
        // Every state is in one place.
        let in_sets = grouped.sets.iter().flat_map(|set| set.sas.iter().map(|sa| sa.state.id));
        let mut found: Vec<StateId> = in_sets
            .chain(grouped.left_out.iter().map(|left| left.id))
            .collect();
        let mut wanted: Vec<StateId> = states.iter().map(|state| state.id).collect();
        found.sort();
        wanted.sort();
        prop_assert_eq!(&found, &wanted);
        // What is left out is what was made strange.
        let left: HashSet<StateId> = grouped.left_out.iter().map(|left| left.id).collect();
        prop_assert_eq!(&left, &strange);
        // Each set is of one registration, and whole where that is.
        let there: HashSet<StateId> = states.iter().map(|state| state.id).collect();
        for set in &grouped.sets {
            let of: Vec<_> = all.iter().filter(|(_, registration)| {
                set.sas.iter().all(|sa| {
                    registration.sas().contains(&(sa.found.spec, sa.dir.unwrap()))
                        && sa.found.keys == registration.keys()
                })
            }).collect();
            prop_assert_eq!(of.len(), 1);
            let left = of[0].1.sas().iter().filter(|(spec, _)| {
                there.contains(&StateId::esp(spec.destination(), spec.spi))
            }).count();
            prop_assert_eq!(set.sas.len(), left);
        }
    }
}

/// What one field of a state or a policy becomes.
fn damage(state: &mut State, policies: &mut [Policy], what: u8, value: u32) {
    let byte = value as u8;
    match what % 12 {
        0 => state.selector.src.prefix = byte,
        1 => state.selector.dport.mask = value as u16,
        2 => state.reqid = value % 4,
        3 => state.wrap = Wrap::Other(byte),
        4 => state.wrap = Wrap::Tunnel,
        5 => state.encap = None,
        6 => state.selector = Selector::all(value.is_multiple_of(2)),
        7 => state.counters.added = u64::from(value) << 32,
        8 => state.algorithms.auth = None,
        9 if state.src.is_ipv4() => state.src = [10, 0, 0, byte].into(),
        10 => (state.numbers.seq, state.numbers.top) = (u64::MAX, u64::MAX),
        _ => {
            for policy in policies.iter_mut().step_by(1 + usize::from(byte % 3)) {
                policy.id.selector.dst.prefix = byte;
                policy.id.selector.sport.port ^= 1;
                policy.templates.truncate(usize::from(byte % 2));
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_there_each_state_is_in_one_place_and_no_set_has_five(
        all in prop::collection::vec(registration(), 1..6),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<u32>()), 0..12),
        local in any::<bool>(),
    ) {
        let (mut states, mut policies) = (Vec::new(), Vec::new());
        for (writer, registration) in together(all) {
            let (more, more_policies) = writer.write(&registration);
            states.extend(more);
            policies.extend(more_policies);
        }
        for (index, what, value) in &damages {
            if states.is_empty() {
                break;
            }
            let at = index.index(states.len());
            damage(&mut states[at], &mut policies, *what, *value);
        }
        let grouped = group(&states, &policies, |_| local);
        let mut found: Vec<StateId> = (grouped.sets.iter())
            .flat_map(|set| set.sas.iter().map(|sa| sa.state.id))
            .chain(grouped.left_out.iter().map(|left| left.id))
            .collect();
        let mut wanted: Vec<StateId> = states.iter().map(|state| state.id).collect();
        found.sort();
        wanted.sort();
        prop_assert_eq!(found, wanted);
        for set in &grouped.sets {
            let of = |dir| set.sas.iter().filter(|sa| sa.dir == Some(dir)).count();
            prop_assert!(of(Dir::In) <= 2 && of(Dir::Out) <= 2);
            prop_assert_eq!(set.is_whole(), set.missing() == (0, 0));
        }
        // And it can be written down, or says what cannot.
        let written = crate::import::file(&grouped);
        prop_assert!(written.is_ok(), "{:?}", written.err());
    }
}

/// Another order, the same for the same number.
fn shuffle<T>(items: &mut [T], mut seed: u64) {
    for at in (1..items.len()).rev() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (seed >> 33) as usize % (at + 1));
    }
}
