//! What sequences did.

/// What a sequence did, so that a test that does nothing is seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub packets: u64,
    pub protected: u64,
    pub installs: u64,
    pub registrations: u64,
    pub refreshes: u64,
    pub switches: u64,
    pub resyncs: u64,
    pub refused: u64,
    pub failures: u64,
    pub tunnels: u64,
    pub tcp: u64,
}

impl Tally {
    fn fields(&mut self) -> [&mut u64; 11] {
        [
            &mut self.packets,
            &mut self.protected,
            &mut self.installs,
            &mut self.registrations,
            &mut self.refreshes,
            &mut self.switches,
            &mut self.resyncs,
            &mut self.refused,
            &mut self.failures,
            &mut self.tunnels,
            &mut self.tcp,
        ]
    }

    pub fn add(&mut self, other: &Tally) {
        let mut other = *other;
        for (sum, more) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }

    /// Many sequences together have done everything.
    pub fn saw_everything(mut self) {
        self.tcp += 1; // Only where messages are long.
        let zero = self.fields().into_iter().any(|n| *n == 0);
        assert!(!zero, "something never happened: {self:?}");
    }
}
