//! The sets that a UE holds (TS 33.203 clause 7.1 rules 5 to 7, clause 7.4.1a).

use std::net::SocketAddr;

use super::{Fault, Ue, UeFailure, UeOutput};
use crate::sa_set::{SetParams, SetToken};
use crate::sec_agree::Ends;

/// How long a replaced or de-registered set is kept when nothing waits on it any
/// more: the longest that a message stays in the network (T4 of RFC 3261).
pub(super) const SETTLE: u64 = 5_000;

/// A set that the UE holds.
#[derive(Debug, Clone)]
pub(super) struct UeSet {
    pub token: SetToken,
    pub params: SetParams,
    /// The lines of Security-Server of SM6, to be echoed in Security-Verify.
    pub server_lines: Vec<String>,
    /// When it goes, in milliseconds.
    pub deadline: u64,
    /// Another set is in use at both ends: it goes when nothing waits on it.
    pub settling: bool,
}

impl UeSet {
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.params.ue, port)
    }

    /// From port_uc to port_ps (clause 7.1): requests over UDP and TCP, responses
    /// over UDP.
    pub fn way_out(&self) -> (SocketAddr, SocketAddr) {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        (
            self.address(u.port_c),
            SocketAddr::new(self.params.pcscf, p.port_s),
        )
    }

    /// Whether a message came through one of its inbound SAs (clause 7.1 rule 7).
    pub fn carries(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let (u, p) = (self.params.ue_ends, self.params.pcscf_ends);
        let ports = (remote.port(), local.port());
        local.ip() == self.params.ue
            && remote.ip() == self.params.pcscf
            && (ports == (p.port_c, u.port_s) || ports == (p.port_s, u.port_c))
    }

    fn has_port(&self, local: SocketAddr) -> bool {
        let ends = self.params.ue_ends;
        self.params.ue == local.ip() && [ends.port_c, ends.port_s].contains(&local.port())
    }
}

impl Ue {
    /// All sets, the newest first: the one of the procedure, the one in use, those
    /// that end. An older one may have the same addresses and ports.
    fn sets(&self) -> impl Iterator<Item = &UeSet> {
        let procedure = self.procedure.as_ref().and_then(|p| p.set.as_ref());
        let old = self.old.iter().rev();
        procedure.into_iter().chain(&self.current).chain(old)
    }

    /// Whether a message came through that very set.
    pub(super) fn came_through(
        &self,
        token: SetToken,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> bool {
        self.sets()
            .any(|s| s.token == token && s.carries(local, remote))
    }

    /// Whether this is a protected address and port of one of our sets.
    pub fn has_port(&self, local: SocketAddr) -> bool {
        self.sets().any(|set| set.has_port(local))
    }

    /// The set through which a message came; none for one in clear.
    pub(super) fn set_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<&UeSet> {
        self.sets().find(|s| s.carries(local, remote))
    }

    /// Whether a set of ours is UDP-encapsulated: then the NAT is kept open.
    pub(super) fn is_encapsulated(&self) -> bool {
        self.sets().any(|s| s.params.tunnel.is_some())
    }

    pub(super) fn drop_set(&mut self, set: &UeSet) {
        self.out.push_back(UeOutput::Retire { set: set.token });
        self.out.push_back(UeOutput::Remove { set: set.token });
    }

    /// Ends every set at once.
    pub(super) fn drop_all(&mut self) {
        let sets: Vec<_> = self.current.take().into_iter().collect();
        for set in sets.into_iter().chain(std::mem::take(&mut self.old)) {
            self.drop_set(&set);
        }
    }

    /// All identities are de-registered: all sets go, after what is under way
    /// (clause 7.4.1a, ARCHITECTURE reading A-30).
    pub(super) fn end_registration(&mut self, now: u64) {
        self.registered_until = None;
        (self.again_at, self.renew_at) = (None, None);
        self.service_route.clear();
        self.old.extend(self.current.take());
        for set in &mut self.old {
            set.deadline = set.deadline.min(now + SETTLE);
        }
    }

    /// A message came through the set in use after SM12: the older ones go as soon
    /// as nothing waits on them (clause 7.4.1a).
    pub(super) fn confirmed_by_use(&mut self, now: u64, token: SetToken) {
        if self.current.as_ref().is_some_and(|s| s.token == token) {
            self.silent = 0;
            self.old.iter_mut().for_each(|set| set.settling = true);
            self.settle(now);
        }
    }

    /// Lets those settling sets go that nothing waits on.
    pub(super) fn settle(&mut self, now: u64) {
        let clients = &self.clients;
        for set in self.old.iter_mut().filter(|s| s.settling) {
            if !clients.waits_on(set.token) {
                set.deadline = set.deadline.min(now + SETTLE);
            }
        }
    }

    /// Deletes what has outlived its time.
    pub(super) fn expire_sets(&mut self, now: u64) {
        let (gone, kept) = std::mem::take(&mut self.old)
            .into_iter()
            .partition(|s| s.deadline <= now);
        self.old = kept;
        for set in gone {
            self.drop_set(&set);
        }
        if let Some(set) = self.current.take_if(|s| s.deadline <= now) {
            self.drop_set(&set);
            self.registered_until = None;
        }
    }

    /// A client port that no set of ours uses (clause 7.1 rule 6): at random one that
    /// was never drawn, else the one whose turn is longest ago. The P-CSCF may keep a
    /// set longer than we do, for what it still waits for.
    fn free_port(&mut self) -> Option<u16> {
        let used: Vec<_> = self.sets().map(|s| s.params.ue_ends.port_c).collect();
        let barred = [
            0,
            5060,
            5061,
            self.config.clear_port,
            self.config.server_port,
        ];
        let ports = self.config.client_ports.clone();
        let free = |p: &u16| !used.contains(p) && !barred.contains(p) && ports.contains(p);
        let fresh: Vec<_> = ports
            .clone()
            .filter(|p| free(p) && !self.drawn.contains(p))
            .collect();
        let port = match (self.random.u32() as usize).checked_rem(fresh.len()) {
            Some(at) => fresh.get(at).copied(),
            None => self.drawn.iter().copied().find(free),
        }?;
        self.drawn.retain(|p| *p != port);
        self.drawn.push_back(port);
        Some(port)
    }

    /// Two SPIs of ours that the P-CSCF has not in an SA of today (clause 7.1).
    fn free_spis(&mut self) -> Option<[u32; 2]> {
        let theirs: Vec<_> = self
            .sets()
            .flat_map(|s| [s.params.pcscf_ends.spi_c, s.params.pcscf_ends.spi_s])
            .collect();
        let free = |pair: &[u32; 2]| pair.iter().all(|spi| !theirs.contains(spi));
        let at = self.spis.iter().position(free)?;
        self.spis.remove(at)
    }

    /// Whether the P-CSCF names an SPI that is ours in an offer or an SA: all four SAs
    /// have one key, and a message could be sent back to where it came from.
    pub(super) fn is_own_spi(&self, theirs: Ends) -> bool {
        let offered = self.procedure.iter().map(|p| p.ends);
        let live = self.sets().map(|s| s.params.ue_ends);
        offered.chain(live).any(|own| {
            let own = [own.spi_c, own.spi_s];
            own.contains(&theirs.spi_c) || own.contains(&theirs.spi_s)
        })
    }

    /// SPIs that were offered and never installed are the last to be offered again.
    pub(super) fn give_back(&mut self, ends: Ends) {
        self.spis.push_back([ends.spi_c, ends.spi_s]);
    }

    /// New SPIs and a new port_uc; port_us stays (clause 7.4.0).
    pub(super) fn new_ends(&mut self) -> Result<Ends, UeFailure> {
        let in_use = self.current.as_ref().map(|s| s.params.ue_ends.port_c);
        let same = in_use.filter(|_| self.does(Fault::SamePort));
        let port_c = match same {
            Some(port) => port,
            None => self.free_port().ok_or(UeFailure::NoPort)?,
        };
        let [spi_c, spi_s] = self.free_spis().ok_or(UeFailure::NoSpi)?;
        Ok(Ends {
            spi_c,
            spi_s,
            port_c,
            port_s: self.config.server_port,
        })
    }
}
