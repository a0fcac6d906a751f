use std::net::IpAddr;

use gm_esp::{Ck, EspKeys, Ik, Mode, Outer, SaSpec, SelProto, Suite};
use netlink_packet_xfrm as nl;
use proptest::prelude::*;

use super::reply::Replies;
use super::*;
use crate::kernel::plan::{self, Dir};
use crate::kernel::state::{Mark, State};
use crate::kernel::{Numbers, Policy, PolicyDir};

fn suites() -> impl Strategy<Value = Suite> {
    prop::sample::select(Suite::every().collect::<Vec<_>>())
}

fn addresses(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<[u8; 16]>().prop_map(move |bytes| match v6 {
        true => IpAddr::from(bytes),
        false => IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]),
    })
}

prop_compose! {
    fn specs()(v6 in any::<bool>())(
        inner in (addresses(v6), addresses(v6)),
        outer in prop::option::of((addresses(v6), addresses(v6))),
        ports in any::<(Option<u16>, Option<u16>)>(),
        encap in any::<(Option<u16>, Option<u16>)>(),
        suite in suites(),
        spi in 1..=u32::MAX,
        esn in any::<bool>(),
        any_proto in any::<bool>(),
        replay_window in 32u32..=4096,
    ) -> SaSpec {
        SaSpec {
            spi,
            mode: if outer.is_some() { Mode::UdpEncTun } else { Mode::Trans },
            selector: gm_esp::Selector {
                src: inner.0,
                dst: inner.1,
                src_port: ports.0,
                dst_port: ports.1,
                proto: if any_proto { SelProto::Any } else { SelProto::UdpTcp },
            },
            suite,
            outer: outer.map(|(src, dst)| Outer { src, dst, sport: encap.0, dport: encap.1 }),
            esn,
            replay_window,
        }
    }
}

fn keys(suite: Suite, secret: [u8; 16]) -> EspKeys {
    EspKeys::expand(suite, &Ik::from_bytes(secret), &Ck::from_bytes(secret))
}

/// The one message of a request.
fn payload(bytes: &[u8]) -> (u16, Vec<u8>) {
    let mut replies = Replies::of(bytes);
    let reply = replies.next().expect("a message").expect("whole");
    assert!(replies.next().is_none());
    assert_eq!(reply.number, 7);
    (reply.kind, reply.payload.to_vec())
}

proptest! {
    /// A request for a state says what the kernel would say of it.
    #[test]
    fn states_are_read_as_they_are_written(
        spec in specs(),
        secret in any::<[u8; 16]>(),
        seq in any::<u64>(),
        top in any::<u64>(),
        holes in any::<u32>(),
        mark in any::<Option<(u32, u32)>>(),
        if_id in any::<u32>(),
        legacy in any::<bool>(),
        flags in any::<u8>(),
        limits in any::<[[u64; 2]; 4]>(),
    ) {
        let limit = |n: u64| if spec.esn { n } else { n & 0xffff_ffff };
        let window = if legacy && !spec.esn { 32 } else { spec.replay_window };
        let mut numbers = Numbers::with_window(
            limit(seq), limit(top), window, spec.esn, |k| holes >> (k % 32) & 1 == 1,
        );
        numbers.legacy = legacy && !spec.esn;
        let dir = if seq % 2 == 0 { Dir::In } else { Dir::Out };
        let plan = plan::sa_with(&spec, &keys(spec.suite, secret), dir, 5, numbers);
        let state = State {
            mark: mark.filter(|m| *m != (0, 0)).map(|(value, mask)| Mark { value, mask }),
            if_id,
            flags: flags & !nl::XFRM_STATE_ESN,
            limits: crate::kernel::Limits {
                bytes: limits[0],
                packets: limits[1],
                added: limits[2],
                used: limits[3],
            },
            ..plan.state
        };
        let bytes = state::out(&state, nl::XFRM_MSG_NEWSA, 0).finish(7);
        // What it was given room for at first was enough: no copy was left.
        prop_assert!(bytes.capacity() == 4096, "{}", bytes.capacity());
        let (kind, payload) = payload(&bytes);
        prop_assert_eq!(kind, nl::XFRM_MSG_NEWSA);
        prop_assert_eq!(state::parse(&payload, state::FIXED), Ok(state));
    }

    /// The same of policies.
    #[test]
    fn policies_are_read_as_they_are_written(
        spec in specs(), out in any::<bool>(), user in any::<u32>(), index in any::<u32>(),
        mark in any::<Option<(u32, u32)>>(), ports in any::<(u16, u16)>(),
    ) {
        let dir = if out { Dir::Out } else { Dir::In };
        let mut all: Vec<Policy> = plan::policies(&spec, dir, 5);
        let blocks = plan::blocks(ports.0.min(ports.1), ports.0.max(ports.1));
        for block in blocks {
            all.push(plan::base(spec.selector.src, block, 6, PolicyDir::Out));
            all.push(plan::base(spec.selector.src, block, 17, PolicyDir::In));
        }
        for mut policy in all {
            policy.id.selector.user = user;
            policy.index = index;
            policy.id.mark = mark.filter(|m| *m != (0, 0)).map(|(value, mask)| Mark { value, mask });
            let bytes = policy::out(&policy, nl::XFRM_MSG_UPDPOLICY, 0).finish(7);
            let (_, payload) = payload(&bytes);
            prop_assert_eq!(policy::parse(&payload, policy::FIXED), Ok(Some(policy)));
        }
    }

    /// Any bytes at all.
    #[test]
    fn anything_is_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = crate::kernel::read(&bytes);
        let _ = state::parse(&bytes, state::FIXED);
        let _ = state::parse_removed(&bytes);
        let _ = policy::parse(&bytes, policy::FIXED);
        let _ = policy::id_in(&bytes);
        let _ = event::numbers(&bytes, None);
    }
}

#[test]
fn a_refusal_has_the_kernels_words_wherever_they_stand() {
    let words = |flags: u16, between: usize| {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&netlink_packet_core::NLMSG_ERROR.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes.extend_from_slice(&(-libc::EINVAL).to_ne_bytes());
        // The request: its header says how long it is.
        let mut request = vec![0xaa; between];
        request[..4].copy_from_slice(&(between as u32).to_ne_bytes());
        bytes.extend_from_slice(&request);
        attrs::put(&mut bytes, 2, &[0; 4]);
        attrs::put(&mut bytes, 1, b"no such \x1b thing\0");
        let length = (bytes.len() as u32).to_ne_bytes();
        bytes[..4].copy_from_slice(&length);
        let mut replies = Replies::of(&bytes);
        replies.next().expect("one").expect("whole").verdict()
    };
    let said = Ok((libc::EINVAL, "no such ? thing".to_string()));
    assert_eq!(words(0x300, HEADER), said, "without the request");
    assert_eq!(
        words(0x200, 300),
        said,
        "with the request, which old kernels send"
    );
    assert_eq!(words(0, HEADER), Ok((libc::EINVAL, String::new())));
    // A request that claims to be longer than it is.
    let mut bytes = vec![0; HEADER + 8];
    bytes[..4].copy_from_slice(&24u32.to_ne_bytes());
    bytes[4] = 2;
    bytes[6..8].copy_from_slice(&0x200u16.to_ne_bytes());
    bytes[20..24].fill(0xff);
    let reply = Replies::of(&bytes).next().expect("one").expect("whole");
    assert_eq!(reply.verdict(), Ok((0, String::new())));
}

#[test]
fn lengths_that_cannot_be_end_the_reading() {
    for length in [0u32, 15, 17, u32::MAX] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let all: Vec<_> = Replies::of(&bytes).collect();
        assert_eq!(all, [Err(Damaged("half a message"))], "{length}");
    }
    for length in [0u16, 3, 9, u16::MAX] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&length.to_ne_bytes());
        let all: Vec<_> = attrs::Attrs::after(&bytes, 0).collect();
        assert_eq!(all.len(), 1, "{length}");
        assert!(all[0].is_err());
    }
}
