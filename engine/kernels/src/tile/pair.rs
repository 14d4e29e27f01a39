//! Functions of two columns beside arithmetic: the smaller and the larger, bits, signs, rounding to a
//! step.

use super::arith::{Binary, FloorDiv, Map};
use super::compare::{Test, bitmap_fn};
use super::mem::load;
use super::{TileFn, tile_fn};
use crate::level::Level;
use crate::prim::{Native, Prim, with_float, with_int, with_prim};
use std::marker::PhantomData;

/// A function of two operands of one type, with a result of that type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pair {
    /// The smaller one; of NaN and a number the number. Of equal values the left one.
    Min,
    /// The larger one; of NaN and a number the number. Of equal values the left one.
    Max,
    /// left & right, bit by bit; integers only.
    BitAnd,
    /// left | right, bit by bit; integers only.
    BitOr,
    /// left ^ right, bit by bit; integers only.
    BitXor,
    /// left shifted up by right bits; 0 if right is negative or not below the width. Integers only.
    ShiftLeft,
    /// left shifted down by right bits, with its sign; only the sign is left if right is negative
    /// or not below the width. Integers only.
    ShiftRight,
    /// left rounded to a multiple of 1 / right, halves to even; left itself where its product with
    /// right is not finite. Floats only.
    RoundToFraction,
    /// left rounded to a multiple of right, which is positive and even; halves to even multiples.
    /// Integers wrap. Floats: left itself where the result is not finite.
    RoundToMultiple,
    /// left with right's sign, also of zeros and NaN. Floats only.
    CopySign,
    /// The nearest float to left on the way to right; right where they are equal, NaN beside NaN.
    /// Floats only.
    NextAfter,
}

impl Pair {
    /// Every function.
    pub const ALL: [Pair; 11] = [
        Pair::Min,
        Pair::Max,
        Pair::BitAnd,
        Pair::BitOr,
        Pair::BitXor,
        Pair::ShiftLeft,
        Pair::ShiftRight,
        Pair::RoundToFraction,
        Pair::RoundToMultiple,
        Pair::CopySign,
        Pair::NextAfter,
    ];
}

/// The kernel `dst = op(left, right)`. `None`: it is not one of the type.
pub fn pair(op: Pair, p: Prim, level: Level) -> Option<TileFn> {
    match op {
        Pair::Min => Some(with_prim!(p, T => tile_fn::<Map<Min, T>>(level))),
        Pair::Max => Some(with_prim!(p, T => tile_fn::<Map<Max, T>>(level))),
        Pair::BitAnd => with_int!(p, T => tile_fn::<Map<BitAnd, T>>(level)),
        Pair::BitOr => with_int!(p, T => tile_fn::<Map<BitOr, T>>(level)),
        Pair::BitXor => with_int!(p, T => tile_fn::<Map<BitXor, T>>(level)),
        Pair::ShiftLeft => with_int!(p, T => tile_fn::<Map<ShiftLeft, T>>(level)),
        Pair::ShiftRight => with_int!(p, T => tile_fn::<Map<ShiftRight, T>>(level)),
        Pair::RoundToFraction => with_float!(p, T => tile_fn::<Map<RoundToFraction, T>>(level)),
        Pair::RoundToMultiple => {
            Some(with_prim!(p, T => tile_fn::<Map<RoundToMultiple, T>>(level)))
        }
        Pair::CopySign => with_float!(p, T => tile_fn::<Map<CopySign, T>>(level)),
        Pair::NextAfter => with_float!(p, T => tile_fn::<Map<NextAfter, T>>(level)),
    }
}

/// The bitmap of rows for which [`Pair::RoundToMultiple`] leaves the range of its integer type.
/// `None` for floats.
pub fn round_overflows(p: Prim, level: Level) -> Option<TileFn> {
    with_int!(p, T => bitmap_fn::<RoundOverflows<T>>(level))
}

struct Min;
struct Max;
struct BitAnd;
struct BitOr;
struct BitXor;
struct ShiftLeft;
struct ShiftRight;
struct RoundToFraction;
struct RoundToMultiple;
struct CopySign;
struct NextAfter;

struct RoundOverflows<T>(PhantomData<T>);

impl<T: Nearest> Test for RoundOverflows<T> {
    #[inline(always)]
    unsafe fn test(src: &[*const u8; 4], i: usize) -> bool {
        // SAFETY: i < rows.
        unsafe { T::nearest(load(src[0], i), load(src[1], i)).1 }
    }
}

/// The nearest multiple of an even step, halves to the even one, and whether it is out of range.
trait Nearest: Native {
    fn nearest(self, step: Self) -> (Self, bool);
}

macro_rules! integers {
    ($($t:ty => $bits:ty),*) => {$(
        impl Binary<$t> for Min {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.min(b) }
        }
        impl Binary<$t> for Max {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.max(b) }
        }
        impl Binary<$t> for BitAnd {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a & b }
        }
        impl Binary<$t> for BitOr {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a | b }
        }
        impl Binary<$t> for BitXor {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a ^ b }
        }
        impl Binary<$t> for ShiftLeft {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                // A negative count is a huge one.
                let shifted = a.wrapping_shl(b as u32);
                if (b as $bits) < <$t>::BITS as $bits { shifted } else { 0 }
            }
        }
        impl Binary<$t> for ShiftRight {
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn apply(a: $t, b: $t) -> $t {
                let shifted = a.wrapping_shr(b as u32);
                let sign = if a < 0 { !0 } else { 0 };
                if (b as $bits) < <$t>::BITS as $bits { shifted } else { sign }
            }
        }
        impl Nearest for $t {
            #[inline(always)]
            fn nearest(self, step: $t) -> ($t, bool) {
                let q = FloorDiv::apply(self, step);
                let above = self.wrapping_sub(q.wrapping_mul(step));
                let half = step >> 1;
                let up = above > half || (above == half && q & 1 == 1);
                q.wrapping_add(<$t>::from(up)).overflowing_mul(step)
            }
        }
        impl Binary<$t> for RoundToMultiple {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.nearest(b).0 }
        }
    )*};
}
integers!(
    i8 => u8, i16 => u16, i32 => u32, i64 => u64, u8 => u8, u16 => u16, u32 => u32, u64 => u64
);

macro_rules! floats {
    ($($t:ty),*) => {$(
        impl Binary<$t> for Min {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { if b < a || a.is_nan() { b } else { a } }
        }
        impl Binary<$t> for Max {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { if b > a || a.is_nan() { b } else { a } }
        }
        impl Binary<$t> for RoundToFraction {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                let near = (a * b).round_ties_even() / b;
                if near.is_finite() { near } else { a }
            }
        }
        impl Binary<$t> for RoundToMultiple {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                let near = (a / b).round_ties_even() * b;
                if near.is_finite() { near } else { a }
            }
        }
        impl Binary<$t> for CopySign {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t { a.copysign(b) }
        }
        impl Binary<$t> for NextAfter {
            #[inline(always)]
            fn apply(a: $t, b: $t) -> $t {
                // Floats of one sign are ordered as their bits are.
                let outwards = (a < b) == (a > 0.0);
                let bits = a.to_bits();
                let next = if outwards { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
                let least = <$t>::from_bits(1).copysign(b);
                let next = if a == 0.0 { least } else { <$t>::from_bits(next) };
                let next = if a == b { b } else { next };
                if a.is_nan() || b.is_nan() { a + b } else { next }
            }
        }
    )*};
}
floats!(f32, f64);
