//! The wire capture: what tcpdump on the uplink cannot see, because XDP takes
//! sealed packets before it and AF_XDP sends behind it.

use std::time::{Duration, SystemTime};

use crossbeam::channel::Sender;

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received from the uplink, as it was received.
    In,
    /// Sent to the uplink, sealed.
    Out,
}

/// One captured frame.
#[derive(Clone, Debug)]
pub struct TapPacket {
    /// Since the Unix epoch.
    pub at: Duration,
    /// Received or sent.
    pub direction: Direction,
    /// The Ethernet frame.
    pub frame: Vec<u8>,
}

/// Copies frames to whoever captures. The channel should be bounded: what does
/// not fit is counted and lost, the worker never waits.
#[derive(Default)]
pub(crate) struct Tap {
    to: Option<Sender<TapPacket>>,
    missed: u64,
}

impl Tap {
    /// Begins, changes or ends the capture.
    pub(crate) fn set(&mut self, to: Option<Sender<TapPacket>>) {
        self.to = to;
    }

    /// Frames that did not fit the channel.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }

    /// Whether somebody captures.
    pub(crate) fn is_on(&self) -> bool {
        self.to.is_some()
    }

    /// Copies a frame if somebody captures.
    pub(crate) fn copy(&mut self, direction: Direction, frame: &[u8]) {
        let Some(to) = &self.to else { return };
        let at = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        match to.try_send(TapPacket {
            at,
            direction,
            frame: frame.to_vec(),
        }) {
            Ok(()) => {}
            Err(e) if e.is_full() => self.missed += 1,
            // Whoever captured has gone.
            Err(_) => self.to = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_channel_is_counted_and_a_closed_one_ends_it() {
        let (to, from) = crossbeam::channel::bounded(1);
        let mut tap = Tap::default();
        tap.copy(Direction::In, b"nobody");
        tap.set(Some(to));
        tap.copy(Direction::In, b"one");
        tap.copy(Direction::Out, b"two");
        assert_eq!(tap.missed(), 1);
        let got = from.recv().unwrap();
        assert_eq!(
            (got.direction, got.frame.as_slice()),
            (Direction::In, &b"one"[..])
        );
        drop(from);
        tap.copy(Direction::In, b"three");
        assert!(tap.to.is_none());
    }
}
