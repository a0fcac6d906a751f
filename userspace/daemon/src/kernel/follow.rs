//! Hears what happens in the kernel's tables: a phone that comes from another port, and
//! somebody who takes away what is ours.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::time::{Duration, Instant};

use gm_xfrm::kernel::{Event, Topic, Watch};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{KernelError, Shared, numbers};

/// Group of nfnetlink that hears of changes of nftables (NFNLGRP_NFTABLES).
const NFNLGRP_NFTABLES: u32 = 7;
/// How long the thread sleeps at most, and so outlives the data plane.
const PULSE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// Whoever changes nftables has this long to be done.
const SETTLED: Duration = Duration::from_millis(100);
/// And then they are looked at.
const SOON: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 110_000_000,
};
/// What is wrong and stays wrong is logged once in this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// The sockets that hear.
pub struct Ears {
    xfrm: Watch,
    nft: Socket,
}

impl Ears {
    /// Hears from now on, in the calling thread's network namespace.
    pub fn open() -> Result<Ears, KernelError> {
        let xfrm = Watch::open(&[
            Topic::States,
            Topic::Policies,
            Topic::Expiry,
            Topic::Mappings,
        ])?;
        let fail = |error| KernelError::Io("listen to changes of nftables", error);
        let mut nft = Socket::new(NETLINK_NETFILTER).map_err(fail)?;
        nft.bind(&SocketAddr::new(0, 0)).map_err(fail)?;
        nft.add_membership(NFNLGRP_NFTABLES).map_err(fail)?;
        nft.set_non_blocking(true).map_err(fail)?;
        Ok(Ears { xfrm, nft })
    }
}

/// Follows until the data plane is gone.
pub fn start(ears: Ears, shared: Weak<Shared>) -> Result<(), KernelError> {
    std::thread::Builder::new()
        .name("gm-kernel".into())
        .spawn(move || {
            let mut follow = Follow {
                ears,
                tables: None,
                numbers: numbers::Look::default(),
            };
            loop {
                // Every change is whole before anything can panic, and without this thread
                // phones behind a NAT would be lost.
                match catch_unwind(AssertUnwindSafe(|| follow.turn(&shared))) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(_) => {
                        tracing::error!("what happens in the kernel was not followed; it is again");
                        std::thread::sleep(PATIENCE);
                    }
                }
            }
        })
        .map(drop)
        .map_err(|error| KernelError::Io("start a thread", error))
}

struct Follow {
    ears: Ears,
    /// Since when nftables may be another.
    tables: Option<Instant>,
    numbers: numbers::Look,
}

impl Follow {
    /// One sleep and what has come; false: the data plane is gone.
    fn turn(&mut self, shared: &Weak<Shared>) -> bool {
        let mut fds = [
            PollFd::new(&self.ears.xfrm, PollFlags::IN),
            PollFd::from_borrowed_fd(self.ears.nft.as_fd(), PollFlags::IN),
        ];
        // Interrupted is as good as nothing heard.
        let wait = self.tables.map_or(PULSE, |_| SOON);
        let _ = poll(&mut fds, Some(&wait));
        let Some(shared) = shared.upgrade() else {
            return false;
        };
        if shared.control().is_none() {
            return false;
        }
        self.xfrm(&shared);
        self.nft(&shared);
        let looked = shared.with(|control| self.numbers.look(control));
        if let Err(error) = looked
            && !matches!(error, KernelError::Down)
        {
            tracing::warn!(%error, "sequence numbers cannot be read");
        }
        true
    }

    /// What has happened to states and policies.
    fn xfrm(&mut self, shared: &Shared) {
        let mut mend = false;
        loop {
            let event = match self.ears.xfrm.next(Some(Duration::ZERO)) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "changes of the kernel's tables are not heard");
                    std::thread::sleep(PATIENCE);
                    break;
                }
            };
            let done = shared.with(|control| {
                match event {
                    Event::Mapping { id, new, .. } => control.mapped(&id, new)?,
                    Event::PolicyRemoved(id) => mend |= control.book.policy(&id).is_some(),
                    Event::PolicyUpdated(is) | Event::PolicyAdded(is) => {
                        let ours = control.book.policy(&is.id);
                        mend |= ours.is_some_and(|ours| !ours.is_same(&is));
                    }
                    Event::PoliciesFlushed | Event::Lost => mend = true,
                    Event::StateRemoved { id, .. } | Event::StateExpired { id, hard: true } => {
                        // One of ours may have come back meanwhile under its old name.
                        if let Some(set) = control.is_lost(&id)? {
                            tracing::error!(
                                set = set.0,
                                "{id}: somebody else has removed it; its phone has to register again"
                            );
                        }
                    }
                    Event::StatesFlushed => {
                        tracing::error!("somebody has removed all SAs of this kernel; phones have to register again");
                    }
                    _ => {}
                }
                Ok(())
            });
            if matches!(done, Err(KernelError::Down)) {
                return;
            }
            if let Err(error) = done {
                tracing::warn!(%error, "a change of the kernel's tables is not followed");
            }
        }
        if !mend {
            return;
        }
        match shared.with(super::control::Control::mend_policies) {
            Ok(0) | Err(KernelError::Down) => {}
            Ok(mended) => tracing::error!(
                mended,
                "somebody else has removed or changed policies that block or protect; they are put back"
            ),
            Err(error) => tracing::error!(%error, "policies that are missing cannot be put back"),
        }
    }

    /// What has happened to the guard.
    fn nft(&mut self, shared: &Shared) {
        let mut heard = false;
        let mut buffer = Vec::with_capacity(1 << 16);
        loop {
            buffer.clear();
            match self.ears.nft.recv(&mut buffer, 0) {
                Ok(_) => heard = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // Too much at once: some of it may have been the guard.
                Err(_) => {
                    heard = true;
                    break;
                }
            }
        }
        if heard {
            self.tables.get_or_insert_with(Instant::now);
        }
        if self.tables.is_none_or(|since| since.elapsed() < SETTLED) {
            return;
        }
        self.tables = None;
        let mut guard = shared.guard();
        let Some(guard) = guard.as_mut() else {
            return;
        };
        match guard.look() {
            Ok(false) => {}
            Ok(true) => tracing::error!(
                "somebody else has removed or changed the table inet gmesp of nftables; it is put back"
            ),
            Err(error) => {
                tracing::error!(%error, "the guard cannot be put back");
                self.tables = Some(Instant::now() + PATIENCE);
            }
        }
    }
}
