//! Following what happens in the kernel.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_xfrm as nl;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::XfrmError;
use super::numbers::Numbers;
use super::policy::{Policy, PolicyId};
use super::select::Selector;
use super::socket::Netlink;
use super::state::{State, StateId};
use super::wire::event;

/// What to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// States made, changed and removed.
    States,
    /// Policies made, changed and removed.
    Policies,
    /// States that expire.
    Expiry,
    /// Packets for which there is no state. Who listens makes the kernel wait
    /// for a state that somebody makes.
    Wanted,
    /// Phones behind a NAT that come from elsewhere.
    Mappings,
    /// Sequence numbers. The kernel tells after every second packet.
    Numbers,
}

impl Topic {
    fn group(self) -> u32 {
        match self {
            Topic::States => nl::XFRMNLGRP_SA,
            Topic::Policies => nl::XFRMNLGRP_POLICY,
            Topic::Expiry => nl::XFRMNLGRP_EXPIRE,
            Topic::Wanted => nl::XFRMNLGRP_ACQUIRE,
            Topic::Mappings => nl::XFRMNLGRP_MAPPING,
            Topic::Numbers => nl::XFRMNLGRP_AEVENTS,
        }
    }
}

/// Something that happened. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A state was made.
    StateAdded(Box<State>),
    /// A state was changed: this is what the request said.
    StateUpdated(Box<State>),
    /// A state was removed by somebody.
    StateRemoved {
        /// The state.
        id: StateId,
        /// What it was at its end, with its last numbers: none is used any
        /// more from then on.
        last: Option<Box<State>>,
    },
    /// A state has reached a limit; with `hard` it is gone.
    StateExpired {
        /// The state.
        id: StateId,
        /// Whether it is gone.
        hard: bool,
    },
    /// All states, or all of one protocol, were removed.
    StatesFlushed,
    /// A policy was made.
    PolicyAdded(Box<Policy>),
    /// A policy was replaced.
    PolicyUpdated(Box<Policy>),
    /// A policy was removed.
    PolicyRemoved(PolicyId),
    /// All policies were removed.
    PoliciesFlushed,
    /// An authentic packet of an inbound state came from another address or
    /// UDP port than the state says. The state stays as it is.
    Mapping {
        /// The inbound state.
        id: StateId,
        /// Its reqid.
        reqid: u32,
        /// What the state says.
        old: (IpAddr, u16),
        /// Where the packet came from.
        new: (IpAddr, u16),
    },
    /// A state's numbers went on.
    Numbers {
        /// The state.
        id: StateId,
        /// Its numbers; `esn` and the size of an old window are not told.
        numbers: Numbers,
    },
    /// A packet has a policy and no state.
    Wanted {
        /// The packet's.
        selector: Selector,
    },
    /// So much happened that some of it was lost: read the tables again.
    Lost,
}

/// A socket that hears. See [`Topic`].
pub struct Watch {
    netlink: Netlink,
    waiting: VecDeque<Event>,
}

/// What happens in this time has room: some 4000 new states.
const ROOM: usize = 4 << 20;

impl Watch {
    /// Hears of these from now on, in the network namespace of the calling
    /// thread.
    ///
    /// # Errors
    /// [`XfrmError::NoXfrm`], [`XfrmError::NotAllowed`].
    pub fn open(topics: &[Topic]) -> Result<Watch, XfrmError> {
        Watch::with_room(topics, ROOM)
    }

    /// The same with room for so many bytes of what is not read at once.
    ///
    /// # Errors
    /// As [`Watch::open`].
    pub fn with_room(topics: &[Topic], room: usize) -> Result<Watch, XfrmError> {
        let mut netlink = Netlink::open()?;
        netlink.widen(room);
        for topic in topics {
            netlink.join(topic.group())?;
        }
        Ok(Watch {
            netlink,
            waiting: VecDeque::new(),
        })
    }

    /// The next event; `None`: none came in this time. Without a time it waits.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn next(&mut self, wait: Option<Duration>) -> Result<Option<Event>, XfrmError> {
        if let Some(event) = self.waiting.pop_front() {
            return Ok(Some(event));
        }
        let fail = |error: io::Error| XfrmError::Socket {
            what: "listen",
            error,
        };
        let wait = wait.map(|time| Timespec {
            tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        });
        loop {
            let mut fds = [PollFd::new(&self.netlink, PollFlags::IN)];
            match poll(&mut fds, wait.as_ref()) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Ok(None),
                Err(e) => return Err(fail(e.into())),
            }
            let waiting = &mut self.waiting;
            let heard = self.netlink.receive(false, |reply| match reply {
                Ok(reply) => match event::parse(&reply) {
                    Ok(Some(event)) => waiting.push_back(event),
                    Ok(None) => {}
                    Err(_) => waiting.push_back(Event::Lost),
                },
                Err(_) => waiting.push_back(Event::Lost),
            });
            match heard {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(Event::Lost));
                }
                Err(e) => return Err(fail(e)),
            }
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}
