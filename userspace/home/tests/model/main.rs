//! The model-based test: phones, an edge and a home network in one process, driven
//! by random sequences of registrations, losses, duplicates, delays, restarts,
//! moves, wrong answers and time, and after every step held against the rules of
//! TS 33.203 clauses 7.1 to 7.4 that [`world`] and [`rules`] spell out.
//!
//! ```text
//! GM_MODEL_SEQUENCES=100000   how many (a few hundred without it)
//! GM_MODEL_SEED=7             the first seed; a failing one is printed
//! GM_MODEL_THREADS=2          how many run at a time
//! GM_MODEL_TRACE=1            every packet and event, for one seed with --nocapture
//! ```
//!
//! A failure says its seed and the shortest sequence of steps that still fails.

#![expect(
    clippy::print_stdout,
    reason = "what a run did, and the trace of one seed, are for whoever reads the test's output"
)]

mod flight;
mod outputs;
mod phone;
mod plane;
mod quiet;
mod rules;
mod script;
mod sim;
mod tally;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use script::{Script, Step};
use tally::Tally;
use world::World;

/// One sequence, and the quiet after it; what it has done, or which rule it broke.
fn run(script: &Script) -> Result<Tally, String> {
    let one = || {
        let mut world = World::new(script);
        for step in &script.steps {
            world.step(*step)?;
        }
        world.quiet()?;
        Ok(world.tally)
    };
    catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("?")))
    })
}

/// The shortest script that still fails: takes steps away as long as that works.
fn shortest(mut script: Script) -> Script {
    let mut size = script.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < script.steps.len() {
            let mut less = script.clone();
            less.steps.drain(at..(at + size).min(less.steps.len()));
            if run(&less).is_err() {
                script = less;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    script
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(default, |v| v.parse().expect("a number"))
}

fn report(seed: u64, why: &str) -> String {
    if std::env::var_os("GM_MODEL_TRACE").is_some() {
        return format!("seed {seed}: {why}");
    }
    let script = shortest(Script::new(seed));
    let steps: Vec<_> = script.steps.iter().map(Step::to_string).collect();
    let short = run(&script).err().unwrap_or_default();
    format!(
        "seed {seed}: {why}\nshortest: {short}\nsetting: {}\nsteps:\n  {}\nagain: GM_MODEL_SEED={seed} GM_MODEL_SEQUENCES=1",
        script.setting(),
        steps.join("\n  ")
    )
}

#[test]
fn random_interleavings_keep_the_rules() {
    let (first, count) = (
        number("GM_MODEL_SEED", 1),
        number("GM_MODEL_SEQUENCES", 300),
    );
    let threads = number("GM_MODEL_THREADS", 2).max(1);
    let began = Instant::now();
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(None);
    let total = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut own = Tally::default();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    match run(&Script::new(first + n)) {
                        Ok(tally) => {
                            done.fetch_add(1, Ordering::Relaxed);
                            own.add(&tally);
                        }
                        Err(why) => {
                            failed.lock().expect("lock").get_or_insert((first + n, why));
                            next.store(count, Ordering::Relaxed);
                        }
                    }
                }
                total.lock().expect("lock").add(&own);
            });
        }
    });
    let total = total.into_inner().expect("lock");
    println!(
        "seeds from {first}: {} of {count} sequences in {:.1} s: {total:?}",
        done.into_inner(),
        began.elapsed().as_secs_f32()
    );
    if let Some((seed, why)) = failed.into_inner().expect("lock") {
        panic!("{}", report(seed, &why));
    }
    if count >= 100 {
        total.saw_everything();
    }
}
