//! Flow events: what happens, to whoever listens.

use std::time::{SystemTime, UNIX_EPOCH};

use gm_api::control::FlowEvent;
use tokio::sync::broadcast::{Receiver, Sender, channel};

/// Events that a slow listener may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// Hands events to all listeners.
#[derive(Clone, Debug)]
pub struct Events(Sender<FlowEvent>);

impl Events {
    /// Nobody listens yet.
    pub fn new() -> Self {
        Events(channel(BACKLOG).0)
    }

    /// Tells everybody, with the time of now.
    pub fn send(&self, mut event: FlowEvent) {
        event.time_ms = now_ms();
        // Nobody listening is no error.
        let _ = self.0.send(event);
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> Receiver<FlowEvent> {
        self.0.subscribe()
    }
}

/// Milliseconds since 1970-01-01 UTC.
fn now_ms() -> u64 {
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
