//! gmespd behind the NAT, as the phone; the P-CSCF is the kernel, whose states follow what it
//! tells about the phone's port.

use std::net::IpAddr;

use gm_esp::{Mode, Suite};
use gm_tests::netns::NetNs;
use gm_xfrm::kernel::{Event, StateId, Topic, Watch, Xfrm};

use crate::gm::{Gmespd, PORT_PC, PORT_PS, WAIT};
use crate::lab::NAMES;
use crate::masquerade::{Masquerade, P_CSCF, PUBLIC, private};
use crate::set::{End, Set};
use crate::sockets::{pass, udp};
use crate::xfrm::Kernel;

/// Waits until the kernel tells of a port, and changes the set's states. The port.
fn follows(watch: &mut Watch, xfrm: &mut Xfrm, set: &Set) -> u16 {
    let told = watch.next(Some(WAIT)).expect("netlink");
    let Some(Event::Mapping { id, new, .. }) = told else {
        panic!("{told:?}");
    };
    let [to_ps, ..] = set.four();
    assert_eq!(
        (id, new.0),
        (StateId::esp(P_CSCF.into(), to_ps.spi), PUBLIC.into())
    );
    for sa in set.four() {
        let mut state = xfrm
            .state(StateId::esp(sa.dst.0, sa.spi))
            .unwrap_or_else(|e| panic!("{e}"));
        let encap = state.encap.as_mut().expect("ESP in UDP");
        match sa.from {
            End::Ue => encap.sport = new.1,
            End::PCscf => encap.dport = new.1,
        }
        xfrm.update_state(&state).unwrap_or_else(|e| panic!("{e}"));
    }
    new.1
}

#[test]
#[ignore = "needs a kernel with ESP"]
fn gmespd_behind_a_masquerade_is_heard_and_followed_by_the_kernel() {
    gm_tests::needs_esp!();
    let (p, ue) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let nat = Masquerade::between(&p, &[&ue]);
    let addresses: [IpAddr; 2] = [private(1).into(), PUBLIC.into()];
    let gm = Gmespd::start(&ue, End::Ue, NAMES[1], &addresses);
    let set = Set {
        private: private(1).into(),
        ..Set::new(
            1,
            Suite::NullAesGcm,
            Mode::UdpEncTun,
            [P_CSCF.into(), PUBLIC.into()],
        )
    };
    let kernel = Kernel::new(p, End::PCscf);
    // The kernel has not been told the phone's port.
    kernel.install(std::slice::from_ref(&set));
    gm.add(std::slice::from_ref(&set));
    let (mut watch, mut xfrm) = kernel.ns.run(|| {
        let watch = Watch::open(&[Topic::Mappings]).unwrap_or_else(|e| panic!("{e}"));
        (watch, Xfrm::open().unwrap_or_else(|e| panic!("{e}")))
    });
    let open = |port| kernel.ns.run(|| udp(P_CSCF.into(), port));
    let (ps, pc) = (open(PORT_PS), open(PORT_PC));
    let [uc, us] = set.ports.map(|port| ue.run(|| udp(PUBLIC.into(), port)));

    pass(&uc, &ps, 100);
    follows(&mut watch, &mut xfrm, &set);
    for len in [1, 1400, 3000, 8192] {
        pass(&ps, &uc, len);
        pass(&pc, &us, len);
        pass(&uc, &ps, len);
        pass(&us, &pc, len);
    }
    for range in ["31000-31099", "32000-32099"] {
        nat.to(&format!(":{range}"));
        nat.forgets();
        // Nothing of the P-CSCF's reaches the phone until it has spoken.
        pass(&uc, &ps, 70);
        let port = follows(&mut watch, &mut xfrm, &set);
        let begin: u16 = range[..5].parse().unwrap();
        assert!((begin..begin + 100).contains(&port), "{port}");
        pass(&ps, &uc, 3000);
        pass(&pc, &us, 100);
    }
    assert_eq!(kernel.errors(), [].into());
    assert_eq!(gm.dropped(), [].into());
}
