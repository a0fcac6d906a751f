//! States and policies: made, read, changed, removed.

use gm_esp::Suite;
use gm_tests::netns::NetNs;
use gm_xfrm::kernel::plan::{self, Dir};
use gm_xfrm::kernel::{Numbers, Policy, PolicyDir, Ports, State, StateId};

use crate::ground::{US, Way, address, keys, plan_of, spec, tables};

/// What only the kernel knows taken out.
fn bare(mut state: State) -> State {
    state.counters = Default::default();
    state
}

fn bare_policy(mut policy: Policy) -> Policy {
    (policy.index, policy.added, policy.first_used) = (0, 0, 0);
    policy
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn every_suite_and_mode_comes_back_as_it_was_planned() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut seen = 0;
        for suite in Suite::every() {
            for way in Way::ALL {
                for dir in [Dir::In, Dir::Out] {
                    for esn in [false, true] {
                        seen += 1;
                        let mut spec = spec(0x1000 + seen, suite, way, dir);
                        spec.esn = esn;
                        let plan = plan::sa(&spec, &keys(suite), dir, plan::reqid(7));
                        let case = format!("{suite} {way:?} {dir:?} ESN {esn}");
                        xfrm.add_state(&plan.state)
                            .unwrap_or_else(|e| panic!("{case}: {e}"));
                        let now = xfrm.state(plan.state.id).expect("it is there");
                        assert!(now.counters.added > 0, "{case}");
                        assert_eq!(bare(now.clone()), plan.state, "{case}");
                        let found = plan::found(&now).unwrap_or_else(|e| panic!("{case}: {e}"));
                        assert_eq!(
                            (found.spec, found.keys),
                            (with_ports(spec), keys(suite)),
                            "{case}"
                        );
                        assert!(plan::is_our_state(&now) && now.is_same_sa(&plan.state));
                    }
                }
            }
        }
        let all = xfrm.states().expect("a dump");
        assert_eq!(all.len(), seen as usize);
        for state in all {
            let one = xfrm.state(state.id).expect("one of them");
            assert_eq!(bare(state), bare(one));
        }
    });
}

/// The kernel has no unknown port but 0 for both sides; our own one is known.
fn with_ports(mut spec: gm_esp::SaSpec) -> gm_esp::SaSpec {
    if let Some(outer) = &mut spec.outer {
        outer.sport = outer.sport.filter(|port| *port != 0);
    }
    spec
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn what_is_there_or_is_not_is_said() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let plan = plan_of(0x1000, Suite::HmacSha1AesCbc, Way::Trans4, Dir::In);
        let id = plan.state.id;
        assert!(xfrm.state(id).expect_err("none").is_missing());
        assert!(xfrm.delete_state(id).expect_err("none").is_missing());
        assert!(
            xfrm.update_state(&plan.state)
                .expect_err("none")
                .is_missing()
        );
        assert!(
            xfrm.set_numbers(id, &plan.state.numbers)
                .expect_err("none")
                .is_missing()
        );
        xfrm.add_state(&plan.state).expect("a state");
        let twice = xfrm.add_state(&plan.state).expect_err("there is one");
        assert!(twice.is_exists());
        assert_eq!(
            twice.to_string(),
            "state SPI 0x00001000 to 192.0.2.1 exists"
        );
        xfrm.delete_state(id).expect("it was there");
        assert_eq!(xfrm.states().expect("a dump"), []);
        // What the kernel's cryptography lacks is named.
        let mut odd = plan.state.clone();
        odd.algorithms.crypt.as_mut().expect("CBC").name = "cbc(rot13)".into();
        let lacks = xfrm
            .add_state(&odd)
            .expect_err("no such cipher")
            .to_string();
        assert!(
            lacks.contains("hmac(sha1) with cbc(rot13)") && lacks.contains("modules"),
            "{lacks}"
        );
        let ten = StateId { proto: 51, ..id };
        assert!(xfrm.state(ten).expect_err("no AH").is_missing());
    });
}

#[test]
#[ignore = "needs root"]
fn policies_come_back_and_are_replaced_in_place() {
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut planned: Vec<Policy> = Vec::new();
        for way in Way::ALL {
            for dir in [Dir::In, Dir::Out] {
                planned.extend(plan_of(0x1000, Suite::NullAesGcm, way, dir).policies);
            }
        }
        for (us, proto) in US.into_iter().flat_map(|us| [(us, 6), (us, 17)]) {
            for ports in plan::blocks(5060, 5071) {
                for dir in [PolicyDir::In, PolicyDir::Out] {
                    planned.push(plan::base(address(us), ports, proto, dir));
                }
            }
        }
        for policy in &planned {
            assert!(xfrm.policy(&policy.id).expect_err("none yet").is_missing());
            xfrm.add_policy(policy).expect("a policy");
            assert!(xfrm.add_policy(policy).expect_err("once").is_exists());
            let now = xfrm.policy(&policy.id).expect("it is there");
            assert!(now.index != 0 && now.added > 0);
            assert_eq!(&bare_policy(now), policy);
        }
        let all = xfrm.policies().expect("a dump");
        assert_eq!(all.len(), planned.len());
        assert!(all.iter().all(plan::is_our_policy));

        // A replacement has the number of what it replaces, and its place.
        let mut other = planned[2].clone();
        other.templates[0].spi = 0x2000;
        let before = xfrm.policy(&other.id).expect("there").index;
        xfrm.update_policy(&other).expect("a replacement");
        let now = xfrm.policy(&other.id).expect("there");
        assert_eq!((now.index, now.templates[0].spi), (before, 0x2000));
        assert_eq!(xfrm.policies().expect("a dump").len(), planned.len());

        for policy in &planned {
            xfrm.delete_policy(&policy.id).expect("it was there");
        }
        assert!(
            xfrm.delete_policy(&planned[0].id)
                .expect_err("gone")
                .is_missing()
        );
        assert_eq!(xfrm.policies().expect("a dump"), []);
    });
}

#[test]
#[ignore = "needs root"]
fn a_kernel_without_esp_is_told_from_other_trouble() {
    let ns = NetNs::new().expect("root");
    let plan = plan_of(0x1000, Suite::HmacSha1Null, Way::Trans4, Dir::In);
    match tables(&ns, |xfrm| xfrm.add_state(&plan.state)) {
        Ok(()) => {}
        Err(e) => {
            assert!(e.is_unsupported(), "{e}");
            assert!(e.to_string().contains("modules esp4 and esp6"), "{e}");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn blocks_of_ports_are_exactly_these_for_the_kernel() {
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let blocks = plan::blocks(5059, 5071);
        assert_eq!(blocks.len(), 3, "{blocks:?}");
        for ports in blocks {
            let policy = plan::base(address(US[0]), ports, 17, PolicyDir::In);
            xfrm.add_policy(&policy).expect("a block");
            let back = xfrm.policy(&policy.id).expect("there").id.selector.dport;
            assert_eq!(back, ports);
            assert_ne!(back, Ports::ANY);
        }
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn tables_larger_than_one_answer_are_read_whole() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut plan = plan_of(0, Suite::HmacSha1Null, Way::Trans4, Dir::In);
        plan.state.numbers = Numbers::fresh(4096, false);
        // 1.2 kB each, of which an answer holds 32 kB.
        const MANY: u32 = 150;
        for n in 0..MANY {
            plan.state.id.spi = 0x1_0000 + n;
            xfrm.add_state(&plan.state).expect("a state");
        }
        let mut spis: Vec<u32> = xfrm
            .states()
            .expect("a dump")
            .iter()
            .map(|s| s.id.spi)
            .collect();
        spis.sort_unstable();
        assert!(spis.into_iter().eq((0..MANY).map(|n| 0x1_0000 + n)));
    });
}
