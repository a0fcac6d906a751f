//! What both doors do with the data plane: sets installed and removed for gm-sip,
//! SPIs kept at hand, steps told and logged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gm_api::control::ApiError;
use gm_dataplane::{Dir, NewSa};
use gm_sip::agent::FlowEvent as Step;
use gm_sip::{SaSetRequest, SetToken};

use crate::control::App;
use crate::edge::flow::Flow;

/// Carries out what an engine of gm-sip wants.
pub struct Hands {
    app: Arc<App>,
    flow: Flow,
    /// A refusal of SPIs is logged once, until there are some again.
    short: bool,
}

impl Hands {
    /// With nothing installed yet.
    pub fn new(app: Arc<App>) -> Hands {
        Hands {
            app,
            flow: Flow::default(),
            short: false,
        }
    }

    /// The daemon.
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// All four or none.
    pub fn install(&mut self, request: &SaSetRequest) -> bool {
        let keys = request.keys();
        let sa = |dir: Dir| {
            let keys = keys.clone();
            move |spec| NewSa {
                spec,
                keys: keys.clone(),
                dir,
                first_seq: None,
            }
        };
        let sas = request.inbound.map(sa(Dir::In)).into_iter();
        let sas = sas.chain(request.outbound.map(sa(Dir::Out))).collect();
        match self.app.sets.install(None, sas) {
            Ok(number) => {
                self.flow.installed(request, number);
                true
            }
            Err(error) => {
                tracing::error!(set = request.token.0, %error, "SAs are not installed");
                for sa in &request.inbound {
                    // Nobody will use it now; there is nothing more to do.
                    let _ = self.app.sets.plane().unreserve(sa.spi);
                }
                false
            }
        }
    }

    /// Outbound of the set goes live.
    pub fn activate(&self, set: SetToken) {
        self.command(set, "activate", |app, number| app.sets.activate(number));
    }

    /// Outbound of the set ends.
    pub fn retire(&self, set: SetToken) {
        self.command(set, "retire", |app, number| app.sets.retire(number));
    }

    /// The set goes.
    pub fn remove(&mut self, set: SetToken) {
        self.command(set, "remove", |app, number| app.sets.remove(number));
        self.flow.removed(set);
    }

    /// A command on a set that is installed. One on a set that never was has
    /// nothing to do.
    fn command(
        &self,
        set: SetToken,
        what: &str,
        run: impl FnOnce(&App, u64) -> Result<(), ApiError>,
    ) {
        let Some(number) = self.flow.number(set) else {
            return;
        };
        if let Err(error) = run(&self.app, number) {
            tracing::error!(set = number, %error, "cannot {what} the set");
        }
    }

    /// People's number of a set.
    pub fn number(&self, set: SetToken) -> Option<u64> {
        self.flow.number(set)
    }

    /// Tells and logs a step, at `now` in milliseconds.
    pub fn tell(&mut self, step: &Step, now: u64) {
        if let Some(event) = self.flow.step(step) {
            self.flow.log(step, &event, now);
            self.app.events.send(event);
        }
        if matches!(step, Step::Refused { .. }) {
            self.app.refused(self.flow.refusals());
        }
        self.count();
    }

    /// Says how many registrations are live.
    pub fn count(&self) {
        let live = self.flow.registrations();
        self.app.registrations.store(live, Ordering::Relaxed);
    }

    /// A pair of SPIs for a set's inbound SAs, so that no REGISTER waits for one.
    pub fn reserve_pair(&mut self) -> Option<[u32; 2]> {
        match self.reserve() {
            Ok(pair) => {
                self.short = false;
                Some(pair)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.short, true) {
                    tracing::warn!(%error, "no SPIs can be reserved; phones may be refused");
                }
                None
            }
        }
    }

    fn reserve(&self) -> Result<[u32; 2], ApiError> {
        let plane = self.app.sets.plane();
        let first = plane.reserve(&[])?;
        match plane.reserve(&[]) {
            Ok(second) => Ok([first, second]),
            Err(error) => {
                plane.unreserve(first)?;
                Err(error)
            }
        }
    }
}
