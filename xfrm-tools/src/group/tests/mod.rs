//! What everybody writes comes back as the registrations that it was.

mod shuffled;
mod writers;

use std::net::IpAddr;

use gm_api::sad::Dir;

use super::*;
use crate::kernel::{Mark, Net, Ports, Selector, Wrap, unspecified};
use writers::{Registration, Writer};

fn nobody(_: IpAddr) -> bool {
    false
}

/// Whether the set is the registration, to the SPI.
fn is(set: &Set, registration: &Registration) -> bool {
    let mut found: Vec<_> = set.sas.iter().map(|sa| (sa.found.spec, sa.dir)).collect();
    let mut wanted: Vec<_> = registration
        .sas()
        .iter()
        .map(|(spec, dir)| (*spec, Some(*dir)))
        .collect();
    found.sort_by_key(|(spec, _)| spec.spi);
    wanted.sort_by_key(|(spec, _)| spec.spi);
    found == wanted
        && set.local == registration.pcscf
        && set.remote == registration.ue
        && set
            .sas
            .iter()
            .all(|sa| sa.found.keys == registration.keys())
}

#[test]
fn every_writers_registration_is_a_whole_set() {
    for writer in Writer::ALL {
        let registration = Registration::example(1, writer.suite());
        let (states, policies) = writer.write(&registration);
        let grouped = group(&states, &policies, nobody);
        assert_eq!(grouped.left_out, [], "{writer:?}");
        assert_eq!(grouped.other_policies, [], "{writer:?}");
        let [set] = grouped.sets.as_slice() else {
            panic!("{writer:?}: {} sets", grouped.sets.len());
        };
        assert!(set.is_whole() && is(set, &registration), "{writer:?}");
        // Each SA has its own policies, and only those.
        let count: usize = set.sas.iter().map(|sa| sa.policies.len()).sum();
        assert_eq!(count, policies.len(), "{writer:?}");
        for sa in &set.sas {
            assert!(sa.policies.iter().all(|p| direction(p) == sa.dir.unwrap()));
        }
        // Inbound ones first.
        let dirs: Vec<_> = set.sas.iter().filter_map(|sa| sa.dir).collect();
        assert_eq!(dirs, [Dir::In, Dir::In, Dir::Out, Dir::Out]);
    }
}

#[test]
fn a_renewal_is_another_set() {
    for writer in Writer::ALL {
        let old = Registration::example(1, writer.suite());
        let new = old.renewed();
        let (mut states, mut policies) = writer.write(&old);
        let (new_states, new_policies) = writer.write(&new);
        states.extend(new_states);
        for policy in new_policies {
            // Those of the new set replace those with the same traffic.
            policies.retain(|other| other.id != policy.id);
            policies.push(policy);
        }
        let grouped = group(&states, &policies, |addr| addr == old.pcscf);
        assert_eq!(grouped.left_out, [], "{writer:?}");
        assert_eq!(grouped.sets.len(), 2, "{writer:?}");
        assert!(
            is(&grouped.sets[0], &old) && is(&grouped.sets[1], &new),
            "{writer:?}"
        );
    }
}

#[test]
fn without_policies_the_addresses_say_the_direction() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (states, _) = Writer::Kamailio.write(&registration);
    let grouped = group(&states, &[], nobody);
    assert_eq!(grouped.sets, []);
    assert!(
        grouped
            .left_out
            .iter()
            .all(|left| left.why == Why::Direction && left.sa.is_some())
    );
    let grouped = group(&states, &[], |addr| addr == registration.pcscf);
    assert!(is(&grouped.sets[0], &registration));
    // Seen from the other end, the same four go the other way.
    let grouped = group(&states, &[], |addr| addr == registration.ue);
    assert_eq!(grouped.sets[0].local, registration.ue);
    assert!(grouped.sets[0].is_whole());
    // Where both ends are here, nothing is said.
    assert_eq!(group(&states, &[], |_| true).sets, []);
}

#[test]
fn what_is_missing_is_counted() {
    let registration = Registration::example(1, gm_esp::Suite::NullAesGcm);
    let (states, policies) = Writer::Gm.write(&registration);
    let missing = |gone: &[usize]| {
        let kept: Vec<State> = (states.iter().enumerate())
            .filter(|(at, _)| !gone.contains(at))
            .map(|(_, state)| state.clone())
            .collect();
        let grouped = group(&kept, &policies, nobody);
        assert_eq!((grouped.sets.len(), grouped.left_out.len()), (1, 0));
        assert!(!grouped.sets[0].is_whole());
        // Two protocols each.
        assert_eq!(grouped.other_policies.len(), 2 * gone.len());
        grouped.sets[0].missing()
    };
    // The order of the four: in, in, out, out.
    assert_eq!(missing(&[0]), (1, 0));
    assert_eq!(missing(&[2, 3]), (0, 2));
    assert_eq!(missing(&[0, 1, 3]), (2, 1));
}

#[test]
fn what_is_no_sa_of_gm_is_left_out_with_its_reason() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (good, policies) = Writer::Kamailio.write(&registration);
    let with = |change: &dyn Fn(&mut State)| {
        let mut states = good.clone();
        change(&mut states[0]);
        let grouped = group(&states, &policies, nobody);
        let [left] = grouped.left_out.as_slice() else {
            panic!("{:?}", grouped.left_out);
        };
        assert_eq!(left.id, states[0].id);
        // The other three are a set all the same.
        assert_eq!(grouped.sets.len(), 1);
        assert_eq!(grouped.sets[0].sas.len(), 3);
        left.why.clone()
    };
    assert_eq!(with(&|s| s.id.proto = 51), Why::Unfit(Unfit::NotEsp));
    assert_eq!(with(&|s| s.id.spi = 0), Why::Unfit(Unfit::Spi));
    assert_eq!(with(&|s| s.wrap = Wrap::Other(4)), Why::Unfit(Unfit::Mode));
    assert_eq!(with(&|s| s.wrap = Wrap::Tunnel), Why::Unfit(Unfit::Mode));
    assert_eq!(with(&|s| s.selector.proto = 1), Why::Protocol);
    assert_eq!(
        with(&|s| s.selector.src.prefix = 24),
        Why::Unfit(Unfit::Selector)
    );
    assert_eq!(
        with(&|s| s.selector.dport.mask = 0xfffc),
        Why::Unfit(Unfit::Selector)
    );
    let mark = Mark { value: 1, mask: 1 };
    assert_eq!(with(&|s| s.mark = Some(mark)), Why::Unfit(Unfit::Mark));
    assert_eq!(
        with(&|s| s.algorithms.auth.as_mut().unwrap().name = "hmac(sha256)".into()),
        Why::Unfit(Unfit::Algorithms)
    );
    assert_eq!(
        with(&|s| {
            for a in [&mut s.algorithms.auth, &mut s.algorithms.crypt] {
                let a = a.as_mut().unwrap();
                a.key = crate::kernel::Secret::new(&vec![0; a.key.bytes().len()]);
            }
        }),
        Why::Unfit(Unfit::Hidden)
    );
}

#[test]
fn a_state_without_ports_is_an_sa_that_is_in_no_set() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (mut states, mut policies) = Writer::Kamailio.write(&registration);
    states[0].selector.sport = Ports::ANY;
    policies[0].id.selector.sport = Ports::ANY;
    let grouped = group(&states, &policies, nobody);
    let [left] = grouped.left_out.as_slice() else {
        panic!("{:?}", grouped.left_out);
    };
    assert_eq!(left.why, Why::Traffic);
    let entries = grouped.entries();
    assert_eq!(entries.len(), 4);
    assert_eq!(
        (entries[3].set, entries[3].spec.selector.src_port),
        (None, None)
    );
    assert_eq!(entries[0].set, Some(1));
}

#[test]
fn policies_that_differ_do_not_choose_the_traffic() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (mut states, mut policies) = Writer::Kamailio.write(&registration);
    states[0].selector = Selector::all(false);
    let mut other = policies[0].clone();
    other.id.selector.sport = Ports::one(1);
    policies.push(other);
    let grouped = group(&states, &policies, nobody);
    assert_eq!(grouped.left_out[0].why, Why::Policies);
}

#[test]
fn a_wide_policy_says_the_direction_where_no_other_does() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (states, policies) = Writer::Kamailio.write(&registration);
    let mut wide = policies[0].clone();
    wide.id.selector = Selector::between(Net::host(registration.ue), Net::any(false));
    wide.templates[0].reqid = 0;
    wide.templates[0].src = unspecified(false);
    wide.templates[0].dst = unspecified(false);
    let mut out = wide.clone();
    out.id.dir = PolicyDir::Out;
    out.id.selector = Selector::between(Net::any(false), Net::host(registration.ue));
    let grouped = group(&states, &[wide.clone(), out], nobody);
    assert!(is(&grouped.sets[0], &registration));
    // The writer's own go before it.
    let mut all = policies;
    wide.id.dir = PolicyDir::Out;
    all.push(wide);
    assert!(is(&group(&states, &all, nobody).sets[0], &registration));
}

#[test]
fn the_same_keys_for_two_registrations_are_told_apart_by_time_or_not_at_all() {
    let one = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let mut two = Registration::example(2, gm_esp::Suite::HmacSha1AesCbc);
    (two.ue, two.ik, two.ck) = (one.ue, one.ik.clone(), one.ck.clone());
    let (mut states, mut policies) = Writer::Kamailio.write(&one);
    let (more, more_policies) = Writer::Kamailio.write(&two);
    states.extend(more);
    policies.extend(more_policies);
    let grouped = group(&states, &policies, nobody);
    assert_eq!((grouped.sets.len(), grouped.left_out.len()), (0, 8));
    assert!(
        grouped
            .left_out
            .iter()
            .all(|left| left.why == Why::Ambiguous)
    );
    for state in &mut states[4..] {
        state.counters.added += 100;
    }
    // Within a second, they were made together.
    states[1].counters.added += 1;
    let grouped = group(&states, &policies, nobody);
    assert_eq!(grouped.left_out, []);
    assert!(is(&grouped.sets[0], &one) && is(&grouped.sets[1], &two));
}

#[test]
fn numbers_go_on_and_are_not_accepted_twice() {
    let registration = Registration::example(1, gm_esp::Suite::HmacSha1AesCbc);
    let (mut states, policies) = Writer::Kamailio.write(&registration);
    for state in &mut states {
        (state.numbers.seq, state.numbers.top) = (41, 77);
    }
    let entries = group(&states, &policies, nobody).entries();
    let seqs: Vec<_> = entries.iter().map(|sa| (sa.dir.unwrap(), sa.seq)).collect();
    assert_eq!(
        seqs,
        [
            (Dir::In, Some(78)),
            (Dir::In, Some(78)),
            (Dir::Out, Some(42)),
            (Dir::Out, Some(42))
        ]
    );
    // What comes back into a kernel accepts none of them.
    let plan = crate::kernel::plan::entry(&entries[0]).unwrap();
    assert!((1..=77).all(|n| plan.state.numbers.is_seen(n)));
    assert!(!plan.state.numbers.is_seen(78));
}

#[test]
fn a_full_p_cscf_is_grouped_at_once() {
    // Ours share a reqid here. With every state compared with every policy this
    // would take minutes.
    for writer in [Writer::Kamailio, Writer::BySpi, Writer::Gm] {
        let (mut states, mut policies) = (Vec::new(), Vec::new());
        for n in 0..2000_u32 {
            let mut registration = Registration::example(1, writer.suite());
            let [_, b, c, d] = n.to_be_bytes();
            registration.ue = [100, b, c, d].into();
            registration.spis = registration.spis.map(|spi| spi + 4 * n);
            registration.ik =
                gm_esp::keys::Ik::from_bytes([b, c, d, 0].repeat(4).try_into().unwrap());
            let (more, more_policies) = writer.write(&registration);
            states.extend(more);
            policies.extend(more_policies);
        }
        let grouped = group(&states, &policies, nobody);
        assert_eq!((grouped.sets.len(), grouped.left_out.len()), (2000, 0));
        assert!(grouped.sets.iter().all(Set::is_whole));
    }
}
