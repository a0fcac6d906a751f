//! The control socket's HTTP interface. The paths and bodies are described in
//! `gm_api::control`; here is what they do.

mod answer;
mod events;
mod handlers;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use gm_api::control::{MAX_BODY, path};
use tokio::sync::{Notify, watch};

use crate::capture::Capture;
use crate::config::Config;
use crate::events::Events;
use crate::sets::Sets;

pub use serve::serve;

/// What the interface works on.
pub struct App {
    /// The configuration.
    pub config: Config,
    /// The sets of SAs.
    pub sets: Sets,
    /// What happens.
    pub events: Events,
    /// Registrations of the edge that are live.
    pub registrations: AtomicUsize,
    /// Told when the edge's thread has died: the daemon ends then.
    pub edge_died: Notify,
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
            registrations: AtomicUsize::new(0),
            edge_died: Notify::new(),
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
        .fallback(answer::no_path)
        .method_not_allowed_fallback(answer::no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}
