use gm_api::sad::Sad;
use gm_esp::{Ck, Ik, Outer};
use proptest::prelude::*;

use super::*;

fn keys(suite: Suite) -> EspKeys {
    let (ik, ck) = (Ik::from_bytes([0x11; 16]), Ck::from_bytes([0x22; 16]));
    EspKeys::expand(suite, &ik, &ck)
}

fn sad(more: &str) -> Sad {
    let text = format!(
        "[[sa]]\nspi = 4096\nmode = \"trans\"\nsrc = \"192.0.2.2\"\ndst = \"192.0.2.1\"\n\
         src_port = 6100\ndst_port = 5060\nalg = \"hmac-sha-1-96\"\nealg = \"aes-cbc\"\n\
         ik = \"{}\"\nck = \"{}\"\n{more}",
        "11".repeat(16),
        "22".repeat(16)
    );
    Sad::parse("SAD.toml", &text).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_suite_is_named_as_the_kernel_does_and_read_back() {
    for suite in Suite::every() {
        let algorithms = algorithms(&keys(suite));
        let (aead, pair) = (&algorithms.aead, (&algorithms.auth, &algorithms.crypt));
        match (aead, pair) {
            (Some(aead), (None, None)) => {
                assert_eq!((aead.key.bytes().len(), aead.icv_bits), (20, 128));
            }
            (None, (Some(auth), Some(_))) => assert_eq!(auth.icv_bits, 96),
            _ => panic!("{suite}: {algorithms:?}"),
        }
        assert_eq!(super::keys(&algorithms), Ok(keys(suite)));
    }
}

#[test]
fn what_is_no_suite_is_none() {
    let mut all = Vec::new();
    for suite in Suite::every() {
        let good = algorithms(&keys(suite));
        for which in 0..3 {
            let mut bad = good.clone();
            let one = [&mut bad.auth, &mut bad.crypt, &mut bad.aead]
                .into_iter()
                .nth(which);
            if let Some(Some(one)) = one {
                one.name = "hmac(sha256)".to_string();
                all.push(bad);
            }
            let mut bad = good.clone();
            let one = [&mut bad.auth, &mut bad.crypt, &mut bad.aead]
                .into_iter()
                .nth(which);
            if let Some(Some(one)) = one {
                one.key = Secret::new(&[1; 7]);
                all.push(bad);
            }
        }
        let mut bad = good.clone();
        if let Some(one) = bad.auth.as_mut().or(bad.aead.as_mut()) {
            one.icv_bits = 64;
        }
        all.push(bad);
    }
    all.push(Algorithms::default());
    let both = Algorithms {
        aead: algorithms(&keys(Suite::NullAesGcm)).aead,
        ..algorithms(&keys(Suite::HmacSha1Null))
    };
    all.push(both);
    for bad in all {
        assert_eq!(super::keys(&bad), Err(Unfit::Algorithms), "{bad:?}");
    }
}

/// Others give the kernel IK as it is; HMAC makes no difference.
#[test]
fn a_key_without_annex_i_s_zero_bits_is_the_same_key() {
    let mut short = algorithms(&keys(Suite::HmacSha1AesCbc));
    short.auth.as_mut().expect("HMAC").key = Secret::new(&[0x11; 16]);
    assert_eq!(super::keys(&short), Ok(keys(Suite::HmacSha1AesCbc)));
}

#[test]
fn a_file_s_numbers_are_the_first_ones() {
    let plan = |more: &str| entry(&sad(more).entries[0]);
    assert_eq!(plan(""), Err(PlanError::NoDir));
    let out = plan("dir = \"out\"\nseq = 1000\nset = 70000\nreplay_window = 100").expect("a plan");
    assert_eq!((out.state.numbers.seq, out.state.numbers.top), (999, 0));
    assert_eq!(out.state.numbers.window, 128);
    assert_eq!(out.state.reqid, 0x676d_0000 | (70_000 & 0xffff));
    let fresh = plan("dir = \"in\"").expect("a plan");
    assert_eq!(fresh.state.numbers, Numbers::fresh(64, false));
    // What comes before the first number has come.
    let later = plan("dir = \"in\"\nseq = 1000")
        .expect("a plan")
        .state
        .numbers;
    assert_eq!((later.seq, later.top), (0, 999));
    assert!(later.is_seen(999) && later.is_seen(998) && later.is_seen(1) && !later.is_seen(1000));
}

#[test]
fn policies_are_exact_and_outbound_ones_name_their_state() {
    let out = entry(&sad("dir = \"out\"\nset = 5").entries[0]).expect("a plan");
    let [udp, tcp] = out.policies.as_slice() else {
        panic!("{:?}", out.policies);
    };
    assert_eq!((udp.id.selector.proto, tcp.id.selector.proto), (17, 6));
    assert!(out.policies.iter().all(is_our_policy) && is_our_state(&out.state));
    assert_eq!(udp.templates[0].spi, 4096);
    assert_eq!(udp.templates[0].reqid, reqid(5));
    assert_eq!(out.state.selector.proto, 0);
    assert_eq!(udp.id.selector.sport.exact(), Some(6100));
    let inbound = entry(&sad("dir = \"in\"\nset = 5").entries[0]).expect("a plan");
    let template = inbound.policies[0].templates[0];
    assert_eq!((template.spi, template.reqid), (0, 0));
    let any = entry(&sad("dir = \"in\"\nproto = \"any\"").entries[0]).expect("a plan");
    assert_eq!(any.policies.len(), 1);
    assert_eq!(any.policies[0].id.selector.proto, 0);
}

#[test]
fn our_udp_port_is_4500_and_the_phone_s_is_learnt() {
    let outer = Outer {
        src: [198, 51, 100, 1].into(),
        dst: [203, 0, 113, 1].into(),
        sport: None,
        dport: None,
    };
    let mut spec = sad("").entries[0].spec;
    (spec.mode, spec.outer) = (Mode::UdpEncTun, Some(outer));
    let ports = |dir| {
        let plan = sa(&spec, &keys(Suite::HmacSha1AesCbc), dir, 1);
        assert_eq!(plan.state.id.dst, outer.dst);
        assert_eq!(plan.state.src, outer.src);
        assert_eq!(plan.state.wrap, Wrap::Tunnel);
        plan.state.encap.map(|encap| (encap.sport, encap.dport))
    };
    assert_eq!(ports(Dir::In), Some((0, 4500)));
    assert_eq!(ports(Dir::Out), Some((4500, 0)));
}

#[test]
fn states_that_are_none_of_gm_are_told_why() {
    let good = entry(&sad("dir = \"in\"").entries[0])
        .expect("a plan")
        .state;
    assert!(found(&good).is_ok());
    let with = |change: &dyn Fn(&mut State)| {
        let mut state = good.clone();
        change(&mut state);
        found(&state)
    };
    assert_eq!(with(&|s| s.id.proto = 51), Err(Unfit::NotEsp));
    assert_eq!(with(&|s| s.id.spi = 0), Err(Unfit::Spi));
    assert_eq!(with(&|s| s.id.spi = 100).map(|sa| sa.spec.spi), Ok(100));
    assert_eq!(with(&|s| s.if_id = 1), Err(Unfit::Mark));
    assert_eq!(with(&|s| s.wrap = Wrap::Tunnel), Err(Unfit::Mode));
    assert_eq!(with(&|s| s.wrap = Wrap::Other(4)), Err(Unfit::Mode));
    assert_eq!(with(&|s| s.selector.src.prefix = 24), Err(Unfit::Selector));
    assert_eq!(
        with(&|s| s.selector.sport.mask = 0xff00),
        Err(Unfit::Selector)
    );
    assert_eq!(with(&|s| s.algorithms.auth = None), Err(Unfit::Algorithms));
    let hidden = with(&|s| {
        for one in [&mut s.algorithms.auth, &mut s.algorithms.crypt]
            .into_iter()
            .flatten()
        {
            one.key = Secret::new(&vec![0; one.key.bytes().len()]);
        }
    });
    assert_eq!(hidden, Err(Unfit::Hidden));
    // With NULL there is no second key that could be zero.
    let mut null = good.clone();
    null.algorithms = algorithms(&keys(Suite::HmacSha1Null));
    assert!(found(&null).is_ok());
}

proptest! {
    /// The blocks are exactly these ports, each once, and few.
    #[test]
    fn blocks_are_exactly_these_ports(a in any::<u16>(), b in any::<u16>()) {
        let (first, last) = (a.min(b), a.max(b));
        let blocks = blocks(first, last);
        prop_assert!(blocks.len() <= 30);
        let mut covered = vec![0u8; 1 << 16];
        for block in &blocks {
            prop_assert_eq!(block.port & !block.mask, 0);
            for low in 0..=!block.mask {
                covered[usize::from(block.port | low)] += 1;
            }
        }
        for (port, times) in covered.into_iter().enumerate() {
            let wanted = (usize::from(first)..=usize::from(last)).contains(&port);
            prop_assert_eq!(times, u8::from(wanted), "{}", port);
        }
    }
}

#[test]
fn all_ports_are_one_block_and_one_port_is_one() {
    assert_eq!(blocks(0, u16::MAX), [Ports::ANY]);
    assert_eq!(blocks(5060, 5060), [Ports::one(5060)]);
    assert_eq!(blocks(u16::MAX, u16::MAX), [Ports::one(u16::MAX)]);
}

#[test]
fn no_key_is_in_debug() {
    let plan = entry(&sad("dir = \"in\"").entries[0]).expect("a plan");
    let debug = format!("{plan:?} {:?}", found(&plan.state));
    for part in ["17, 17", "34, 34", "1111", "2222"] {
        assert!(!debug.contains(part), "{debug}");
    }
    assert!(debug.contains("Secret(20 bytes)"));
}

#[test]
fn what_is_made_again_ends_when_it_would_have() {
    let none = Limits::default();
    assert_eq!(none.made_again(1000, 5000), none);
    let limits = Limits {
        added: [500, 600],
        ..none
    };
    assert_eq!(limits.made_again(1000, 1100).added, [400, 500]);
    assert_eq!(limits.made_again(1000, 1550).added, [1, 50]);
    assert_eq!(limits.made_again(1000, 9999).added, [1, 1]);
    assert_eq!(limits.made_again(1000, 900).added, [500, 600]);
}
