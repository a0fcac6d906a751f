//! The hash of one packet after the other, behind AES by a group of registers.

use core::arch::x86_64::{__m512i, _mm512_setzero_si512, _mm512_xor_si512};

use super::gcm::{GcmKey, NO_KEY, STRIDE};
use super::ghash::{Power, Sums};
use super::quad::Quad;

/// Registers that go through AES together, which hides its latency.
pub(super) const GROUP: usize = 4;

/// What goes from group to group and from packet to packet.
pub(super) struct Pipe<'a> {
    /// What has been multiplied of the waiting registers' packet.
    pub(super) sums: Sums,
    /// The registers that wait for their powers, and how many there are. An odd one
    /// has the third place.
    pub(super) waits: [__m512i; GROUP],
    pub(super) count: usize,
    /// The last register of their packet, when they are its end.
    pub(super) last: Option<__m512i>,
    /// Their key, and the first one's place in its table of powers.
    pub(super) key: &'a GcmKey,
    pub(super) power: usize,
}

impl<'a> Pipe<'a> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new() -> Pipe<'a> {
        Pipe {
            sums: Sums::zero(),
            waits: [_mm512_setzero_si512(); GROUP],
            count: 0,
            last: None,
            key: &NO_KEY,
            power: STRIDE,
        }
    }

    /// The next two powers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn powers(&mut self) -> [&'a Power; 2] {
        let (key, place) = (self.key, self.power.min(STRIDE - 2));
        self.power += 2;
        [&key.powers[place], &key.powers[place + 1]]
    }

    /// Two registers into the hash.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub(super) fn multiply(&mut self, a: __m512i, b: __m512i) {
        let powers = self.powers();
        let products = Sums::low(a, b, powers)
            .high(a, b, powers)
            .middle(a, b, powers);
        self.sums.add(products);
    }

    /// One register into the hash.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub(super) fn multiply_one(&mut self, a: __m512i) {
        let place = self.power.min(STRIDE - 1);
        self.power += 1;
        self.sums.add_one(a, &self.key.powers[place]);
    }

    /// Reduces at the end of the table of powers, and begins it anew for so many
    /// `registers`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    pub(super) fn turn(&mut self, registers: usize) -> __m512i {
        if self.power < STRIDE {
            return _mm512_setzero_si512();
        }
        self.power = first_power(registers);
        core::mem::replace(&mut self.sums, Sums::zero()).reduce()
    }

    /// A packet has nothing but its last register left.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    pub(super) fn finish<const WAY: u8>(&mut self, last: __m512i, quad: &mut Quad<'_>) {
        let hash = core::mem::replace(&mut self.sums, Sums::zero()).reduce();
        if quad.hash(_mm512_xor_si512(hash, last)) {
            quad.end::<WAY>();
        }
    }

    /// There is no packet any more.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq,aes,pclmulqdq,bmi2")]
    pub(super) fn end<const WAY: u8>(mut self, quad: &mut Quad<'_>) {
        if let Some(last) = self.last.take() {
            let [a, b, c, d] = self.waits;
            if self.count >= 2 {
                self.multiply(a, b);
            }
            if self.count == GROUP {
                self.multiply(c, d);
            } else if self.count % 2 == 1 {
                self.multiply_one(c);
            }
            self.finish::<WAY>(last, quad);
        }
    }
}

/// Where the table of powers begins for so many registers.
#[inline]
pub(super) fn first_power(registers: usize) -> usize {
    // The last one has powers of its own.
    STRIDE - (registers - 1).min(STRIDE)
}
