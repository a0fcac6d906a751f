//! The second door: registration security for a SIP proxy that keeps its own SIP.
//! The paths and bodies are described in [`gm_api::register`]; here gm-sip's agent is
//! asked, and what it wants of the data plane is carried out before an answer leaves.

mod message;
mod replies;
mod state;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gm_api::control::ApiError;
use gm_api::register::{
    EndReply, Flow, FlowRequest, RegisterReply, RegisterRequest, Registration, ResponseReply,
    ResponseRequest, Way,
};
use gm_sip::agent::{Agent, AttemptId};

use crate::control::App;
use crate::edge::OsRandom;

use state::State;

/// Without anything due: how often it is looked whether something is.
const TICK: Duration = Duration::from_secs(1);

/// The door. Dropped, it stops.
pub struct Door {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    app: Arc<App>,
    state: Mutex<State>,
    started: Instant,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Drop for Door {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It has panicked: that was logged, and there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the daemon when what it stands beside has panicked: nobody can tell what the state
/// is worth then, and without the clock SAs would live for ever. Better a restart.
struct Alarm<'a>(&'a App);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.edge_died.notify_one();
        }
    }
}

/// Opens the door where the configuration has one.
pub fn start(app: &Arc<App>) -> anyhow::Result<Option<Door>> {
    let config = &app.config;
    let Some(table) = config
        .edge
        .as_ref()
        .filter(|e| e.enabled && !e.speaks_sip())
    else {
        return Ok(None);
    };
    let sip = config.edge_config(table)?.agent();
    let agent = Agent::new(sip, &mut OsRandom)?;
    Door::open(Arc::clone(app), agent).map(Some)
}

impl Door {
    fn open(app: Arc<App>, agent: Agent) -> anyhow::Result<Door> {
        let mut state = State::new(Arc::clone(&app), agent);
        // Before the first phone asks.
        state.refill();
        let shared = Arc::new(Shared {
            app,
            state: Mutex::new(state),
            started: Instant::now(),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        });
        let clock = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("gm-door".into())
            .spawn(move || clock.keep_time())?;
        Ok(Door {
            shared,
            thread: Some(thread),
        })
    }

    fn with<T>(&self, run: impl FnOnce(&mut State, u64) -> T) -> T {
        let _alarm = Alarm(&self.shared.app);
        let mut state = lock(&self.shared.state);
        // Not before: the agent's clock never goes back.
        let now = self.shared.now();
        let result = run(&mut state, now);
        state.refill();
        drop(state);
        // There may be something new to wait for.
        self.shared.wake.notify_all();
        result
    }

    /// A REGISTER.
    pub fn register(&self, request: &RegisterRequest) -> Result<RegisterReply, ApiError> {
        self.with(|state, now| state.register(now, request))
    }

    /// The core's answer to it.
    pub fn response(&self, id: u64, request: &ResponseRequest) -> Result<ResponseReply, ApiError> {
        self.with(|state, now| state.response(now, AttemptId(id), request))
    }

    /// A REGISTER that nobody will answer.
    pub fn abort(&self, id: u64) -> EndReply {
        self.with(|state, now| state.abort(now, AttemptId(id)))
    }

    /// Whose message came through an SA.
    pub fn flow(&self, request: &FlowRequest) -> Result<Flow, ApiError> {
        self.with(|state, now| state.flow(now, request))
    }

    /// The way of requests to a contact: by its address and server port, or by its
    /// private identity.
    pub fn way(&self, to: Option<SocketAddr>, impi: Option<&str>) -> Result<Way, ApiError> {
        self.with(|state, _| state.way_of(to, impi))
    }

    /// Contacts that have SAs.
    pub fn registrations(&self) -> Vec<Registration> {
        self.with(|state, now| state.registrations(now))
    }

    /// The network ends a user's registrations.
    pub fn deregister(&self, impi: &str) -> EndReply {
        self.with(|state, now| state.deregister(now, impi))
    }
}

impl Shared {
    /// Milliseconds since the door has opened.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Does what is due, until the door closes.
    fn keep_time(&self) {
        let _alarm = Alarm(&self.app);
        let mut stop = lock(&self.stop);
        while !*stop {
            let (now, due) = {
                let mut state = lock(&self.state);
                let now = self.now();
                state.keep_time(now);
                (now, state.next_timeout())
            };
            let patience = due.map_or(TICK, |due| Duration::from_millis(due.saturating_sub(now)));
            let waited = self.wake.wait_timeout(stop, patience.min(TICK));
            stop = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
