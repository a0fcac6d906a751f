//! Waiting for what is on its way through the host, without knowing what it is.
//!
//! A time is too long on most machines and too short where many wait for a
//! processor. So it is a short time, and then as long as it takes until everybody who
//! waited has had a turn.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{
    CpuSet, MembarrierCommand, membarrier, sched_getaffinity, sched_setaffinity, sched_yield,
};

/// Turns on each processor. A thread begins behind those that wait, and behind them again
/// after each turn that it ends itself; the more it has had, the less it hangs on how
/// the kernel reckons.
const TURNS: u32 = 10;
/// How long one of them is: less than the kernel gives.
const TURN: Duration = Duration::from_micros(200);
/// After this a processor is somebody else's alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// Threads at most that wait for a processor which nobody leaves.
const MOST: usize = 4 * CpuSet::MAX_CPU;

/// Threads that have not had their turns.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Every processor has left what it was at in the kernel without a pause, as receiving
/// packets is, with what it had seen before. Where the kernel does not do this
/// (`nohz_full`), nothing happens.
pub fn quiescent() {
    if let Err(error) = membarrier(MembarrierCommand::Global) {
        tracing::debug!(%error, "membarrier");
    }
}

/// Waits for `least`, until every processor is [`quiescent`], and until who waited for
/// one has had it, unless that takes half a second.
pub fn until_others_had_a_turn(least: Duration) {
    thread::sleep(least);
    quiescent();
    let deadline = Instant::now() + PATIENCE;
    let (done, all) = mpsc::channel();
    for cpu in processors() {
        if WAITING.fetch_add(1, Relaxed) >= MOST {
            WAITING.fetch_sub(1, Relaxed);
            tracing::debug!(cpu, "many wait already");
            continue;
        }
        let done = done.clone();
        let turns = thread::Builder::new().name("turns".into());
        let turns = turns.spawn(move || {
            take_turns(cpu, deadline, &done);
            WAITING.fetch_sub(1, Relaxed);
        });
        if let Err(error) = turns {
            WAITING.fetch_sub(1, Relaxed);
            tracing::debug!(%error, cpu, "no thread");
        }
    }
    drop(done);
    // It ends when all have, or with the time.
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if all.recv_timeout(left).is_err() {
            return;
        }
    }
}

/// Those that threads of ours may be on: other programs too, where nobody has divided
/// them up.
fn processors() -> Vec<usize> {
    let all = sched_getaffinity(None).ok();
    let is_there = |cpu: &usize| all.is_some_and(|all| all.is_set(*cpu));
    (0..CpuSet::MAX_CPU).filter(is_there).collect()
}

fn take_turns(cpu: usize, deadline: Instant, done: &Sender<()>) {
    let mut one = CpuSet::new();
    one.set(cpu);
    if let Err(error) = sched_setaffinity(None, &one) {
        tracing::debug!(%error, cpu, "not allowed there");
        return;
    }
    for _ in 0..TURNS {
        let began = Instant::now();
        if began >= deadline {
            return;
        }
        while began.elapsed() < TURN {
            std::hint::spin_loop();
        }
        sched_yield();
    }
    // Nobody may wait any more.
    let _ = done.send(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_again_after_the_least_time_and_leaves_this_thread_where_it_was() {
        let before = sched_getaffinity(None).unwrap();
        assert!(!processors().is_empty());
        let began = Instant::now();
        until_others_had_a_turn(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert_eq!(sched_getaffinity(None).unwrap(), before);
    }
}
