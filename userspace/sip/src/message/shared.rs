//! Bytes that several header lines share: a message is copied once, whatever it has of them.

use std::ops::{Deref, Range};
use std::sync::Arc;

use zerocopy::FromBytes;
use zeroize::Zeroize;

/// A 401 of the core carries IK and CK: nothing stays in freed memory.
#[derive(Clone)]
struct Wiped(Box<[u8]>);

impl Drop for Wiped {
    fn drop(&mut self) {
        // Whole words, in an eighth of the time.
        let words = self.0.len() / 8 * 8;
        match <[u64]>::mut_from_bytes(&mut self.0[..words]) {
            Ok(all) => {
                all.zeroize();
                self.0[words..].zeroize();
            }
            Err(_) => self.0.zeroize(),
        }
    }
}

/// A line that was edited has bytes of its own, and few: a copy of them costs less than a count.
#[derive(Clone)]
enum Bytes {
    Own(Wiped),
    Shared(Arc<Wiped>),
}

/// A part of them, of 4 GiB at most.
#[derive(Clone)]
pub(super) struct Piece {
    all: Bytes,
    at: u32,
    end: u32,
}

impl Piece {
    /// All of these bytes, for one line. The vector must not have had others that are to be
    /// wiped, and has nothing in reserve: else it moves, and what it leaves is not wiped.
    pub fn new(bytes: Vec<u8>) -> Piece {
        Piece {
            at: 0,
            end: bytes.len() as u32,
            all: Bytes::Own(Wiped(bytes.into_boxed_slice())),
        }
    }

    /// The same to take parts of, which share them.
    pub fn shared(bytes: Vec<u8>) -> Piece {
        Piece {
            at: 0,
            end: bytes.len() as u32,
            all: Bytes::Shared(Arc::new(Wiped(bytes.into_boxed_slice()))),
        }
    }

    /// A part of this one.
    pub fn part(&self, range: Range<usize>) -> Piece {
        let len = (self.end - self.at) as usize;
        let (from, to) = (range.start.min(len), range.end.min(len));
        Piece {
            all: self.all.clone(),
            at: self.at + from as u32,
            end: self.at + to.max(from) as u32,
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all = match &self.all {
            Bytes::Own(bytes) => bytes,
            Bytes::Shared(bytes) => &**bytes,
        };
        &all.0[self.at as usize..self.end as usize]
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Piece) -> bool {
        **self == **other
    }
}

impl Eq for Piece {}
