//! How much of a worker forged ICVs may take: failures are limited per SA and
//! per source prefix. No clock and no map here: time is an argument, and what
//! XDP is to know the caller publishes.
//!
//! ```text
//!                 SA quiet              SA limited                source limited
//! its phone       cryptography          a few tries a ms, near    cryptography
//!                                       the window only
//! somebody else   cryptography          dropped                   dropped
//! phone unknown   cryptography          as its phone              a few tries a ms
//! ```
//!
//! "Its phone" is who the last packet with the newest number came from,
//! address and UDP port; in transport mode the address is the selector's, so it
//! is known before the first packet. A forger who has that address, too, is
//! told from the phone by the sequence number only: what is far ahead of the
//! window is dropped, what is close to it gets its share of the tries.
//!
//! A limit ends [`LASTS`] after the last failure that the worker has seen. What
//! XDP drops meanwhile it does not see: under a lasting attack the limit ends,
//! the next few failures bring it back, and a phone that has moved has its
//! chance in between.

#[cfg(test)]
mod tests;

/// Milliseconds that a limit outlives the last failure.
pub(crate) const LASTS: u64 = 1000;

/// Numbers ahead of the newest one that a limited SA still looks at.
pub(crate) const AHEAD: u64 = gm_abi::maps::LIMITED_AHEAD as u64;

/// Failures of one SA. Bits that a network turns over come one at a time.
const OF_SA: Rate = Rate {
    per_second: 10,
    burst: 32,
};

/// Failures of one source, over all SAs.
const OF_SOURCE: Rate = Rate {
    per_second: 20,
    burst: 64,
};

/// Tries that fail, of a limited SA or source, when it may be the phone. A batch
/// is tried before any of it has verified: all of it may be the phone's.
const TRIES: Rate = Rate {
    per_second: 2000,
    burst: crate::process::BATCH as u32,
};

/// Places for sources. Those that share one push each other out, but never one
/// that is limited.
const PLACES: usize = 4096;

/// How much of something there may be.
struct Rate {
    per_second: u32,
    burst: u32,
}

/// A token bucket; the default is full.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Thousandths of tokens that are out.
    used: u32,
    /// When that was so, in milliseconds.
    at: u64,
}

const TOKEN: u32 = 1000;

impl Bucket {
    fn take(&mut self, now: u64, rate: &Rate) -> bool {
        let back = now.saturating_sub(self.at) * u64::from(rate.per_second);
        self.used = self
            .used
            .saturating_sub(u32::try_from(back).unwrap_or(u32::MAX));
        self.at = now.max(self.at);
        let there = self.used + TOKEN <= rate.burst * TOKEN;
        if there {
            self.used += TOKEN;
        }
        there
    }

    fn give_back(&mut self) {
        self.used = self.used.saturating_sub(TOKEN);
    }
}

/// Where a packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Its prefix, one subscriber's.
    pub prefix: u64,
    /// A short hash over address and port; never 0.
    pub tag: u16,
}

/// What the limiter knows of an SA.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OfSa {
    failures: Bucket,
    tries: Bucket,
    /// When its limit ends; 0: it has none.
    until: u64,
    /// The tag of its phone; 0: not known.
    phone: u16,
    /// Whether XDP knows that tag.
    shown: bool,
}

impl OfSa {
    /// An SA whose phone has this tag, which XDP knows; 0: nobody does yet.
    pub(crate) fn new(phone: u16) -> OfSa {
        OfSa {
            phone,
            shown: true,
            ..OfSa::default()
        }
    }

    /// The tag of its phone, and whether XDP knows it.
    pub(crate) fn phone(&self) -> (u16, bool) {
        (self.phone, self.shown)
    }

    /// The same with another phone.
    pub(crate) fn with_phone(self, phone: u16, shown: bool) -> OfSa {
        OfSa {
            phone,
            shown,
            ..self
        }
    }

    /// Whether no packet has ever failed.
    pub(crate) fn is_idle(&self) -> bool {
        let buckets = [self.failures, self.tries];
        self.until == 0 && buckets.iter().all(|b| b.used == 0 && b.at == 0)
    }

    /// Whether its failures are over the limit.
    pub(crate) fn limited(&self) -> bool {
        self.until != 0
    }

    /// Whether XDP has yet to be told where its phone is; it is then.
    pub(crate) fn untold(&mut self) -> bool {
        !std::mem::replace(&mut self.shown, true)
    }

    /// The SA's failures have stopped: true once, at the end of the limit.
    pub(crate) fn ends(&mut self, now: u64) -> bool {
        let ends = self.until != 0 && now >= self.until;
        if ends {
            self.until = 0;
        }
        ends
    }

    /// A packet has verified and has the newest number; says where the phone is.
    pub(crate) fn verified(&mut self, from: Source) {
        if self.phone != from.tag {
            (self.phone, self.shown) = (from.tag, false);
        }
    }

    /// A packet has verified: it has cost no try.
    pub(crate) fn opened(&mut self) {
        if self.limited() {
            self.tries.give_back();
        }
    }
}

/// What has passed a limit and was within it before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The SA.
    pub sa: bool,
    /// The source's prefix.
    pub source: bool,
}

#[derive(Clone, Copy, Default)]
struct Place {
    /// 0: empty.
    prefix: u64,
    failures: Bucket,
    tries: Bucket,
    until: u64,
}

/// The sources of one worker.
pub(crate) struct Limiter {
    places: Box<[Place]>,
    /// Places with a limit.
    limited: usize,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter {
            places: vec![Place::default(); PLACES].into(),
            limited: 0,
        }
    }
}

/// A place for a prefix. The low bits of prefixes are what differs in one
/// network, the high ones between networks: all count.
fn place(prefix: u64) -> usize {
    (prefix.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % PLACES
}

impl Limiter {
    /// Whether a packet is worth its cryptography. `ahead` says how far its
    /// number is beyond the newest one, 0 when it is not.
    pub(crate) fn admits(&mut self, sa: &mut OfSa, from: Source, ahead: u64, now: u64) -> bool {
        let source = match self.limited {
            0 => None,
            _ => self.find(from.prefix).filter(|p| p.until > now),
        };
        let stranger = sa.phone != 0 && sa.phone != from.tag;
        match (sa.until > now, source) {
            (false, None) => true,
            _ if stranger => false,
            (true, _) => ahead <= AHEAD && sa.tries.take(now, &TRIES),
            (false, Some(_)) if sa.phone != 0 => true,
            (false, Some(source)) => source.tries.take(now, &TRIES),
        }
    }

    /// A packet's ICV does not verify. What has passed its limit with it.
    pub(crate) fn failed(&mut self, sa: &mut OfSa, from: Source, now: u64) -> Passed {
        let mut passed = Passed::default();
        let over = !sa.failures.take(now, &OF_SA);
        if over || sa.limited() {
            passed.sa = !sa.limited();
            sa.until = now + LASTS;
        }
        // A phone's address proves nothing: who forges it must not have the
        // phone's other SAs suffer.
        if sa.phone != from.tag {
            passed.source = self.source_failed(from.prefix, now);
        }
        passed
    }

    fn source_failed(&mut self, prefix: u64, now: u64) -> bool {
        let p = &mut self.places[place(prefix)];
        if p.prefix != prefix {
            if p.until != 0 {
                return false;
            }
            *p = Place {
                prefix,
                ..Place::default()
            };
        }
        let over = !p.failures.take(now, &OF_SOURCE);
        let was = p.until != 0;
        if over || was {
            p.until = now + LASTS;
            self.limited += usize::from(!was);
        }
        over && !was
    }

    /// Whether any source is limited.
    pub(crate) fn limits_any(&self) -> bool {
        self.limited > 0
    }

    /// Ends the limits of sources whose failures have stopped, each given to
    /// `ended`.
    pub(crate) fn end_sources(&mut self, now: u64, mut ended: impl FnMut(u64)) {
        if self.limited == 0 {
            return;
        }
        for p in self.places.iter_mut().filter(|p| p.until != 0) {
            if now >= p.until {
                p.until = 0;
                self.limited -= 1;
                ended(p.prefix);
            }
        }
    }

    fn find(&mut self, prefix: u64) -> Option<&mut Place> {
        Some(&mut self.places[place(prefix)]).filter(|p| p.prefix == prefix)
    }
}
