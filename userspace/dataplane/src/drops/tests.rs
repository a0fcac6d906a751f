use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::follow::Followers;
use super::memory::{KEPT, Memory};
use super::watch::{Kernel, Sources, Watch};
use super::*;

fn sample(reason: Reason, at: u64) -> DropSample {
    DropSample {
        at,
        reason,
        station: Station::Worker,
        outbound: false,
        interface: 0,
        proto: 50,
        src: [192, 0, 2, 7].into(),
        dst: [192, 0, 2, 1].into(),
        src_port: None,
        dst_port: None,
        spi: Some(7),
        seq: Some(1),
        len: 100,
    }
}

#[test]
fn a_flood_gives_a_bounded_number_of_samples_for_each_reason() {
    let (sampler, tokens, from) = Sampler::new();
    let flood = |reason| {
        for at in 0..10_000 {
            sampler.sample(reason, || Some(sample(reason, at)));
        }
    };
    flood(Reason::BadIcv);
    assert_eq!(from.len(), 0, "nobody watches yet");
    tokens.refill();
    flood(Reason::BadIcv);
    flood(Reason::Replay);
    flood(Reason::Ok);
    assert_eq!(from.len(), 2 * SAMPLES_EACH as usize);
    tokens.refill();
    flood(Reason::BadIcv);
    assert_eq!(from.len(), 3 * SAMPLES_EACH as usize);
}

#[test]
fn workers_that_nobody_reads_from_do_not_wait() {
    let (sampler, tokens, from) = Sampler::new();
    for _ in 0..1000 {
        tokens.refill();
        for reason in [Reason::BadIcv, Reason::Replay] {
            for at in 0..SAMPLES_EACH.into() {
                sampler.sample(reason, || Some(sample(reason, at)));
            }
        }
    }
    assert_eq!(from.len(), WAITING);
}

#[test]
fn a_flood_of_one_kind_leaves_the_samples_of_the_others() {
    let mut memory = Memory::default();
    for at in 0..100 {
        memory.push(sample(Reason::BadIcv, at));
    }
    for at in 100..100_000 {
        memory.push(sample(Reason::UnknownSpi, at));
    }
    let all = memory.newest(|_| true, usize::MAX);
    assert_eq!(all.len(), KEPT);
    assert!(all.is_sorted_by_key(|s| std::cmp::Reverse(s.at)));
    let kept = memory.newest(|s| s.reason == Reason::BadIcv, usize::MAX);
    assert_eq!(kept.len(), 100);
    assert_eq!(memory.newest(|_| true, 3).len(), 3);
}

#[test]
fn a_slow_follower_is_told_what_it_has_missed_and_others_miss_nothing() {
    let mut followers = Followers::default();
    let (slow, quick) = (followers.add().unwrap(), followers.add().unwrap());
    let mut got = 0;
    for at in 0..3000 {
        followers.sample(sample(Reason::Replay, at));
        got += quick.try_iter().count();
    }
    assert_eq!((got, slow.len()), (3000, 1024));
    let mut counts = [0; Reason::COUNT];
    counts[Reason::Replay.index()] = 5;
    // No room for the news: they come the next time, with the next ones.
    followers.left_out(&counts);
    assert_eq!(slow.try_iter().count(), 1024);
    followers.left_out(&counts);
    let told: Vec<DropNews> = slow.try_iter().collect();
    let want = DropNews::LeftOut {
        by_reason: vec![(Reason::Replay, 10)],
        missed: 3000 - 1024,
    };
    assert_eq!(told, [want]);
    followers.left_out(&[0; Reason::COUNT]);
    assert_eq!(slow.len(), 0, "nothing to say");
}

#[test]
fn followers_are_bounded_and_make_room_when_they_go() {
    let mut followers = Followers::default();
    let all: Vec<_> = (0..MAX_FOLLOWERS)
        .map(|_| followers.add().unwrap())
        .collect();
    assert!(followers.add().is_none());
    drop(all);
    followers.sample(sample(Reason::Replay, 1));
    assert!(followers.add().is_some());
}

/// Programs that have dropped ten packets for each sample.
struct Programs {
    samples: Vec<DropSample>,
    refills: Arc<AtomicU64>,
}

impl Kernel for Programs {
    fn drain(&mut self, each: &mut dyn FnMut(DropSample)) {
        self.samples.drain(..).for_each(each);
    }
    fn refill(&mut self) {
        self.refills.fetch_add(1, Ordering::Relaxed);
    }
    fn counted(&self) -> Result<[u64; Reason::COUNT], Error> {
        let mut counts = [0; Reason::COUNT];
        counts[Reason::UnknownSpi.index()] = 100;
        counts[Reason::BadIcv.index()] = 1;
        counts[Reason::Ok.index()] = 1000;
        Ok(counts)
    }
}

#[test]
fn samples_of_programs_and_workers_reach_followers_and_memory_with_what_was_left_out() {
    let (sampler, tokens, workers) = Sampler::new();
    let refills = Arc::new(AtomicU64::new(0));
    let samples = (0..10).map(|at| sample(Reason::UnknownSpi, at)).collect();
    let watch = Watch::start(Sources {
        kernel: Box::new(Programs {
            samples,
            refills: refills.clone(),
        }),
        tokens,
        workers,
    })
    .unwrap();
    let follower = watch.shared().follow().unwrap();
    sampler.sample(Reason::BadIcv, || Some(sample(Reason::BadIcv, 99)));
    let (mut seen, mut left_out) = (0, Vec::new());
    let until = Instant::now() + Duration::from_secs(30);
    while left_out.is_empty() {
        match follower.recv_deadline(until).unwrap() {
            DropNews::Sample(_) => seen += 1,
            DropNews::LeftOut { by_reason, missed } => {
                assert_eq!(missed, 0);
                left_out = by_reason;
            }
        }
    }
    // Ten of a hundred were shown; what was good is not left out.
    assert_eq!(left_out, [(Reason::UnknownSpi, 90)]);
    assert!(seen <= 11);
    let all = watch.shared().newest(|_| true, usize::MAX);
    assert_eq!((all.len(), all[0].reason), (11, Reason::BadIcv));
    assert_eq!(watch.shared().sampled()[Reason::UnknownSpi.index()], 10);
    assert!(refills.load(Ordering::Relaxed) > 2, "tokens come again");
    drop(watch);
    assert!(follower.try_iter().count() < 10, "the thread has ended");
}
