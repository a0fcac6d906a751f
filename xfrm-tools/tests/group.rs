//! Kamailio's registration, as kernels listed it, is one whole set of the
//! phone that made it (tests/tests/migrate.rs recorded it).

use std::path::Path;

use gm_api::sad::{Dir, Sad};
use gm_xfrm::group::group;
use gm_xfrm::import;
use gm_xfrm::kernel::{Event, Message, Policy, State, read};

const KERNELS: [&str; 2] = ["6.1", "6.12"];

fn recorded(kernel: &str) -> (Vec<State>, Vec<Policy>) {
    let (mut states, mut policies) = (Vec::new(), Vec::new());
    for name in ["kamailio-states.bin", "kamailio-policies.bin"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
        let path = folder.join(kernel).join(name);
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for message in read(&bytes) {
            match message.expect("a whole message") {
                Message::Event(Event::StateAdded(state)) => states.push(*state),
                Message::Event(Event::PolicyAdded(policy)) => policies.push(*policy),
                Message::Verdict { code: 0, .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    (states, policies)
}

#[test]
fn kamailios_registration_is_one_whole_set() {
    for kernel in KERNELS {
        let (states, policies) = recorded(kernel);
        // No address is asked for: the policies say it all.
        let grouped = group(&states, &policies, |_| unreachable!());
        assert!(grouped.left_out.is_empty() && grouped.other_policies.is_empty());
        let [set] = grouped.sets.as_slice() else {
            panic!("{kernel}: {} sets", grouped.sets.len());
        };
        assert!(set.is_whole());
        assert_eq!(set.local.to_string(), "192.0.2.1");
        assert_eq!(set.remote.to_string(), "192.0.2.10");
        let spis: Vec<u32> = set.sas.iter().map(|sa| sa.found.spec.spi).collect();
        // Its own two are those that it hands out one after the other.
        assert_eq!(
            spis.iter()
                .filter(|spi| (4096..4098).contains(*spi))
                .count(),
            2
        );
        for sa in &set.sas {
            let own = (4096..4098).contains(&sa.found.spec.spi);
            assert_eq!(sa.dir == Some(Dir::In), own);
            assert_eq!(sa.found.spec.suite.to_string(), "hmac-sha-1-96/aes-cbc");
            // IK of 16 octets, with Annex I's zeros behind.
            assert_eq!(sa.found.keys.integrity().unwrap()[16..], [0; 4]);
            assert_eq!(sa.policies.len(), 1);
        }
    }
}

#[test]
fn it_is_imported_with_its_numbers() {
    for kernel in KERNELS {
        let (states, policies) = recorded(kernel);
        let grouped = group(&states, &policies, |_| false);
        let (text, remarks) = import::file(&grouped).unwrap();
        assert_eq!(remarks, Vec::<String>::new());
        let sad = Sad::parse("SAD.toml", &text).unwrap();
        assert_eq!(sad.entries.len(), 4);
        for sa in &sad.entries {
            let state = states.iter().find(|state| state.id.spi == sa.spec.spi);
            let numbers = &state.unwrap().numbers;
            assert_eq!(sa.seq.unwrap_or(1), numbers.seq.max(numbers.top) + 1);
            assert_eq!(sa.set, Some(1));
        }
    }
}
