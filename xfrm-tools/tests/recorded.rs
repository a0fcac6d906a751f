//! What kernels have said, read back: messages recorded in the VM from Linux
//! 6.1 and 6.12 (tests/tests/kernel_xfrm/record.rs makes them), and those of
//! Kamailio's ims_ipsec_pcscf with one phone (tests/tests/migrate.rs). Beside
//! each recording is what it must be read as; `GM_BLESS=1` writes that anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use gm_esp::{Ck, EspKeys, Ik};
use gm_xfrm::kernel::{Event, Limits, Message, Policy, State, plan, read};
use proptest::prelude::*;

const KERNELS: [&str; 2] = ["6.1", "6.12"];
const NAMES: [&str; 7] = [
    "states",
    "policies",
    "events",
    "refusals",
    "kamailio-states",
    "kamailio-policies",
    "kamailio-events",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded")
}

fn recording(kernel: &str, name: &str) -> Vec<u8> {
    let path = folder().join(kernel).join(name).with_extension("bin");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    KERNELS
        .into_iter()
        .flat_map(|kernel| NAMES.map(|name| (kernel, name)))
}

/// Times and the kernel's own numbering differ from one recording to the next.
fn state(state: &State) -> String {
    let mut text = format!(
        "{} from {}, {}, reqid {:#x}, flags {:#x} {:#x}, interface {}, mark {:?}\n    {}, user {}\n",
        state.id,
        state.src,
        state.wrap,
        state.reqid,
        state.flags,
        state.extra_flags,
        state.if_id,
        state.mark,
        state.selector,
        state.selector.user,
    );
    let all = &state.algorithms;
    for algorithm in [&all.auth, &all.crypt, &all.aead].into_iter().flatten() {
        let key = hex::encode(algorithm.key.bytes());
        let (name, icv) = (&algorithm.name, algorithm.icv_bits);
        writeln!(text, "    {name} key {key} ICV {icv}").expect("a string");
    }
    if let Some(encap) = state.encap {
        writeln!(text, "    {encap:?}").expect("a string");
    }
    let numbers = &state.numbers;
    let seen: Vec<String> = numbers.seen.iter().map(|w| format!("{w:x}")).collect();
    writeln!(
        text,
        "    sent {}, top {}, window {}, ESN {}, old form {}, seen {}",
        numbers.seq,
        numbers.top,
        numbers.window,
        numbers.esn,
        numbers.legacy,
        seen.join(" ")
    )
    .expect("a string");
    if state.limits != Limits::default() {
        writeln!(text, "    {:?}", state.limits).expect("a string");
    }
    let counters = &state.counters;
    writeln!(
        text,
        "    {} packets, {} bytes, {} stale, {} replays, {} wrong ICVs, used {}",
        counters.packets,
        counters.bytes,
        counters.stale,
        counters.replay,
        counters.icv_failed,
        counters.last_used.is_some()
    )
    .expect("a string");
    text
}

fn policy(policy: &Policy) -> String {
    format!(
        "{}, user {}, {:?}, priority {}, flags {}, interface {}, mark {:?}\n    {:?}\n",
        policy.id,
        policy.id.selector.user,
        policy.action,
        policy.priority,
        policy.flags,
        policy.id.if_id,
        policy.id.mark,
        policy.templates
    )
}

fn line(message: &Message) -> String {
    match message {
        Message::Verdict { code, text } => format!("verdict {code} {text}\n"),
        Message::Other(kind) => format!("other {kind:#x}\n"),
        Message::Event(event) => match event {
            Event::StateAdded(new) => format!("state {}", state(new)),
            Event::StateUpdated(new) => format!("state updated {}", state(new)),
            Event::StateRemoved { id, last } => {
                let last = last.as_ref().map(|last| state(last));
                format!("removed {id}: {}", last.unwrap_or_default())
            }
            Event::PolicyAdded(new) => format!("policy {}", policy(new)),
            Event::PolicyUpdated(new) => format!("policy updated {}", policy(new)),
            event => format!("{event:?}\n"),
        },
    }
}

#[test]
fn recordings_are_read_as_what_they_were() {
    for (kernel, name) in all() {
        let messages = read(&recording(kernel, name));
        assert!(!messages.is_empty());
        let text: String = messages
            .iter()
            .map(|message| line(message.as_ref().expect("a message")))
            .collect();
        let path = folder().join(kernel).join(name).with_extension("txt");
        if std::env::var_os("GM_BLESS").is_some() {
            std::fs::write(&path, &text).expect("written");
        }
        let wanted = std::fs::read_to_string(&path).expect("what it must be");
        assert_eq!(text, wanted, "{}", path.display());
    }
}

/// Each SA of ours comes back with suite, keys and numbers, whatever kernel.
#[test]
fn every_recorded_state_of_ours_is_an_sa_again() {
    for kernel in KERNELS {
        let mut found = 0;
        for message in read(&recording(kernel, "states")) {
            let Ok(Message::Event(Event::StateAdded(state))) = message else {
                continue;
            };
            if state.mark.is_some() {
                assert_eq!(plan::found(&state), Err(plan::Unfit::Mark));
                continue;
            }
            let sa = plan::found(&state).expect("an SA of Gm");
            let ik = Ik::from_bytes(*b"no one's IK 1234");
            let keys = EspKeys::expand(sa.spec.suite, &ik, &Ck::from_bytes(*b"no one's CK 5678"));
            assert_eq!(sa.keys, keys);
            assert!(plan::is_our_state(&state));
            found += 1;
        }
        // Eight suites, three ways, two directions; one with the old window.
        assert_eq!(found, 8 * 3 * 2 + 1, "{kernel}");
    }
}

#[test]
fn no_key_is_in_debug() {
    for (kernel, name) in all() {
        let messages = read(&recording(kernel, name));
        let debug = format!("{messages:?}");
        for message in &messages {
            let Ok(Message::Event(Event::StateAdded(state))) = message else {
                continue;
            };
            let all = &state.algorithms;
            for algorithm in [&all.auth, &all.crypt, &all.aead].into_iter().flatten() {
                let key = algorithm.key.bytes();
                if let Some(part) = key.get(..4) {
                    assert!(!debug.contains(&hex::encode(part)), "{kernel} {name}");
                    assert!(
                        !debug.contains(&format!("{part:?}")[1..]),
                        "{kernel} {name}"
                    );
                }
            }
        }
    }
}

/// The events tell the end of each state of Kamailio's phone with its numbers.
#[test]
fn removed_states_tell_their_last_numbers() {
    for kernel in KERNELS {
        let ends: Vec<u64> = read(&recording(kernel, "kamailio-events"))
            .into_iter()
            .filter_map(|message| match message.expect("a message") {
                Message::Event(Event::StateRemoved { last, .. }) => {
                    let numbers = last.expect("a last word").numbers;
                    Some(numbers.seq.max(numbers.top))
                }
                _ => None,
            })
            .collect();
        assert_eq!(ends.len(), 4, "{kernel}");
        assert!(ends.iter().any(|seq| *seq > 0), "{kernel}: {ends:?}");
    }
}

#[test]
fn a_recording_cut_off_anywhere_ends_with_one_error_or_none() {
    for (kernel, name) in all() {
        let whole = recording(kernel, name);
        let all = read(&whole).len();
        for end in (0..whole.len()).step_by(if whole.len() > 8000 { 61 } else { 1 }) {
            let messages = read(&whole[..end]);
            assert!(messages.len() <= all, "{kernel} {name} {end}");
            let good = messages.iter().filter(|m| m.is_ok()).count();
            assert!(good + 1 >= messages.len(), "{kernel} {name} {end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage anywhere gives messages or errors, never a panic and never more
    /// messages than there is room for.
    #[test]
    fn damaged_messages_are_survived(
        kernel in 0..KERNELS.len(),
        name in 0..NAMES.len(),
        damage in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..20),
        cut in any::<u32>(),
    ) {
        let mut bytes = recording(KERNELS[kernel], NAMES[name]);
        // A part of it, so that the damage is dense.
        let begin = cut as usize % bytes.len() / 4 * 4;
        bytes.drain(..begin);
        for (at, byte) in damage {
            let at = at as usize % bytes.len().min(1200);
            bytes[at] = byte;
        }
        let messages = read(&bytes);
        prop_assert!(messages.len() <= bytes.len() / 16 + 1);
        for message in messages.into_iter().flatten() {
            if let Message::Event(Event::StateAdded(state)) = message {
                prop_assert!(state.numbers.window <= 4096);
                prop_assert!(state.numbers.seen.len() <= 64);
                let _ = plan::found(&state);
            }
        }
    }

    /// The same with messages whose lengths are right, so that what is inside
    /// is looked at.
    #[test]
    fn damaged_attributes_are_survived(
        kernel in 0..KERNELS.len(),
        name in 0..NAMES.len(),
        pick in any::<prop::sample::Index>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let bytes = recording(KERNELS[kernel], NAMES[name]);
        let mut messages = Vec::new();
        let mut rest = &bytes[..];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().expect("four")) as usize;
            messages.push(rest[..length].to_vec());
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        let mut message = pick.get(&messages).clone();
        for (at, byte) in damage {
            let at = 16 + at.index(message.len() - 16);
            message[at] = byte;
        }
        let found = read(&message);
        prop_assert_eq!(found.len(), 1);
    }
}
