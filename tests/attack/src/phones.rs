//! Registered phones: SA sets that were set up by hand at the P-CSCF, and what
//! the phones seal with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, anyhow};
use gm_dataplane::{DataPlane, Dir, NewSa, SetId, SetSpec};
use gm_esp::{
    BufferedIv, Ck, Counter, EncapPorts, EspKeys, Ik, MAX_BACK, MAX_FRONT, Mode, Outer, PacketBuf,
    Sa, SaSpec, SelProto, Selected, Selector, Suite, outbound,
};

use crate::lab::{PORT_PC, PORT_PS, ours};
use crate::packet;

/// The phones' protected ports.
const PORT_US: u16 = 6063;
const PORT_UC: u16 = 6064;

/// The UDP port of ESP at the P-CSCF.
const ENCAP: u16 = 4500;

/// One phone with one set of four SAs.
pub struct Phone {
    /// Its number; everything about it comes from that.
    pub number: u32,
    /// Its set at the P-CSCF.
    pub set: SetId,
    /// Its address.
    pub address: IpAddr,
    /// The SA from its client port to port_ps.
    pub sa: Sa,
    /// SPI of the other SA towards the P-CSCF.
    pub other_spi: u32,
    sent: AtomicU64,
}

/// An IV from the operating system, many at a time.
pub type Iv = BufferedIv<fn(&mut [u8])>;

/// Makes one.
pub fn iv() -> Iv {
    BufferedIv::new(|bytes| getrandom::fill(bytes).expect("the system's random bytes"))
}

/// Where the phone of this number is.
fn address(number: u32, v6: bool) -> IpAddr {
    if v6 {
        // One /64 each, as subscribers have.
        let high = (number + 1) as u16;
        IpAddr::V6(Ipv6Addr::new(
            0xfd77,
            1,
            (number >> 16) as u16,
            high,
            0,
            0,
            0,
            2,
        ))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0a40_0100 + number))
    }
}

fn kind(number: u32) -> (Suite, Mode, bool) {
    let suites = Suite::ALL;
    let suite = suites[number as usize % suites.len()];
    // Every suite with each of them.
    match number as usize / suites.len() % 4 {
        0 => (suite, Mode::Trans, true),
        1 => (suite, Mode::UdpEncTun, false),
        _ => (suite, Mode::Trans, false),
    }
}

impl Phone {
    /// Installs a phone's set with random keys. With `foreign` the P-CSCF's
    /// SPIs are none of gmesp's.
    ///
    /// # Errors
    /// What the data plane refuses.
    pub fn install(plane: &DataPlane, number: u32, foreign: bool) -> Result<Phone> {
        let (suite, mode, v6) = kind(number);
        let (us, them) = (ours(v6), address(number, v6));
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| anyhow!("random bytes: {e}"))?;
        let (ik, ck) = bytes.split_at(16);
        let keys = EspKeys::expand(
            suite,
            &Ik::from_bytes(ik.try_into()?),
            &Ck::from_bytes(ck.try_into()?),
        );
        // The phone's own SPIs are below gmesp's.
        let phones = [0x1000_0000 + 2 * number, 0x1000_0001 + 2 * number];
        let spi = |at: u32| match foreign {
            true => Ok(0x2000_0000 + 2 * number + at),
            false => plane.reserve(&phones).map(|r| r.spi),
        };
        let [ps, pc] = [spi(0)?, spi(1)?];
        let spec = |src: (IpAddr, u16), dst: (IpAddr, u16), spi| SaSpec {
            spi,
            mode,
            selector: Selector {
                src: src.0,
                dst: dst.0,
                src_port: Some(src.1),
                dst_port: Some(dst.1),
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: (mode == Mode::UdpEncTun).then_some(Outer {
                src: src.0,
                dst: dst.0,
                sport: None,
                dport: (dst.0 == us).then_some(ENCAP),
            }),
            esn: false,
            replay_window: 64,
        };
        let up = spec((them, PORT_UC), (us, PORT_PS), ps);
        let sas = [
            (up, Dir::In),
            (spec((us, PORT_PS), (them, PORT_UC), phones[0]), Dir::Out),
            (spec((us, PORT_PC), (them, PORT_US), phones[1]), Dir::Out),
            (spec((them, PORT_US), (us, PORT_PC), pc), Dir::In),
        ];
        let sas = sas.map(|(spec, dir)| NewSa {
            spec,
            keys: keys.clone(),
            dir,
            first_seq: None,
        });
        let set = plane.install(SetSpec {
            set: None,
            sas: sas.to_vec(),
        });
        let set = set.with_context(|| format!("install phone {number}"))?;
        plane.activate(set)?;
        // What the NAT made of the source port.
        let outer = up.outer.map(|o| Outer {
            sport: Some(20_000 + (number % 40_000) as u16),
            ..o
        });
        Ok(Phone {
            number,
            set,
            address: them,
            sa: Sa::new(SaSpec { outer, ..up }, &keys)?,
            other_spi: pc,
            sent: AtomicU64::new(0),
        })
    }

    /// Seals a UDP datagram from the phone's client port to port_ps.
    ///
    /// # Errors
    /// Never with a payload that fits.
    pub fn seal(&self, iv: &mut Iv, payload: &[u8]) -> Result<Vec<u8>> {
        let s = &self.sa.selector();
        let plain = packet::udp((s.src, PORT_UC), (s.dst, PORT_PS), payload);
        let mut buffer = vec![0; MAX_FRONT];
        buffer.extend(&plain);
        let end = buffer.len();
        buffer.resize(end + MAX_BACK, 0);
        let refused = |r: gm_dataplane::Reason| anyhow!("cannot seal: {}", r.name());
        let sealed = Selected::new(PacketBuf::new(&mut buffer, MAX_FRONT, end), &self.sa)
            .and_then(|s| s.number(&Counter(&self.sent), EncapPorts::default(), iv))
            .and_then(|n| outbound::seal_one(gm_engines::best(), n))
            .map_err(refused)?;
        Ok(sealed.packet().data().to_vec())
    }

    /// Where ESP begins in its packets, from the IP header.
    pub fn esp_at(&self) -> usize {
        let ip = if self.address.is_ipv6() { 40 } else { 20 };
        ip + if self.sa.mode() == Mode::UdpEncTun {
            8
        } else {
            0
        }
    }
}

/// Installs this many phones.
///
/// # Errors
/// What the data plane refuses.
pub fn register(plane: &DataPlane, count: u32) -> Result<Vec<Phone>> {
    (0..count)
        .map(|n| Phone::install(plane, n, false))
        .collect()
}
