//! No engine touches a byte beside a packet: packets that begin behind a page, or
//! end in front of one, that nobody may read or write.
//!
//! Such pages need unsafe, so this is behind this crate's fence.
#![cfg(target_os = "linux")]

use gm_engines::{Engine, Job, Key, Level, Transform};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// At least the processor's page, and a multiple of it.
const PAGE: usize = 65536;

/// A page to write to between two that end the process.
struct Fenced(*mut u8);

impl Fenced {
    fn new() -> Fenced {
        // SAFETY: new memory, which nothing else points to.
        let begin = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                3 * PAGE,
                ProtFlags::empty(),
                MapFlags::PRIVATE,
            )
        };
        let begin = begin.unwrap().cast::<u8>();
        // SAFETY: the second page of those three.
        unsafe {
            let middle = begin.add(PAGE);
            mprotect(
                middle.cast(),
                PAGE,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
            .unwrap();
            Fenced(middle)
        }
    }

    /// So many bytes: the last ones of the page, or the first ones.
    fn bytes(&mut self, len: usize, last: bool) -> &mut [u8] {
        assert!(len <= PAGE);
        let from = if last { PAGE - len } else { 0 };
        // SAFETY: inside the page; borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(from), len) }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: what `new` has mapped, whole; no slice of it outlives `self`.
        unsafe { munmap(self.0.sub(PAGE).cast(), 3 * PAGE).unwrap() };
    }
}

const SUITES: [Transform; 4] = [
    Transform::HmacSha1Null,
    Transform::HmacSha1AesCbc,
    Transform::NullAesGcm,
    Transform::AesGmacNull,
];

fn key(level: Level, transform: Transform) -> Key {
    let secret = [0x3c; 44];
    let (integrity, rest) = secret.split_at(transform.integrity_key_len());
    let encryption = &rest[..transform.encryption_key_len()];
    Key::made_for(level, transform, integrity, encryption, [9; 4]).unwrap()
}

/// An ESP packet with a payload of about so many bytes.
fn packet(transform: Transform, body: usize) -> Vec<u8> {
    let body = body.max(1).next_multiple_of(transform.block());
    let len = 8 + transform.iv_len() + body + transform.icv_len();
    (0..len).map(|i| (i * 7) as u8).collect()
}

fn run(engine: &dyn Engine, key: &Key, esn: bool, packets: Vec<&mut [u8]>, open: bool) {
    let job = |esp| Job {
        key,
        esp,
        seq_hi: esn.then_some(5),
        ok: false,
    };
    let mut jobs: Vec<Job<'_>> = packets.into_iter().map(job).collect();
    match open {
        true => engine.open(&mut jobs),
        false => engine.seal(&mut jobs),
    }
    assert!(jobs.iter().all(|job| job.ok));
}

/// Lengths around every block, then some of the long ones.
fn bodies() -> impl Iterator<Item = usize> {
    (0..300).chain((300..1700).step_by(61))
}

#[test]
fn no_engine_touches_what_is_beside_a_packet() {
    let mut pages: Vec<Fenced> = (0..33).map(|_| Fenced::new()).collect();
    let reference = gm_engines::reference();
    for level in Level::ALL {
        let Some(engine) = level.engine() else {
            continue;
        };
        for transform in SUITES {
            let (ours, theirs) = (key(level, transform), key(Level::Portable, transform));
            for body in bodies() {
                let (last, esn) = (body % 2 == 0, body % 3 == 0);
                for count in [1, 5, 33] {
                    // Of a block less and more.
                    let plain = |i: usize| packet(transform, body + i * 5 % 23);
                    for last in [last, !last] {
                        let pages = &mut pages[..count];
                        let each = pages.iter_mut().enumerate();
                        let slices = each.map(|(i, page)| {
                            let plain = plain(i);
                            let bytes = page.bytes(plain.len(), last);
                            bytes.copy_from_slice(&plain);
                            bytes
                        });
                        run(engine, &ours, esn, slices.collect(), false);
                        let first = plain(0);
                        let mut want = first.clone();
                        run(reference, &theirs, esn, vec![&mut want], false);
                        assert!(pages[0].bytes(first.len(), last) == want);
                        let each = pages.iter_mut().enumerate();
                        let slices = each.map(|(i, page)| page.bytes(plain(i).len(), last));
                        run(engine, &ours, esn, slices.collect(), true);
                        let end = first.len() - transform.icv_len();
                        assert!(pages[0].bytes(first.len(), last)[..end] == first[..end]);
                    }
                }
            }
        }
    }
}
