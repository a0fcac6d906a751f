//! A worker's thread, without lanes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use rustix::event::{EventfdFlags, eventfd};

use super::bench::Bench;
use crate::handoff::{self, Command};
use crate::worker;

/// One that was given up must not go on with SAs that others have by then.
#[test]
fn a_worker_that_nobody_commands_any_more_ends() {
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let (handoff, inbox) = handoff::pair(wake);
    let (notices, heard) = unbounded();
    let thread = worker::start(0, None, Bench::new(8).process, inbox, notices).unwrap();
    assert!(handoff.call(Command::Report).is_ok());
    drop(handoff);
    let until = Instant::now() + Duration::from_secs(60);
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(thread.is_finished());
    assert_eq!(heard.len(), 0, "it has not died");
}
