//! What is heard of changes.

use std::time::Duration;

use gm_tests::netns::NetNs;
use gm_xfrm::kernel::{Event, PolicyDir, Topic, Watch, plan};

use crate::ground::{US, Way, address, four, tables};

fn next(watch: &mut Watch) -> Event {
    let event = watch.next(Some(Duration::from_secs(20))).expect("a socket");
    event.expect("an event in 20 s")
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn changes_are_heard_and_a_removed_state_tells_its_last_numbers() {
    gm_tests::needs_esp!();
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut watch = Watch::open(&[Topic::States, Topic::Policies]).expect("a socket");
        let plan = &four(0x1000, 1, Way::Trans4)[0];
        xfrm.add_state(&plan.state).expect("a state");
        let Event::StateAdded(state) = next(&mut watch) else {
            panic!("not a new state");
        };
        assert!(state.is_same_sa(&plan.state));
        xfrm.update_state(&plan.state).expect("an update");
        assert!(matches!(next(&mut watch), Event::StateUpdated(_)));

        let policy = &plan.policies[0];
        xfrm.add_policy(policy).expect("a policy");
        assert!(matches!(next(&mut watch), Event::PolicyAdded(p) if p.is_same(policy)));
        xfrm.update_policy(policy).expect("the same");
        assert!(matches!(next(&mut watch), Event::PolicyUpdated(p) if p.is_same(policy)));
        xfrm.delete_policy(&policy.id).expect("there");
        assert_eq!(next(&mut watch), Event::PolicyRemoved(policy.id));

        let mut last = plan.state.numbers.clone().after(77);
        last.top = 5;
        xfrm.set_numbers(plan.state.id, &last).expect("numbers");
        xfrm.delete_state(plan.state.id).expect("there");
        let Event::StateRemoved {
            id,
            last: Some(state),
        } = next(&mut watch)
        else {
            panic!("not a removed state");
        };
        assert_eq!((id, state.numbers), (plan.state.id, last));

        xfrm.add_state(&plan.state).expect("a state");
        assert!(matches!(next(&mut watch), Event::StateAdded(_)));
        assert_eq!(watch.next(Some(Duration::ZERO)).expect("a socket"), None);
    });
    ns.ip("xfrm state flush");
    ns.ip("xfrm policy flush");
}

/// Who does not read is told that something is missing, once it is, and hears
/// again after that.
#[test]
#[ignore = "needs root"]
fn what_is_lost_is_told() {
    let ns = NetNs::new().expect("root");
    tables(&ns, |xfrm| {
        let mut watch = Watch::with_room(&[Topic::Policies], 64 << 10).expect("a socket");
        let policy = plan::base(
            address(US[0]),
            plan::blocks(5060, 5060)[0],
            17,
            PolicyDir::In,
        );
        for _ in 0..500 {
            xfrm.update_policy(&policy).expect("a policy");
        }
        let mut heard = 0;
        let lost = std::iter::from_fn(|| watch.next(Some(Duration::ZERO)).expect("a socket"))
            .inspect(|_| heard += 1)
            .filter(|event| *event == Event::Lost)
            .count();
        assert_eq!(lost, 1);
        assert!((50..500).contains(&heard), "{heard}");
        xfrm.delete_policy(&policy.id).expect("a policy");
        assert_eq!(next(&mut watch), Event::PolicyRemoved(policy.id));
    });
}
