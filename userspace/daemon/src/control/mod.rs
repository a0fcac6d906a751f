//! The control socket's HTTP interface. The paths and bodies are described in
//! `gm_api::control`; here is what they do.

mod answer;
mod drops;
mod events;
mod guests;
mod handlers;
mod registrations;
mod serve;
#[cfg(test)]
mod tests;
mod token;
mod transfers;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use gm_api::control::{MAX_BODY, path};
use gm_api::{drops as api, register, transfer};
use tokio::sync::{Notify, watch};

use crate::capture::Capture;
use crate::config::Config;
use crate::door::Door;
use crate::events::Events;
use crate::migrate::Migration;
use crate::samples::Samples;
use crate::sets::Sets;

pub use serve::{serve, serve_tcp};
pub use token::Token;

/// What the interface works on.
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The sets of SAs.
    pub sets: Sets,
    /// What happens.
    pub events: Events,
    /// Dropped packets.
    pub samples: Arc<Samples>,
    /// Registrations of the edge that are live.
    pub registrations: AtomicUsize,
    /// SIP messages that were refused, by the reason's word.
    refusals: Mutex<BTreeMap<String, u64>>,
    /// SAs that were taken over from the kernel.
    pub migration: Migration,
    /// Told when the edge's thread has died: the daemon ends then.
    pub edge_died: Notify,
    /// The second door, where it is open.
    door: OnceLock<Door>,
    /// The capture that runs, and what captures had missed before it.
    capture: Mutex<Option<(Capture, u64)>>,
    started: Instant,
    stopping: watch::Sender<bool>,
}

impl App {
    /// Over these sets, from now on.
    pub fn new(config: Config, sets: Sets, events: Events) -> Arc<App> {
        Arc::new(App {
            config,
            sets,
            events,
            samples: Arc::new(Samples::new()),
            registrations: AtomicUsize::new(0),
            refusals: Mutex::default(),
            migration: Migration::default(),
            edge_died: Notify::new(),
            door: OnceLock::new(),
            capture: Mutex::new(None),
            started: Instant::now(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Ends the streams and the server.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Becomes true when the daemon stops.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Ends a wire capture that still runs.
    pub fn stop_capture(&self) {
        if self.capture().is_some()
            && let Err(error) = handlers::end_capture(self)
        {
            tracing::warn!(%error, "the capture has not ended well");
        }
    }

    fn capture(&self) -> MutexGuard<'_, Option<(Capture, u64)>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the second door; once.
    pub fn open(&self, door: Door) {
        let opened = self.door.set(door);
        debug_assert!(opened.is_ok(), "there is one door");
    }

    /// Notes what was refused so far.
    pub fn refused(&self, by_reason: &BTreeMap<String, u64>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.clone_from(by_reason);
    }

    fn refusals(&self) -> BTreeMap<String, u64> {
        let refusals = self.refusals.lock();
        refusals.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Milliseconds since the daemon started.
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn live_registrations(&self) -> usize {
        self.registrations.load(Ordering::Relaxed)
    }
}

/// All paths.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(
            path::SA,
            get(handlers::list)
                .post(handlers::add)
                .delete(handlers::remove),
        )
        .route("/v1/sa/{set}/activate", post(handlers::activate))
        .route("/v1/sa/{set}/retire", post(handlers::retire))
        .route(path::STATS, get(handlers::stats))
        .route(path::HEALTH, get(handlers::health))
        .route(
            path::CAPTURE,
            post(handlers::capture_start).delete(handlers::capture_stop),
        )
        .route(path::EVENTS, get(events::events))
        .route(api::path::DROPS, get(drops::report))
        .route(api::path::PREFIXES, get(drops::prefixes))
        .route(api::path::RECENT, get(drops::recent))
        .route(api::path::FOLLOW, get(drops::follow))
        .route(api::path::EXPLAIN, get(drops::explain))
        .route(
            api::path::WORKERS,
            get(drops::workers).put(drops::set_workers),
        )
        .route(transfer::path::ADOPT, post(transfers::adopt))
        .route(transfer::path::GIVE_BACK, post(transfers::give_back))
        .route(register::path::OPENAPI, get(answer::openapi))
        .route(register::path::REGISTER, post(registrations::register))
        .route(register::path::RESPONSE, post(registrations::response))
        .route(register::path::REGISTER_ID, delete(registrations::abort))
        .route(register::path::FLOW, post(registrations::flow))
        .route(register::path::WAY, get(registrations::way))
        .route(
            register::path::REGISTRATIONS,
            get(registrations::list).delete(registrations::deregister),
        )
        .fallback(answer::no_path)
        .method_not_allowed_fallback(answer::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}
