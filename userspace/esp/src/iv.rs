//! Where the IVs of CBC come from.

use zeroize::Zeroize;

/// A source of unpredictable IVs (RFC 3602 3, RFC 2451 3): whoever sees one must not be
/// able to guess the next, so a counter will not do.
pub trait IvSource {
    /// Writes 16 random bytes that were never handed out before.
    fn fill(&mut self, iv: &mut [u8; 16]);
}

impl<T: IvSource + ?Sized> IvSource for &mut T {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        (**self).fill(iv);
    }
}

/// Bytes that are drawn at a time: asking the kernel costs as much as sealing.
const BUFFER: usize = 4096;

/// Draws many random bytes at a time from a closure, usually the operating
/// system's generator, and hands them out by 16.
///
/// The closure fills the whole slice with random bytes or does not return.
pub struct BufferedIv<F: FnMut(&mut [u8])> {
    draw: F,
    buffer: Box<[u8; BUFFER]>,
    used: usize,
}

impl<F: FnMut(&mut [u8])> BufferedIv<F> {
    /// A source that draws when the first IV is asked for. Allocates here and
    /// never again.
    pub fn new(draw: F) -> Self {
        BufferedIv {
            draw,
            buffer: Box::new([0; BUFFER]),
            used: BUFFER,
        }
    }
}

impl<F: FnMut(&mut [u8])> IvSource for BufferedIv<F> {
    fn fill(&mut self, iv: &mut [u8; 16]) {
        if self.used + 16 > BUFFER {
            (self.draw)(&mut self.buffer[..]);
            self.used = 0;
        }
        let fresh = &mut self.buffer[self.used..self.used + 16];
        iv.copy_from_slice(fresh);
        fresh.zeroize();
        self.used += 16;
    }
}

impl<F: FnMut(&mut [u8])> Drop for BufferedIv<F> {
    fn drop(&mut self) {
        self.buffer.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_handed_out_once_and_in_order() {
        let (mut next, mut draws) = (0_u32, 0);
        let mut source = BufferedIv::new(|bytes: &mut [u8]| {
            draws += 1;
            for word in bytes.as_chunks_mut::<4>().0 {
                *word = next.to_be_bytes();
                next += 1;
            }
        });
        for i in 0..1000_u32 {
            let mut iv = [0xee; 16];
            source.fill(&mut iv);
            let words: Vec<u8> = (4 * i..4 * i + 4).flat_map(u32::to_be_bytes).collect();
            assert_eq!(iv[..], words[..]);
        }
        drop(source);
        assert_eq!(draws, 1000_usize.div_ceil(BUFFER / 16));
    }
}
