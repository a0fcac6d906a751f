//! Which sizes are worth trying: where a sealed datagram becomes one fragment more.

use gm_esp::{Mode, Suite};

/// MTU of the link.
pub const MTU: usize = 1500;

/// How a set's packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub suite: Suite,
    pub mode: Mode,
    pub v4: bool,
}

impl Shape {
    fn ip(self) -> usize {
        if self.v4 { 20 } else { 40 }
    }

    /// Length of the sealed IP packet with so many bytes of UDP or TCP, header included
    /// (RFC 4303 2, RFC 3948 2.1).
    pub fn sealed(self, layer4: usize) -> usize {
        // Initialisation vector, what the ciphertext is padded to, ICV.
        let (iv, block, icv) = match self.suite {
            Suite::HmacSha1Null => (0, 4, 12),
            Suite::HmacSha1AesCbc => (16, 16, 12),
            Suite::AesGmacNull | Suite::NullAesGcm => (8, 4, 16),
            suite => unreachable!("{suite} is of older releases"),
        };
        let (udp, inner) = match self.mode {
            Mode::Trans => (0, layer4),
            Mode::UdpEncTun => (8, self.ip() + layer4),
        };
        self.ip() + udp + 8 + iv + (inner + 2).next_multiple_of(block) + icv
    }

    /// The most that a datagram can carry where the sealed packet has at most this length.
    fn largest(self, sealed: usize) -> usize {
        let fits = |payload: &usize| self.sealed(8 + payload) <= sealed;
        (0..sealed).rev().find(fits).expect("room for a datagram")
    }

    /// Sizes of datagrams: 1 byte, both sides of each edge, several fragments, 8 kB.
    pub fn datagrams(self) -> Vec<usize> {
        let one = self.largest(MTU);
        // A fragment before the last carries a multiple of 8 bytes; over IPv6 it has a header of
        // its own.
        let header = if self.v4 { 0 } else { 8 };
        let carried = (MTU - self.ip() - header) / 8 * 8;
        let two = self.largest(self.ip() + 2 * carried);
        // In clear this one would be the last that fits.
        let clear = MTU - self.ip() - 8;
        let mut sizes = vec![1, one - 1, one, one + 1, clear, clear + 1, two, two + 1];
        sizes.extend([4000, 8192]);
        sizes
    }
}
