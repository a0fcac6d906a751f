//! One end's data plane: which sets it has, and what passes. Knows the commands'
//! order of DESIGN rule 4 and says when it is broken.

use std::collections::{BTreeMap, BTreeSet};

use gm_esp::SaSpec;
use gm_sip::{Packet, SaSetRequest, SetToken};

/// Where a set of this end stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Inbound live, outbound not yet.
    Standby,
    /// Both.
    Active,
    /// Inbound only, for what is pending.
    Retired,
}

/// One set.
#[derive(Debug, Clone)]
pub struct Set {
    pub request: SaSetRequest,
    pub state: State,
    /// It may live until then by the rules.
    pub until: u64,
    /// Its installation was confirmed to the SIP side.
    pub confirmed: bool,
    /// When its outbound went live: the latest takes what selectors share.
    order: u64,
}

/// What a sealed packet carries to the other end.
#[derive(Debug, Clone, PartialEq)]
pub struct Seal {
    /// The sender's set.
    pub set: SetToken,
    pub spec: SaSpec,
    pub keys: ([u8; 16], [u8; 16]),
}

/// All sets of one end.
#[derive(Debug, Default)]
pub struct Plane {
    pub sets: BTreeMap<SetToken, Set>,
    /// Every token that was ever asked for.
    known: BTreeSet<SetToken>,
    /// SPIs of every inbound SA that was ever installed here, with its keys.
    ever: BTreeSet<(u32, [u8; 16])>,
    activations: u64,
}

fn keys(request: &SaSetRequest) -> ([u8; 16], [u8; 16]) {
    (*request.ik.as_bytes(), *request.ck.as_bytes())
}

impl Plane {
    /// Install. `ok`: whether it works.
    pub fn install(&mut self, request: SaSetRequest, until: u64, ok: bool) -> Result<(), String> {
        let token = request.token;
        if !self.known.insert(token) {
            return Err(format!("{token:?} is used again"));
        }
        if ok {
            for spec in &request.inbound {
                self.ever.insert((spec.spi, keys(&request).0));
            }
            let set = Set {
                request,
                state: State::Standby,
                until,
                confirmed: false,
                order: 0,
            };
            self.sets.insert(token, set);
        }
        Ok(())
    }

    pub fn activate(&mut self, token: SetToken) -> Result<(), String> {
        match self.sets.get_mut(&token) {
            Some(set) if set.state != State::Retired => {
                self.activations += 1;
                set.order = self.activations;
                set.state = State::Active;
            }
            Some(_) => return Err(format!("{token:?} is activated after Retire")),
            None => return Err(format!("{token:?} is activated and not there")),
        }
        Ok(())
    }

    pub fn retire(&mut self, token: SetToken) -> Result<(), String> {
        self.check_known(token)?;
        if let Some(set) = self.sets.get_mut(&token) {
            set.state = State::Retired;
        }
        Ok(())
    }

    pub fn remove(&mut self, token: SetToken) -> Result<(), String> {
        self.check_known(token)?;
        self.sets.remove(&token);
        Ok(())
    }

    fn check_known(&self, token: SetToken) -> Result<(), String> {
        let known = self.known.contains(&token);
        known
            .then_some(())
            .ok_or(format!("{token:?} was never asked for"))
    }

    /// The outbound SA that a packet takes, when one is live.
    pub fn seal(&self, packet: &Packet) -> Option<Seal> {
        let fits = |s: &&SaSpec| {
            let ports = (s.selector.src_port, s.selector.dst_port);
            (s.selector.src, s.selector.dst) == (packet.local.ip(), packet.remote.ip())
                && ports == (Some(packet.local.port()), Some(packet.remote.port()))
        };
        let active = self.sets.values().filter(|s| s.state == State::Active);
        let sealed = |s: &Set| {
            let seal = Seal {
                set: s.request.token,
                spec: *s.request.outbound.iter().find(fits)?,
                keys: keys(&s.request),
            };
            Some((s.order, seal))
        };
        let latest = active.filter_map(sealed).max_by_key(|(order, _)| *order);
        latest.map(|(_, seal)| seal)
    }

    /// Whether this end opens what the other one has sealed.
    pub fn opens(&self, seal: &Seal) -> bool {
        self.sets.values().any(|set| {
            let same = |own: &SaSpec| {
                (own.spi, own.mode, own.selector, own.suite)
                    == (
                        seal.spec.spi,
                        seal.spec.mode,
                        seal.spec.selector,
                        seal.spec.suite,
                    )
            };
            set.request.inbound.iter().any(same) && keys(&set.request) == seal.keys
        })
    }

    /// Whether this end has ever had it.
    pub fn has_had(&self, seal: &Seal) -> bool {
        self.ever.contains(&(seal.spec.spi, seal.keys.0))
    }

    /// A restart: nothing is left, and the next life begins.
    pub fn wipe(&mut self) {
        self.sets.clear();
        self.known.clear();
    }
}
