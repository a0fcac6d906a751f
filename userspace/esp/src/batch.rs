//! From packets in a state to an engine's jobs and back, without a heap.

use gm_engines::{Job, Key};

/// Packets that the engine sees at once.
pub(crate) const WIDTH: usize = 64;

/// A packet in a state in which an engine works on it. `'s` is its SA.
pub(crate) trait InFlight<'s> {
    /// Key, bytes from the SPI to the ICV, high half of the number.
    fn parts(&mut self) -> (&'s Key, &mut [u8], Option<u32>);
}

/// The engine on a single packet. Says whether it was good.
pub(crate) fn one<'s>(work: impl Fn(&mut [Job<'_>]), item: &mut impl InFlight<'s>) -> bool {
    let (key, esp, seq_hi) = item.parts();
    let mut jobs = [Job {
        key,
        esp,
        seq_hi,
        ok: false,
    }];
    work(&mut jobs);
    jobs[0].ok
}

/// The engine on all packets that are there, [`WIDTH`] at a time. Takes them
/// out and gives each to `sink` with its index and whether it was good.
pub(crate) fn all<'s, T: InFlight<'s>>(
    work: impl Fn(&mut [Job<'_>]),
    batch: &mut [Option<T>],
    mut sink: impl FnMut(usize, T, bool),
) {
    for (nth, chunk) in batch.chunks_mut(WIDTH).enumerate() {
        let mut good = match chunk.len() {
            0..=8 => flight::<8, T>(&work, chunk),
            _ => flight::<WIDTH, T>(&work, chunk),
        };
        for (i, slot) in chunk.iter_mut().enumerate() {
            if let Some(item) = slot.take() {
                sink(nth * WIDTH + i, item, good & 1 == 1);
                good >>= 1;
            }
        }
    }
}

/// The engine on up to `N` packets; bit `k` of the answer is for the `k`th
/// that is there.
fn flight<'s, const N: usize, T: InFlight<'s>>(
    work: &impl Fn(&mut [Job<'_>]),
    chunk: &mut [Option<T>],
) -> u64 {
    let mut items = chunk.iter_mut().flatten();
    let Some(first) = items.next() else {
        return 0;
    };
    let (first_key, esp, seq_hi) = first.parts();
    let mut first = Some((first_key, esp, seq_hi));
    let mut count = 0;
    // Behind the last packet the array is filled with jobs that no engine sees.
    let mut jobs: [Job<'_>; N] = std::array::from_fn(|_| {
        let (key, esp, seq_hi) = match first.take().or_else(|| items.next().map(T::parts)) {
            Some(parts) => {
                count += 1;
                parts
            }
            None => (first_key, Default::default(), None),
        };
        Job {
            key,
            esp,
            seq_hi,
            ok: false,
        }
    });
    work(&mut jobs[..count]);
    let ok = jobs[..count].iter().enumerate();
    ok.fold(0, |good, (k, job)| good | u64::from(job.ok) << k)
}
