//! SHA-1's eighty rounds (FIPS 180-4 6.1.2) for registers of any width. Who uses
//! [`compress`] has `add`, `xor`, `rol`, `choice`, `parity`, `majority` and
//! `splat` for its registers.

/// Word `t` of the message schedule; the last sixteen are kept.
macro_rules! word {
    ($w:ident, $t:expr) => {{
        if $t >= 16 {
            // The word that is overwritten first: a ternary instruction writes over one
            // of its operands, and another one would have to be copied before.
            let mixed = parity($w[$t & 15], $w[($t + 2) & 15], $w[($t + 8) & 15]);
            $w[$t & 15] = rol::<1>(xor(mixed, $w[($t + 13) & 15]));
        }
        $w[$t & 15]
    }};
}

/// One round; its result takes e's place.
macro_rules! round {
    ($f:ident, $k:ident, $w:ident, $t:expr, $a:ident, $b:ident, $c:ident, $d:ident, $e:ident) => {
        let word = add($e, word!($w, $t));
        $e = add(add(word, add($f($b, $c, $d), $k)), rol::<5>($a));
        $b = rol::<30>($b);
    };
}

/// Ten rounds of one kind; after every five, names mean again what they say.
macro_rules! ten {
    ($f:ident, $k:ident, $w:ident, $t:expr, $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        ten!(@five $f, $k, $w, $t, $a $b $c $d $e);
        ten!(@five $f, $k, $w, $t + 5, $a $b $c $d $e);
    };
    (@five $f:ident, $k:ident, $w:ident, $t:expr, $a:ident $b:ident $c:ident $d:ident $e:ident) => {
        round!($f, $k, $w, $t, $a, $b, $c, $d, $e);
        round!($f, $k, $w, $t + 1, $e, $a, $b, $c, $d);
        round!($f, $k, $w, $t + 2, $d, $e, $a, $b, $c);
        round!($f, $k, $w, $t + 3, $c, $d, $e, $a, $b);
        round!($f, $k, $w, $t + 4, $b, $c, $d, $e, $a);
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
        ten!(choice, k0, w, 0, a b c d e);
        $early;
        ten!(choice, k0, w, 10, a b c d e);
        $early;
        ten!(parity, k1, w, 20, a b c d e);
        $early;
        ten!(parity, k1, w, 30, a b c d e);
        $early;
        ten!(majority, k2, w, 40, a b c d e);
        ten!(majority, k2, w, 50, a b c d e);
        $late;
        ten!(parity, k3, w, 60, a b c d e);
        ten!(parity, k3, w, 70, a b c d e);
        for (word, sum) in $state.iter_mut().zip([a, b, c, d, e]) {
            *word = add(*word, sum);
        }
    }};
}

pub(super) use {compress, round, ten, word};
