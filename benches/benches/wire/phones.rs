//! Registered phones, and what they send and get: SIP datagrams of one length,
//! sealed ahead of time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::AtomicU64;

use anyhow::{Context, Result, anyhow};
use gm_attack::packet::udp;
use gm_dataplane::{DataPlane, Dir, NewSa, SetSpec};
use gm_esp::outbound::seal;
use gm_esp::{
    BATCH, BufferedIv, Ck, Counter, EncapPorts, EspKeys, Ik, MAX_BACK, MAX_FRONT, Mode, Numbered,
    PacketBuf, Sa, SaSpec, SelProto, Selected, Selector, Suite,
};

use crate::world::{OURS, World};
use crate::{PORT_PC, PORT_PS};

/// Phones that send in turn.
pub const FLOWS: usize = 64;

/// The phones' protected ports.
const PORT_US: u16 = 6063;
pub const PORT_UC: u16 = 6064;

/// Bytes of an Ethernet header.
const ETH: usize = 14;

/// One phone with one set of four SAs.
struct Phone {
    /// From its client port to port_ps.
    up: Sa,
    sent: AtomicU64,
}

/// [`FLOWS`] phones of one suite.
pub struct Phones {
    /// Their suite.
    pub suite: Suite,
    phones: Vec<Phone>,
}

/// Address of a phone; each suite has its own.
pub fn address(suite: Suite, number: usize) -> Ipv4Addr {
    let suites = Suite::ALL.iter().position(|s| *s == suite);
    let third = suites.map_or(0, |at| at as u8) + 1;
    Ipv4Addr::new(10, 64, third, number as u8 + 1)
}

/// A SIP datagram of `bytes` from a phone's client port to port_ps, or back.
pub fn datagram(suite: Suite, number: usize, bytes: usize, inbound: bool) -> Vec<u8> {
    let ends = [
        (IpAddr::from(address(suite, number)), PORT_UC),
        (IpAddr::from(OURS), PORT_PS),
    ];
    let [src, dst] = if inbound { ends } else { [ends[1], ends[0]] };
    udp(src, dst, &payload(bytes))
}

/// What is in it.
pub fn payload(bytes: usize) -> Vec<u8> {
    b"OPTIONS sip:pcscf SIP/2.0\r\n"
        .iter()
        .copied()
        .cycle()
        .take(bytes)
        .collect()
}

/// Bytes that ESP adds to a datagram of `bytes` in transport mode.
pub fn overhead(suite: Suite, bytes: usize) -> usize {
    let t = suite.transform();
    let payload = 8 + bytes + 2;
    8 + t.iv_len() + 2 + payload.next_multiple_of(t.block()) - payload + t.icv_len()
}

impl Phones {
    /// Installs and activates their sets, with keys of their own.
    ///
    /// # Errors
    /// What the data plane refuses.
    pub fn install(plane: &DataPlane, suite: Suite) -> Result<Phones> {
        let phones = (0..FLOWS)
            .map(|n| Phone::install(plane, suite, n))
            .collect::<Result<_>>()?;
        Ok(Phones { suite, phones })
    }

    /// Seals `count` datagrams of `bytes`, the phones in turn, each with its
    /// next number.
    ///
    /// # Errors
    /// Never with lengths that fit a packet.
    pub fn seal(&self, world: &World, bytes: usize, count: usize) -> Result<Frames> {
        self.seal_of(FLOWS, world, bytes, count)
    }

    /// The same from the first phone alone.
    ///
    /// # Errors
    /// As [`Phones::seal`].
    pub fn seal_one(&self, world: &World, bytes: usize, count: usize) -> Result<Frames> {
        self.seal_of(1, world, bytes, count)
    }

    fn seal_of(&self, flows: usize, world: &World, bytes: usize, count: usize) -> Result<Frames> {
        let plain: Vec<_> = (0..FLOWS)
            .map(|n| datagram(self.suite, n, bytes, true))
            .collect();
        let len = plain.first().map_or(0, Vec::len);
        let mut frames = Frames::new(ETH + MAX_FRONT + len + MAX_BACK, count);
        let mut iv = BufferedIv::new(|bytes: &mut [u8]| {
            getrandom::fill(bytes).expect("the system's random bytes");
        });
        let Frames {
            bytes,
            stride,
            places,
        } = &mut frames;
        let batches = bytes
            .chunks_mut(*stride * BATCH)
            .zip(places.chunks_mut(BATCH));
        for (batch, (slots, places)) in batches.enumerate() {
            let mut numbered: [Option<Numbered<'_, '_>>; BATCH] = [const { None }; BATCH];
            let each = slots.chunks_mut(*stride).zip(&mut numbered);
            for (i, (slot, numbered)) in each.enumerate() {
                let flow = (batch * BATCH + i) % flows;
                let (phone, body) = (&self.phones[flow], &mut slot[ETH..]);
                body[MAX_FRONT..MAX_FRONT + len].copy_from_slice(&plain[flow]);
                let packet = PacketBuf::new(body, MAX_FRONT, MAX_FRONT + len);
                let done = Selected::new(packet, &phone.up)
                    .and_then(|s| s.number(&Counter(&phone.sent), EncapPorts::default(), &mut iv))
                    .map_err(|reason| anyhow!("cannot seal: {}", reason.name()))?;
                *numbered = Some(done);
            }
            seal(gm_engines::best(), &mut numbered, |i, sealed| {
                if let Ok(sealed) = sealed {
                    let packet = sealed.packet();
                    places[i] = (packet.start(), ETH + packet.end());
                }
            });
        }
        for (slot, (start, end)) in bytes.chunks_mut(*stride).zip(places.iter()) {
            if end == start {
                return Err(anyhow!("cannot seal"));
            }
            slot[*start..*start + ETH].copy_from_slice(&world.head_in);
        }
        Ok(frames)
    }
}

impl Phone {
    fn install(plane: &DataPlane, suite: Suite, number: usize) -> Result<Phone> {
        let (us, them) = (IpAddr::from(OURS), IpAddr::from(address(suite, number)));
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|e| anyhow!("random bytes: {e}"))?;
        let (ik, ck) = bytes.split_at(16);
        let keys = EspKeys::expand(
            suite,
            &Ik::from_bytes(ik.try_into()?),
            &Ck::from_bytes(ck.try_into()?),
        );
        // Below gmesp's own.
        let phones = {
            let [.., third, last] = address(suite, number).octets();
            let at = 0x1000_0000 + (u32::from(third) << 16) + (u32::from(last) << 1);
            [at, at + 1]
        };
        let spi = || plane.reserve(&phones).map(|r| r.spi);
        let [ps, pc] = [spi()?, spi()?];
        let spec = |src: (IpAddr, u16), dst: (IpAddr, u16), spi| SaSpec {
            spi,
            mode: Mode::Trans,
            selector: Selector {
                src: src.0,
                dst: dst.0,
                src_port: Some(src.1),
                dst_port: Some(dst.1),
                proto: SelProto::UdpTcp,
            },
            suite,
            outer: None,
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
        let set = SetSpec {
            set: None,
            sas: sas.to_vec(),
        };
        let set = plane
            .install(set)
            .with_context(|| format!("install phone {number}"))?;
        plane.activate(set)?;
        Ok(Phone {
            up: Sa::new(up, &keys)?,
            sent: AtomicU64::new(0),
        })
    }
}

/// Ethernet frames in one piece of memory, in the order in which they are sent.
pub struct Frames {
    bytes: Vec<u8>,
    stride: usize,
    /// Of each its start and end in its stride.
    places: Vec<(usize, usize)>,
}

impl Frames {
    fn new(stride: usize, count: usize) -> Frames {
        Frames {
            bytes: vec![0; stride * count],
            stride,
            places: vec![(0, 0); count],
        }
    }

    /// `count` datagrams of `bytes` in clear, the phones in turn, and behind each
    /// as many bytes as `trailer` says, which IP does not count.
    pub fn plain(
        (suite, bytes): (Suite, usize),
        head: [u8; 14],
        inbound: bool,
        (trailer, count): (usize, usize),
    ) -> Frames {
        let plain: Vec<_> = (0..FLOWS)
            .map(|n| datagram(suite, n, bytes, inbound))
            .collect();
        let len = ETH + plain.first().map_or(0, Vec::len);
        let mut frames = Frames::new(len + trailer, count);
        for (i, slot) in frames.bytes.chunks_mut(len + trailer).enumerate() {
            slot[..ETH].copy_from_slice(&head);
            slot[ETH..len].copy_from_slice(&plain[i % FLOWS]);
        }
        frames.places.fill((0, len + trailer));
        frames
    }

    /// The same from the first phone alone.
    pub fn plain_one(
        (suite, bytes): (Suite, usize),
        head: [u8; 14],
        (trailer, count): (usize, usize),
    ) -> Frames {
        let mut one = Frames::plain((suite, bytes), head, true, (trailer, 1));
        let frame = std::mem::take(&mut one.bytes);
        one.bytes = frame.repeat(count);
        one.places = vec![(0, one.stride); count];
        one
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// One of them; places go round.
    pub fn get(&self, at: usize) -> &[u8] {
        let at = at % self.places.len();
        let (start, end) = self.places[at];
        &self.bytes[at * self.stride..][start..end]
    }
}
