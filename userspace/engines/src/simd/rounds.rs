//! SHA-1's eighty rounds (FIPS 180-4 6.1.2) for registers of any width. Who uses
//! [`compress`] has `add`, `sum`, `xor`, `rol`, `choice`, `parity`, `majority` and
//! `splat` for its registers.

/// The word that comes sixteen rounds later, in the place of one that has been used.
macro_rules! next {
    ($w:ident, $t:expr) => {
        if $t + 16 < 80 {
            // The word that is overwritten first: a ternary instruction writes over one
            // of its operands, and another one would have to be copied before.
            let mixed = parity($w[$t & 15], $w[($t + 2) & 15], $w[($t + 8) & 15]);
            $w[$t & 15] = rol::<1>(xor(mixed, $w[($t + 13) & 15]));
        }
    };
}

/// No word: the last rounds need none.
macro_rules! none {
    ($w:ident, $t:expr) => {};
}

/// One round; its result takes e's place. What has to wait is added last: the
/// rotated a, and before it the function.
macro_rules! round {
    (
        $then:ident, $f:ident, $k:ident, $w:ident, $t:expr, $a:ident, $b:ident, $c:ident, $d:ident, $e:ident
    ) => {
        let early = sum($e, sum($w[$t & 15], $k));
        $e = sum(sum(early, $f($b, $c, $d)), rol::<5>($a));
        $b = rol::<30>($b);
        $then!($w, $t);
    };
}

/// Ten rounds of one kind; after every five, names mean again what they say.
macro_rules! ten {
    ($then:ident, $f:ident, $k:ident, $w:ident, $t:expr, $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        ten!(@five $then, $f, $k, $w, $t, $a $b $c $d $e);
        ten!(@five $then, $f, $k, $w, $t + 5, $a $b $c $d $e);
    };
    (@five $then:ident, $f:ident, $k:ident, $w:ident, $t:expr, $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        round!($then, $f, $k, $w, $t, $a, $b, $c, $d, $e);
        round!($then, $f, $k, $w, $t + 1, $e, $a, $b, $c, $d);
        round!($then, $f, $k, $w, $t + 2, $d, $e, $a, $b, $c);
        round!($then, $f, $k, $w, $t + 3, $c, $d, $e, $a, $b);
        round!($then, $f, $k, $w, $t + 4, $b, $c, $d, $e, $a);
    };
}

/// Adds a block, sixteen registers of words, to a state of five. In the shade of
/// the rounds, which keep the vector units busy, two other things are done:
/// `$early` four times, and `$late` once before the last twenty.
macro_rules! compress {
    ($state:expr, $words:expr, $early:block, $late:block) => {{
        let mut w = $words;
        let k0 = splat(0x5a82_7999);
        let k1 = splat(0x6ed9_eba1);
        let k2 = splat(0x8f1b_bcdc);
        let k3 = splat(0xca62_c1d6);
        let [mut a, mut b, mut c, mut d, mut e] = *$state;
        ten!(next, choice, k0, w, 0, a b c d e);
        $early;
        ten!(next, choice, k0, w, 10, a b c d e);
        $early;
        ten!(next, parity, k1, w, 20, a b c d e);
        $early;
        ten!(next, parity, k1, w, 30, a b c d e);
        $early;
        ten!(next, majority, k2, w, 40, a b c d e);
        ten!(next, majority, k2, w, 50, a b c d e);
        $late;
        ten!(next, parity, k3, w, 60, a b c d e);
        ten!(none, parity, k3, w, 70, a b c d e);
        for (word, sum) in $state.iter_mut().zip([a, b, c, d, e]) {
            *word = add(*word, sum);
        }
    }};
}

pub(super) use {compress, next, none, round, ten};
