//! Sets that could not be ended, because a worker did not answer. Their numbers
//! and places are nobody's else, and their keys in the region, until it does.

use std::collections::BTreeSet;

use gm_sadb::SetId;

use crate::bulk::SETS;
use crate::control::Control;

/// Bounded by the places that there are for SAs.
#[derive(Default)]
pub(crate) struct Unended(BTreeSet<SetId>);

impl Unended {
    /// One more.
    pub(crate) fn add(&mut self, set: SetId) {
        self.0.insert(set);
    }

    /// It has ended: its number may be another set's from now on.
    pub(crate) fn forget(&mut self, set: SetId) {
        self.0.remove(&set);
    }
}

impl Control {
    /// Ends some of them when every worker takes its orders again.
    pub(crate) fn end_again(&mut self) {
        if self.unended.0.is_empty() || !self.crew.takes_orders() {
            return;
        }
        let some: Vec<SetId> = self.unended.0.iter().copied().take(SETS).collect();
        let failed = self
            .remove(&some)
            .into_iter()
            .filter(Result::is_err)
            .count();
        tracing::info!(
            sets = some.len() - failed,
            failed,
            "ended, now that the workers answer"
        );
    }
}
