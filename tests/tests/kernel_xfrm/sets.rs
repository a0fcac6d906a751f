//! Sets: all or nothing, twice is once, nothing of others is touched.

use gm_tests::netns::NetNs;
use gm_xfrm::kernel::diff::diff;
use gm_xfrm::kernel::plan::{self, Dir, Plan};
use gm_xfrm::kernel::sets::{self, Reason, With};
use gm_xfrm::kernel::{State, Xfrm};

use crate::ground::{Way, four, tables};

/// SPI and reqid of each state; each policy with the SPI that it leads to.
type Contents = (Vec<(u32, u32)>, Vec<(String, u32)>);

fn contents(xfrm: &mut Xfrm) -> Contents {
    let states = xfrm.states().expect("a dump");
    let mut states: Vec<_> = states.iter().map(|s| (s.id.spi, s.reqid)).collect();
    let policies = xfrm.policies().expect("a dump");
    let spi = |p: &gm_xfrm::kernel::Policy| p.templates.first().map_or(0, |t| t.spi);
    let mut policies: Vec<_> = policies
        .iter()
        .map(|p| (p.id.to_string(), spi(p)))
        .collect();
    states.sort_unstable();
    policies.sort_unstable();
    (states, policies)
}

fn differences(xfrm: &mut Xfrm, plans: &[Plan]) -> Vec<String> {
    let (states, policies) = (
        xfrm.states().expect("states"),
        xfrm.policies().expect("policies"),
    );
    diff(plans, &states, &policies)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn the_same_again_changes_nothing_and_sets_no_number_back() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        for (n, way) in Way::ALL.into_iter().enumerate() {
            let plans = four(0x1000 + 16 * n as u32, n as u64, way);
            let missing = differences(xfrm, &plans);
            assert_eq!(
                missing.iter().filter(|d| d.starts_with("missing")).count(),
                12
            );
            let done = sets::install(xfrm, &plans, With::AllPolicies).expect("a set");
            assert_eq!(
                (done.states, done.policies, done.kept),
                (4, 8, 0),
                "{way:?}"
            );
            let sent = plans[1].state.numbers.clone().after(1234);
            xfrm.set_numbers(plans[1].state.id, &sent).expect("numbers");
            let before = contents(xfrm);
            let done = sets::install(xfrm, &plans, With::AllPolicies).expect("the same set");
            assert_eq!(
                (done.states, done.policies, done.kept),
                (0, 0, 12),
                "{way:?}"
            );
            assert_eq!(xfrm.numbers(plans[1].state.id).expect("numbers"), sent);
            assert_eq!(contents(xfrm), before);
            let done = sets::remove(xfrm, &plans, |_| false).expect("removed");
            assert_eq!(
                (done.states, done.policies, done.kept),
                (4, 8, 0),
                "{way:?}"
            );
            let done = sets::remove(xfrm, &plans, |_| false).expect("removed before");
            assert_eq!(
                (done.states, done.policies, done.kept),
                (0, 0, 12),
                "{way:?}"
            );
            assert_eq!(contents(xfrm), (vec![], vec![]));
        }
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_set_that_cannot_be_is_taken_back_whole() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let plans = four(0x1000, 1, Way::Trans4);
        // Somebody else's state has the last one's SPI.
        let mut other: State = plans[3].state.clone();
        other.reqid = 99;
        xfrm.add_state(&other).expect("another program's");
        let before = contents(xfrm);
        let error = sets::install(xfrm, &plans, With::AllPolicies).expect_err("it is taken");
        assert!(matches!(*error.why, Reason::OtherState), "{error}");
        let said = error.to_string();
        assert!(
            said.starts_with("SPI 0x00001003 to 192.0.2.2: another state"),
            "{said}"
        );
        assert!(said.ends_with("all is as it was before"), "{said}");
        assert_eq!(contents(xfrm), before);
        let error = sets::remove(xfrm, &plans[3..], |_| false).expect_err("not ours");
        assert!(matches!(*error.why, Reason::NotOurs), "{error}");
        xfrm.delete_state(other.id).expect("it is still there");

        // Somebody else's policy has the last one's selector.
        let mut policy = plans[3].policies[1].clone();
        policy.priority = 1;
        xfrm.add_policy(&policy).expect("another program's");
        let before = contents(xfrm);
        let error = sets::install(xfrm, &plans, With::AllPolicies).expect_err("it is taken");
        assert!(matches!(*error.why, Reason::OtherPolicy(_)), "{error}");
        assert_eq!(contents(xfrm), before);

        // An algorithm that the kernel lacks, in the last one of a renewal: the
        // policies lead to the old set again.
        xfrm.delete_policy(&policy.id).expect("it is still there");
        sets::install(xfrm, &plans, With::AllPolicies).expect("a set");
        let before = contents(xfrm);
        let mut renewal = four(0x2000, 2, Way::Trans4);
        renewal[3].policies[1].templates[0].wrap = gm_xfrm::kernel::Wrap::Other(200);
        let error = sets::install(xfrm, &renewal, With::AllPolicies).expect_err("no such mode");
        assert!(matches!(*error.why, Reason::Kernel(_)), "{error}");
        assert_eq!(contents(xfrm), before);
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn a_renewal_shares_inbound_policies_and_moves_outbound_ones() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let (old, new) = (four(0x1000, 1, Way::Tunnel), four(0x2000, 2, Way::Tunnel));
        sets::install(xfrm, &old, With::AllPolicies).expect("the old set");
        let done = sets::install(xfrm, &new, With::InboundPolicies).expect("the new set");
        assert_eq!((done.states, done.policies, done.kept), (4, 0, 4));
        let leads_to = |xfrm: &mut Xfrm, plan: &Plan| {
            let policy = xfrm.policy(&plan.policies[0].id).expect("a policy");
            policy.templates[0].spi
        };
        assert_eq!(leads_to(xfrm, &new[1]), 0x1001);
        let done = sets::activate(xfrm, &new).expect("the new set");
        assert_eq!((done.policies, done.kept), (4, 0));
        assert_eq!(leads_to(xfrm, &old[1]), 0x2001);
        // The old set's policies are the new one's by now.
        let done = sets::retire(xfrm, &old).expect("the old set");
        assert_eq!((done.policies, done.kept), (0, 4));
        let states = xfrm.states().expect("a dump");
        let done = sets::remove(xfrm, &old, sets::shared(&states, &old)).expect("the old set");
        assert_eq!((done.states, done.policies, done.kept), (4, 0, 8));
        assert_eq!(differences(xfrm, &new), Vec::<String>::new());
        let states = xfrm.states().expect("a dump");
        let done = sets::remove(xfrm, &new, sets::shared(&states, &new)).expect("the new set");
        assert_eq!((done.states, done.policies, done.kept), (4, 8, 0));
    });
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn differences_are_named_and_numbers_are_none() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let plans = four(0x1000, 1, Way::Tunnel);
        sets::install(xfrm, &plans, With::AllPolicies).expect("a set");
        let on = plans[1].state.numbers.clone().after(9);
        xfrm.set_numbers(plans[1].state.id, &on).expect("numbers");
        // A port that was learnt.
        let mut learnt = plans[1].state.clone();
        learnt.encap.as_mut().expect("UDP").dport = 40_000;
        xfrm.update_state(&learnt).expect("an update");
        assert_eq!(differences(xfrm, &plans), Vec::<String>::new());

        let mut wanted = plans.clone();
        wanted[0].state.reqid = plan::reqid(5);
        wanted[2].state.algorithms.aead.as_mut().expect("GCM").key =
            gm_xfrm::kernel::Secret::new(&[7; 20]);
        wanted[1].policies[0].templates[0].spi = 0x7777;
        let gone = wanted.remove(3);
        let found = differences(xfrm, &wanted);
        assert_eq!(found.len(), 6, "{found:#?}");
        assert_eq!(
            found[0],
            "differs: state SPI 0x00001000 to 192.0.2.1: reqid"
        );
        assert_eq!(found[1], "differs: state SPI 0x00001002 to 192.0.2.1: keys");
        assert_eq!(found[2], format!("extra: state {}", gone.state.id));
        assert!(found[3].starts_with("differs: policy out") && found[3].ends_with("templates"));
        assert!(found[4].starts_with("extra: policy out") && found[5].starts_with("extra: policy"));
        assert_eq!(gone.dir, Dir::Out);
    });
}
