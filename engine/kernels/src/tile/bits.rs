//! Logic on bitmaps, word by word; counting; moving bitmaps by a bit offset.

use super::mem::{load_bits, load_word, low_bits, store_word};
use super::{Kernel, TileFn, tile_fn};
use crate::level::{Level, leveled};
use std::marker::PhantomData;

/// An operation on bitmaps.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BitOp {
    /// left & right
    And,
    /// left | right
    Or,
    /// left ^ right
    Xor,
    /// left & !right
    AndNot,
    /// left | !right
    OrNot,
    /// !left
    Not,
    /// left: a copy
    Copy,
    /// Validity of Kleene's `and` of two nullable booleans, operands `[a, valid a, b, valid b]`:
    /// valid where both are, and where either is a valid false. Its value is a plain
    /// [`BitOp::And`] of the values: wherever the result is valid, garbage under a null cannot
    /// show.
    KleeneAnd,
    /// Validity of Kleene's `or`, operands `[a, valid a, b, valid b]`: valid where both are, and
    /// where either is a valid true. Its value is a plain [`BitOp::Or`].
    KleeneOr,
    /// left & right & third: the validity of a function of three columns.
    And3,
}

impl BitOp {
    /// Every operation.
    pub const ALL: [BitOp; 10] = [
        BitOp::And,
        BitOp::Or,
        BitOp::Xor,
        BitOp::AndNot,
        BitOp::OrNot,
        BitOp::Not,
        BitOp::Copy,
        BitOp::KleeneAnd,
        BitOp::KleeneOr,
        BitOp::And3,
    ];

    /// How many operands it reads.
    pub const fn arity(self) -> usize {
        match self {
            BitOp::Not | BitOp::Copy => 1,
            BitOp::And | BitOp::Or | BitOp::Xor | BitOp::AndNot | BitOp::OrNot => 2,
            BitOp::And3 => 3,
            BitOp::KleeneAnd | BitOp::KleeneOr => 4,
        }
    }
}

/// The kernel of an operation. Here, and only here, `dst` may be one of the operands. The number
/// of rows is not bounded by the tile size.
pub fn bits(op: BitOp, level: Level) -> TileFn {
    match op {
        BitOp::And => tile_fn::<Words<And>>(level),
        BitOp::Or => tile_fn::<Words<Or>>(level),
        BitOp::Xor => tile_fn::<Words<Xor>>(level),
        BitOp::AndNot => tile_fn::<Words<AndNot>>(level),
        BitOp::OrNot => tile_fn::<Words<OrNot>>(level),
        BitOp::Not => tile_fn::<Words<Not>>(level),
        BitOp::Copy => tile_fn::<Words<Copy>>(level),
        BitOp::KleeneAnd => tile_fn::<Words<KleeneAnd>>(level),
        BitOp::KleeneOr => tile_fn::<Words<KleeneOr>>(level),
        BitOp::And3 => tile_fn::<Words<And3>>(level),
    }
}

trait WordOp {
    const ARITY: usize;
    fn word(w: [u64; 4]) -> u64;
}

macro_rules! word_ops {
    ($($name:ident $arity:literal [$a:pat, $b:pat, $c:pat, $d:pat] $e:expr;)*) => {$(
        struct $name;
        impl WordOp for $name {
            const ARITY: usize = $arity;
            #[inline(always)]
            fn word([$a, $b, $c, $d]: [u64; 4]) -> u64 { $e }
        }
    )*};
}
word_ops! {
    And 2 [a, b, _, _] a & b;
    Or 2 [a, b, _, _] a | b;
    Xor 2 [a, b, _, _] a ^ b;
    AndNot 2 [a, b, _, _] a & !b;
    OrNot 2 [a, b, _, _] a | !b;
    Not 1 [a, _, _, _] !a;
    Copy 1 [a, _, _, _] a;
    KleeneAnd 4 [a, va, b, vb] (va & vb) | (va & !a) | (vb & !b);
    KleeneOr 4 [a, va, b, vb] (va & vb) | (va & a) | (vb & b);
    And3 3 [a, b, c, _] a & b & c;
}

struct Words<O>(PhantomData<O>);

impl<O: WordOp> Kernel for Words<O> {
    #[inline(always)]
    unsafe fn run<const L: u8>(dst: *mut u8, src: &[*const u8; 4], rows: usize) {
        let src = *src;
        let full = rows / 64;
        for w in 0..full {
            let mut v = [0u64; 4];
            for k in 0..O::ARITY {
                // SAFETY: word w is whole within the operand.
                v[k] = unsafe { load_word(src[k], w) };
            }
            // SAFETY: w < ceil(rows / 64).
            unsafe { store_word(dst, w, O::word(v)) }
        }
        if !rows.is_multiple_of(64) {
            let mut v = [0u64; 4];
            for k in 0..O::ARITY {
                // SAFETY: 64 * full < rows.
                v[k] = unsafe { load_bits(src[k], full, rows) };
            }
            // SAFETY: full < ceil(rows / 64).
            unsafe { store_word(dst, full, O::word(v) & low_bits(rows % 64)) }
        }
    }
}

#[inline(always)]
unsafe fn count_body<const L: u8>(p: *const u8, rows: usize) -> usize {
    let full = rows / 64;
    let mut n = 0u64;
    for w in 0..full {
        // SAFETY: word w is whole within the bitmap.
        n = n.wrapping_add(u64::from(unsafe { load_word(p, w) }.count_ones()));
    }
    if !rows.is_multiple_of(64) {
        // SAFETY: 64 * full < rows.
        n = n.wrapping_add(u64::from(unsafe { load_bits(p, full, rows) }.count_ones()));
    }
    n as usize
}

leveled! {
    /// The function `(bitmap, rows) -> set bits`. It reads `ceil(rows / 8)` bytes; `rows` is not
    /// bounded by the tile size.
    pub fn count_bits<>(p: *const u8, rows: usize) -> usize = count_body
}

/// Is any of the first `rows` bits set?
///
/// # Safety
/// `p` is readable for `ceil(rows / 8)` bytes.
pub unsafe fn any_bit(p: *const u8, rows: usize) -> bool {
    // SAFETY: 64 * w < rows.
    (0..rows.div_ceil(64)).any(|w| unsafe { load_bits(p, w, rows) } != 0)
}

/// Writes the `rows` (1 to 64) lowest bits of `word` into a bitmap from bit `at` on, leaving other
/// bits as they are.
///
/// # Safety
/// The bytes holding bits `at` to `at + rows` are readable and writable, and nobody else writes
/// them meanwhile.
pub unsafe fn store_bits(dst: *mut u8, at: usize, word: u64, rows: usize) {
    let keep = low_bits(rows);
    let (mask, bits) = (u128::from(keep) << (at % 8), u128::from(word & keep) << (at % 8));
    for k in 0..(at % 8 + rows).div_ceil(8) {
        // SAFETY: byte k of the run is one that holds its bits.
        unsafe {
            let p = dst.add(at / 8 + k);
            let (m, b) = ((mask >> (8 * k)) as u8, (bits >> (8 * k)) as u8);
            p.write(p.read() & !m | b);
        }
    }
}
