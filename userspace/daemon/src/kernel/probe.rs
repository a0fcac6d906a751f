//! Whether this kernel has ESP, asked before anything else is done: the first phone must
//! not be the one that finds out.

use std::net::IpAddr;

use gm_esp::{Ck, EspKeys, Ik, Mode, SaSpec, SelProto, Selector, Suite};
use gm_xfrm::kernel::plan::{self, Dir};
use gm_xfrm::kernel::{Xfrm, XfrmError};

use super::{KernelError, base};

/// The suites of TS 33.203.
const SUITES: [Suite; 4] = [
    Suite::NullAesGcm,
    Suite::AesGmacNull,
    Suite::HmacSha1AesCbc,
    Suite::HmacSha1Null,
];

/// Makes an SA of each suite and family and removes it at once. That loads modules, too.
///
/// # Errors
/// The kernel has no ESP, or may not be asked. A suite that is missing is a warning: phones
/// that choose it will be refused.
pub fn probe(xfrm: &mut Xfrm, addresses: &[IpAddr]) -> Result<(), KernelError> {
    let of = |v6: bool| addresses.iter().find(move |a| a.is_ipv6() == v6);
    for address in [of(false), of(true)].into_iter().flatten() {
        for suite in SUITES {
            match one(xfrm, *address, suite) {
                Err(error @ XfrmError::NoAlgorithm(..)) => {
                    tracing::warn!("phones that choose {suite} will be refused: {error}");
                }
                done => done?,
            }
        }
    }
    Ok(())
}

fn one(xfrm: &mut Xfrm, address: IpAddr, suite: Suite) -> Result<(), XfrmError> {
    let zero = (Ik::from_bytes([0; 16]), Ck::from_bytes([0; 16]));
    let keys = EspKeys::expand(suite, &zero.0, &zero.1);
    // Of those that no SPI of ours can be, from a port that nobody sends from to itself.
    let mut spi = 256;
    loop {
        let spec = SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src: address,
                dst: address,
                src_port: Some(0),
                dst_port: Some(0),
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: None,
            esn: false,
            replay_window: 64,
        };
        let state = plan::sa(&spec, &keys, Dir::In, plan::reqid(0)).state;
        match xfrm.add_state(&state) {
            Err(error) if error.is_exists() && spi < 512 => spi += 1,
            Err(error) => return Err(error),
            Ok(()) => return base::gone(xfrm.delete_state(state.id)),
        }
    }
}
