//! The limiter of ICV failures between the packets and XDP: who is asked
//! before the cryptography, who is told after it, what is published.

use std::cell::RefCell;
use std::net::IpAddr;

use gm_abi::maps::Addr;
use gm_abi::source;
use gm_abi::verdict::Reason;
use gm_esp::Mode;

use super::Ctx;
use super::ends::Seen;
use crate::config::map_addr;
use crate::limit::{Limiter, OfSa, Source};
use crate::table::Entry;

/// What a worker keeps to limit ICV failures. Its size depends on the number of
/// SAs, not on the number of packets or sources.
#[derive(Default)]
pub(crate) struct Forgeries(RefCell<Kept>);

#[derive(Default)]
struct Kept {
    sources: Limiter,
    /// Slots of the SAs that are limited, with room for all there are.
    limited: Vec<u32>,
    /// SAs that there are.
    loaded: usize,
}

impl Ctx {
    /// Takes an SA, unlimited, whatever a worker before this one has found.
    pub(crate) fn load(&mut self, entry: Entry) {
        self.unload(entry.slot);
        let sa = &entry.sa;
        // In transport mode what comes from elsewhere cannot be admitted.
        let phone = match sa.mode() {
            Mode::Trans => self.published.tables.tag(&map_addr(sa.source()), 0),
            Mode::UdpEncTun => 0,
        };
        entry.set_limit(OfSa::new(phone));
        self.published.set_limited(entry.slot, false);
        let kept = self.forgeries.0.get_mut();
        kept.loaded += 1;
        // Here, so that no packet has to.
        let more = kept.loaded.saturating_sub(kept.limited.len());
        kept.limited.reserve(more);
        self.table.load(entry);
    }

    /// Lets go of an SA, and of its limit.
    pub(crate) fn unload(&mut self, slot: u32) {
        let kept = self.forgeries.0.get_mut();
        if let Some(entry) = self.table.get(slot) {
            kept.loaded = kept.loaded.saturating_sub(1);
            if entry.is_limited() {
                kept.limited.retain(|s| *s != slot);
                self.published.set_limited(slot, false);
            }
        }
        self.table.unload(slot);
    }

    fn source(&self, addr: &Addr, port: u16) -> Source {
        Source {
            prefix: source::prefix_of(addr),
            tag: self.published.tables.tag(addr, port),
        }
    }

    fn source_of(&self, seen: &Seen) -> Source {
        self.source(&seen.src, seen.ports.map_or(0, |(src, _)| src))
    }

    /// Whether a packet that may be its SA's is tried. `top` is the newest
    /// number of the window.
    ///
    /// # Errors
    /// [`Reason::IcvLimited`].
    pub(super) fn worth_trying(&self, entry: &Entry, seen: &Seen, top: u64) -> Result<(), Reason> {
        let kept = &mut *self.forgeries.0.borrow_mut();
        // Where nobody is limited everybody is tried.
        if !kept.sources.limits_any() && !entry.is_limited() {
            return Ok(());
        }
        let mut sa = entry.limit();
        let seq = seen.esp.map_or(0, |(_, seq)| u64::from(seq));
        // Of an extended number only the low half is there, and a peer may begin
        // anywhere.
        let ahead = match entry.sa.esn() || top == 0 {
            true => 0,
            false => seq.saturating_sub(top),
        };
        let admits = kept
            .sources
            .admits(&mut sa, self.source_of(seen), ahead, self.now);
        entry.set_limit(sa);
        if admits {
            Ok(())
        } else {
            Err(Reason::IcvLimited)
        }
    }

    /// A packet whose ICV does not verify.
    pub(super) fn forged(&self, entry: &Entry, seen: &Seen) {
        let mut sa = entry.limit();
        let kept = &mut *self.forgeries.0.borrow_mut();
        let passed = kept.sources.failed(&mut sa, self.source_of(seen), self.now);
        entry.set_limit(sa);
        if passed.sa {
            kept.limited.push(entry.slot);
            self.published.set_limited(entry.slot, true);
        }
        if passed.source {
            self.published.tables.limit_source(&seen.src, true);
        }
    }

    /// A packet that has verified, from there; with the newest number it says
    /// where a phone behind a NAT is. In transport mode that is known, and who
    /// sends a phone's packet on from elsewhere must not become the phone.
    pub(super) fn vouched(&self, entry: &Entry, (addr, port): (IpAddr, u16), newest: bool) {
        let places = newest && entry.sa.mode() == Mode::UdpEncTun;
        if !places && !entry.is_limited() {
            return;
        }
        let mut sa = entry.limit();
        sa.opened();
        if places {
            let addr = map_addr(addr);
            sa.verified(self.source(&addr, port));
            if sa.untold() {
                self.published.verified(entry.slot, &addr, port);
            }
        }
        entry.set_limit(sa);
    }

    /// Whether any SA or source is limited.
    pub(super) fn has_limits(&self) -> bool {
        let kept = self.forgeries.0.borrow();
        !kept.limited.is_empty() || kept.sources.limits_any()
    }

    /// Ends the limits on SAs and sources whose failures have stopped.
    pub(super) fn end_limits(&mut self) {
        let (table, published, now) = (&self.table, &self.published, self.now);
        let kept = self.forgeries.0.get_mut();
        kept.limited.retain(|slot| {
            let Some(entry) = table.get(*slot) else {
                return false;
            };
            let mut sa = entry.limit();
            let ends = sa.ends(now);
            entry.set_limit(sa);
            if ends {
                published.set_limited(*slot, false);
            }
            !ends
        });
        kept.sources.end_sources(now, |prefix| {
            published
                .tables
                .limit_source(&source::addr_of(prefix), false);
        });
    }

    /// Sources and SAs that are limited now.
    #[cfg(test)]
    pub(super) fn limited(&self) -> usize {
        self.forgeries.0.borrow().limited.len()
    }
}

/// However a worker ends, the sources that it has limited are free: nobody else
/// would end that.
impl Drop for Ctx {
    fn drop(&mut self) {
        let tables = &self.published.tables;
        let sources = &mut self.forgeries.0.get_mut().sources;
        sources.end_sources(u64::MAX, |prefix| {
            tables.limit_source(&source::addr_of(prefix), false);
        });
    }
}
