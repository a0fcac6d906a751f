//! Sequence numbers that come to their end. The kernel tells of each second packet or of
//! none, so they are looked at from time to time; and not of SAs that are too young.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gm_dataplane::{Dir, Event, SaStatus};

use super::KernelError;
use super::control::Control;

/// Numbers left when the event `seq-low` comes.
const LOW: u64 = 1 << 20;
/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How often, where one is low.
const LOW_EVERY: Duration = Duration::from_secs(1);
/// An SA that began at 1 is not low before this, at a million packets a second.
const YOUNG_MS: u64 = 4_200_000;

/// What was told already.
#[derive(Debug, Default)]
pub struct Look {
    last: Option<Instant>,
    low: BTreeSet<(u64, u32)>,
    exhausted: BTreeSet<(u64, u32)>,
}

impl Look {
    /// Looks when it is time, and tells once of each SA that its numbers are few, and once
    /// that there is none.
    pub fn look(&mut self, control: &mut Control) -> Result<(), KernelError> {
        let every = match self.low.len() == self.exhausted.len() {
            true => EVERY,
            false => LOW_EVERY,
        };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return Ok(());
        }
        self.last = Some(Instant::now());
        if !control.may_be_low(YOUNG_MS) {
            return Ok(());
        }
        let (rows, _) = control.list()?;
        for event in self.judge(&rows) {
            control.announce(event);
        }
        Ok(())
    }

    fn judge(&mut self, rows: &[SaStatus]) -> Vec<Event> {
        let mut events = Vec::new();
        let (mut low, mut exhausted) = (BTreeSet::new(), BTreeSet::new());
        for row in rows.iter().filter(|row| row.dir == Dir::Out) {
            let name = (row.set.0, row.spec.spi);
            let (set, spi) = (row.set, row.spec.spi);
            let remaining = limit(row).saturating_sub(row.seq);
            if remaining <= LOW {
                low.insert(name);
                if !self.low.contains(&name) {
                    events.push(Event::SeqLow {
                        set,
                        spi,
                        remaining,
                    });
                }
            }
            if remaining == 0 {
                exhausted.insert(name);
                if !self.exhausted.contains(&name) {
                    events.push(Event::Exhausted { set, spi });
                }
            }
        }
        // What is gone is forgotten.
        (self.low, self.exhausted) = (low, exhausted);
        events
    }
}

fn limit(row: &SaStatus) -> u64 {
    match row.spec.esn {
        true => u64::MAX,
        false => u64::from(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gm_dataplane::{SetId, SlotState};
    use gm_esp::{Mode, SaSpec, SelProto, Selector, Suite};

    fn row(spi: u32, dir: Dir, seq: u64) -> SaStatus {
        SaStatus {
            set: SetId(1),
            slot: 0,
            dir,
            spec: SaSpec {
                spi,
                mode: Mode::Trans,
                selector: Selector {
                    src: [192, 0, 2, 1].into(),
                    dst: [192, 0, 2, 2].into(),
                    src_port: None,
                    dst_port: None,
                    proto: SelProto::UdpTcp,
                },
                suite: Suite::HmacSha1Null,
                outer: None,
                esn: false,
                replay_window: 64,
            },
            state: SlotState::Live,
            seq,
            top: 0,
            packets: 0,
            bytes: 0,
            drops: Vec::new(),
            encap_port: None,
            idle_ms: None,
            age_ms: None,
        }
    }

    #[test]
    fn the_end_of_the_numbers_is_told_once_before_and_once_when_it_is_there() {
        let mut look = Look::default();
        let end = u64::from(u32::MAX);
        assert_eq!(look.judge(&[row(300, Dir::Out, end - LOW - 1)]), []);
        assert_eq!(look.judge(&[row(300, Dir::In, end)]), []);
        let low = look.judge(&[row(300, Dir::Out, end - LOW)]);
        assert!(
            matches!(
                low[..],
                [Event::SeqLow {
                    spi: 300,
                    remaining: LOW,
                    ..
                }]
            ),
            "{low:?}"
        );
        assert_eq!(look.judge(&[row(300, Dir::Out, end - 1)]), []);
        let over = look.judge(&[row(300, Dir::Out, end)]);
        assert!(
            matches!(over[..], [Event::Exhausted { spi: 300, .. }]),
            "{over:?}"
        );
        assert_eq!(look.judge(&[row(300, Dir::Out, end)]), []);
        // Another SA of this SPI begins anew.
        assert_eq!(look.judge(&[]), []);
        assert_eq!(look.judge(&[row(300, Dir::Out, end)]).len(), 2);
    }
}
