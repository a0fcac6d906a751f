//! What waits for the executor, in three queues: the core's messages, those of phones
//! through SAs, and what strangers can send. None takes room or a turn from one before it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use gm_sip::Transport;
use zeroize::Zeroizing;

/// Messages that may wait for the executor, of the core, and of all phones through SAs;
/// more are dropped, and repeated.
const BACKLOG: usize = 4096;
/// The same for messages in clear, which anybody can send.
const BACKLOG_CLEAR: usize = 1024;

/// Something for the executor. Messages of the core carry IK and CK, so all
/// are wiped after use.
pub(super) enum Arrived {
    /// A message on the Gm side.
    FromUe {
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A message on the core side.
    FromCore {
        remote: SocketAddr,
        transport: Transport,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A message for a phone that no connection took.
    UnsentToUe {
        local: SocketAddr,
        remote: SocketAddr,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// A message for the core that no connection took.
    UnsentToCore {
        remote: SocketAddr,
        bytes: Zeroizing<Vec<u8>>,
    },
    /// The addresses of a name.
    Resolved { id: u64, addresses: Vec<IpAddr> },
    /// The end.
    Stop,
}

/// Whose it is.
#[derive(Debug)]
enum Side {
    Core,
    Phones,
    Strangers,
}

/// Where sockets and connections put what arrives.
#[derive(Clone)]
pub(super) struct Inbox {
    core: Sender<Arrived>,
    phones: Sender<Arrived>,
    clear: Sender<Arrived>,
    sip_port: u16,
    dropped: Arc<AtomicU64>,
}

/// The other end of an [`Inbox`].
pub(super) struct Arrivals {
    core: Receiver<Arrived>,
    phones: Receiver<Arrived>,
    clear: Receiver<Arrived>,
}

impl Inbox {
    pub fn new(sip_port: u16) -> (Inbox, Arrivals) {
        let (core, core_out) = bounded(BACKLOG);
        let (phones, phones_out) = bounded(BACKLOG);
        let (clear, clear_out) = bounded(BACKLOG_CLEAR);
        let inbox = Inbox {
            core,
            phones,
            clear,
            sip_port,
            dropped: Arc::new(AtomicU64::new(0)),
        };
        let arrivals = Arrivals {
            core: core_out,
            phones: phones_out,
            clear: clear_out,
        };
        (inbox, arrivals)
    }

    /// Never waits; what there is no room for is dropped. False: nobody will ever take it.
    pub fn put(&self, arrived: Arrived) -> bool {
        match self.offer(arrived) {
            Ok(there) => there,
            Err(arrived) => {
                self.lost(arrived);
                true
            }
        }
    }

    /// Never waits; gives back what there is no room for. False: nobody will ever take it.
    pub fn offer(&self, arrived: Arrived) -> Result<bool, Arrived> {
        let way = match self.side(&arrived) {
            Side::Strangers => &self.clear,
            Side::Phones => &self.phones,
            Side::Core => &self.core,
        };
        enter(way, arrived)
    }

    /// As [`Inbox::put`], for what comes to the core's side and is not the core's: it waits
    /// with what strangers send.
    pub fn put_stranger(&self, arrived: Arrived) -> bool {
        enter(&self.clear, arrived).unwrap_or_else(|arrived| {
            self.lost(arrived);
            true
        })
    }

    /// Counts something that is dropped.
    pub fn lost(&self, arrived: Arrived) {
        let of = self.side(&arrived);
        let dropped = 1 + self.dropped.fetch_add(1, Ordering::Relaxed);
        // A line each would be the next overload.
        if dropped.is_power_of_two() {
            tracing::warn!(dropped, ?of, "SIP overload: messages are dropped");
        }
    }

    /// Ends the executor; waits for room. False: it has ended.
    pub fn stop(&self) -> bool {
        self.core.send(Arrived::Stop).is_ok()
    }

    fn side(&self, arrived: &Arrived) -> Side {
        match arrived {
            // What a stranger's connection has not taken is no more urgent than what it said.
            Arrived::FromUe { local, .. } | Arrived::UnsentToUe { local, .. } => {
                if local.port() == self.sip_port {
                    Side::Strangers
                } else {
                    Side::Phones
                }
            }
            _ => Side::Core,
        }
    }
}

fn enter(way: &Sender<Arrived>, arrived: Arrived) -> Result<bool, Arrived> {
    match way.try_send(arrived) {
        Ok(()) => Ok(true),
        Err(TrySendError::Full(back)) => Err(back),
        Err(TrySendError::Disconnected(_)) => Ok(false),
    }
}

impl Arrivals {
    /// The next one; one of a queue only when nothing waits in those before it.
    pub fn next(&self, patience: Duration) -> Result<Arrived, RecvTimeoutError> {
        let mut first = [&self.core, &self.phones].into_iter();
        if let Some(arrived) = first.find_map(|queue| queue.try_recv().ok()) {
            return Ok(arrived);
        }
        let gone = |_| RecvTimeoutError::Disconnected;
        crossbeam::channel::select! {
            recv(self.core) -> arrived => arrived.map_err(gone),
            recv(self.phones) -> arrived => arrived.map_err(gone),
            recv(self.clear) -> arrived => arrived.map_err(gone),
            default(patience) => Err(RecvTimeoutError::Timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phone_that_floods_takes_no_room_from_the_core() {
        let (inbox, arrivals) = Inbox::new(5060);
        for n in 0..=BACKLOG {
            let from_ue = Arrived::FromUe {
                local: ([192, 0, 2, 1], 5064).into(),
                remote: ([192, 0, 2, 2], 31000).into(),
                transport: Transport::Udp,
                bytes: Zeroizing::new(vec![1]),
            };
            assert_eq!(inbox.offer(from_ue).is_ok(), n < BACKLOG);
        }
        let from_core = Arrived::FromCore {
            remote: ([192, 0, 2, 3], 5060).into(),
            transport: Transport::Udp,
            bytes: Zeroizing::new(vec![2]),
        };
        assert!(inbox.offer(from_core).is_ok());
        let next = arrivals.next(Duration::ZERO);
        assert!(matches!(next, Ok(Arrived::FromCore { .. })));
    }

    #[test]
    fn what_strangers_send_waits_for_everything_else() {
        let (inbox, arrivals) = Inbox::new(5060);
        let from_ue = |port: u16, n: u8| Arrived::FromUe {
            local: ([192, 0, 2, 1], port).into(),
            remote: ([192, 0, 2, 2], 5060).into(),
            transport: Transport::Udp,
            bytes: Zeroizing::new(vec![n]),
        };
        let from_core = |n: u8| Arrived::FromCore {
            remote: ([192, 0, 2, 3], 5060).into(),
            transport: Transport::Udp,
            bytes: Zeroizing::new(vec![n]),
        };
        let unsent = || Arrived::UnsentToUe {
            local: ([192, 0, 2, 1], 5060).into(),
            remote: ([192, 0, 2, 2], 5060).into(),
            bytes: Zeroizing::new(vec![0]),
        };
        for _ in 0..2 * BACKLOG {
            assert!(inbox.put(from_ue(5060, 0)));
            assert!(inbox.put(unsent()));
            // To the core's side, from somebody else.
            assert!(inbox.put_stranger(from_core(0)));
        }
        assert!(inbox.put(from_ue(5064, 1)));
        assert!(inbox.put(from_core(2)));
        let next = || match arrivals.next(Duration::ZERO) {
            Ok(
                Arrived::FromUe { bytes, .. }
                | Arrived::FromCore { bytes, .. }
                | Arrived::UnsentToUe { bytes, .. },
            ) => Some(bytes[0]),
            _ => None,
        };
        assert_eq!([next(), next(), next()], [Some(2), Some(1), Some(0)]);
        assert_eq!(std::iter::from_fn(next).count(), BACKLOG_CLEAR - 1);
    }
}
