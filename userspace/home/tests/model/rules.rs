//! The rules, by clause of TS 33.203, as they are looked at after every step.

use std::collections::{BTreeMap, BTreeSet};

use gm_sip::aka::AuthParams;
use gm_sip::edge::FlowEvent;
use gm_sip::sec_agree::{SECURITY_SERVER, SecList};
use gm_sip::{Message, Packet, SaSetRequest, SetToken};

use crate::phone::Phone;
use crate::plane::{Seal, State};
use crate::world::World;

/// What the rules need to remember.
#[derive(Default)]
pub struct Rules {
    /// Keys of the latest sets, in hex.
    keys: Vec<String>,
    looked: u64,
}

/// Keys that are looked for in what is sent.
const KEYS: usize = 12;

/// Whose contact a set belongs to.
fn owner(world: &World, request: &SaSetRequest) -> usize {
    world.phones[Phone::of_spi(request.params.ue_ends.spi_c)].owner
}

fn rule(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl World {
    /// Before an Install: clause 7.1 rules 1 to 3 and 6.
    pub fn check_install(&mut self, request: &SaSetRequest) -> Result<(), String> {
        let (u, p) = (request.params.ue_ends, request.params.pcscf_ends);
        let mine = owner(self, request);
        let others: Vec<_> = self.plane.sets.values().map(|s| &s.request).collect();
        let own = others.iter().filter(|o| owner(self, o) == mine).count();
        rule(own < 3, || {
            format!("a fourth set for contact {mine}: more than six SAs")
        })?;
        let spis = BTreeSet::from([u.spi_c, u.spi_s, p.spi_c, p.spi_s]);
        rule(spis.len() == 4, || format!("SPIs are not four: {spis:?}"))?;
        for other in &others {
            let o = other.params.pcscf_ends;
            let used = [o.spi_c, o.spi_s];
            rule(!used.contains(&p.spi_c) && !used.contains(&p.spi_s), || {
                "an SPI twice".into()
            })?;
            let same_ue =
                (other.params.ue, other.params.ue_ends.port_s) == (request.params.ue, u.port_s);
            rule(!same_ue || o.port_c != p.port_c, || {
                format!("port_pc {} serves two sets of one phone (rule 6)", p.port_c)
            })?;
        }
        rule(p.port_s == self.config.server_port, || {
            "another server port".into()
        })?;
        rule(self.config.client_ports.contains(&p.port_c), || {
            "port_pc out of range".into()
        })?;
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        self.rules.keys.push(hex(request.ik.as_bytes()));
        self.rules.keys.push(hex(request.ck.as_bytes()));
        let more = self.rules.keys.len().saturating_sub(KEYS);
        self.rules.keys.drain(..more);
        Ok(())
    }

    /// What goes to a phone: no keys, SM6 only after Install, nothing over a set that
    /// the phone has never had, and in a calm none that it has no longer.
    pub fn check_to_ue(&mut self, packet: &Packet) -> Result<Option<Seal>, String> {
        let text = String::from_utf8_lossy(&packet.bytes).to_ascii_lowercase();
        let shown = self.rules.keys.iter().any(|k| text.contains(k.as_str()));
        rule(!shown, || format!("a key goes to a phone:\n{text}"))?;
        let message =
            Message::parse(&packet.bytes).map_err(|e| format!("no SIP to a phone: {e}"))?;
        for line in message.lines("WWW-Authenticate") {
            let value = line.value();
            let params = AuthParams::parse(&value);
            let named = params.is_some_and(|p| p.get("ik").or_else(|| p.get("ck")).is_some());
            rule(!named, || format!("ik or ck goes to a phone:\n{text}"))?;
        }
        if message.status() == Some(401)
            && let Some(list) = SecList::from_message(&message, SECURITY_SERVER)
        {
            let spis: Vec<_> = list
                .proposals()
                .unwrap_or_default()
                .iter()
                .map(|p| p.ends.spi_c)
                .collect();
            let live = |s: &crate::plane::Set| {
                s.confirmed && spis.contains(&s.request.params.pcscf_ends.spi_c)
            };
            rule(self.plane.sets.values().any(live), || {
                "SM6 before Install".into()
            })?;
        }
        let seal = self.plane.seal(packet);
        if let Some(seal) = &seal {
            let phone = &self.phones[Phone::of_spi(seal.spec.spi)];
            rule(phone.plane.has_had(seal), || {
                "over a set that the phone does not have yet".into()
            })?;
            rule(!self.calm || phone.plane.opens(seal), || {
                "over a set that the phone has no more, in a calm".into()
            })?;
        }
        Ok(seal)
    }

    /// An event of the edge sets until when sets may live (clauses 7.4.1, 7.4.2a).
    pub fn note(&mut self, event: FlowEvent) {
        let timers = self.timers();
        let now = self.now;
        match event {
            FlowEvent::Sm12 { set, expires, .. } | FlowEvent::Refreshed { set, expires } => {
                self.tally.refreshes += u64::from(matches!(event, FlowEvent::Refreshed { .. }));
                let own = self.plane.sets.get(&set).map(|s| owner(self, &s.request));
                let of = |s: &&crate::plane::Set| Some(owner(self, &s.request)) == own;
                let longest = self.plane.sets.values().filter(of).map(|s| s.until).max();
                let until = now + u64::from(expires) * 1000 + timers.margin;
                if let Some(set) = self.plane.sets.get_mut(&set) {
                    set.until = until.max(longest.unwrap_or(0));
                }
            }
            FlowEvent::SwitchedOver { from, .. } => {
                self.tally.switches += 1;
                // Pending transactions may go on, and be repeated, for 64 * T1 each.
                self.shorten(from, now + 2 * timers.transaction);
            }
            FlowEvent::Refused { .. } => self.tally.refused += 1,
            _ => {}
        }
        if self.rules.looked.is_multiple_of(64) {
            let shown = format!("{event:?}");
            assert!(
                !self.rules.keys.iter().any(|k| shown.contains(k.as_str())),
                "a key is shown"
            );
        }
        self.rules.looked += 1;
    }

    fn shorten(&mut self, set: SetToken, until: u64) {
        if let Some(set) = self.plane.sets.get_mut(&set) {
            set.until = set.until.min(until);
        }
    }

    /// What holds after every step.
    pub fn check(&self) -> Result<(), String> {
        let mut contacts: BTreeMap<usize, usize> = BTreeMap::new();
        let mut flows = BTreeSet::new();
        for set in self.plane.sets.values() {
            let request = &set.request;
            *contacts.entry(owner(self, request)).or_default() += 1;
            rule(self.now <= set.until, || {
                format!(
                    "{:?} lives {} ms too long at the edge",
                    request.token,
                    self.now - set.until
                )
            })?;
            for spec in &request.outbound {
                let s = spec.selector;
                let flow = (s.src, s.src_port, s.dst, s.dst_port);
                let alone = set.state != State::Active || flows.insert(flow);
                rule(alone, || format!("two live SAs for one flow: {flow:?}"))?;
            }
        }
        for (contact, sets) in &contacts {
            rule(*sets <= 3, || {
                format!("contact {contact} has {sets} sets: more than six SAs")
            })?;
        }
        // A set whose Install has failed is not in the data plane and goes at the answer.
        let (known, sets) = self.edge.len();
        let here = self.plane.sets.len();
        rule(here <= sets, || {
            format!("{here} sets in the data plane, {sets} have an owner")
        })?;
        rule(known >= contacts.len(), || {
            format!("{} contacts have sets, {known} are known", contacts.len())
        })?;
        for phone in &self.phones {
            for set in phone.plane.sets.values() {
                rule(self.now <= set.until, || {
                    let late = self.now - set.until;
                    format!(
                        "{:?} lives {late} ms too long at phone {}",
                        set.request.token, phone.index
                    )
                })?;
            }
        }
        Ok(())
    }
}
