//! Names in a Via, looked up (TS 33.203 clause 7.1 rule 2). Phones that write one are rare
//! and names come from strangers: few at once, a short time, and what was found is kept
//! for a while.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::inbox::{Arrived, Inbox};

/// Lookups at once. Each keeps one of the runtime's few threads for blocking work, for
/// as long as the system's resolver likes, and the control interface needs some too.
const AT_ONCE: usize = 3;
/// Questions that may wait for their answer.
const QUESTIONS: usize = 64;
/// How long one waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long addresses are kept, and that there are none.
const KEPT: Duration = Duration::from_secs(60);
const KEPT_NONE: Duration = Duration::from_secs(5);
/// Names that are kept.
const NAMES: usize = 1024;
/// Addresses of one name.
const ADDRESSES: usize = 16;

/// How a name is looked up: the system's way, or a test's.
type Lookup = dyn Fn(&str) -> Vec<IpAddr> + Send + Sync;

#[derive(Clone)]
pub(super) struct Names(Arc<Shared>);

struct Shared {
    inbox: Inbox,
    runtime: Handle,
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
    threads: Arc<tokio::sync::Semaphore>,
    waiting: AtomicUsize,
    lookup: Box<Lookup>,
}

impl Names {
    pub(super) fn new(inbox: &Inbox, runtime: Handle) -> Names {
        Names::with(inbox, runtime, Box::new(system))
    }

    fn with(inbox: &Inbox, runtime: Handle, lookup: Box<Lookup>) -> Names {
        Names(Arc::new(Shared {
            inbox: inbox.clone(),
            runtime,
            known: Mutex::default(),
            threads: Arc::new(tokio::sync::Semaphore::new(AT_ONCE)),
            waiting: AtomicUsize::new(0),
            lookup,
        }))
    }

    /// Asks for a name; the answer comes through the inbox, within two seconds.
    pub(super) fn ask(&self, id: u64, name: String) {
        if let Some(addresses) = self.known(&name) {
            return self.tell(id, addresses);
        }
        if self.0.waiting.fetch_add(1, Ordering::Relaxed) >= QUESTIONS {
            self.0.waiting.fetch_sub(1, Ordering::Relaxed);
            return self.tell(id, Vec::new());
        }
        let names = self.clone();
        self.0.runtime.spawn(async move {
            let found = tokio::time::timeout(PATIENCE, names.clone().look_up(name)).await;
            names.0.waiting.fetch_sub(1, Ordering::Relaxed);
            names.tell(id, found.unwrap_or_default());
        });
    }

    async fn look_up(self, name: String) -> Vec<IpAddr> {
        let Ok(thread) = Arc::clone(&self.0.threads).acquire_owned().await else {
            return Vec::new();
        };
        if let Some(addresses) = self.known(&name) {
            return addresses;
        }
        let found = tokio::task::spawn_blocking(move || {
            let mut addresses = (self.0.lookup)(&name);
            addresses.truncate(ADDRESSES);
            self.keep(name, addresses.clone());
            // Given back when the resolver is done, however long nobody waits any more.
            drop(thread);
            addresses
        });
        found.await.unwrap_or_default()
    }

    fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, addresses) = known.get(name)?;
        (*until > Instant::now()).then(|| addresses.clone())
    }

    fn keep(&self, name: String, addresses: Vec<IpAddr>) {
        let now = Instant::now();
        let kept = if addresses.is_empty() {
            KEPT_NONE
        } else {
            KEPT
        };
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMES {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() < NAMES {
            known.insert(name, (now + kept, addresses));
        }
    }

    fn tell(&self, id: u64, addresses: Vec<IpAddr>) {
        self.0.inbox.put(Arrived::Resolved { id, addresses });
    }
}

fn system(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs();
    found.map_or_else(|_| Vec::new(), |all| all.map(|at| at.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::inbox::Arrivals;

    fn answers(arrivals: &Arrivals, count: usize) -> Vec<(u64, Vec<IpAddr>)> {
        (0..count)
            .map(|_| match arrivals.next(Duration::from_secs(10)) {
                Ok(Arrived::Resolved { id, addresses }) => (id, addresses),
                _ => panic!("no answer"),
            })
            .collect()
    }

    #[test]
    fn a_name_is_asked_for_once_and_kept() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (inbox, arrivals) = Inbox::new(5060);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let lookup = move |name: &str| {
            count.fetch_add(1, Ordering::Relaxed);
            let good = name == "phone.example";
            vec![IpAddr::from([192, 0, 2, 1]); if good { 40 } else { 0 }]
        };
        let names = Names::with(&inbox, runtime.handle().clone(), Box::new(lookup));
        for (id, name, addresses) in [
            (1, "phone.example", ADDRESSES),
            (2, "phone.example", ADDRESSES),
            (3, "none.example", 0),
            (4, "none.example", 0),
        ] {
            names.ask(id, name.into());
            let answer = answers(&arrivals, 1).remove(0);
            assert_eq!((answer.0, answer.1.len()), (id, addresses));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_resolver_that_hangs_gets_few_threads_and_everybody_an_answer() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (inbox, arrivals) = Inbox::new(5060);
        let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (open, gate) = crossbeam::channel::bounded::<()>(0);
        let (there, peak) = (Arc::clone(&inside), Arc::clone(&most));
        let lookup = move |_: &str| {
            peak.fetch_max(1 + there.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            let _ = gate.recv();
            there.fetch_sub(1, Ordering::SeqCst);
            Vec::new()
        };
        let names = Names::with(&inbox, runtime.handle().clone(), Box::new(lookup));
        for id in 0..200 {
            names.ask(id, format!("n{id}.example"));
        }
        let all = answers(&arrivals, 200);
        assert!(all.iter().all(|(_, addresses)| addresses.is_empty()));
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        assert_eq!(names.0.waiting.load(Ordering::Relaxed), 0);
        drop(open);
    }
}
