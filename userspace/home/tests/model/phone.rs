//! One phone: its UE machine, its SAs and where it stands.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gm_esp::{Mode, Suite};
use gm_sip::ue::{Carrier, Ue, UeConfig};

use crate::plane::Plane;
use crate::sim::{SoftSim, Steps};

pub const DOMAIN: &str = "home.example";
/// SPIs of phone n begin at n + 1 times this.
pub const SPI_RANGE: u32 = 1_000_000;

/// What kind of phone this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Does what it should.
    Good,
    /// Behind a NAT and without UDP-enc-tun: is never served (M.7.2).
    NatWithoutTunnel,
    /// Behind the same NAT as another one and with its ports: one of both is refused.
    Contested,
    /// Another one's identity and no key of it.
    Stranger,
}

pub struct Phone {
    pub index: usize,
    pub kind: Kind,
    /// Whose contact its registrations belong to.
    pub owner: usize,
    pub ue: Ue,
    pub plane: Plane,
    /// Sequence number of the SIM, which outlives restarts.
    pub sqn: Arc<AtomicU64>,
    /// Our public address, when there is a NAT.
    pub nat: Option<IpAddr>,
    pub installs: bool,
    v6: bool,
    config: UeConfig,
    life: u64,
    next_spi: u32,
    random: Steps,
    /// Requests answered with 200, and requests of the network that came.
    pub answered: usize,
    pub served: usize,
}

impl Phone {
    /// Phone `index` with a setting out of `random`; `owner` is another one for a stranger.
    pub fn new(index: usize, kind: Kind, owner: usize, random: &mut Steps) -> Phone {
        let behind_nat = kind == Kind::NatWithoutTunnel || kind == Kind::Contested;
        let behind_nat = behind_nat || (kind == Kind::Good && random.below(3) == 0);
        let v6 = !behind_nat && random.below(4) == 0;
        let user = format!("user{owner}");
        let pcscf: SocketAddr = if v6 {
            "[2001:db8::1]:5060".parse().expect("address")
        } else {
            "203.0.113.1:5060".parse().expect("address")
        };
        let local = address(index, 0, behind_nat, v6);
        let mut config = UeConfig::new(
            &format!("{user}@{DOMAIN}"),
            &format!("sip:{user}@{DOMAIN}"),
            DOMAIN,
            local,
            pcscf,
        );
        config.expires = [120, 600, 3600, 600_000][random.below(4) as usize];
        config.clear_port = 5060 + (random.below(2) as u16) * 10;
        if kind != Kind::Contested {
            config.server_port = 31_800 + index as u16;
            config.client_ports = 31_100 + 20 * index as u16..=31_119 + 20 * index as u16;
        } else {
            config.client_ports = 31_100..=31_119;
        }
        let all = [
            Suite::NullAesGcm,
            Suite::HmacSha1AesCbc,
            Suite::AesGmacNull,
            Suite::HmacSha1Null,
        ];
        let first = random.below(4) as usize;
        config.suites = all[first..].to_vec();
        // A keepalive says nothing here.
        config.nat_keepalive = 0;
        if kind != Kind::Contested {
            config.transport =
                [Carrier::Udp, Carrier::Udp, Carrier::Auto, Carrier::Tcp][random.below(4) as usize];
        }
        if kind == Kind::NatWithoutTunnel {
            config.modes = vec![Mode::Trans];
        }
        let nat = behind_nat.then(|| public(if kind == Kind::Contested { 9 } else { index }, 0));
        let sqn = Arc::new(AtomicU64::new(0));
        let mut random = Steps(random.next());
        let ue = machine(&config, kind, owner, &sqn, &mut random);
        Phone {
            index,
            kind,
            owner,
            ue,
            plane: Plane::default(),
            sqn,
            nat,
            installs: true,
            v6,
            config,
            life: 0,
            next_spi: (index as u32 + 1) * SPI_RANGE,
            random,
            answered: 0,
            served: 0,
        }
    }

    /// Which phone has reserved this SPI.
    pub fn of_spi(spi: u32) -> usize {
        (spi / SPI_RANGE - 1) as usize
    }

    /// The phone goes without a word and starts again, perhaps elsewhere.
    pub fn restart(&mut self, moves: bool) {
        if moves {
            self.life += 1;
            match &mut self.nat {
                Some(public_address) if self.kind != Kind::Contested => {
                    *public_address = public(self.index, self.life);
                }
                Some(_) => {}
                None => self.config.local = address(self.index, self.life, false, self.v6),
            }
        }
        self.plane.wipe();
        self.ue = machine(
            &self.config,
            self.kind,
            self.owner,
            &self.sqn,
            &mut self.random,
        );
    }

    /// The SIM has seen vectors that the network knows nothing of.
    pub fn desynchronise(&mut self) {
        self.sqn.fetch_add(1 << 16, Ordering::Relaxed);
    }

    pub fn top_up(&mut self) {
        while self.ue.wants_spis() {
            self.ue.add_spis([self.next_spi, self.next_spi + 1]);
            self.next_spi += 2;
        }
    }

    /// Where a packet in clear seems to come from.
    pub fn seen_as(&self, local: SocketAddr) -> SocketAddr {
        match self.nat {
            Some(public) => SocketAddr::new(public, self.mapped(local.port())),
            None => local,
        }
    }

    /// Where a packet in clear to that address arrives.
    pub fn behind(&self, remote: SocketAddr) -> Option<SocketAddr> {
        let Some(public) = self.nat else {
            return (remote.ip() == self.config.local).then_some(remote);
        };
        let port = remote.port().wrapping_sub(self.shift());
        let open = port == self.config.clear_port || self.config.transport != Carrier::Udp;
        (remote.ip() == public && open).then_some(SocketAddr::new(self.config.local, port))
    }

    fn mapped(&self, port: u16) -> u16 {
        port.wrapping_add(self.shift())
    }

    fn shift(&self) -> u16 {
        10_000 + 100 * self.index as u16
    }

    /// The phone notices that it has another address (clause 7.5).
    pub fn move_on(&mut self, now: u64) {
        self.life += 1;
        match &mut self.nat {
            Some(_) => {}
            None => {
                self.config.local = address(self.index, self.life, false, self.v6);
                let _ = self.ue.change_address(now, self.config.local);
            }
        }
    }

    pub fn impu(&self) -> &str {
        &self.config.impu
    }

    pub fn impi(&self) -> &str {
        &self.config.impi
    }

    pub fn key(owner: usize) -> [u8; 16] {
        [0x40 + owner as u8; 16]
    }
}

fn machine(
    config: &UeConfig,
    kind: Kind,
    owner: usize,
    sqn: &Arc<AtomicU64>,
    random: &mut Steps,
) -> Ue {
    let k = match kind {
        Kind::Stranger => [0xee; 16],
        _ => Phone::key(owner),
    };
    let sim = SoftSim {
        k,
        sqn: sqn.clone(),
    };
    Ue::new(
        config.clone(),
        Box::new(sim),
        Box::new(Steps(random.next())),
    )
}

fn address(index: usize, life: u64, behind_nat: bool, v6: bool) -> IpAddr {
    let (n, life) = (index as u8 + 1, life as u8);
    match (v6, behind_nat) {
        (true, _) => [0x2001, 0xdb8, 7, 0, 0, 0, u16::from(life), u16::from(n)].into(),
        (false, true) => [10, 0, 0, 2].into(),
        (false, false) => [192, 0, 2, n * 16 + life % 16].into(),
    }
}

fn public(index: usize, life: u64) -> IpAddr {
    [198, 51, 100, (index as u8 + 1) * 16 + life as u8 % 16].into()
}
