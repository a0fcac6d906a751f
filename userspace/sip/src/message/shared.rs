//! Bytes that several header lines share: a message is copied once, whatever it has of them.

use std::ops::{Deref, Range};
use std::sync::Arc;

use zerocopy::FromBytes;
use zeroize::Zeroize;

/// A 401 of the core carries IK and CK: nothing stays in freed memory.
struct Wiped(Vec<u8>);

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

/// A part of them, of 4 GiB at most.
#[derive(Clone)]
pub(super) struct Piece {
    all: Arc<Wiped>,
    at: u32,
    end: u32,
}

impl Piece {
    /// All of these bytes. The vector must not have had others that are to be wiped: what it
    /// has in reserve is not.
    pub fn new(bytes: Vec<u8>) -> Piece {
        let end = bytes.len() as u32;
        Piece {
            all: Arc::new(Wiped(bytes)),
            at: 0,
            end,
        }
    }

    /// A part of this one, which shares its bytes.
    pub fn part(&self, range: Range<usize>) -> Piece {
        let len = (self.end - self.at) as usize;
        let (from, to) = (range.start.min(len), range.end.min(len));
        Piece {
            all: Arc::clone(&self.all),
            at: self.at + from as u32,
            end: self.at + to.max(from) as u32,
        }
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.all.0[self.at as usize..self.end as usize]
    }
}

impl PartialEq for Piece {
    fn eq(&self, other: &Piece) -> bool {
        **self == **other
    }
}

impl Eq for Piece {}
