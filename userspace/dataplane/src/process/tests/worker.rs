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
    let thread = worker::start(0, None, 0, Bench::new(8).process, inbox, notices).unwrap();
    assert!(handoff.call(Command::Report).is_ok());
    drop(handoff);
    let until = Instant::now() + Duration::from_secs(60);
    while !thread.is_finished() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(thread.is_finished());
    assert_eq!(heard.len(), 0, "it has not died");
}

/// Of rounds without packets and orders each ends in a sleep; what is counted is
/// rounds, however long they take.
#[test]
fn an_idle_worker_sleeps_after_every_round() {
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let (handoff, inbox) = handoff::pair(wake);
    let (notices, _heard) = unbounded();
    let thread = worker::start(0, None, 0, Bench::new(8).process, inbox, notices).unwrap();
    for orders in 1..=100 {
        let report = handoff.call(Command::Report).ok().unwrap();
        assert_eq!(report.turns, report.sleeps + orders);
    }
    handoff.call(Command::Stop).ok().unwrap();
    thread.join().unwrap();
}

/// Packets come in between, however many orders wait.
#[test]
fn orders_are_obeyed_one_a_round() {
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
    let (handoff, inbox) = handoff::pair(wake);
    let waiting: Vec<_> = (0..4).map(|_| handoff.send(Command::Report).ok()).collect();
    let (notices, _heard) = unbounded();
    let thread = worker::start(0, None, 0, Bench::new(8).process, inbox, notices).unwrap();
    let turns = |pending: Option<handoff::Pending>| pending.unwrap().wait().ok().unwrap().turns;
    let turns: Vec<u64> = waiting.into_iter().map(turns).collect();
    assert_eq!(turns, [1, 2, 3, 4]);
    handoff.call(Command::Stop).ok().unwrap();
    thread.join().unwrap();
}
