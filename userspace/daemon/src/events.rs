//! Flow events: what happens, to whoever listens, and what has happened to a
//! phone.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use gm_api::control::FlowEvent;
use tokio::sync::broadcast::{Receiver, Sender, channel};

use crate::journal::Journal;

/// Events that a slow listener may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// Hands events to all listeners.
#[derive(Clone, Debug)]
pub struct Events {
    to: Sender<FlowEvent>,
    journal: Arc<Mutex<Journal>>,
}

impl Events {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Events {
            to: channel(BACKLOG).0,
            journal: Arc::default(),
        }
    }

    /// Tells everybody, with the time of now.
    pub fn send(&self, mut event: FlowEvent) {
        event.time_ms = now_ms();
        self.journal().note(&event);
        // Nobody listening is no error.
        let _ = self.to.send(event);
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Receiver<FlowEvent> {
        self.to.subscribe()
    }

    /// The last steps of the phone with this address, the oldest first.
    pub fn of(&self, address: IpAddr) -> Vec<FlowEvent> {
        self.journal().of(address)
    }

    /// Since when the uplink is gone, milliseconds since 1970; `None`: it is there.
    pub fn uplink_gone(&self) -> Option<u64> {
        self.journal().uplink_gone()
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        // A panic leaves a step half noted at most.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970-01-01 UTC.
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a listener that was too slow is told.
pub fn missed(n: u64) -> FlowEvent {
    FlowEvent {
        time_ms: now_ms(),
        step: "missed".into(),
        reason: Some(format!("{n} events, the listener was too slow")),
        ..FlowEvent::default()
    }
}
