//! The SA that a phone's dropped packets were for, and how much they matter.

use gm_api::control::SaStatus;
use gm_api::drops::Weight;
use gm_api::sad::Dir;
use gm_dataplane::Reason;

use super::facts::{self, Facts, Seen, dropped};

/// The SA that was hit: the one of the sample, or one that has counted these.
pub(super) fn hit<'f>(
    facts: &'f Facts,
    newest: Option<&Seen>,
    reasons: &[Reason],
) -> Option<&'f SaStatus> {
    let number = newest.and_then(|seen| seen.sample.spi);
    let named = facts.sas(Dir::In).find(|row| Some(row.sa.spi) == number);
    named.or_else(|| facts.sas(Dir::In).find(|row| dropped(row, reasons) > 0))
}

/// By the sample, and whether a good packet of the same set has followed it:
/// that an older set goes on does not mend a new one. Without a sample, what
/// SAs that never worked have counted is why they do not.
pub(super) fn weigh(facts: &Facts, newest: Option<&Seen>, row: Option<&SaStatus>) -> Weight {
    match (newest, row) {
        (Some(seen), Some(row)) if seen.sample.spi == Some(row.sa.spi) => {
            let good = facts.with(row).filter_map(|row| row.idle_ms).min();
            facts::weigh(Some(seen.ago_ms), good)
        }
        (Some(seen), _) => facts.weigh(Some(seen.ago_ms)),
        (None, Some(row)) if facts.with(row).all(|row| row.packets == 0) => Weight::Cause,
        _ => Weight::Hint,
    }
}
